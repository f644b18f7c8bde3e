//! Who a cluster's own tokens say that their bearers are, as the cluster itself answers.

use anyhow::{Result, ensure};
use serde_json::json;

use super::Scenario;
use super::mirror::Mirror;
use super::served::CALLER;
use super::world::{Plane, World};

pub const SCENARIOS: &[Scenario] = &[
    (
        "a_token_of_the_cluster_says_who_its_bearer_is",
        of_the_cluster,
    ),
    (
        "a_token_for_others_or_of_a_pod_that_is_gone_lets_nobody_in",
        of_nobody,
    ),
    (
        "while_the_cluster_is_away_tokens_of_pods_that_are_there_hold",
        away,
    ),
];

const AUDIENCE: &str = "istio-ca";
const SYSTEM: (&str, &str) = ("istio-system", "reader");
/// For readers of the control plane's own namespace.
const PAGE: &str = "/debug/syncz";

/// A namespace with a service account and a pod of that account's, both of one name.
fn settle(world: &World, (namespace, account): (&str, &str)) -> Result<()> {
    world.put_yaml(&format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}"
    ))?;
    let meta = format!("metadata: {{name: {account}, namespace: {namespace}}}");
    world.put_yaml(&format!("{{apiVersion: v1, kind: ServiceAccount, {meta}}}"))?;
    world.put_yaml(&format!(
        "
apiVersion: v1
kind: Pod
{meta}
spec:
  serviceAccountName: {account}
  containers: [{{name: app, image: app}}]
"
    ))
}

fn status(plane: &Plane, token: &str) -> Result<u16> {
    Ok(plane.shown_to(token, PAGE)?.status)
}

fn of_the_cluster() -> Result<()> {
    let world = World::start()?;
    settle(&world, SYSTEM)?;
    settle(&world, ("shop", "reviews"))?;
    settle(&world, ("office", "clerk"))?;
    let plane = Plane::start(&world, &[])?;
    let pod = Some("reader");
    let reader = world.token(SYSTEM, AUDIENCE, pod)?;
    for _once_and_remembered in 0..2 {
        ensure!(status(&plane, &reader)? == 200);
    }
    // Others may read of their own namespace alone.
    let _proxy = Mirror::join(&world, &plane, CALLER)?;
    let page = format!("/debug/config_dump?proxyID={CALLER}");
    for (who, wanted) in [
        (SYSTEM, 200),
        (("shop", "reviews"), 200),
        (("office", "clerk"), 404),
    ] {
        let token = world.token(who, AUDIENCE, Some(who.1))?;
        let got = plane.shown_to(&token, &page)?.status;
        ensure!(got == wanted, "{got} for {who:?}");
    }
    Ok(())
}

fn of_nobody() -> Result<()> {
    let world = World::start()?;
    settle(&world, SYSTEM)?;
    let plane = Plane::start(&world, &[])?;
    let good = world.token(SYSTEM, AUDIENCE, Some("reader"))?;
    let for_others = world.token(SYSTEM, "vault", None)?;
    let [head, claims, signature] = good.split('.').collect::<Vec<_>>()[..] else {
        anyhow::bail!("{good} is no JWT");
    };
    let other = world.token(SYSTEM, AUDIENCE, None)?;
    let other = other.split('.').nth(1).unwrap_or_default();
    let mixed = format!("{head}.{other}.{signature}");
    let unsigned = format!("{head}.{claims}.");
    for token in [for_others.as_str(), &mixed, &unsigned, "a.b.c", "x"] {
        let got = status(&plane, token)?;
        ensure!(got == 401, "{got} for {token}");
    }
    // Never seen before its pod went.
    world.delete(&json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "reader", "namespace": "istio-system"},
    }))?;
    let got = status(&plane, &good)?;
    ensure!(got == 401, "{got}");
    Ok(())
}

fn away() -> Result<()> {
    let mut world = World::start()?;
    settle(&world, SYSTEM)?;
    let plane = Plane::start(&world, &[])?;
    let known = world.token(SYSTEM, AUDIENCE, None)?;
    let new = world.token(SYSTEM, AUDIENCE, Some("reader"))?;
    ensure!(status(&plane, &known)? == 200);
    super::harness::wait::eventually("the cluster's keys are known", || {
        ensure!(
            plane
                .log()
                .contains("the cluster's tokens can be checked without it"),
            "{}",
            plane.log()
        );
        Ok(())
    })?;
    let gone = world.token(SYSTEM, AUDIENCE, None)?;
    world.server.kill();
    ensure!(status(&plane, &known)? == 200);
    // Its pod is there, and the cluster's own keys say that it is the cluster's.
    let got = status(&plane, &new)?;
    ensure!(got == 200, "{got}");
    // Bound to no pod, it may have been taken back.
    let got = status(&plane, &gone)?;
    ensure!(got == 503, "{got}");
    world.server.restart()?;
    super::harness::wait::eventually("the other is known, too", || {
        let got = status(&plane, &gone)?;
        ensure!(got == 200, "{got}");
        Ok(())
    })
}
