//! The running bookshop: run folder, control plane, six apps and their sidecars.

use std::fs::{self, DirBuilder};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::future::try_join_all;
use tempfile::TempDir;
use tokio::process::Command;

use super::bookshop::{self, NAMESPACE, WORKLOADS, Workload};
use super::client::{self, Answer, Call, CallError, Place};
use super::plane::{Folders, Plane};
use super::process::{Nursery, Process, fairlead, printed};
use super::report::Report;
use crate::clock;

/// Envoy's default is ten minutes, a sidecar's in Istio 45 s; here somebody watches.
pub const DRAIN: Duration = Duration::from_secs(5);

pub struct Options {
    pub envoy: PathBuf,
    pub certificate_life: Duration,
}

/// The folder of one run. A temporary one is removed with it, unless kept.
pub struct Run {
    root: PathBuf,
    temporary: Option<TempDir>,
}

/// A workload with its sidecar.
pub struct Pod {
    pub workload: &'static Workload,
    pub app: Process,
    pub envoy: Process,
    folder: PathBuf,
}

pub struct Stage {
    pub plane: Plane,
    pub pods: Vec<Pod>,
    pub copy: bookshop::Copy,
    /// When the control plane's process was started.
    pub begun: Instant,
}

impl Run {
    /// Makes the folder; `None` is a new one under `/tmp`, for Unix sockets need short paths.
    pub fn make(wanted: Option<&Path>) -> Result<Self> {
        let run = match wanted {
            None => {
                let made = tempfile::Builder::new()
                    .prefix("fairlead-demo-")
                    .permissions(fs::Permissions::from_mode(0o700))
                    .tempdir_in("/tmp")
                    .context("create a folder in /tmp (--run-dir names another place)")?;
                Self {
                    root: made.path().to_owned(),
                    temporary: Some(made),
                }
            }
            Some(folder) => Self {
                root: empty(folder)?,
                temporary: None,
            },
        };
        for part in ["apps", "logs"] {
            private_folder(&run.root.join(part))?;
        }
        Ok(run)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// From now on the folder stays.
    pub fn keep(&mut self) {
        if let Some(temporary) = self.temporary.take() {
            self.root = temporary.keep();
        }
    }

    fn folders(&self) -> Folders {
        Folders {
            config: self.root.join("config"),
            state: self.root.join("state"),
            ports_file: self.root.join("ports.json"),
        }
    }
}

/// Made if absent; somebody else's files are not mixed with ours.
fn empty(folder: &Path) -> Result<PathBuf> {
    let tried = || format!("use {} as run folder", folder.display());
    if !folder.exists() {
        private_folder(folder)?;
    }
    let mut entries = fs::read_dir(folder).with_context(tried)?;
    ensure!(entries.next().is_none(), "{}: it is not empty", tried());
    fs::canonicalize(folder).with_context(tried)
}

fn private_folder(folder: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("create {}", folder.display()))
}

impl Stage {
    pub async fn start(report: &Report, run: &Run, options: &Options) -> Result<Self> {
        free_addresses()?;
        let copy = bookshop::Copy::make(&run.root, &run.root.join("apps"))?;
        let begun = clock::mono();
        let nursery = Rc::new(Nursery::open(run.logs())?);
        let life = options.certificate_life;
        let plane = Plane::start(report, nursery.clone(), run.folders(), life).await?;
        let setup = Setup {
            run,
            nursery: &nursery,
            envoy: &options.envoy,
            plane: &plane,
        };
        let pods = try_join_all(WORKLOADS.iter().map(|w| setup.pod(w))).await?;
        Ok(Self {
            plane,
            pods,
            copy,
            begun,
        })
    }

    /// Fails when any process has ended that should run.
    pub fn check(&mut self) -> Result<()> {
        self.plane.process.check()?;
        for pod in &mut self.pods {
            pod.app.check()?;
            pod.envoy.check()?;
        }
        Ok(())
    }

    /// Ends everything, whatever state it is in.
    pub async fn end(mut self) -> Result<()> {
        let mut outcome = self.plane.process.kill().await;
        for pod in &mut self.pods {
            outcome = outcome.and(pod.envoy.kill().await);
            outcome = outcome.and(pod.app.kill().await);
        }
        outcome
    }

    pub fn pod(&self, name: &str) -> Result<&Pod> {
        let found = self.pods.iter().find(|p| p.workload.name == name);
        found.with_context(|| format!("no workload `{name}`"))
    }
}

impl Pod {
    /// Calls a service as the app does: through its own sidecar.
    pub async fn call(&self, call: &Call) -> Result<Answer, CallError> {
        client::once(&self.egress(), call).await
    }

    pub fn egress(&self) -> Place {
        Place::Tcp(self.workload.egress())
    }

    /// Where the sidecar takes calls; called from here they are plaintext.
    pub fn ingress(&self) -> Place {
        Place::Tcp(self.workload.ingress())
    }

