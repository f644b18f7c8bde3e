//! Real Envoys among the simulated proxies, each in a network namespace of its own. What they show is in `probe.rs`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use super::harness::isolation::{envoy, output, program};
use super::harness::network::{NamespaceOwner, Network, User};
use super::harness::process::Process;
use super::mesh::Mesh;
use super::probe::Probe;
use super::recruits::token;
use super::server::{Home, main_thread};
use super::stamp::Stamp;

/// How often an Envoy is asked.
const ASK: Duration = Duration::from_millis(2);
const LIMIT: Duration = Duration::from_secs(300);
const DRAIN_SECRET: &str = "bench-drain-secret-0123456789";

/// How long the Envoys are left alone before it counts what a change has cost them.
const SETTLE: Duration = Duration::from_millis(100);

/// What a change was to the Envoys.
#[derive(Clone, Copy, Debug, Default)]
pub struct Applied {
    /// When the last of them had it.
    pub last: Option<Stamp>,
    /// Processor seconds that it took the main thread of one.
    pub cost: Option<f64>,
}

#[derive(Default)]
pub struct Envoys {
    /// None where nobody will join.
    network: Option<Rc<Network>>,
    all: Vec<Envoy>,
    /// Connections to admin interfaces.
    connections: JoinSet<()>,
    /// Changes without a date so far.
    undated: usize,
}

struct Envoy {
    // Ends before its namespace goes.
    process: Process,
    _namespace: NamespaceOwner,
    admin: SendRequest<Empty<Bytes>>,
}

/// Programs that the namespaces must show to every user.
pub fn programs(fairlead: &Path) -> Result<Vec<(&'static str, PathBuf)>> {
    Ok(vec![("fairlead", fairlead.into()), ("envoy", envoy()?)])
}

impl Envoys {
    /// Nobody yet.
    pub fn none(network: Option<Rc<Network>>) -> Self {
        Self {
            network,
            ..Self::default()
        }
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// So many join and become ready.
    pub async fn join(&mut self, count: usize, mesh: &Mesh, home: &Home, port: u16) -> Result<()> {
        let network = self.network.clone().context("no network for Envoys")?;
        for number in 0..count {
            let namespace = network.namespace()?;
            let folder = home.path(&format!("envoy-{number}"));
            let bootstrap = bootstrap(
                number,
                &namespace,
                &folder,
                mesh,
                home,
                (network.node(), port).into(),
            )?;
            let inside = &namespace.0;
            let user = User::Root;
            output(inside.command(user, program("fairlead")).arg("init"))?;
            let mut command = inside.command(User::Envoy, program("envoy"));
            command.arg("-c").arg(&bootstrap);
            command.args(["--disable-hot-restart", "--log-level", "error"]);
            command.args(["--concurrency", "1"]);
            let process = Process::start("envoy", &folder, command)?;
            let admin = self.admin(&folder.join("admin.sock"), &process).await?;
            let name = std::fs::read_to_string(format!("/proc/{}/comm", process.pid()))?;
            ensure!(name.trim() == "envoy", "an Envoy's process is {name}");
            self.all.push(Envoy {
                process,
                _namespace: namespace,
                admin,
            });
        }
        let ready = Probe::Text("/ready".into(), "LIVE".into());
        self.seen(&ready, Stamp::now()).await.map(drop)
    }

    async fn admin(
        &mut self,
        socket: &Path,
        process: &Process,
    ) -> Result<SendRequest<Empty<Bytes>>> {
        let connected = async {
            loop {
                if let Ok(stream) = UnixStream::connect(socket).await {
                    return stream;
                }
                tokio::time::sleep(ASK).await;
            }
        };
        let connected = tokio::time::timeout(LIMIT, connected).await;
        let stream = connected.with_context(|| format!("an Envoy: {}", process.log()))?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        self.connections.spawn_local(async move {
            // Whoever asks next notices that it is over.
            let _ = connection.await;
        });
        Ok(sender)
    }

    /// Processor seconds of each one's main thread so far.
    pub fn spent(&self) -> Vec<f64> {
        let pids = self.all.iter().map(|envoy| envoy.process.pid());
        pids.map(main_thread).collect()
    }

    /// What the change begun then was to them, who had spent so much before it. It is asked once the simulated
    /// proxies have it: an Envoy goes through all that it holds to answer, on a core that the others wait for.
    ///
    /// Of changes that Envoy does not date every other one is asked for at once, for its time; the rest, as all that
    /// it dates, after the cost is known.
    pub async fn applied(&mut self, probe: &Probe, begun: Stamp, spent: &[f64]) -> Result<Applied> {
        let dated = probe.is_dated();
        self.undated += usize::from(!dated);
        if !dated && self.undated.is_multiple_of(2) {
            let last = self.seen(probe, begun).await?;
            return Ok(Applied { last, cost: None });
        }
        tokio::time::sleep(SETTLE).await;
        let costs = self.spent().into_iter().zip(spent);
        let cost = costs.map(|(now, then)| now - then).sum::<f64>() / spent.len() as f64;
        let last = self.seen(probe, begun).await?;
        Ok(Applied {
            last: last.filter(|_| dated),
            cost: Some(cost),
        })
    }

    /// When the last of them had it.
    async fn seen(&mut self, probe: &Probe, begun: Stamp) -> Result<Option<Stamp>> {
        let waits = self.all.iter_mut().map(|envoy| envoy.seen(probe, begun));
        let all = futures_util::future::try_join_all(waits);
        let done = tokio::time::timeout(LIMIT, all).await;
        let done = done.with_context(|| format!("not all Envoys came to {probe:?}"))?;
        Ok(done?.into_iter().max())
    }
}

impl Envoy {
    async fn seen(&mut self, probe: &Probe, begun: Stamp) -> Result<Stamp> {
        let mut asks = tokio::time::interval(ASK);
        asks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            asks.tick().await;
            let page = self.get(probe.page()).await?;
            if let Some(seen) = probe.seen(&page, begun, Stamp::now()) {
                return Ok(seen);
            }
        }
    }

