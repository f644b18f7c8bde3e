//! The Kubernetes source against a real API server: what it reads, and what it goes through.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

use std::path::PathBuf;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

#[path = "delta/client.rs"]
#[allow(dead_code, reason = "the suite of the delta protocol uses the rest")]
mod client;
mod harness;

#[path = "kube/definitions.rs"]
mod definitions;
#[path = "kube/faults.rs"]
mod faults;
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

/// A scenario: its name is the sentence that it proves.
type Scenario = (&'static str, fn() -> anyhow::Result<()>);

const SCENARIOS: &[&[Scenario]] = &[
    server::SCENARIOS,
    served::SCENARIOS,
    outage::SCENARIOS,
    faults::SCENARIOS,
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if !arguments.list
        && let Err(fault) = isolate()
    {
        #[expect(
            clippy::print_stderr,
            reason = "without namespaces there is no test to report"
        )]
        {
            eprintln!("kube: {fault:#}");
        }
        return ExitCode::FAILURE;
    }
    let trials = SCENARIOS.concat().into_iter().map(|(name, scenario)| {
        Trial::test(name, move || {
            scenario().map_err(|fault| Failed::from(format!("{fault:#}")))
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Exists only where Cargo.toml lacks `harness = false`: then `main` above would never run.
#[test]
fn this_suite_brings_its_own_harness() {
    panic!("Cargo.toml must say `harness = false` for the suite `kube`");
}

/// So that no API server outlives the suite, however it ends.
fn isolate() -> anyhow::Result<()> {
    let fairlead = PathBuf::from(env!("CARGO_BIN_EXE_fairlead"));
    harness::isolation::enter(&[("fairlead", fairlead)])
}
