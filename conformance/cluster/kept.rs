//! What the leader keeps right in the cluster, and that there is one leader.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::harness::load::{Connections, Load};
use super::harness::suite::Scenario;
use super::installed::{Cluster, SYSTEM};
use super::mesh::SHOP;

pub const SCENARIOS: &[Scenario] = &[
    (
        "roots_and_bundles_that_somebody_takes_away_come_back",
        come_back,
    ),
    (
        "when_the_leader_ends_another_replica_leads_and_nobody_notices",
        another_leads,
    ),
];

const INJECTOR: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/istio-sidecar-injector";
const AUTHORITY: &str = "/api/v1/namespaces/istio-system/secrets/istio-ca-secret";

fn roots(cluster: &Cluster, namespace: &str) -> Result<String> {
    let path = format!("/api/v1/namespaces/{namespace}/configmaps/istio-ca-root-cert");
    let map = cluster.get(&path)?;
    let text = map["data"]["root-cert.pem"].as_str();
    Ok(text.context("no root-cert.pem")?.to_owned())
}

fn bundles(cluster: &Cluster) -> Result<Vec<Value>> {
    let webhooks = cluster.get(INJECTOR)?["webhooks"].as_array().cloned();
    let webhooks = webhooks.unwrap_or_default();
    Ok(webhooks
        .iter()
        .map(|w| w["clientConfig"]["caBundle"].clone())
        .collect())
}

fn come_back() -> Result<()> {
    let cluster = Cluster::installed(&[])?;
    let wanted = cluster.eventually("roots are in the default namespace", || {
        roots(&cluster, "default")
    })?;
    cluster.apply_yaml("{apiVersion: v1, kind: Namespace, metadata: {name: late}}")?;
    let is_there = |what: &str| {
        cluster.eventually(what, || {
            ensure!(roots(&cluster, "late")? == wanted, "other roots");
            Ok(())
        })
    };
    is_there("a new namespace gets the roots")?;
    let path = "/api/v1/namespaces/late/configmaps/istio-ca-root-cert";
    cluster.delete(path)?;
    is_there("deleted roots come back")?;
    cluster.patch(
        path,
        &json!({"data": {"root-cert.pem": "none", "other": "stays"}}),
    )?;
    is_there("changed roots come back")?;
    ensure!(
        cluster.get(path)?["data"]["other"] == "stays",
        "another's key is gone"
    );
    let before = bundles(&cluster)?;
    // As a tool would that knows of no bundle.
    cluster.install("istiod", &[])?;
    let wiped = cluster.get(INJECTOR)?["webhooks"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let wiped: Vec<Value> = wiped
        .into_iter()
        .map(|mut webhook| {
            webhook["clientConfig"]["caBundle"] = json!("");
            webhook
        })
        .collect();
    cluster.patch(INJECTOR, &json!({"webhooks": wiped}))?;
    cluster.eventually("bundles come back", || {
        ensure!(bundles(&cluster)? == before, "other bundles");
        Ok(())
    })
}

fn another_leads() -> Result<()> {
    let cluster = Cluster::bare()?;
    cluster.install("istiod", &["pilot.replicaCount=2"])?;
    cluster.wait_ready(SYSTEM, "istiod", 2)?;
    let authority = cluster.get(AUTHORITY)?["data"].clone();
    cluster.apply_yaml(SHOP)?;
    cluster.wait_ready("shop", "reviews", 2)?;
    cluster.wait_ready("shop", "client", 1)?;
    let client = cluster.network_of("shop", "client")?;
    let call = cluster.call("shop", "reviews", 80, "/")?;
    let load = Load::start(&client, &call, &[Connections::Kept, Connections::Fresh])?;
    let leader = || {
        let lease = cluster
            .get("/apis/coordination.k8s.io/v1/namespaces/istio-system/leases/fairlead-leader")?;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        let pod = holder.split('_').next().unwrap_or_default().to_owned();
        ensure!(!pod.is_empty(), "nobody holds the lease");
        Ok::<_, anyhow::Error>(pod)
    };
    let first = cluster.eventually("one replica leads", leader)?;
    cluster.delete(&format!("/api/v1/namespaces/{SYSTEM}/pods/{first}"))?;
    cluster.eventually("another replica leads", || {
        let now = leader()?;
        ensure!(now != first, "still {now}");
        Ok(())
    })?;
    cluster.apply_yaml("{apiVersion: v1, kind: Namespace, metadata: {name: late}}")?;
    cluster.eventually("the new leader works", || roots(&cluster, "late"))?;
    cluster.wait_ready(SYSTEM, "istiod", 2)?;
    ensure!(
        cluster.get(AUTHORITY)?["data"] == authority,
        "the authority was made anew"
    );
    cluster.told(load.stop().is_flawless(20))
}
