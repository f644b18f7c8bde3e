//! Real Envoys in network namespaces: what a pod shows, what of its traffic is captured.

use std::path::PathBuf;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

mod harness;

#[path = "mesh/admin_pages.rs"]
mod admin_pages;
#[path = "mesh/capture.rs"]
mod capture;

/// A scenario: its name is the sentence that it proves.
type Scenario = (&'static str, fn() -> anyhow::Result<()>);

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
            eprintln!("mesh: {fault:#}");
        }
        return ExitCode::FAILURE;
    }
    let scenarios = [capture::SCENARIOS, admin_pages::SCENARIOS].concat();
    let trials = scenarios.into_iter().map(trial).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn isolate() -> anyhow::Result<()> {
    let fairlead = PathBuf::from(env!("CARGO_BIN_EXE_fairlead"));
    harness::isolation::enter(&[
        ("fairlead", fairlead),
        ("envoy", harness::isolation::envoy()?),
    ])
}

fn trial((name, scenario): Scenario) -> Trial {
    Trial::test(name, move || {
        scenario().map_err(|fault| Failed::from(format!("{fault:#}")))
    })
}
