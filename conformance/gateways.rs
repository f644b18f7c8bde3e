//! Real Envoys at the edge of a mesh, in network namespaces: what clients outside get, and what leaves the mesh.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::Trial;

use self::edge::Edge;
use self::harness::script::Script;
use self::harness::suite::{self, Scenario, outcome};

mod harness;

#[path = "gateways/edge.rs"]
mod edge;
#[path = "gateways/ingress.rs"]
mod ingress;
#[path = "gateways/patches.rs"]
mod patches;
#[path = "gateways/scenarios.rs"]
mod scenarios;

fn main() -> ExitCode {
    let trial = |(name, scenario): &Scenario| {
        let run = *scenario;
        Trial::test(*name, move || outcome(run()))
    };
    let script = match Script::read("gateways", include_str!("scenarios/gateways.yaml")) {
        Ok(script) => Arc::new(script),
        Err(fault) => return suite::broken("gateways", &fault),
    };
    let told = (0..script.scenarios.len()).map(|at| {
        let script = script.clone();
        let name = script.name(at);
        Trial::test(name, move || outcome(Edge::play(&script, at)))
    });
    let all = [scenarios::SCENARIOS, ingress::SCENARIOS, patches::SCENARIOS];
    let all = all.into_iter().flatten().map(trial).chain(told);
    suite::run("gateways", programs(), all)
}

/// Exists only where Cargo.toml lacks `harness = false`: then `main` above would never run.
#[test]
fn this_suite_brings_its_own_harness() {
    panic!("Cargo.toml must say `harness = false` for the suite `gateways`");
}

fn programs() -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    let fairlead = PathBuf::from(env!("CARGO_BIN_EXE_fairlead"));
    Ok(vec![
        ("fairlead", fairlead),
        ("envoy", harness::isolation::envoy()?),
    ])
}
