//! A real Kubernetes API server with its etcd on loopback. It runs no controller: what is not written is not there.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use fairlead::clock;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::process::Process;

/// How long a start may take where everything else is busy too; alone it is four seconds.
const START: Duration = Duration::from_secs(120);
/// A port that was free a moment ago may be taken when the program comes to it.
const TRIES: usize = 4;

/// A user without permissions.
pub const GUEST: &str = "guest";

pub struct ApiServer {
    programs: Programs,
    ports: Ports,
    token: String,
    flags: Vec<String>,
    // The server is ended before its etcd, and both before their folder goes.
    server: Option<Process>,
    etcd: Process,
    folder: TempDir,
}

struct Programs {
    etcd: PathBuf,
    server: PathBuf,
}

#[derive(Clone, Copy)]
struct Ports {
    etcd: u16,
    peer: u16,
    server: u16,
}

impl ApiServer {
    /// Returns once it is ready. Like the other functions here that are not async, it blocks its thread:
    /// asynchronous code calls it by `spawn_blocking`.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// `flags` go to the API server besides the usual ones.
    pub fn start_with(flags: &[&str]) -> Result<Self> {
        // Nobody makes the service account `default` of a namespace, which pods would have to wait for.
        let mut all = vec![
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
        ];
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        Self::start_at(Ipv4Addr::LOCALHOST, all)
    }

    /// For pods, which reach it at an address of this machine; Kubernetes' controllers are to run beside it.
    pub fn start_for_pods(node: Ipv4Addr) -> Result<Self> {
        Self::start_at(node, vec!["--bind-address=0.0.0.0".to_owned()])
    }

    fn start_at(address: Ipv4Addr, flags: Vec<String>) -> Result<Self> {
        let programs = Programs::find()?;
        let folder = tempfile::tempdir()?;
        let token = secret()?;
        make_certificates(folder.path(), address)?;
        let guest = secret()?;
        let lines = format!("{token},admin,1,\"system:masters\"\n{guest},{GUEST},2\n");
        std::fs::write(folder.path().join("tokens.csv"), lines)?;
        let mut last = None;
        for _ in 0..TRIES {
            match start_both(&programs, folder.path(), &token, &flags) {
                Ok((ports, etcd, server)) => {
                    for (name, token) in [("kubeconfig", &token), (GUEST, &guest)] {
                        let kubeconfig = kubeconfig(folder.path(), ports.server, token);
                        let text = serde_json::to_string_pretty(&kubeconfig)?;
                        std::fs::write(folder.path().join(name), text)?;
                    }
                    return Ok(Self {
                        programs,
                        ports,
                        token,
                        flags,
                        server: Some(server),
                        etcd,
                        folder,
                    });
                }
                Err(fault) => last = Some(fault),
            }
        }
        Err(last.context("tried to start an API server")?)
    }

    /// For `--kubeconfig`; its user may do everything.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Of the user [`GUEST`], who may do what a scenario's roles allow, and nothing else.
    pub fn kubeconfig_of_guest(&self) -> PathBuf {
        self.folder.path().join(GUEST)
    }

    /// To be used inside the runtime that made it.
    pub async fn client(&self) -> Result<kube::Client> {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig())?;
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// For the controller that publishes it to pods.
    pub fn certificate_authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Where pods of a node reach it.
    pub fn address(&self, node: Ipv4Addr) -> SocketAddrV4 {
        SocketAddrV4::new(node, self.ports.server)
    }

    pub fn server_pid(&self) -> Option<u32> {
        self.server.as_ref().map(Process::pid)
    }

    /// Ends the API server as `kill -9` does; what is in etcd stays.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// Starts it again on the same port.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let folder = self.folder.path();
        self.server = Some(start_server(
            &self.programs,
            folder,
            self.ports,
            (&self.token, &self.flags),
        )?);
        Ok(())
    }

    /// Makes etcd forget all but the present state; the API server knows of it when it is started again.
    pub async fn compact(&self) -> Result<()> {
        let ask = |path: &str, body: Value| {
            let request = http::Request::post(path).body(serde_json::to_vec(&body)?);
            Ok::<_, anyhow::Error>(request?)
        };
        let url = format!("http://127.0.0.1:{}", self.ports.etcd);
        let etcd = kube::Client::try_from(kube::Config::new(url.parse()?))?;
        let first = json!({"key": "AA==", "range_end": "AA==", "count_only": true});
        let now: Value = etcd.request(ask("/v3/kv/range", first)?).await?;
        let revision = now["header"]["revision"]
            .as_str()
            .context("etcd's revision")?;
        let compaction = json!({"revision": revision, "physical": true});
        let _: Value = etcd.request(ask("/v3/kv/compaction", compaction)?).await?;
        Ok(())
    }

    pub fn log(&self) -> String {
        let server = self.server.as_ref().map(Process::log);
        server.unwrap_or_default() + &self.etcd.log()
    }
}

/// The folder of Kubernetes' programs.
#[expect(
    clippy::disallowed_methods,
    reason = "an entry point reads the environment"
)]
pub fn programs() -> Result<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/kubernetes");
    Ok(std::env::var_os("KUBEBUILDER_ASSETS").map_or(built, PathBuf::from))
}

