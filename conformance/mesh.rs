//! Real Envoys in network namespaces: what a pod shows, what of its traffic is captured, and where it goes.

use std::path::PathBuf;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

mod harness;

#[path = "mesh/admin_pages.rs"]
mod admin_pages;
#[path = "mesh/capture.rs"]
mod capture;
#[path = "mesh/hitless.rs"]
mod hitless;
#[path = "mesh/identity.rs"]
mod identity;
#[path = "mesh/protocols.rs"]
mod protocols;
#[path = "mesh/routing.rs"]
mod routing;
#[path = "mesh/shop.rs"]
mod shop;

/// A scenario: its name is the sentence that it proves.
type Scenario = (&'static str, fn() -> anyhow::Result<()>);

const SCENARIOS: &[&[Scenario]] = &[
    capture::SCENARIOS,
    admin_pages::SCENARIOS,
    routing::SCENARIOS,
    identity::SCENARIOS,
    protocols::SCENARIOS,
    hitless::SCENARIOS,
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
            eprintln!("mesh: {fault:#}");
        }
        return ExitCode::FAILURE;
    }
    let named = SCENARIOS
        .concat()
        .into_iter()
        .map(|(name, scenario)| trial(name, scenario));
    let cells = protocols::cells()
        .into_iter()
        .map(|cell| trial(&cell.name(), move || cell.check()));
    libtest_mimic::run(&arguments, named.chain(cells).collect()).exit_code()
}

/// Exists only where Cargo.toml lacks `harness = false`: then `main` above would never run.
#[test]
fn this_suite_brings_its_own_harness() {
    panic!("Cargo.toml must say `harness = false` for the suite `mesh`");
}

fn isolate() -> anyhow::Result<()> {
    let fairlead = PathBuf::from(env!("CARGO_BIN_EXE_fairlead"));
    harness::isolation::enter(&[
        ("fairlead", fairlead),
        ("envoy", harness::isolation::envoy()?),
    ])
}

fn trial(name: &str, scenario: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || {
        scenario().map_err(|fault| Failed::from(format!("{fault:#}")))
    })
}
