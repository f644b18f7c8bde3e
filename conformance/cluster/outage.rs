//! What goes on while parts of the cluster are away.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fairlead::clock;

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

/// How long the API server is away.
const AWAY: Duration = Duration::from_secs(60);

/// Ends a program in a pod as `kill -9` does.
fn kill(pod: &Namespace, program: &str) -> Result<()> {
    let pids = output(Command::new("ip").args(["netns", "pids", pod.name()]))?;
    let is = |pid: &&str| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name.trim() == program)
    };
    let pid = pids.lines().find(is);
    let pid = pid.with_context(|| format!("no {program} in {}", pod.name()))?;
    output(Command::new("kill").args(["-s", "KILL", pid])).map(drop)
}

fn without_the_api_server() -> Result<()> {
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
                .contains("keys of the cluster's tokens")
        );
        Ok(())
    })?;
    let load = Load::start(&client, &call, &[Connections::Kept, Connections::Fresh])?;
    cluster.server.kill();
    let began = clock::mono();
    // Tokens that were asked about a moment ago hold for five minutes; both must be looked at by keys, or by memory.
    kill(&reviews, "envoy")?;
    cluster.eventually("the sidecar that was killed is ready again", || {
        let at = std::net::SocketAddr::from((reviews.ip(), 15021));
        let target = super::harness::client::Target::Tcp(at);
        let ready = super::harness::client::Call::get(target, "pod", "/healthz/ready");
        let reply = ready.send_from_node()?;
        ensure!(reply.status == 200, "{}", reply.status);
        Ok(())
    })?;
    #[expect(clippy::disallowed_methods, reason = "the time of an outage")]
    std::thread::sleep(AWAY.saturating_sub(clock::mono().duration_since(began)));
    let tally = load.stop();
    // A request that was on its way to the sidecar that was killed may be lost; none after it.
    ensure!(tally.answered > 100 && tally.failed <= 4, "{tally:?}");
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
