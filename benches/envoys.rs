//! Real Envoys among the simulated proxies, each in a network namespace of its own. What they show is in `probe.rs`.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
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
use super::probe::{Probe, values};
use super::recruits::token;
use super::server::{Home, Usage, main_thread};
use super::stamp::Stamp;

/// How often an Envoy is asked.
pub const ASK: Duration = Duration::from_millis(2);
const LIMIT: Duration = Duration::from_secs(300);
/// To a socket of the Envoy beside.
const CONNECT: Duration = Duration::from_secs(5);
const DRAIN_SECRET: &str = "bench-drain-secret-0123456789";

/// Kept besides the usual ones: when a subscription was last served, and the number of scopes.
const STATS: [&str; 2] = ["update_time", "all_scopes"];
/// How often an Envoy is asked that starts up: to answer costs it time that counts.
const ASK_STARTING: Duration = Duration::from_millis(20);
/// A main thread that used less than `IDLE` of a while as long as `SETTLE` has nothing to do.
const SETTLE: Duration = Duration::from_millis(100);
const IDLE: Duration = Duration::from_millis(2);

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
}

struct Envoy {
    // Ends before its namespace goes.
    process: Process,
    namespace: NamespaceOwner,
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
                namespace,
                admin,
            });
        }
        let ready = Probe::Text("/ready".into(), "LIVE".into());
        self.seen(&ready, Stamp::now(), ASK_STARTING)
            .await
            .map(drop)
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

    /// What the change begun then was to them, who had spent so much before it. They are asked once nobody has anything
    /// to do any more: an Envoy goes through all that it holds to answer, on a core that others wait for.
    pub async fn applied(&mut self, probe: &Probe, begun: Stamp, spent: &[f64]) -> Result<Applied> {
        self.idle().await?;
        let counted = Stamp::now();
        let costs = self.spent().into_iter().zip(spent);
        let cost = costs.map(|(now, then)| now - then).sum::<f64>() / spent.len() as f64;
        let last = self.seen(probe, begun, ASK).await?;
        Ok(Applied {
            last,
            // What came later is not in it.
            cost: last.is_none_or(|last| last < counted).then_some(cost),
        })
    }

    /// Waits until no main thread has anything to do.
    pub async fn idle(&self) -> Result<()> {
        let idle = async {
            loop {
                let before = self.spent();
                tokio::time::sleep(SETTLE).await;
                let used = self.spent().into_iter().zip(before);
                if used.map(|(now, then)| now - then).fold(0.0, f64::max) < IDLE.as_secs_f64() {
                    return;
                }
            }
        };
        let waited = tokio::time::timeout(LIMIT, idle).await;
        waited.context("an Envoy is never idle")
    }

    /// What each has used so far.
    pub fn usage(&self) -> Vec<Usage> {
        let pids = self.all.iter().map(|envoy| envoy.process.pid());
        pids.map(Usage::of).collect()
    }

    /// The sum of the first one's numbers whose names match.
    pub async fn stat(&mut self, names: &str) -> Result<u64> {
        let first = self.all.first_mut().context("no Envoy")?;
        let page = first.get(&format!("/stats?filter={names}")).await?;
        Ok(values(&page).sum())
    }

    /// A workload beside each of them calls this host. What becomes of that nobody waits for.
    pub fn call(&self, host: &str, address: SocketAddr) -> Result<Vec<TcpStream>> {
        let call = || -> Result<TcpStream> {
            let mut stream = TcpStream::connect_timeout(&address, CONNECT)?;
            write!(stream, "GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")?;
            Ok(stream)
        };
        let namespaces = self.all.iter().map(|envoy| &envoy.namespace.0);
        let calls = namespaces.map(|inside| inside.inside(User::App, call)?);
        calls
            .collect::<Result<_>>()
            .with_context(|| format!("call {host}"))
    }

    /// When the last of them had it.
    pub async fn seen(
        &mut self,
        probe: &Probe,
        begun: Stamp,
        every: Duration,
    ) -> Result<Option<Stamp>> {
        let all = self.all.iter_mut();
        let waits = all.map(|envoy| envoy.seen(probe, begun, every));
        let all = futures_util::future::try_join_all(waits);
        let done = tokio::time::timeout(LIMIT, all).await;
        let done = done.with_context(|| format!("not all Envoys came to {probe:?}"))?;
        Ok(done?.into_iter().max())
    }
}

impl Envoy {
    async fn seen(&mut self, probe: &Probe, begun: Stamp, every: Duration) -> Result<Stamp> {
        let mut asks = tokio::time::interval(every);
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
    server: SocketAddr,
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
    command.arg("--out-dir").arg(folder);
    command.arg("--run-dir").arg(folder);
    command.arg("--token-file").arg(&token_file);
    command.arg("--root-cert").arg(&root);
    command.arg(format!("--discovery-address={server}"));
    output(&mut command)?;
    let file = folder.join("bootstrap.json");
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, with_stats(&text).context("an Envoy's bootstrap")?)?;
    Ok(file)
}

/// A bootstrap that keeps the bench's statistics too.
fn with_stats(bootstrap: &str) -> Result<String> {
    let mut bootstrap: serde_json::Value = serde_json::from_str(bootstrap)?;
    let patterns = "/stats_config/stats_matcher/inclusion_list/patterns";
    let patterns = bootstrap.pointer_mut(patterns);
    let patterns = patterns.and_then(serde_json::Value::as_array_mut);
    let asked = STATS.map(|suffix| serde_json::json!({"suffix": suffix}));
    patterns.context("no list of statistics")?.extend(asked);
    Ok(bootstrap.to_string())
}