    /// A page of Envoy's own admin interface.
    pub async fn admin(&self, path: &str) -> Result<Answer> {
        let socket = Place::Unix(self.folder.join("admin.sock"));
        let name = self.workload.name;
        let answer = client::once(&socket, &Call::new("envoy", path))
            .await
            .with_context(|| format!("GET {path} of the Envoy of {name}"))?;
        let status = answer.status;
        ensure!(
            status.is_success(),
            "GET {path} of the Envoy of {name}: {status}"
        );
        Ok(answer)
    }
}

/// For whoever keeps it running.
pub fn what_to_try(stage: &Stage, run: &Run) {
    let (root, program) = (run.root().display(), program());
    let ports = &stage.plane.ports;
    let (http, monitoring) = (ports.http, ports.monitoring);
    let storefront = WORKLOADS[0].egress();
    let state = format!("--state-dir {root}/state");
    println!(
        "
All of it runs until Ctrl-C. In another terminal:

  call a service as the storefront, by its sidecar
    curl -s -H 'host: reviews' http://{storefront}/
    curl -s -H 'host: reviews' -H 'x-reader: tester' http://{storefront}/
    curl -i -H 'host: ratings' -H 'echo-delay-ms: 5000' http://{storefront}/
  change the mesh, and see it happen
    $EDITOR {root}/config/routing.yaml
    {program} analyze --config-dir {root}/config
    tail -f {root}/logs/discovery.log
  look inside
    TOKEN=$({program} token {state} -n {NAMESPACE} --service-account storefront)
    curl -s -H \"authorization: Bearer $TOKEN\" http://{http}/debug/syncz
    curl -s http://{monitoring}/metrics
    curl -s --unix-socket {root}/storefront/admin.sock http://envoy/certs"
    );
}

/// As a person types it.
fn program() -> String {
    let path = fs::read_link("/proc/self/exe");
    path.map_or_else(|_| "fairlead".to_owned(), |p| p.display().to_string())
}

/// Two demos at once would share addresses.
fn free_addresses() -> Result<()> {
    for workload in WORKLOADS {
        for address in [workload.ingress(), workload.egress()] {
            if let Err(error) = TcpListener::bind(address) {
                bail!("listen on {address}: {error} (does another demo run?)");
            }
        }
    }
    Ok(())
}

struct Setup<'a> {
    run: &'a Run,
    nursery: &'a Nursery,
    envoy: &'a Path,
    plane: &'a Plane,
}

impl Setup<'_> {
    async fn pod(&self, workload: &'static Workload) -> Result<Pod> {
        let folder = self.run.root.join(workload.name);
        private_folder(&folder)?;
        let token = self
            .plane
            .token(workload.service_account, workload.name)
            .await?;
        let file = folder.join("token");
        fs::write(&file, token).with_context(|| format!("write {}", file.display()))?;
        printed(self.bootstrap(workload, &folder)).await?;
        let log = |what: &str| format!("{what}-{}", workload.name);
        let socket = self
            .run
            .root
            .join("apps")
            .join(workload.name)
            .with_extension("sock");
        Ok(Pod {
            workload,
            app: self.nursery.start(&log("app"), app(workload, &socket))?,
            envoy: self.nursery.start(&log("envoy"), self.sidecar(&folder))?,
            folder,
        })
    }

    /// `fairlead bootstrap` for a workload that nothing is captured for.
    fn bootstrap(&self, workload: &Workload, folder: &Path) -> Command {
        let address = workload.address.to_string();
        let labels = format!("app={},version={}", workload.app, workload.version);
        let discovery = self.plane.ports.secure_grpc.to_string();
        let mut command = fairlead(["bootstrap", "--namespace", NAMESPACE]);
        command
            .args(["--service-account", workload.service_account])
            .args(["--name", workload.name])
            .args(["--ip", &address, "--labels", &labels])
            .args(["--interception", "NONE"])
            .args(["--discovery-address", &discovery])
            .args(["--status-bind", &address, "--admin-bind", &address])
            .args(["--prometheus-bind", &address])
            .args(["--stats", "listener."])
            .arg("--token-file")
            .arg(folder.join("token"))
            .arg("--root-cert")
            .arg(self.plane.root_cert())
            .arg("--run-dir")
            .arg(folder)
            .arg("--out-dir")
            .arg(folder);
        command
    }

    fn sidecar(&self, folder: &Path) -> Command {
        let mut command = Command::new(self.envoy);
        command
            .arg("--config-path")
            .arg(folder.join("bootstrap.yaml"))
            .args(["--disable-hot-restart", "--concurrency", "1"])
            .args(["--drain-time-s", &DRAIN.as_secs().to_string()])
            .args(["--log-level", "warning"]);
        command
    }
}

fn app(workload: &Workload, socket: &Path) -> Command {
    let mut command = fairlead([
        "echo",
        "--name",
        workload.app,
        "--version",
        workload.version,
    ]);
    command.arg("--unix").arg(socket);
    command
}