    async fn get(&mut self, page: &str) -> Result<String> {
        self.admin
            .ready()
            .await
            .with_context(|| format!("an Envoy ended: {}", self.process.log()))?;
        let request = Request::get(page).header("host", "admin");
        let reply = self.admin.send_request(request.body(Empty::new())?).await?;
        let status = reply.status();
        let body = reply.into_body().collect().await?.to_bytes();
        // Not ready is an answer too.
        ensure!(status != 400 && status != 404, "{page}: {status}");
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}

fn bootstrap(
    number: usize,
    namespace: &NamespaceOwner,
    folder: &Path,
    mesh: &Mesh,
    home: &Home,
    server: std::net::SocketAddr,
) -> Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    let user = User::Envoy;
    // The folder of the run is private to root.
    for open in folder.ancestors().take(3) {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(open, mode)?;
    }
    std::os::unix::fs::chown(folder, Some(user.id()), Some(user.id()))?;
    let identity = mesh.identity(number);
    let (token_file, root) = (folder.join("token"), folder.join("root-cert.pem"));
    std::fs::write(&token_file, token(&home.state(), &identity)?)?;
    // Not copied with its mode: the sidecar is another user.
    std::fs::write(&root, std::fs::read(home.root_certificate())?)?;
    let mut command: Command = namespace.0.command(user, program("fairlead"));
    command.arg("bootstrap");
    command.arg(format!("--name={}", identity.pod));
    command.arg(format!("--namespace={}", identity.namespace));
    command.arg(format!("--service-account={}", identity.service));
    command.arg(format!("--ip={}", namespace.0.ip()));
    command.arg(format!("--labels=app={},version=v1", identity.service));
    command.args(["-o", "json", "--drain-secret", DRAIN_SECRET]);
    command.args(["--stats", "http."]);
    command.arg("--out-dir").arg(folder);
    command.arg("--run-dir").arg(folder);
    command.arg("--token-file").arg(&token_file);
    command.arg("--root-cert").arg(&root);
    command.arg(format!("--discovery-address={server}"));
    output(&mut command)?;
    Ok(folder.join("bootstrap.json"))
}
