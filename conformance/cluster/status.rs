//! What the status of an object says, and when.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::harness::isolation::output;
use super::harness::suite::Scenario;
use super::installed::{Cluster, SYSTEM};
use super::mesh::SHOP;

pub const SCENARIOS: &[Scenario] = &[
    (
        "a_status_says_how_many_proxies_of_all_replicas_hold_an_object_and_why_one_is_not_in_force",
        status,
    ),
    (
        "of_two_revisions_the_default_one_writes_the_status_of_what_belongs_to_none",
        two_revisions,
    ),
];

const PATH: &str = "/apis/networking.istio.io/v1/namespaces/shop/virtualservices/reviews";
const VALIDATOR: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/istio-validator-istio-system";

fn rules(matches: &str, timeout: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews, namespace: shop}}
spec:
  hosts: [reviews]
  http:
  - match: [{{uri: {{{matches}}}}}]
    timeout: {timeout}
    route: [{{destination: {{host: reviews}}}}]
"
    )
}

/// Type, status and reason of every condition, and what the first says, of the present form.
fn conditions(cluster: &Cluster) -> Result<(Vec<String>, String)> {
    let object = cluster.get(PATH)?;
    let (generation, status) = (&object["metadata"]["generation"], &object["status"]);
    ensure!(
        &status["observedGeneration"] == generation,
        "generation {generation}: {status}"
    );
    let found = status["conditions"].as_array().context("no conditions")?;
    let text = |c: &Value, key: &str| c[key].as_str().unwrap_or_default().to_owned();
    let each = found.iter().map(|c| {
        ["type", "status", "reason"]
            .map(|key| text(c, key))
            .join(" ")
    });
    Ok((each.collect(), text(&found[0], "message")))
}

fn becomes(cluster: &Cluster, what: &str, wanted: &[&str], message: &str) -> Result<()> {
    cluster.eventually(what, || {
        let (found, said) = conditions(cluster)?;
        ensure!(
            found == wanted && said.contains(message),
            "{found:?}: {said}"
        );
        Ok(())
    })
}

/// The control plane's process in a pod.
fn signal(cluster: &Cluster, pod: &str, signal: &str) -> Result<()> {
    let network = cluster.network_of(SYSTEM, pod)?;
    let pids = output(Command::new("ip").args(["netns", "pids", network.name()]))?;
    let pid = pids.lines().next().context("the pod runs nothing")?;
    output(Command::new("kill").args(["-s", signal, pid])).map(drop)
}

fn status() -> Result<()> {
    let cluster = Cluster::bare()?;
    cluster.install("istiod", &["pilot.replicaCount=2"])?;
    cluster.wait_ready(SYSTEM, "istiod", 2)?;
    cluster.apply_yaml(SHOP)?;
    cluster.wait_ready("shop", "reviews", 2)?;
    cluster.wait_ready("shop", "client", 1)?;

    cluster.apply_yaml(&rules("prefix: /", "3s"))?;
    let all = ["Reconciled True Distributed"];
    becomes(
        &cluster,
        "all proxies hold it",
        &all,
        "3/3 proxies up to date",
    )?;
    let before = cluster.get(PATH)?["status"].clone();

    // What admission would have refused, had it been there.
    cluster.delete(VALIDATOR)?;
    cluster.apply_yaml(&rules("regex: '['", "3s"))?;
    let rejected = ["Reconciled False Rejected", "Stalled True Rejected"];
    let why = "the form accepted before stays in force";
    becomes(&cluster, "a form with a fault is told", &rejected, why)?;
    cluster.apply_yaml(&rules("prefix: /", "3s"))?;
    becomes(&cluster, "it is mended", &all, "3/3 proxies up to date")?;
    let after = cluster.get(PATH)?["status"].clone();
    ensure!(
        after["observedGeneration"].as_i64() > before["observedGeneration"].as_i64(),
        "{before} {after}"
    );

    // A replica that does not answer makes no sum complete.
    let lease = cluster
        .get("/apis/coordination.k8s.io/v1/namespaces/istio-system/leases/fairlead-leader")?;
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    let leader = holder.split('_').next().unwrap_or_default();
    let pods = cluster.get("/api/v1/namespaces/istio-system/pods")?;
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    let mut names = pods.iter().filter_map(|p| p["metadata"]["name"].as_str());
    let other = names.find(|name| *name != leader).context("one replica")?;
    signal(&cluster, other, "STOP")?;
    cluster.apply_yaml(&rules("prefix: /", "4s"))?;
    let going = [
        "Reconciled False Distributing",
        "Reconciling True Distributing",
    ];
    becomes(
        &cluster,
        "a silent replica is told",
        &going,
        "replicas seen 1/2",
    )?;
    signal(&cluster, other, "CONT")?;
    becomes(
        &cluster,
        "all proxies hold the next form",
        &all,
        "3/3 proxies up to date",
    )
}

const SHARED: &str = "/apis/coordination.k8s.io/v1/namespaces/istio-system/leases/fairlead-status";

/// Whose objects without a revision are, and when that was last said.
fn common_holder(cluster: &Cluster) -> Result<(String, String)> {
    let lease = cluster.get(SHARED)?;
    let text = |key: &str| lease["spec"][key].as_str().unwrap_or_default().to_owned();
    Ok((text("holderIdentity"), text("renewTime")))
}

fn two_revisions() -> Result<()> {
    let cluster = Cluster::bare()?;
    cluster.install("canary", &["revision=canary"])?;
    cluster.wait_ready(SYSTEM, "istiod-canary", 1)?;
    cluster.apply_yaml(
        "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio.io/rev: nobody}}}",
    )?;
    cluster.apply_yaml(&rules("prefix: /", "3s"))?;
    let all = ["Reconciled True Distributed"];
    // The only one there writes.
    becomes(&cluster, "the only revision writes", &all, "")?;
    ensure!(common_holder(&cluster)?.0.starts_with("canary_"));
    cluster.install("istiod", &["base.enableIstioConfigCRDs=false"])?;
    cluster.wait_ready(SYSTEM, "istiod", 1)?;
    cluster.eventually("the default revision takes over", || {
        let (holder, _) = common_holder(&cluster)?;
        ensure!(holder.starts_with("default_"), "{holder}");
        Ok(())
    })?;
    cluster.apply_yaml(&rules("prefix: /", "4s"))?;
    becomes(&cluster, "the next form is told", &all, "")?;
    // Nobody writes in turns: through some looks of both it stays as it is.
    let version =
        || -> Result<Value> { Ok(cluster.get(PATH)?["metadata"]["resourceVersion"].clone()) };
    let settled = version()?;
    for _look in 0..3 {
        let (holder, before) = common_holder(&cluster)?;
        ensure!(holder.starts_with("default_"), "{holder}");
        cluster.eventually("the lease is renewed", || {
            ensure!(common_holder(&cluster)?.1 != before);
            Ok(())
        })?;
    }
    ensure!(version()? == settled, "somebody wrote");
    // What belongs to a revision is its own to write.
    let own = rules("prefix: /", "5s").replace(
        "namespace: shop}",
        "namespace: shop, labels: {istio.io/rev: canary}}",
    );
    cluster.apply_yaml(&own)?;
    becomes(&cluster, "its own revision tells", &all, "")
}
