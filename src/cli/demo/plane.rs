//! The control plane as the demo sees it: its process, ports and pages.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use tokio::process::Command;

use super::client::{self, Call, Place};
use super::process::{Nursery, Process, ended, fairlead, printed};
use super::report::Report;
use super::sync::Sync;
use super::wait::{Standing, until};
use crate::app;

/// Debug builds on a busy machine still start far within this.
const STARTS_WITHIN: Duration = Duration::from_secs(30);
const TELLS_WITHIN: Duration = Duration::from_secs(10);
const ANY_PORT: &str = "127.0.0.1:0";

/// Where `fairlead discovery` keeps and finds its things.
#[derive(Clone, Debug)]
pub struct Folders {
    pub config: PathBuf,
    pub state: PathBuf,
    pub ports_file: PathBuf,
}

/// What `--ports-file` holds.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Ports {
    pub secure_grpc: SocketAddr,
    pub http: SocketAddr,
    pub monitoring: SocketAddr,
}

pub struct Plane {
    pub process: Process,
    pub ports: Ports,
    nursery: Rc<Nursery>,
    folders: Folders,
    certificate_life: Duration,
    /// Opens the debug pages.
    token: String,
}

impl Plane {
    /// Starts on free ports and waits until it listens.
    pub async fn start(
        report: &Report,
        nursery: Rc<Nursery>,
        folders: Folders,
        certificate_life: Duration,
    ) -> Result<Self> {
        let any = [
            ANY_PORT.to_owned(),
            ANY_PORT.to_owned(),
            ANY_PORT.to_owned(),
        ];
        let command = discovery(&folders, certificate_life, &any);
        let mut process = nursery.start("discovery", command)?;
        let ports = ports(report, &mut process, &folders.ports_file).await?;
        let mut plane = Self {
            process,
            ports,
            nursery,
            folders,
            certificate_life,
            token: String::new(),
        };
        plane.token = plane.token("storefront", "debug-pages").await?;
        Ok(plane)
    }

    /// Starts again on the same ports, from the state directory.
    pub async fn restart(&mut self, report: &Report) -> Result<()> {
        let Ports {
            secure_grpc,
            http,
            monitoring,
        } = &self.ports;
        let same = [secure_grpc, http, monitoring].map(SocketAddr::to_string);
        // The file tells of the new process only if the old one's is gone.
        let file = &self.folders.ports_file;
        app::ports::Ports::forget(file)?;
        let command = discovery(&self.folders, self.certificate_life, &same);
        self.process = self.nursery.start("discovery", command)?;
        self.ports = ports(report, &mut self.process, file).await?;
        Ok(())
    }

    /// A workload's token, from the command that a person would use.
    pub async fn token(&self, service_account: &str, name: &str) -> Result<String> {
        let mut command = fairlead(["token", "--namespace", super::bookshop::NAMESPACE]);
        command
            .args(["--service-account", service_account, "--name", name])
            .arg("--state-dir")
            .arg(&self.folders.state);
        printed(command).await
    }

    pub fn certificate_life(&self) -> Duration {
        self.certificate_life
    }

    pub fn root_cert(&self) -> PathBuf {
        self.folders.state.join("ca/root-cert.pem")
    }

    /// What `fairlead analyze` finds in the files; that it finds faults is no failure of it.
    pub async fn analyze(&self) -> Result<String> {
        let mut command = fairlead(["analyze", "--output", "json"]);
        command.arg("--config-dir").arg(&self.folders.config);
        let (text, _) = ended(command).await?;
        Ok(text)
    }

    /// The end of its log as it is now.
    pub fn log_mark(&self) -> Result<u64> {
        self.process.log_mark()
    }

    /// Waits for a line of the log, after the mark, that contains `text`, and returns it from its file's name on.
    pub async fn tells(&self, report: &Report, mark: u64, text: &str) -> Result<String> {
        until(
            report,
            "the control plane's log",
            TELLS_WITHIN,
            async || {
                let log = self.process.log_since(mark)?;
                let line = log.lines().find(|line| line.contains(text));
                Ok(match line {
                    Some(line) => Standing::Done(finding(line).to_owned()),
                    None => Standing::Not(format!("does not tell `{text}`")),
                })
            },
        )
        .await
    }

