//! Pods of every sort: which get a sidecar, and how they live with one.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::harness::network::User;
use super::harness::suite::Scenario;
use super::installed::Cluster;

pub const SCENARIOS: &[Scenario] = &[
    ("a_job_with_a_sidecar_ends", a_job),
    (
        "pods_that_say_no_or_are_on_their_nodes_network_stay_as_they_are",
        skipped,
    ),
    (
        "an_application_whose_probes_fail_is_restarted_and_taken_out",
        probes,
    ),
];

const MESH: &str =
    "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio-injection: enabled}}}";

fn pods(cluster: &Cluster, labels: &str) -> Result<Vec<Value>> {
    let list = cluster.get(&format!(
        "/api/v1/namespaces/shop/pods?labelSelector={labels}"
    ))?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

fn a_job() -> Result<()> {
    let cluster = Cluster::installed(&[])?;
    cluster.apply_yaml(MESH)?;
    // `fairlead version` says its word and ends.
    cluster.apply_yaml(
        "
apiVersion: batch/v1
kind: Job
metadata: {name: once, namespace: shop}
spec:
  template:
    metadata: {labels: {app: once}}
    spec:
      restartPolicy: Never
      containers: [{name: app, image: 'fairlead:1', args: [version]}]
",
    )?;
    cluster.eventually("the job is complete", || {
        let job = cluster.get("/apis/batch/v1/namespaces/shop/jobs/once")?;
        ensure!(job["status"]["succeeded"] == 1, "{}", job["status"]);
        Ok(())
    })?;
    let pods = pods(&cluster, "app=once")?;
    let proxy = &pods[0]["spec"]["initContainers"][1]["name"];
    ensure!(proxy == "istio-proxy", "it had no sidecar: {proxy}");
    Ok(())
}

fn skipped() -> Result<()> {
    let cluster = Cluster::installed(&[])?;
    cluster.apply_yaml(MESH)?;
    for (name, label, spec) in [
        ("says-no", "sidecar.istio.io/inject: 'false'", ""),
        ("node", "a: b", "hostNetwork: true, "),
    ] {
        let pod = format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, labels: {{{label}}}}}
spec: {{{spec}containers: [{{name: app, image: 'fairlead:1', args: [version]}}]}}
"
        );
        cluster.eventually("the account is there", || cluster.apply_yaml(&pod))?;
        let pod = cluster.get(&format!("/api/v1/namespaces/shop/pods/{name}"))?;
        ensure!(
            pod["spec"]["initContainers"].is_null(),
            "{name}: {}",
            pod["spec"]
        );
        let status = &pod["metadata"]["annotations"]["sidecar.istio.io/status"];
        ensure!(status.is_null(), "{name}: {status}");
    }
    Ok(())
}

fn probes() -> Result<()> {
    let cluster = Cluster::installed(&[])?;
    cluster.apply_yaml(MESH)?;
    cluster.apply_yaml(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, namespace: shop}
spec:
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: app
        image: fairlead:1
        args: [echo, --name, app, --http, '0.0.0.0:8080']
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1, failureThreshold: 1}
        livenessProbe: {tcpSocket: {port: 9999}, periodSeconds: 1, failureThreshold: 4}
      - name: other
        image: fairlead:1
        args: [echo, --name, other, --http, '0.0.0.0:8081']
        readinessProbe: {httpGet: {path: /, port: 8081, scheme: HTTPS}, periodSeconds: 1}
        livenessProbe: {grpc: {port: 8081, service: x}, periodSeconds: 1, failureThreshold: 4}
",
    )?;
    let of = |what: &str, wanted: &dyn Fn(&Value) -> bool| {
        cluster.eventually(what, || {
            let pods = pods(&cluster, "app=app")?;
            let status = pods
                .first()
                .map(|p| p["status"]["containerStatuses"][0].clone())
                .unwrap_or_default();
            ensure!(wanted(&status), "{status}");
            Ok(())
        })
    };
    of("it is ready by its HTTP probe", &|s| s["ready"] == true)?;
    of(
        "it is restarted: nobody listens where its TCP probe asks",
        &|s| s["restartCount"].as_u64() > Some(0),
    )?;
    nothing_else_is_reachable(&cluster)
}

/// Nothing but the probes and readiness answers another pod.
fn nothing_else_is_reachable(cluster: &Cluster) -> Result<()> {
    cluster.apply_yaml("
apiVersion: v1
kind: Pod
metadata: {name: other, namespace: default}
spec: {containers: [{name: app, image: 'fairlead:1', args: [echo, --name, other, --http, '0.0.0.0:8080']}]}
")?;
    let other = cluster.eventually("another pod runs", || {
        cluster.network_of("default", "other")
    })?;
    let ip = cluster.network_of("shop", "app")?.ip();
    for (port, path) in [
        (15000, "/config_dump"),
        (15090, "/stats/prometheus"),
        (15020, "/stats/prometheus"),
        (15021, "/drain"),
        (15021, "/stats"),
    ] {
        let at = std::net::SocketAddr::from((ip, port));
        let call =
            super::harness::client::Call::get(super::harness::client::Target::Tcp(at), "pod", path);
        let status = call.send(&other, User::App).map_or(0, |reply| reply.status);
        ensure!(status == 0 || status >= 400, "{port}{path}: {status}");
    }
    Ok(())
}
