//! The chart on a real API server, with Kubernetes' controllers, and every pod as real processes: injected by the
//! webhook, captured, identified, and spoken to.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

use std::path::PathBuf;
use std::process::ExitCode;

use libtest_mimic::Trial;

use self::harness::isolation;
use self::harness::suite::{self, Scenario, outcome};

mod harness;

#[path = "cluster/admission.rs"]
mod admission;
#[path = "cluster/gateway.rs"]
mod gateway;
#[path = "cluster/ingress.rs"]
mod ingress;
#[path = "cluster/installed.rs"]
mod installed;
#[path = "cluster/kept.rs"]
mod kept;
#[path = "cluster/mesh.rs"]
mod mesh;
#[path = "cluster/outage.rs"]
mod outage;
#[path = "cluster/pods.rs"]
mod pods;
#[path = "cluster/status.rs"]
mod status;

const SCENARIOS: &[&[Scenario]] = &[
    mesh::SCENARIOS,
    pods::SCENARIOS,
    gateway::SCENARIOS,
    ingress::SCENARIOS,
    kept::SCENARIOS,
    outage::SCENARIOS,
    status::SCENARIOS,
    admission::SCENARIOS,
];

fn main() -> ExitCode {
    let fairlead = PathBuf::from(env!("CARGO_BIN_EXE_fairlead"));
    let programs = isolation::envoy().map(|envoy| vec![("fairlead", fairlead), ("envoy", envoy)]);
    let trials = SCENARIOS.concat().into_iter();
    let trials = trials.map(|(name, scenario)| Trial::test(name, move || outcome(scenario())));
    suite::run_one_by_one("cluster", programs, trials)
}

/// Exists only where Cargo.toml lacks `harness = false`: then `main` above would never run.
#[test]
fn this_suite_brings_its_own_harness() {
    panic!("Cargo.toml must say `harness = false` for the suite `cluster`");
}
