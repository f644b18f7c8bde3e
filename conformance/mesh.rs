//! Real Envoys in network namespaces: what a pod shows, what of its traffic is captured, and where it goes.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use fairlead::model::proxy::RoutePacking;
use libtest_mimic::Trial;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use self::harness::packing;
use self::harness::script::Script;
use self::harness::suite::{self, Scenario, outcome};
use self::shop::Shop;

mod harness;

#[path = "mesh/actions.rs"]
mod actions;
#[path = "mesh/admin_pages.rs"]
mod admin_pages;
#[path = "mesh/capture.rs"]
mod capture;
#[path = "mesh/extensions.rs"]
mod extensions;
#[path = "mesh/external.rs"]
mod external;
#[path = "mesh/families.rs"]
mod families;
#[path = "mesh/hitless.rs"]
mod hitless;
#[path = "mesh/identity.rs"]
mod identity;
#[path = "mesh/machines.rs"]
mod machines;
#[path = "mesh/on_demand.rs"]
mod on_demand;
#[path = "mesh/oracle.rs"]
mod oracle;
#[path = "mesh/patched_routes.rs"]
mod patched_routes;
#[path = "mesh/patches.rs"]
mod patches;
#[path = "mesh/protocols.rs"]
mod protocols;
#[path = "mesh/rate_limits.rs"]
mod rate_limits;
#[path = "mesh/resilience.rs"]
mod resilience;
#[path = "mesh/routing.rs"]
mod routing;
#[path = "mesh/scopes.rs"]
mod scopes;
#[path = "mesh/shop.rs"]
mod shop;

/// Scenarios that are written as data.
const SCRIPTS: &[(&str, &str)] = &[
    ("matches", include_str!("scenarios/matches.yaml")),
    ("actions", include_str!("scenarios/actions.yaml")),
    ("retries", include_str!("scenarios/retries.yaml")),
    ("balance", include_str!("scenarios/balance.yaml")),
    ("bytes", include_str!("scenarios/bytes.yaml")),
    ("services", include_str!("scenarios/services.yaml")),
];

const SCENARIOS: &[&[Scenario]] = &[
    capture::SCENARIOS,
    families::SCENARIOS,
    admin_pages::SCENARIOS,
    routing::SCENARIOS,
    actions::SCENARIOS,
    external::SCENARIOS,
    extensions::SCENARIOS,
    resilience::SCENARIOS,
    scopes::SCENARIOS,
    identity::SCENARIOS,
    machines::SCENARIOS,
    protocols::SCENARIOS,
    hitless::SCENARIOS,
];

fn main() -> ExitCode {
    let sample = Sample::of_environment();
    let named = SCENARIOS.concat().into_iter().flat_map(|(name, scenario)| {
        let packings = sample.packings(name).into_iter();
        packings.map(move |packing| trial(name, packing, scenario))
    });
    // A client that asks on demand may hold to old tables after a patch of its tables went (README.md).
    let patches = [patches::SCENARIOS, patched_routes::SCENARIOS].concat();
    let patches = patches.into_iter().flat_map(|(name, scenario)| {
        let packings = sample.packings(name).into_iter();
        let known = packings.map(|packing| match packing {
            RoutePacking::OnDemand => RoutePacking::Rds,
            other => other,
        });
        known.map(move |packing| trial(name, packing, scenario))
    });
    let cells = protocols::cells().into_iter().flat_map(|cell| {
        let (name, packings) = (cell.name(), sample.packings(&cell.name()).into_iter());
        packings.map(move |packing| trial(&name, packing, move || cell.check()))
    });
    let scripts = SCRIPTS.iter().map(|(file, text)| Script::read(file, text));
    let scripts: anyhow::Result<Vec<Script>> = scripts.collect();
    let scripts = match scripts {
        Ok(scripts) => scripts,
        Err(fault) => return suite::broken("mesh", &fault),
    };
    let told = scripts.into_iter().flat_map(|script| {
        let script = Arc::new(script);
        let each = 0..script.scenarios.len();
        let trials = each.flat_map(|at| told(&sample, &script, at));
        trials.collect::<Vec<_>>()
    });
    let told: Vec<Trial> = told.collect();
    let on_demand = on_demand::SCENARIOS.iter();
    let on_demand = on_demand.map(|(name, scenario)| trial(name, RoutePacking::OnDemand, scenario));
    let all = named
        .chain(patches)
        .chain(cells)
        .chain(told)
        .chain(on_demand);
    suite::run("mesh", programs(), all.chain([of_oracle()]))
}

/// A scenario of a script, in each packing that is drawn for it.
fn told(sample: &Sample, script: &Arc<Script>, at: usize) -> Vec<Trial> {
    let name = script.name(at);
    let packings = sample.packings(&name).into_iter();
    packings
        .map(|packing| {
            let script = script.clone();
            trial(&name, packing, move || Shop::play(&script, at))
        })
        .collect()
}

/// By the seed that the run prints.
#[expect(
    clippy::disallowed_methods,
    reason = "the entry point reads FAIRLEAD_SEED"
)]
fn of_oracle() -> Trial {
    let seed = std::env::var("FAIRLEAD_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or_default();
    let run = move || outcome(oracle::agrees(seed));
    Trial::test("requests_land_where_the_configuration_says", run)
}

/// Exists only where Cargo.toml lacks `harness = false`: then `main` above would never run.
#[test]
fn this_suite_brings_its_own_harness() {
    panic!("Cargo.toml must say `harness = false` for the suite `mesh`");
}

fn programs() -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    let fairlead = PathBuf::from(env!("CARGO_BIN_EXE_fairlead"));
    Ok(vec![
        ("fairlead", fairlead),
        ("envoy", harness::isolation::envoy()?),
    ])
}

/// Which packings of route tables each scenario runs in.
enum Sample {
    All,
    /// One for each, by the seed that the run prints.
    One(u64),
}

impl Sample {
    #[expect(
        clippy::disallowed_methods,
        reason = "the entry point reads FAIRLEAD_MATRIX and FAIRLEAD_SEED"
    )]
    fn of_environment() -> Self {
        let seed = std::env::var("FAIRLEAD_SEED").ok();
        if std::env::var("FAIRLEAD_MATRIX").is_ok_and(|matrix| matrix == "full") {
            Self::All
        } else {
            Self::One(seed.and_then(|seed| seed.parse().ok()).unwrap_or_default())
        }
    }

    fn packings(&self, name: &str) -> Vec<RoutePacking> {
        match self {
            Self::All => packing::ALL.to_vec(),
            Self::One(seed) => {
                let drawn = xxh3_64_with_seed(name.as_bytes(), *seed) as usize;
                vec![packing::ALL[drawn % packing::ALL.len()]]
            }
        }
    }
}

/// Its packing stands in brackets before its name.
fn trial(
    name: &str,
    packing: RoutePacking,
    scenario: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> Trial {
    let run = move || outcome(packing::within(packing, scenario));
    Trial::test(name, run).with_kind(packing.to_string())
}