    /// How every proxy stands.
    pub async fn sync(&self) -> Result<Sync> {
        let page = self.page(self.ports.http, "/debug/syncz").await?;
        Sync::parse(&page).context("read /debug/syncz")
    }

    pub async fn metrics(&self) -> Result<Metrics> {
        let page = self.page(self.ports.monitoring, "/metrics").await?;
        Ok(Metrics::parse(&String::from_utf8_lossy(&page)))
    }

    async fn page(&self, at: SocketAddr, path: &str) -> Result<bytes::Bytes> {
        let call = Call::new("fairlead", path)
            .header("authorization", format_args!("Bearer {}", self.token));
        let answer = client::once(&Place::Tcp(at), &call)
            .await
            .with_context(|| format!("GET {at}{path}"))?;
        ensure!(
            answer.status.is_success(),
            "GET {at}{path}: {}: {}",
            answer.status,
            String::from_utf8_lossy(&answer.body).trim_end()
        );
        Ok(answer.body)
    }
}

fn discovery(folders: &Folders, certificate_life: Duration, ports: &[String; 3]) -> Command {
    let mut command = fairlead(["discovery"]);
    command
        .arg("--config-dir")
        .arg(&folders.config)
        .arg("--state-dir")
        .arg(&folders.state)
        .arg("--ports-file")
        .arg(&folders.ports_file)
        .args(["--secure-grpc-addr", &ports[0]])
        .args(["--http-addr", &ports[1]])
        .args(["--monitoring-addr", &ports[2]])
        .arg(format!(
            "--workload-cert-ttl={}s",
            certificate_life.as_secs()
        ));
    command
}

async fn ports(report: &Report, process: &mut Process, file: &Path) -> Result<Ports> {
    until(report, "control plane", STARTS_WITHIN, async || {
        process.check()?;
        Ok(match fs::read(file) {
            Ok(text) => Standing::Done(serde_json::from_slice(&text).context("read its ports")?),
            Err(_) => Standing::Not("starting".to_owned()),
        })
    })
    .await
}

/// A line of the log without time, level and module.
fn finding(line: &str) -> &str {
    let begin = line.split_once(".yaml").map(|(before, _)| before);
    let begin = begin
        .and_then(|b| b.rfind([' ', '/']))
        .map_or(0, |at| at + 1);
    &line[begin..]
}

/// A page of Prometheus' text format: each series with its labels as one text.
#[derive(Debug, Default)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    fn parse(text: &str) -> Self {
        let series = text.lines().filter(|l| !l.starts_with('#'));
        Self(
            series
                .filter_map(|line| {
                    let (name, value) = line.rsplit_once(' ')?;
                    Some((name.to_owned(), value.parse().ok()?))
                })
                .collect(),
        )
    }

    /// By the value of a label.
    pub fn by(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut found = BTreeMap::new();
        for (series, value) in &self.0 {
            let Some((metric, labels)) = series.split_once('{') else {
                continue;
            };
            let key = labels
                .split_once(&format!("{label}=\""))
                .and_then(|(_, rest)| rest.split('"').next());
            if let (true, Some(key)) = (metric == name, key) {
                *found.entry(key.to_owned()).or_default() += value;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_begins_with_its_file() {
        let line = "2026-01-01T00:00:00Z ERROR fairlead::app: /tmp/x/routing.yaml:3: error: a";
        assert_eq!(finding(line), "routing.yaml:3: error: a");
        assert_eq!(finding("nothing"), "nothing");
    }

    #[test]
    fn metrics_are_told_apart_by_a_label() {
        let page = "# TYPE a counter\na{type=\"cds\",x=\"1\"} 3\na{type=\"lds\"} 4\nab{type=\"cds\"} 9\nb 5\n";
        let by = Metrics::parse(page).by("a", "type");
        assert_eq!(
            by,
            [("cds".to_owned(), 3.0), ("lds".to_owned(), 4.0)].into()
        );
    }
}
