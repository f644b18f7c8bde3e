//! Pods of every sort: which get a sidecar, and how they live with one.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::harness::client::{Call, Reply, Target};
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
    (
        "prometheus_finds_proxy_and_application_where_a_pods_annotations_say",
        scraped,
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

/// Nothing but the probes, readiness and statistics answers another pod.
fn nothing_else_is_reachable(cluster: &Cluster) -> Result<()> {
    for (port, path) in [
        (15000, "/config_dump"),
        (15090, "/stats"),
        (15090, "/config_dump"),
        (15020, "/stats"),
        (15020, "/certs"),
        (15021, "/drain"),
        (15021, "/stats"),
    ] {
        let status = asked(cluster, "app", port, path)?.map_or(0, |reply| reply.status);
        ensure!(status == 0 || status >= 400, "{port}{path}: {status}");
    }
    Ok(())
}

/// What a stranger in another namespace is answered by a pod of the shop.
fn asked(cluster: &Cluster, pod: &str, port: u16, path: &str) -> Result<Option<Reply>> {
    cluster.apply_yaml("
apiVersion: v1
kind: Pod
metadata: {name: other, namespace: default}
spec: {containers: [{name: app, image: 'fairlead:1', args: [echo, --name, other, --http, '0.0.0.0:8080']}]}
")?;
    let other = cluster.eventually("another pod runs", || {
        cluster.network_of("default", "other")
    })?;
    let ip = cluster.network_of("shop", pod)?.ip();
    let call = Call::get(Target::Tcp(SocketAddr::from((ip, port))), "pod", path);
    Ok(call.send(&other, User::App).ok())
}

/// An application's page is its whole answer here, whatever the path.
fn scraped() -> Result<()> {
    let cluster = Cluster::installed(&[])?;
    cluster.apply_yaml(MESH)?;
    let pod = |name: &str, annotations: &str| {
        format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, annotations: {{{annotations}}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{{name: app, image: 'fairlead:1', args: [echo, --name, {name}-itself, --http, '0.0.0.0:8080']}}]
"
        )
    };
    let own = "prometheus.io/scrape: 'true', prometheus.io/port: '8080', prometheus.io/path: /own";
    let broken = "prometheus.io/port: '9999'";
    let apart = "prometheus.io/port: '8080', prometheus.istio.io/merge-metrics: 'false'";
    for (name, annotations) in [
        ("merged", own),
        ("broken", broken),
        ("apart", apart),
        ("none", "a: b"),
    ] {
        let pod = pod(name, annotations);
        cluster.eventually("the account is there", || cluster.apply_yaml(&pod))?;
    }
    let page = |name: &str, port: u16| -> Result<String> {
        cluster.eventually("the page is there", || {
            let reply = asked(&cluster, name, port, "/stats/prometheus")?;
            let reply = reply.context("no answer")?;
            ensure!(
                reply.status == 200,
                "{name}: {} {}",
                reply.status,
                reply.text()
            );
            Ok(reply.text())
        })
    };
    let annotation = |name: &str| -> Result<Value> {
        let pod = cluster.get(&format!("/api/v1/namespaces/shop/pods/{name}"))?;
        Ok(pod["metadata"]["annotations"]["prometheus.io/port"].clone())
    };
    for name in ["merged", "broken", "none"] {
        ensure!(annotation(name)? == "15020", "{name}");
        // The application begins beside its proxy, perhaps after it.
        cluster.eventually("the page has both", || {
            let text = page(name, 15020)?;
            ensure!(text.contains("envoy_server_live"), "{name}: {text}");
            let merged = text.contains("merged-itself") == (name == "merged");
            let told = text.contains("# the application answered 503 at port 9999, path /metrics");
            ensure!(merged && told == (name == "broken"), "{name}: {text}");
            Ok(())
        })?;
    }
    // Who keeps its own page is found there, and the proxy's is beside it.
    ensure!(annotation("apart")? == "8080");
    ensure!(page("apart", 15090)?.contains("envoy_server_live"));
    ensure!(asked(&cluster, "apart", 15020, "/stats/prometheus")?.is_none_or(|r| r.status >= 400));
    Ok(())
}
