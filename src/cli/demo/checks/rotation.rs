//! Short-lived certificates replaced under constant traffic, seen by serial number and by the callee.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::join_all;
use jiff::Timestamp;
use serde::Deserialize;

use super::{Demo, Described};
use crate::cli::demo::bookshop::WORKLOADS;
use crate::cli::demo::client::{Call, Connection};
use crate::cli::demo::report::span;
use crate::cli::demo::stage::{Pod, Stage};
use crate::cli::demo::traffic::Tally;
use crate::cli::demo::wait::pass;
use crate::clock;

/// So often every sidecar's certificate must have been replaced.
const ROTATIONS: usize = 3;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// A certificate that a sidecar holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Certificate {
    pub expires: Timestamp,
    pub serial: String,
}

/// Certificates seen so far, by workload.
#[derive(Debug, Default)]
pub struct Serials(BTreeMap<&'static str, BTreeSet<Certificate>>);

impl Serials {
    /// Notes what every sidecar holds now. Often enough, none is missed.
    pub async fn look(&mut self, stage: &Stage) -> Result<()> {
        for pod in &stage.pods {
            let held = held(pod).await?;
            self.0.entry(pod.workload.name).or_default().extend(held);
        }
        Ok(())
    }

    /// Replacements at the sidecar that had the fewest.
    fn rotations(&self) -> usize {
        let seen = WORKLOADS
            .iter()
            .map(|w| self.0.get(w.name).map_or(0, BTreeSet::len));
        seen.min().unwrap_or(0).saturating_sub(1)
    }

    fn total(&self) -> usize {
        self.0.values().map(BTreeSet::len).sum()
    }
}

/// Newest certificate of a sidecar.
pub async fn newest(pod: &Pod) -> Result<Certificate> {
    let all = held(pod).await?;
    let name = pod.workload.name;
    all.into_iter()
        .next_back()
        .with_context(|| format!("{name} holds no certificate"))
}

#[derive(Deserialize)]
struct Certs {
    certificates: Vec<Chain>,
}

#[derive(Deserialize)]
struct Chain {
    cert_chain: Vec<Cert>,
}

#[derive(Deserialize)]
struct Cert {
    serial_number: String,
    expiration_time: Timestamp,
    #[serde(default)]
    subject_alt_names: Vec<AltName>,
}

#[derive(Deserialize)]
struct AltName {
    #[serde(default)]
    uri: String,
}

/// The workload certificates that an Envoy uses, as its `/certs` page tells.
async fn held(pod: &Pod) -> Result<BTreeSet<Certificate>> {
    let page: Certs = pod.admin("/certs").await?.json()?;
    let identity = pod.workload.identity();
    let own = |c: &Cert| c.subject_alt_names.iter().any(|n| n.uri == identity);
    let all = page.certificates.into_iter().flat_map(|c| c.cert_chain);
    Ok(all
        .filter(own)
        .map(|c| Certificate {
            expires: c.expiration_time,
            serial: c.serial_number,
        })
        .collect())
}

pub async fn run(demo: &mut Demo<'_>) -> Result<()> {
    let life = demo.stage.plane.certificate_life();
    let begin = clock::mono();
    let before = demo.traffic.tally();
    let mut shown = BTreeSet::new();
    while demo.serials.rotations() < ROTATIONS || shown.len() < 2 {
        demo.serials.look(demo.stage).await?;
        new_connections(demo).await?;
        shown.insert(shown_hash(demo).await?);
        let waited = clock::mono() - begin;
        ensure!(
            waited < life * 4,
            "{} rotations within {}, {} expected",
            demo.serials.rotations(),
            span(waited),
            ROTATIONS
        );
        wait(demo, before).await;
    }
    let rotated = format!(
        "each at least {} times in {}, {} serial numbers in all",
        demo.serials.rotations(),
        span(clock::mono() - demo.stage.begun),
        demo.serials.total()
    );
    demo.report
        .check("every sidecar's certificate was replaced", Ok(rotated));
    let told = format!("{} different ones from the storefront", shown.len());
    demo.report.check(
        "the catalog was shown the new ones, on new connections",
        Ok(told),
    );
    let lossless = demo.lossless(demo.traffic.tally().since(before));
    demo.report.check("traffic through the rotations", lossless);
    Ok(())
}

async fn wait(demo: &Demo<'_>, before: Tally) {
    pass(demo.report, "certificates", PAUSE, || {
        format!(
            "replaced {} of {ROTATIONS} times; {}",
            demo.serials.rotations(),
            demo.traffic.tally().since(before)
        )
    })
    .await;
}

/// Makes sidecars shake hands anew: a request given up half way takes its connection to the callee with it.
async fn new_connections(demo: &Demo<'_>) -> Result<()> {
    /// More than the constant traffic holds open.
    const GIVEN_UP: usize = 8;
    const AFTER: Duration = Duration::from_millis(100);
    let storefront = demo.stage.pod("storefront")?;
    let slow = Call::new("catalog", "/given-up").header("echo-delay-ms", 5000);
    let give_up = async || {
        let mut connection = Connection::open(&storefront.egress()).await?;
        // The answer is not waited for: that is the point.
        let _given_up = tokio::time::timeout(AFTER, connection.call(&slow)).await;
        Ok(())
    };
    join_all(std::iter::repeat_with(give_up).take(GIVEN_UP))
        .await
        .into_iter()
        .collect()
}

/// Digest of the certificate that the storefront shows the catalog.
async fn shown_hash(demo: &Demo<'_>) -> Result<String> {
    let storefront = demo.stage.pod("storefront")?;
    let answer = storefront.call(&Call::new("catalog", "/")).await?;
    let described = Described::of(&answer)?;
    Ok(described.peers().context("no certificate was shown")?.hash)
}
