//! What goes on while parts of the cluster are away.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fairlead::clock;

use super::harness::client::{Call, Target};
use super::harness::isolation::output;
use super::harness::load::{Connections, Load};
use super::harness::network::{Namespace, User};
use super::harness::suite::Scenario;
use super::installed::Cluster;
use super::mesh::SHOP;

pub const SCENARIOS: &[Scenario] = &[(
    "without_the_api_server_traffic_goes_on_and_a_sidecar_that_starts_anew_is_served",
    without_the_api_server,
)];

/// Every request to `reviews` leads to where nothing is.
const NOWHERE: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - route: [{destination: {host: nowhere.example.com}}]
";

/// For how many seconds the API server is away; `make soak` sets more.
const SECONDS: &str = "FAIRLEAD_OUTAGE_SECONDS";
const AWAY: Duration = Duration::from_secs(60);

/// The process of a program in a pod.
fn process(pod: &Namespace, program: &str) -> Result<String> {
    let pids = output(Command::new("ip").args(["netns", "pids", pod.name()]))?;
    let is = |pid: &&str| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name.trim() == program)
    };
    let pid = pids.lines().find(is);
    pid.map(str::to_owned)
        .with_context(|| format!("no {program} in {}", pod.name()))
}

/// The sidecar of a pod ends, is started anew, and holds all that it needs.
fn killed_and_back(cluster: &Cluster, pod: &Namespace) -> Result<()> {
    let before = process(pod, "envoy")?;
    output(Command::new("kill").args(["-s", "KILL", &before]))?;
    cluster.eventually("another sidecar is started", || {
        let now = process(pod, "envoy")?;
        ensure!(now != before, "still {before}");
        Ok(())
    })?;
    let ready = Target::Tcp(SocketAddr::from((pod.ip(), 15021)));
    let ready = Call::get(ready, "pod", "/healthz/ready");
    cluster.eventually("the sidecar that was killed is ready again", || {
        let reply = ready.send_from_node()?;
        ensure!(reply.status == 200, "{}", reply.status);
        Ok(())
    })
}

fn control_plane_killed_and_back(cluster: &Cluster) -> Result<()> {
    let istiod = cluster.network_of("istio-system", "istiod")?;
    let before = process(&istiod, "fairlead")?;
    output(Command::new("kill").args(["-s", "KILL", &before]))?;
    cluster.eventually("the control plane serves from its snapshot", || {
        let now = process(&istiod, "fairlead")?;
        ensure!(now != before, "still {before}");
        taken_by_keys(cluster)
    })?;
    let logs = cluster.kubelet.logs("istiod");
    ensure!(logs.contains("serving from the snapshot"), "{logs}");
    Ok(())
}

fn taken_by_keys(cluster: &Cluster) -> Result<u64> {
    let istiod = cluster.network_of("istio-system", "istiod")?;
    let metrics = Target::Tcp(SocketAddr::from((istiod.ip(), 15014)));
    let page = Call::get(metrics, "istiod", "/metrics")
        .send_from_node()?
        .text();
    let count = page
        .lines()
        .find_map(|line| line.strip_prefix("fairlead_tokens_taken_by_keys_total "));
    Ok(count
        .context("the metric is not there")?
        .parse::<f64>()
        .map(|n| n as u64)?)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the same scenario is a test and a soak"
)]
fn away() -> Result<Duration> {
    match std::env::var(SECONDS) {
        Ok(seconds) => Ok(Duration::from_secs(seconds.parse().context(SECONDS)?)),
        Err(_) => Ok(AWAY),
    }
}

fn without_the_api_server() -> Result<()> {
    let away = away()?;
    let mut cluster = Cluster::installed(&[])?;
    cluster.apply_yaml(SHOP)?;
    cluster.wait_ready("shop", "reviews", 2)?;
    cluster.wait_ready("shop", "client", 1)?;
    let client = cluster.network_of("shop", "client")?;
    let reviews = cluster.network_of("shop", "reviews")?;
    let call = cluster.call("shop", "reviews", 80, "/")?;
    cluster.eventually("the cluster's keys are known", || {
        ensure!(
            cluster
                .kubelet
                .logs("istiod")
                .contains("the cluster's tokens can be checked without it")
        );
        Ok(())
    })?;
    let load = Load::start(&client, &call, &[Connections::Kept, Connections::Fresh])?;
    cluster.server.kill();
    let began = clock::mono();
    // An answer about its token holds for some minutes; after them the cluster's keys say who it is.
    killed_and_back(&cluster, &reviews)?;
    let mut kills = 1;
    #[expect(clippy::disallowed_methods, reason = "the time of an outage")]
    std::thread::sleep(away.saturating_sub(clock::mono().duration_since(began)));
    // A control plane that starts meanwhile serves from its snapshot, and knows proxies by the cluster's keys alone.
    control_plane_killed_and_back(&cluster)?;
    killed_and_back(&cluster, &reviews)?;
    kills += 1;
    let taken = taken_by_keys(&cluster)?;
    ensure!(taken > 0, "no token was taken by the cluster's keys");
    let tally = load.stop();
    // A request that was on its way to a sidecar that was killed may be lost; none after it.
    ensure!(
        tally.answered > 100 && tally.failed <= 4 * kills,
        "{tally:?}"
    );
    ensure!(
        call.send(&client, User::App)?.status == 200,
        "the mesh is not whole"
    );
    cluster.server.restart()?;
    cluster.apply_yaml(NOWHERE)?;
    cluster.eventually("a change reaches the sidecars again", || {
        let status = call.send(&client, User::App)?.status;
        ensure!(status == 503, "{status}");
        Ok(())
    })
}