impl Programs {
    fn find() -> Result<Self> {
        let folder = programs()?;
        let found = Self {
            etcd: folder.join("etcd"),
            server: folder.join("kube-apiserver"),
        };
        for program in [&found.etcd, &found.server] {
            ensure!(
                program.exists(),
                "no {}: run `make prerequisites`, or name a folder with etcd and kube-apiserver \
                 in KUBEBUILDER_ASSETS",
                program.display()
            );
        }
        Ok(found)
    }
}

fn start_both(
    programs: &Programs,
    folder: &Path,
    token: &str,
    flags: &[String],
) -> Result<(Ports, Process, Process)> {
    let ports = Ports::free()?;
    let data = folder.join(format!("etcd-{}", ports.etcd));
    let mut command = Command::new(&programs.etcd);
    let (client, peer) = (
        format!("http://127.0.0.1:{}", ports.etcd),
        format!("http://127.0.0.1:{}", ports.peer),
    );
    command.arg("--data-dir").arg(&data);
    command.args(["--listen-client-urls", &client]);
    command.args(["--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer]);
    command.args(["--initial-advertise-peer-urls", &peer]);
    command.arg(format!("--initial-cluster=default={peer}"));
    // What a test wrote need not outlive the machine.
    command.args(["--unsafe-no-fsync", "--log-level", "warn"]);
    let etcd = Process::start("etcd", folder, command)?;
    let server = start_server(programs, folder, ports, (token, flags))?;
    Ok((ports, etcd, server))
}

fn start_server(
    programs: &Programs,
    folder: &Path,
    ports: Ports,
    (token, flags): (&str, &[String]),
) -> Result<Process> {
    let file = |flag: &str, name: &str| format!("--{flag}={}", folder.join(name).display());
    let mut command = Command::new(&programs.server);
    command.arg(format!("--etcd-servers=http://127.0.0.1:{}", ports.etcd));
    command.arg(format!("--secure-port={}", ports.server));
    command.arg("--advertise-address=127.0.0.1");
    command.args([
        file("cert-dir", "certificates"),
        file("tls-cert-file", "server.pem"),
        file("tls-private-key-file", "server-key.pem"),
        file("token-auth-file", "tokens.csv"),
        file("service-account-key-file", "service-accounts.pem"),
        file(
            "service-account-signing-key-file",
            "service-accounts-key.pem",
        ),
    ]);
    command.args([
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-cluster-ip-range=10.96.0.0/12",
        "--authorization-mode=RBAC",
        "--allow-privileged=true",
        // Its own address is no endpoint that a test wants to see.
        "--endpoint-reconciler-type=none",
        "--profiling=false",
        "--v=0",
    ]);
    command.args(flags);
    let mut process = Process::start("kube-apiserver", folder, command)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let kubeconfig = kubeconfig(folder, ports.server, token);
    let probe = Probe {
        runtime,
        kubeconfig: serde_json::from_value(kubeconfig)?,
    };
    process.wait_within(START, "be ready", || probe.ready())?;
    Ok(process)
}

/// Asks whether the API server is ready, each time over a connection of its own.
struct Probe {
    runtime: tokio::runtime::Runtime,
    kubeconfig: Kubeconfig,
}

impl Probe {
    fn ready(&self) -> Result<()> {
        self.runtime.block_on(async {
            let options = KubeConfigOptions::default();
            let kubeconfig = self.kubeconfig.clone();
            let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
            let client = kube::Client::try_from(config)?;
            let request = http::Request::get("/readyz").body(Vec::new())?;
            let limit = Duration::from_secs(5);
            let asked = tokio::time::timeout(limit, client.request_text(request));
            let answer = asked.await??;
            ensure!(answer == "ok", "it says {answer}");
            Ok(())
        })
    }
}

impl Ports {
    fn free() -> Result<Self> {
        let held: Vec<TcpListener> = (0..3)
            .map(|_| TcpListener::bind("127.0.0.1:0"))
            .collect::<Result<_, _>>()?;
        let numbers: Vec<u16> = held
            .iter()
            .map(|l| l.local_addr().map(|a| a.port()))
            .collect::<Result<_, _>>()?;
        match numbers[..] {
            [etcd, peer, server] => Ok(Self { etcd, peer, server }),
            _ => bail!("three listeners have three ports"),
        }
    }
}

fn make_certificates(folder: &Path, address: Ipv4Addr) -> Result<()> {
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text);
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    write("ca.pem", ca.self_signed(&ca_key)?.pem())?;
    let key = KeyPair::generate()?;
    let names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        address.to_string(),
    ];
    let mut server = CertificateParams::new(names)?;
    let now = time::OffsetDateTime::from(clock::wall());
    server.not_before = now - time::Duration::days(1);
    server.not_after = now + time::Duration::days(30);
    let certificate = server.signed_by(&key, &Issuer::new(ca, ca_key))?;
    write("server.pem", certificate.pem())?;
    write("server-key.pem", key.serialize_pem())?;
    let issuer = KeyPair::generate()?;
    write("service-accounts-key.pem", issuer.serialize_pem())?;
    write("service-accounts.pem", issuer.public_key_pem())?;
    Ok(())
}

/// Nobody else on this machine knows it.
fn secret() -> Result<String> {
    let random = KeyPair::generate()?.serialize_der();
    Ok(format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&random)))
}

fn kubeconfig(folder: &Path, port: u16, token: &str) -> Value {
    let cluster = json!({
        "server": format!("https://127.0.0.1:{port}"),
        "certificate-authority": folder.join("ca.pem"),
    });
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
    })
}
