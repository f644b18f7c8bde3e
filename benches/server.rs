//! The process that is measured: started, read from `/proc`, killed. What is asked of it is not here.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::packing::Packing;
use super::source::Source;
use super::stamp::Stamp;

/// How long a start may take.
const START: Duration = Duration::from_secs(120);

/// Where one server keeps its files; it outlives the processes that use it.
pub struct Home {
    root: PathBuf,
}

pub type Ports = BTreeMap<String, SocketAddr>;

/// A running server. It is killed when dropped, if it was started here.
pub struct Server {
    child: Option<Child>,
    pid: u32,
    pub ports: Ports,
    /// When the program was started, and when its ports file was there.
    pub started: Stamp,
    pub ready: Stamp,
}

impl Home {
    pub fn new(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// A file of the bench's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub fn root_certificate(&self) -> PathBuf {
        self.state().join("ca/root-cert.pem")
    }

    pub fn config(&self) -> PathBuf {
        self.root.join("config")
    }

    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// Starts `fairlead discovery` and waits until it serves; on the addresses of an earlier one, if given.
    pub async fn start(
        &self,
        program: &Path,
        source: &Source,
        packing: Packing,
        ports: Option<&Ports>,
    ) -> Result<Server> {
        let file = self.root.join("ports.json");
        let _ = fs::remove_file(&file);
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(program);
        command
            .arg("discovery")
            .args(["--log_output_level", "default:warn"])
            .args(["--route-packing", packing.name()]);
        let (flag, place) = source.flag();
        command.arg(flag).arg(place);
        command.arg("--state-dir").arg(self.state());
        command.arg("--ports-file").arg(&file);
        for name in ["secure-grpc", "grpc", "http", "monitoring"] {
            let address = ports.and_then(|p| p.get(name)).map(SocketAddr::to_string);
            // Proven clients may come from elsewhere: Envoys have networks of their own.
            let free = match name {
                "secure-grpc" => "0.0.0.0:0",
                _ => "127.0.0.1:0",
            };
            let address = address.unwrap_or_else(|| free.into());
            command.arg(format!("--{name}-addr={address}"));
        }
        // Webhooks are a cluster's; the one here asks for none of its pods.
        if flag == "--kubeconfig" {
            command.arg("--https-addr=127.0.0.1:0");
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?);
        let started = Stamp::now();
        let child = command.stderr(log).spawn();
        let mut child = child.with_context(|| format!("start {}", program.display()))?;
        let ports = self.await_ports(&mut child, &file, started).await;
        let mut server = Server {
            pid: child.id(),
            child: Some(child),
            ports: Ports::new(),
            started,
            ready: Stamp::now(),
        };
        // Only now: dropping it kills the child.
        server.ports = ports?;
        Ok(server)
    }

    async fn await_ports(&self, child: &mut Child, file: &Path, since: Stamp) -> Result<Ports> {
        loop {
            if let Ok(text) = fs::read(file) {
                return serde_json::from_slice(&text).context("read the ports file");
            }
            if let Some(status) = child.try_wait()? {
                bail!("the server ended ({status}): {}", self.last_words());
            }
            if Stamp::now().since(since) > START {
                bail!("no ports file after {START:?}: {}", self.last_words());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The end of the log.
    pub fn last_words(&self) -> String {
        let text = fs::read(self.log()).unwrap_or_default();
        let tail = &text[text.len().saturating_sub(2000)..];
        String::from_utf8_lossy(tail).into_owned()
    }
}

impl Server {
    pub fn port(&self, name: &str) -> Result<SocketAddr> {
        let found = self.ports.get(name).copied();
        found.with_context(|| format!("the ports file names no `{name}`"))
    }

    /// One that runs already, started by somebody else.
    pub fn attached(port: &str, address: SocketAddr, pid: u32) -> Self {
        let now = Stamp::now();
        Self {
            child: None,
            pid,
            ports: [(port.to_owned(), address)].into(),
            started: now,
            ready: now,
        }
    }

    pub fn usage(&self) -> Usage {
        Usage::of(self.pid)
    }

    /// As `kill -9`: nothing is saved or said.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(child) = &mut self.child {
            child.kill().context("kill the server")?;
            child.wait().context("wait for the killed server")?;
        }
        Ok(())
    }

    /// The sum of a counter over its labels, from the metrics page; None if the page does not have it.
    pub fn counter(&self, name: &str) -> Result<Option<f64>> {
        let page = get(self.port("monitoring")?, "/metrics")?;
        let samples = page.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let rest = rest.strip_prefix("_total").unwrap_or(rest);
            let (labels, value) = rest.rsplit_once(' ')?;
            (labels.is_empty() || labels.starts_with('{')).then(|| value.parse::<f64>().ok())?
        });
        Ok(samples.fold(None, |sum, v| Some(sum.unwrap_or(0.0) + v)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor seconds of all its threads that live.
    pub cpu: f64,
    /// Bytes resident now, and at the most.
    pub resident: u64,
    pub peak: u64,
}

impl Usage {
    pub fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let kilobytes = |key: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(key));
            let number = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
            number.unwrap_or(0) * 1024
        };
        Self {
            cpu: cpu(pid),
            resident: kilobytes("VmRSS:"),
            peak: kilobytes("VmHWM:"),
        }
    }
}

/// `schedstat` counts nanoseconds, `stat` hundredths of a second: too coarse for one change.
fn cpu(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    tasks.map(|task| cpu_of(&task.path())).sum()
}

/// Processor seconds of a process's first thread.
pub fn main_thread(pid: u32) -> f64 {
    cpu_of(Path::new(&format!("/proc/{pid}/task/{pid}")))
}

fn cpu_of(task: &Path) -> f64 {
    let text = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
    let first = text.split_whitespace().next().map(str::parse::<f64>);
    first.and_then(Result::ok).unwrap_or(0.0) / 1e9
}

fn get(address: SocketAddr, path: &str) -> Result<String> {
    let tried = || format!("get http://{address}{path}");
    let mut stream = TcpStream::connect(address).with_context(tried)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n"
    )
    .with_context(tried)?;
    let mut page = String::new();
    stream
        .take(16 << 20)
        .read_to_string(&mut page)
        .with_context(tried)?;
    Ok(page)
}
