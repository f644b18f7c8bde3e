//! One container: its root, its process, whether it has started and is ready.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use fairlead::clock;
use serde_json::{Value, json};

use super::super::network::Namespace;
use super::super::process::Process;
use super::Machine;
use super::env::{Facts, expand};
use super::probe::Probe;
use super::root::Root;
use super::volumes::Volume;

/// The kubelet begins with ten seconds; tests have less patience.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

pub(super) struct Container {
    pub(super) name: String,
    pub(super) spec: Value,
    pub(super) is_sidecar: bool,
    state: State,
    pub(super) restarts: u32,
    pub(super) started: bool,
    pub(super) ready: bool,
    startup: Option<Probe>,
    readiness: Option<Probe>,
    liveness: Option<Probe>,
    wait: Duration,
    root: Option<Root>,
}

enum State {
    Waiting { until: Instant },
    Running(Process),
    Ended { code: i32 },
}

/// What a container needs of its pod.
pub(super) struct Around<'a> {
    pub(super) machine: &'a Machine,
    pub(super) folder: &'a Path,
    pub(super) network: &'a Namespace,
    pub(super) facts: &'a Facts<'a>,
    pub(super) volumes: &'a [Volume],
    /// `/etc/hosts`, as it is now.
    pub(super) hosts: &'a str,
}

impl Container {
    pub(super) fn new(spec: &Value, is_sidecar: bool) -> Self {
        let probe = |key: &str| spec[key].is_object().then(|| Probe::new(&spec[key], spec));
        Self {
            name: spec["name"].as_str().unwrap_or_default().to_owned(),
            is_sidecar,
            state: State::Waiting {
                until: clock::mono(),
            },
            restarts: 0,
            started: false,
            ready: false,
            startup: probe("startupProbe"),
            readiness: probe("readinessProbe"),
            liveness: probe("livenessProbe"),
            wait: FIRST_WAIT,
            root: None,
            spec: spec.clone(),
        }
    }

    /// Starts the process if it is time.
    pub(super) fn start_if_due(&mut self, around: &Around<'_>) -> Result<bool> {
        match self.state {
            State::Waiting { until } if clock::mono() >= until => {}
            State::Waiting { .. } | State::Running(_) | State::Ended { .. } => return Ok(false),
        }
        let command = self.command(around);
        let command = command.with_context(|| format!("container {}", self.name))?;
        let process = Process::start(&self.name, around.folder, command)?;
        self.state = State::Running(process);
        self.started = self.startup.is_none();
        self.ready = self.started && self.readiness.is_none();
        for probe in [&mut self.startup, &mut self.readiness, &mut self.liveness]
            .into_iter()
            .flatten()
        {
            probe.begin();
        }
        Ok(true)
    }

    fn command(&mut self, around: &Around<'_>) -> Result<Command> {
        let spec = &self.spec;
        let image = spec["image"].as_str().unwrap_or_default();
        let program = around.machine.program(image)?;
        let variables = around.facts.variables(spec)?;
        let api = around.machine.api;
        self.root = None;
        let folder = around
            .folder
            .join("roots")
            .join(format!("{}-{}", self.name, self.restarts));
        let root = Root::make(folder, around.hosts)?;
        for mount in spec["volumeMounts"].as_array().into_iter().flatten() {
            let name = mount["name"].as_str().unwrap_or_default();
            let volume = around.volumes.iter().find(|v| v.is(name));
            let volume = volume.with_context(|| format!("no volume {name}"))?;
            root.bind(
                &volume.folder,
                mount["mountPath"].as_str().unwrap_or_default(),
            )?;
        }
        let inside = root.bring(program)?;
        let id = |key: &str| {
            let own = &spec["securityContext"][key];
            let of_pod = &around.facts.pod["spec"]["securityContext"][key];
            own.as_u64().or_else(|| of_pod.as_u64())
        };
        let user = id("runAsUser").unwrap_or(0);
        let group = id("runAsGroup").unwrap_or(user);
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", around.network.name()));
        command.args(["--", "chroot", &format!("--userspec={user}:{group}")]);
        command.arg(root.path());
        let texts = |key: &str| {
            let list = spec[key].as_array().into_iter().flatten();
            list.filter_map(Value::as_str)
                .map(|text| expand(text, &variables))
                .collect::<Vec<_>>()
        };
        // A command would name a program of the image, which is this one.
        let own = texts("command");
        command
            .arg(inside)
            .args(own.iter().skip(1))
            .args(texts("args"));
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(variables);
        command.env("KUBERNETES_SERVICE_HOST", api.ip().to_string());
        command.env("KUBERNETES_SERVICE_PORT", api.port().to_string());
        self.root = Some(root);
        Ok(command)
    }

    /// Looks at the process and runs the probes that are due.
    pub(super) fn look(&mut self, ip: &str) -> Result<()> {
        let State::Running(process) = &mut self.state else {
            return Ok(());
        };
        if let Some(status) = process.has_ended()? {
            self.state = State::Ended {
                code: status.code().unwrap_or(137),
            };
            (self.started, self.ready) = (false, false);
            return Ok(());
        }
        if !self.started {
            match self.startup.as_mut().and_then(|probe| probe.outcome(ip)) {
                Some(true) => {
                    self.started = true;
                    self.ready = self.readiness.is_none();
                }
                Some(false) => process.kill(),
                None => {}
            }
            return Ok(());
        }
        if let Some(ready) = self.readiness.as_mut().and_then(|probe| probe.outcome(ip)) {
            self.ready = ready;
        }
        if self.liveness.as_mut().and_then(|probe| probe.outcome(ip)) == Some(false) {
            process.kill();
        }
        Ok(())
    }

    /// Names of Services come and go.
    pub(super) fn rename(&self, hosts: &str) {
        if let (Some(root), State::Running(_)) = (&self.root, &self.state) {
            let _ = std::fs::write(root.path().join("etc/hosts"), hosts);
        }
    }

    /// Starts again after a while that grows.
    pub(super) fn restart(&mut self) {
        self.restarts += 1;
        self.state = State::Waiting {
            until: clock::mono() + self.wait,
        };
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
    }

    pub(super) fn exit_code(&self) -> Option<i32> {
        match self.state {
            State::Ended { code } => Some(code),
            State::Waiting { .. } | State::Running(_) => None,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.state, State::Running(_))
    }

    pub(super) fn terminate(&self) {
        if let State::Running(process) = &self.state {
            let pid = process.pid().to_string();
            let _ = Command::new("kill").args(["-s", "TERM", &pid]).output();
        }
    }

    pub(super) fn kill(&mut self) {
        if let State::Running(process) = &mut self.state {
            process.kill();
        }
    }

    /// As `containerStatuses` has it.
    pub(super) fn status(&self) -> Value {
        let state = match self.state {
            State::Waiting { .. } if self.restarts > 0 => {
                json!({"waiting": {"reason": "CrashLoopBackOff"}})
            }
            State::Waiting { .. } => json!({"waiting": {"reason": "PodInitializing"}}),
            State::Running(_) => json!({"running": {}}),
            State::Ended { code } => json!({"terminated": {
                "exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" },
            }}),
        };
        json!({
            "name": self.name,
            "image": self.spec["image"],
            "imageID": "",
            "ready": self.ready || self.exit_code() == Some(0) && !self.is_sidecar,
            "started": self.started,
            "restartCount": self.restarts,
            "state": state,
        })
    }
}
