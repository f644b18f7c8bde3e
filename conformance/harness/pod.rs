//! A pod: its namespace, its workload, its sidecar.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::client::{Call, Greeting, Reply, Target, server_first, tcp};
use super::fixed::without_control_plane;
use super::isolation::{output, program};
use super::load::{Connections, Load};
use super::mesh::{Inventory, Mesh};
use super::network::{Namespace, NamespaceOwner, User, six};
use super::process::Process;

/// What a pod is made of.
#[derive(Clone, Debug)]
pub struct PodSpec {
    pub name: String,
    pub namespace: String,
    pub service_account: String,
    pub labels: BTreeMap<String, String>,
    pub apps: Vec<(u16, App)>,
    pub sidecar: Sidecar,
    pub families: Families,
    /// More flags for `fairlead init`.
    pub init: Vec<String>,
    /// More flags for `fairlead bootstrap`.
    pub bootstrap: Vec<String>,
}

/// What listens on a port of the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum App {
    Http,
    TcpEcho,
    ServerFirst,
    Tunnel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sidecar {
    /// Envoy, with the pod's traffic captured.
    Captured,
    /// Envoy alone, at the edge of the mesh, with nothing captured.
    Gateway,
    /// No Envoy: a stranger to the mesh.
    Absent,
}

/// Of which a pod has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    V4,
    Both,
}

impl PodSpec {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            service_account: "default".to_owned(),
            labels: BTreeMap::new(),
            apps: Vec::new(),
            sidecar: Sidecar::Captured,
            families: Families::V4,
            init: Vec::new(),
            bootstrap: Vec::new(),
        }
    }

    pub fn serves(mut self, port: u16, app: App) -> Self {
        self.apps.push((port, app));
        self
    }

    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    pub fn in_namespace(self, namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            ..self
        }
    }

    pub fn service_account(self, name: &str) -> Self {
        Self {
            service_account: name.to_owned(),
            ..self
        }
    }

    pub fn without_sidecar(self) -> Self {
        Self {
            sidecar: Sidecar::Absent,
            ..self
        }
    }

    pub fn at_the_edge(self) -> Self {
        Self {
            sidecar: Sidecar::Gateway,
            ..self
        }
    }

    pub fn dual_stack(self) -> Self {
        Self {
            families: Families::Both,
            ..self
        }
    }

    /// By TPROXY: the workload sees its clients' own addresses.
    pub fn transparent(self) -> Self {
        self.init(&["-m", TPROXY])
            .bootstrap(&["--interception", TPROXY])
    }

    fn is_transparent(&self) -> bool {
        self.init.iter().any(|flag| flag == TPROXY)
    }

    pub fn init(mut self, flags: &[&str]) -> Self {
        self.init
            .extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    pub fn bootstrap(mut self, flags: &[&str]) -> Self {
        self.bootstrap
            .extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }
}

const TPROXY: &str = "TPROXY";

/// A running pod. Dropping it ends everything in it.
pub struct Pod {
    pub spec: PodSpec,
    // Processes end before their namespace goes.
    workload: Option<Process>,
    sidecar: Option<Process>,
    namespace: NamespaceOwner,
    folder: PathBuf,
    inventory: Arc<Mutex<Inventory>>,
}

/// The flag of `fairlead bootstrap` by which a machine enters a WorkloadGroup.
const GROUP: &str = "--workload-group=";

/// The key to `GET /drain` of every sidecar here.
pub const DRAIN_SECRET: &str = "0123456789abcdef-drain";

