//! Edits under constant traffic: no request may fail because of the order in which things arrive.

use anyhow::{Result, ensure};

use crate::Scenario;
use crate::harness::load::Connections;
use crate::shop::Shop;

pub(crate) const SCENARIOS: &[Scenario] = &[(
    "two_hundred_edits_of_route_and_subsets_in_either_order_lose_no_request",
    two_hundred_edits,
)];

const REVIEWS: &str = "http://reviews:9080/";
const ROUNDS: u32 = 100;

/// Each round gives the subset a new name: the route refers to what only the other file defines.
fn two_hundred_edits() -> Result<()> {
    let shop = Shop::enter()?;
    let clients = [Connections::Kept, Connections::Kept, Connections::Fresh];
    let load = shop.storefront.load(REVIEWS, &clients)?;
    let mut applied = Vec::new();
    for round in 0..ROUNDS {
        let version = if round % 2 == 0 { "v1" } else { "v2" };
        let (subset, route) = (subset(round, version), route(round));
        let mut edits = [("hitless-subset", subset), ("hitless-route", route)];
        // Neither order may be the lucky one for a version.
        if round % 4 >= 2 {
            edits.reverse();
        }
        for (file, text) in edits {
            applied.push(shop.mesh.apply(file, &text)?);
        }
        shop.until_answered_by(REVIEWS, version)?;
        let counts = shop.versions(REVIEWS, 3)?;
        ensure!(counts.keys().eq([version]), "round {round}: {counts:?}");
    }
    let tally = load.stop();
    tally.is_flawless(u64::from(ROUNDS) * 5)?;
    ensure!(tally.versions.len() == 2, "{:?}", tally.versions);
    drop(applied);
    shop.until_as_before()
}

fn subset(round: u32, version: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: reviews, namespace: shop}}
spec:
  host: reviews
  subsets: [{{name: round-{round}, labels: {{version: {version}}}}}]
"
    )
}

fn route(round: u32) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews, namespace: shop}}
spec:
  hosts: [reviews]
  http: [{{route: [{{destination: {{host: reviews, subset: round-{round}}}}}]}}]
"
    )
}
