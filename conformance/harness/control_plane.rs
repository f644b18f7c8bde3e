//! `fairlead discovery` on a folder of YAML, as a process.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::client::{Call, Target};
use super::isolation::{output, program};
use super::process::Process;

pub struct ControlPlane {
    folder: PathBuf,
    node: Ipv4Addr,
    flags: Vec<String>,
    process: Process,
    generation: u32,
}

/// Folders of the mesh that the control plane reads and keeps.
const CONFIG: &str = "config";
const STATE: &str = "state";

impl ControlPlane {
    /// Returns once it is ready. `flags` go to `fairlead discovery` besides the usual ones.
    pub fn start(folder: &Path, node: Ipv4Addr, flags: &[&str]) -> Result<Self> {
        for part in [CONFIG, STATE] {
            std::fs::create_dir(folder.join(part))?;
        }
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Ok(Self {
            process: start(folder, node, &flags, 0)?,
            folder: folder.to_owned(),
            node,
            flags,
            generation: 0,
        })
    }

    pub fn address(&self) -> String {
        format!("{}:15012", self.node)
    }

    /// As if the machine had lost its power.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again from its state directory.
    pub fn restart(&mut self) -> Result<()> {
        self.process.kill();
        self.generation += 1;
        self.process = start(&self.folder, self.node, &self.flags, self.generation)?;
        Ok(())
    }

    /// What it has written down of what is in force: a restart begins with that.
    pub fn kept(&self) -> Result<String> {
        let read = |name: &str| std::fs::read_to_string(self.folder.join(STATE).join(name));
        let whole = read("accepted.json").context("read accepted.json")?;
        // There is none before the first change.
        Ok(whole + &read("accepted.log").unwrap_or_default())
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Replaces a file of the configuration in one step, as `git pull` would.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.join(CONFIG).join(name);
        let part = self.folder.join(format!("{name}.part"));
        std::fs::write(&part, text).with_context(|| format!("write {}", part.display()))?;
        std::fs::rename(&part, &path).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// A token for a workload, as the kubelet would mount it.
    pub fn token(&self, namespace: &str, service_account: &str, pod: &str) -> Result<String> {
        let mut command = Command::new(program("fairlead"));
        command
            .arg("token")
            .arg("--state-dir")
            .arg(self.folder.join(STATE));
        command.args([
            "--namespace",
            namespace,
            "--service-account",
            service_account,
        ]);
        output(command.args(["--name", pod]))
    }

    pub fn root_certificate(&self) -> PathBuf {
        self.folder.join(STATE).join("ca/root-cert.pem")
    }

    /// A page of the debug listener, or the metrics.
    pub fn page(&self, path: &str) -> Result<String> {
        let port = if path.starts_with("/metrics") {
            15014
        } else {
            8080
        };
        let target = Target::Tcp((self.node, port).into());
        let reply = Call::get(target, "localhost", path).send_from_node()?;
        reply.found(path)
    }

    pub fn json(&self, path: &str) -> Result<Value> {
        let text = self.page(path)?;
        serde_json::from_str(&text).with_context(|| format!("{path} is no JSON: {text}"))
    }
}

fn start(folder: &Path, node: Ipv4Addr, flags: &[String], generation: u32) -> Result<Process> {
    let ports = folder.join(format!("ports-{generation}.json"));
    let mut command = Command::new(program("fairlead"));
    command.arg("discovery");
    command.arg("--config-dir").arg(folder.join(CONFIG));
    command.arg("--state-dir").arg(folder.join(STATE));
    command.arg("--ports-file").arg(&ports);
    command.arg(format!("--secure-grpc-addr={node}:15012"));
    command.arg(format!("--http-addr={node}:8080"));
    command.arg(format!("--monitoring-addr={node}:15014"));
    command.args(flags);
    let mut process = Process::start("discovery", folder, command)?;
    let ready = Call::get(Target::Tcp((node, 8080).into()), "localhost", "/ready");
    process.wait_until("be ready", || {
        ensure!(ports.exists(), "no {}", ports.display());
        let reply = ready.send_from_node()?;
        ensure!(
            reply.status == 200,
            "readiness is {} {}",
            reply.status,
            reply.text()
        );
        Ok(())
    })?;
    Ok(process)
}