impl Pod {
    /// Returns once the workload listens and the sidecar is ready.
    pub fn start(mesh: &Mesh, spec: PodSpec) -> Result<Self> {
        let namespace = mesh.network().namespace()?;
        let folder = mesh.folder().join(namespace.0.name());
        std::fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))?;
        let mut pod = Self {
            spec,
            workload: None,
            sidecar: None,
            namespace,
            folder,
            inventory: mesh.inventory(),
        };
        if pod.spec.families == Families::Both {
            pod.namespace().add_ipv6()?;
        }
        // One that comes by itself is announced by nobody.
        let announced = !pod.spec.bootstrap.iter().any(|f| f.starts_with(GROUP));
        if announced {
            mesh.announce_pod(&pod.spec, pod.ip())?;
        }
        pod.start_workload()?;
        match pod.spec.sidecar {
            Sidecar::Captured | Sidecar::Gateway => pod.start_sidecar(mesh)?,
            Sidecar::Absent => {}
        }
        // As the readiness of its containers decides in a cluster.
        if announced {
            mesh.add_endpoint(&pod.spec, pod.ip())?;
        }
        Ok(pod)
    }

    fn start_workload(&mut self) -> Result<()> {
        if self.spec.apps.is_empty() {
            return Ok(());
        }
        let mut command = self.namespace().command(User::App, program("fairlead"));
        let version = self.spec.labels.get("version").map_or("v1", String::as_str);
        command.args(["echo", "--name", &self.spec.name, "--version", version]);
        for (port, app) in &self.spec.apps {
            let flag = match app {
                App::Http => "--http",
                App::TcpEcho => "--tcp-echo",
                App::ServerFirst => "--server-first",
                App::Tunnel => "--tunnel",
            };
            let any = match self.spec.families {
                Families::V4 => "0.0.0.0",
                Families::Both => "[::]",
            };
            command.arg(flag).arg(format!("{any}:{port}"));
        }
        let mut process = Process::start("workload", &self.folder, command)?;
        let log = self.folder.join("workload.log");
        let wanted = self.spec.apps.len();
        process.wait_until("listen", || {
            let said = std::fs::read_to_string(&log)?;
            ensure!(
                said.lines().count() >= wanted,
                "it listens on less than {wanted} ports"
            );
            Ok(())
        })?;
        self.workload = Some(process);
        Ok(())
    }

    fn start_sidecar(&mut self, mesh: &Mesh) -> Result<()> {
        let bootstrap = self.write_bootstrap(mesh)?;
        if self.spec.sidecar == Sidecar::Captured {
            self.init(&[])?;
        }
        let user = self.sidecar_user();
        let mut command = self.namespace().command(user, program("envoy"));
        command.arg("-c").arg(&bootstrap);
        command.args(["--disable-hot-restart", "--log-level", "warning"]);
        command.args(["--concurrency", "1", "--drain-time-s", "5"]);
        let mut process = Process::start("envoy", &self.folder, command)?;
        let status = SocketAddr::from((self.ip(), 15021));
        let ready = Call::get(Target::Tcp(status), "pod", "/healthz/ready");
        process.wait_until("be ready", || {
            let reply = ready.send_from_node()?;
            ensure!(
                reply.status == 200,
                "readiness is {} {}",
                reply.status,
                reply.text()
            );
            Ok(())
        })?;
        self.sidecar = Some(process);
        Ok(())
    }

    /// Runs `fairlead bootstrap` as the sidecar's user and returns what Envoy is to read.
    fn write_bootstrap(&self, mesh: &Mesh) -> Result<PathBuf> {
        let folder = self.folder.join("sidecar");
        std::fs::create_dir_all(&folder)?;
        std::os::unix::fs::chown(&folder, Some(User::Envoy.id()), Some(User::Envoy.id()))?;
        let (token, root) = (folder.join("token"), folder.join("root-cert.pem"));
        let mut command = self.namespace().command(User::Envoy, program("fairlead"));
        command.arg("bootstrap").args(self.identity_flags());
        command.args(["-o", "json", "--drain-secret", DRAIN_SECRET]);
        command.args(["--stats", "cluster.,listener.,http."]);
        if self.spec.sidecar == Sidecar::Gateway {
            command.args(["--role", "router"]);
        }
        command.args(&self.spec.bootstrap);
        command
            .arg("--out-dir")
            .arg(&folder)
            .arg("--run-dir")
            .arg(&folder);
        command
            .arg("--token-file")
            .arg(&token)
            .arg("--root-cert")
            .arg(&root);
        let written = folder.join("bootstrap.json");
        if mesh.has_control_plane() {
            let control_plane = mesh.control_plane()?;
            let PodSpec {
                name,
                namespace,
                service_account,
                ..
            } = &self.spec;
            std::fs::write(
                &token,
                control_plane.token(namespace, service_account, name)?,
            )?;
            let certificates =
                std::fs::read(control_plane.root_certificate()).context("read the root")?;
            std::fs::write(&root, certificates)?;
            output(command.args(["--discovery-address", &control_plane.address()]))?;
            return Ok(written);
        }
        output(&mut command)?;
        let bootstrap: Value = serde_json::from_slice(&std::fs::read(&written)?)?;
        let fixed = folder.join("fixed.json");
        std::fs::write(&fixed, without_control_plane(bootstrap).to_string())?;
        Ok(fixed)
    }

    fn identity_flags(&self) -> Vec<String> {
        let PodSpec {
            name,
            namespace,
            service_account,
            labels,
            ..
        } = &self.spec;
        let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let mut flags = vec![
            format!("--name={name}"),
            format!("--namespace={namespace}"),
            format!("--service-account={service_account}"),
            format!("--ip={}", self.ip()),
        ];
        if self.spec.families == Families::Both {
            flags.push(format!("--more-ips={}", self.ip6()));
        }
        if !labels.is_empty() {
            flags.push(format!("--labels={}", labels.join(",")));
        }
        flags
    }

    /// Runs `fairlead init` in the pod, as root, with the pod's flags and more.
    pub fn init(&self, more: &[&str]) -> Result<()> {
        output(&mut self.init_command(User::Root, more)).map(drop)
    }

    pub fn init_command(&self, user: User, more: &[&str]) -> Command {
        let mut command = self.namespace().command(user, program("fairlead"));
        command.arg("init").args(&self.spec.init).args(more);
        command
    }

    pub fn ip(&self) -> Ipv4Addr {
        self.namespace().ip()
    }

    /// There is one where the pod is dual-stack.
    pub fn ip6(&self) -> Ipv6Addr {
        six(self.ip())
    }

    pub fn at6(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.ip6(), port))
    }

    fn sidecar_user(&self) -> User {
        match self.spec.is_transparent() {
            true => User::TransparentEnvoy,
            false => User::Envoy,
        }
    }

    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.ip(), port))
    }

    pub fn namespace(&self) -> &Namespace {
        &self.namespace.0
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn envoy(&mut self) -> Result<&mut Process> {
        self.sidecar.as_mut().context("the pod has no sidecar")
    }

    /// A GET of `http://host:port/path`. The host is a service's name, as the pod's namespace has it, or an address.
    pub fn call(&self, url: &str) -> Result<Call> {
        let rest = url
            .strip_prefix("http://")
            .with_context(|| format!("{url} is not http"))?;
        let at = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let path = if path.is_empty() { "/" } else { path };
        Ok(Call::get(
            Target::Tcp(self.address(authority)?),
            authority,
            path,
        ))
    }

    /// What `host:port` is for this pod's resolver.
    pub fn address(&self, authority: &str) -> Result<SocketAddr> {
        let inventory = self
            .inventory
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        inventory.resolve(authority, &self.spec.namespace)
    }

    /// Sends it as the workload.
    pub fn send(&self, call: &Call) -> Result<Reply> {
        call.send(self.namespace(), User::App)
    }

    pub fn get(&self, url: &str) -> Result<Reply> {
        self.send(&self.call(url)?)
    }

    /// The same request again and again, as the workload.
    pub fn load(&self, url: &str, clients: &[Connections]) -> Result<Load> {
        Load::start(self.namespace(), &self.call(url)?, clients)
    }

    /// TCP as the workload.
    pub fn tcp(&self, to: SocketAddr) -> Result<Greeting> {
        tcp(self.namespace(), User::App, to, b"hello, are you there?")
    }

    pub fn server_first(&self, to: SocketAddr) -> Result<Greeting> {
        server_first(self.namespace(), User::App, to)
    }

    /// The whole admin interface, by its socket, as the sidecar's user.
    pub fn admin(&self, path: &str) -> Result<Reply> {
        let socket = Target::Unix(self.admin_socket());
        Call::get(socket, "admin", path).send(self.namespace(), self.sidecar_user())
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.folder.join("sidecar/admin.sock")
    }

    /// One of Envoy's counters or gauges.
    pub fn stat(&self, name: &str) -> Result<u64> {
        let text = self.admin("/stats")?.text();
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix(": "));
        let line = line.with_context(|| format!("Envoy has no statistic {name}"))?;
        line.parse().with_context(|| format!("{name} is {line}"))
    }

    /// Rules of the nat table, as iptables prints them.
    pub fn nat_rules(&self) -> Result<Vec<String>> {
        let mut save = self.namespace().command(User::Root, "iptables-save");
        let text = output(save.args(["-t", "nat"]))?;
        let rules = text.lines().filter(|line| line.starts_with(['-', ':']));
        // Counters of the built-in chains differ from run to run.
        Ok(rules
            .map(|rule| rule.split(" [").next().unwrap_or(rule).to_owned())
            .collect())
    }
}
