//! The Kubernetes source against a real API server: what it reads, and what it goes through.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

use std::path::PathBuf;
use std::process::ExitCode;

use libtest_mimic::Trial;

use self::harness::suite::{self, Scenario, outcome};

#[path = "delta/client.rs"]
#[allow(dead_code, reason = "the suite of the delta protocol uses the rest")]
mod client;
mod harness;

#[path = "kube/definitions.rs"]
mod definitions;
#[path = "kube/faults.rs"]
mod faults;
#[path = "kube/identity.rs"]
mod identity;
#[path = "kube/mirror.rs"]
mod mirror;
#[path = "kube/outage.rs"]
mod outage;
#[path = "kube/served.rs"]
mod served;
#[path = "kube/server.rs"]
mod server;
#[path = "kube/world.rs"]
mod world;

const SCENARIOS: &[&[Scenario]] = &[
    server::SCENARIOS,
    served::SCENARIOS,
    outage::SCENARIOS,
    faults::SCENARIOS,
    identity::SCENARIOS,
];

/// In namespaces, so that no API server outlives the suite, however it ends.
fn main() -> ExitCode {
    let fairlead = PathBuf::from(env!("CARGO_BIN_EXE_fairlead"));
    let trials = SCENARIOS.concat().into_iter();
    let trials = trials.map(|(name, scenario)| Trial::test(name, move || outcome(scenario())));
    suite::run("kube", Ok(vec![("fairlead", fairlead)]), trials)
}

/// Exists only where Cargo.toml lacks `harness = false`: then `main` above would never run.
#[test]
fn this_suite_brings_its_own_harness() {
    panic!("Cargo.toml must say `harness = false` for the suite `kube`");
}
