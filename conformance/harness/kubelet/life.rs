//! A pod's life on its own thread: volumes, init containers, containers, and the order of its end.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use fairlead::clock;
use kube::Client;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::super::network::NamespaceOwner;
use super::container::{Around, Container};
use super::env::Facts;
use super::probe::ask;
use super::report::{Phase, Readiness, report};
use super::volumes::Volume;
use super::{Shared, runtime};

/// How often processes are looked at.
const TICK: Duration = Duration::from_millis(50);
/// How often volumes are; the kubelet takes up to a minute.
const VOLUMES: Duration = Duration::from_secs(1);

pub(super) struct Life {
    shared: Arc<Shared>,
    seen: Arc<Mutex<Value>>,
    ending: Arc<AtomicBool>,
    folder: PathBuf,
    runtime: Runtime,
    client: Client,
    volumes: Vec<Volume>,
    init: Vec<Container>,
    containers: Vec<Container>,
    reported: Value,
    // Last: the processes end before their network goes.
    network: NamespaceOwner,
}

impl Life {
    /// All of it. What cannot begin stands in the machine's folder.
    pub(super) fn begin(
        shared: Arc<Shared>,
        seen: Arc<Mutex<Value>>,
        ending: Arc<AtomicBool>,
        network: NamespaceOwner,
    ) {
        let log = shared.machine.folder.join("kubelet.log");
        match Self::new(shared, seen, ending, network) {
            Ok(life) => life.live(),
            Err(fault) => drop(std::fs::write(log, format!("{fault:?}\n"))),
        }
    }

    fn new(
        shared: Arc<Shared>,
        seen: Arc<Mutex<Value>>,
        ending: Arc<AtomicBool>,
        network: NamespaceOwner,
    ) -> Result<Self> {
        let pod = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default().to_owned();
        let folder = shared
            .machine
            .folder
            .join(format!("{}_{}", text("name"), text("uid")));
        std::fs::create_dir_all(&folder)?;
        let runtime = runtime()?;
        let client = runtime.block_on(shared.machine.client())?;
        let list = |key: &str| pod["spec"][key].as_array().cloned().unwrap_or_default();
        let init = list("initContainers");
        let init = init
            .iter()
            .map(|c| Container::new(c, c["restartPolicy"] == "Always"));
        let containers = list("containers");
        Ok(Self {
            volumes: Volume::all(&pod, &folder)?,
            init: init.collect(),
            containers: containers
                .iter()
                .map(|c| Container::new(c, false))
                .collect(),
            reported: Value::Null,
            shared,
            seen,
            ending,
            folder,
            runtime,
            client,
            network,
        })
    }

    /// From the first volume to the last process. What goes wrong stands in the pod's folder.
    fn live(mut self) {
        if let Err(fault) = self.run() {
            let _ = std::fs::write(self.folder.join("kubelet.log"), format!("{fault:?}\n"));
        }
        for container in self.containers.iter_mut().chain(&mut self.init) {
            container.kill();
        }
    }

    fn run(&mut self) -> Result<()> {
        self.bind()?;
        while !self.is_over() {
            let done = self.refresh();
            if let Err(fault) = done {
                // As the kubelet: tried again till the object is there.
                let _ = std::fs::write(self.folder.join("kubelet.log"), format!("{fault:?}\n"));
                pause(Duration::from_millis(300));
                continue;
            }
            break;
        }
        let mut refreshed = clock::mono();
        let outcome = loop {
            if self.is_over() {
                break None;
            }
            if clock::mono().duration_since(refreshed) > VOLUMES {
                // What cannot be read now stays as it was.
                let _ = self.refresh();
                refreshed = clock::mono();
            }
            if let Some(phase) = self.turn()? {
                break Some(phase);
            }
            pause(TICK);
        };
        match outcome {
            // The containers have ended by themselves; sidecars are told to.
            Some(phase) => {
                self.end_sidecars(30)?;
                self.report(phase)?;
                while !self.is_over() {
                    pause(TICK);
                }
            }
            None if self.shared.is_stopping() => return Ok(()),
            None => self.end()?,
        }
        self.remove()
    }

    fn is_over(&self) -> bool {
        self.ending.load(Ordering::SeqCst) || self.shared.is_stopping()
    }

    fn pod(&self) -> Value {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn hosts(&self) -> String {
        let (_, name) = names(&self.pod());
        format!(
            "127.0.0.1 localhost\n{} {name}\n{}",
            self.ip(),
            self.shared.services.hosts()
        )
    }

    fn ip(&self) -> String {
        self.network.0.ip().to_string()
    }

    /// Takes the pod for this node.
    fn bind(&self) -> Result<()> {
        let pod = self.pod();
        if pod["spec"]["nodeName"].is_string() {
            return Ok(());
        }
        let (namespace, name) = names(&pod);
        let binding = serde_json::json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace},
            "target": {"apiVersion": "v1", "kind": "Node", "name": super::NODE},
        });
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/binding");
        let post = http::Request::post(path).header("content-type", "application/json");
        let post = post.body(serde_json::to_vec(&binding)?)?;
        self.runtime
            .block_on(self.client.request::<Value>(post))
            .context("bind the pod")?;
        Ok(())
    }

    fn refresh(&mut self) -> Result<()> {
        let pod = self.pod();
        let (ip, host_ip) = (self.ip(), self.shared.machine.network.node().to_string());
        let facts = Facts {
            pod: &pod,
            ip,
            host_ip,
        };
        for volume in &mut self.volumes {
            self.runtime
                .block_on(volume.refresh(&self.client, &facts))?;
        }
        let hosts = self.hosts();
        for container in self.init.iter().chain(&self.containers) {
            container.rename(&hosts);
        }
        Ok(())
    }

    /// One look at everything. Some when the containers have ended for good.
    fn turn(&mut self) -> Result<Option<Phase>> {
        let pod = self.pod();
        let ip = self.ip();
        let facts = Facts {
            pod: &pod,
            ip: ip.clone(),
            host_ip: self.shared.machine.network.node().to_string(),
        };
        let hosts = self.hosts();
        let around = Around {
            machine: &self.shared.machine,
            folder: &self.folder,
            network: &self.network.0,
            facts: &facts,
            volumes: &self.volumes,
            hosts: &hosts,
        };
        let policy = pod["spec"]["restartPolicy"].as_str().unwrap_or("Always");
        let mut initialized = true;
        for container in &mut self.init {
            container.start_if_due(&around)?;
            container.look(&ip)?;
            match container.exit_code() {
                Some(0) if !container.is_sidecar => continue,
                Some(_) if !container.is_sidecar && policy == "Never" => {
                    return Ok(Some(Phase::Failed));
                }
                Some(_) => container.restart(),
                None => {}
            }
            if !(container.is_sidecar && container.started) {
                initialized = false;
                break;
            }
        }
        if initialized {
            for container in &mut self.containers {
                if container.start_if_due(&around)? {
                    let hook = &container.spec["lifecycle"]["postStart"];
                    if hook.is_object() && ask(hook, &container.spec, &ip).is_err() {
                        container.kill();
                    }
                }
                container.look(&ip)?;
                match container.exit_code() {
                    Some(0) if policy != "Always" => {}
                    Some(_) if policy == "Never" => {}
                    Some(_) => container.restart(),
                    None => {}
                }
            }
        }
        self.report(Phase::of(initialized))?;
        let codes: Vec<Option<i32>> = self.containers.iter().map(Container::exit_code).collect();
        Ok(match codes.iter().all(Option::is_some) {
            false => None,
            true if codes.iter().all(|code| *code == Some(0)) => Some(Phase::Succeeded),
            true => Some(Phase::Failed),
        })
    }

    /// A deleted pod: all hooks at once, then SIGTERM to its containers, and to its sidecars when those have ended.
    fn end(&mut self) -> Result<()> {
        let pod = self.pod();
        let grace = pod["metadata"]["deletionGracePeriodSeconds"]
            .as_u64()
            .unwrap_or(30);
        let limit = clock::mono() + Duration::from_secs(grace);
        let ip = self.ip();
        let sidecars = self.init.iter().filter(|c| c.is_sidecar && c.is_running());
        let sidecars = sidecars.map(|c| c.spec.clone());
        let hooks: Vec<Value> = sidecars.collect();
        let own = self.containers.iter().filter(|c| c.is_running());
        std::thread::scope(|scope| {
            for spec in &hooks {
                let ip = &ip;
                scope.spawn(move || hook(spec, ip));
            }
            for container in own {
                let ip = &ip;
                // Each is told to end when its own hook has.
                scope.spawn(move || {
                    hook(&container.spec, ip);
                    container.terminate();
                });
            }
        });
        while self.containers.iter().any(Container::is_running) && clock::mono() < limit {
            for container in &mut self.containers {
                container.look(&ip)?;
            }
            pause(TICK);
        }
        self.containers.iter_mut().for_each(Container::kill);
        let left = limit.saturating_duration_since(clock::mono());
        self.end_sidecars(left.as_secs().max(2))
    }

    /// In the reverse of the order in which they began.
    fn end_sidecars(&mut self, seconds: u64) -> Result<()> {
        let limit = clock::mono() + Duration::from_secs(seconds);
        let ip = self.ip();
        for sidecar in self.init.iter_mut().rev().filter(|c| c.is_sidecar) {
            sidecar.terminate();
            while sidecar.is_running() && clock::mono() < limit {
                sidecar.look(&ip)?;
                pause(TICK);
            }
            sidecar.kill();
        }
        Ok(())
    }

    fn report(&mut self, phase: Phase) -> Result<()> {
        let statuses = |list: &[Container]| list.iter().map(Container::status).collect::<Vec<_>>();
        let ready = self.containers.iter().all(|c| c.ready)
            && self.init.iter().filter(|c| c.is_sidecar).all(|c| c.ready);
        let readiness = match ready {
            true => Readiness::Ready,
            false => Readiness::NotReady,
        };
        let status = report(
            phase,
            &self.ip(),
            &self.shared.machine.network.node().to_string(),
            readiness,
            (statuses(&self.init), statuses(&self.containers)),
        );
        if status == self.reported {
            return Ok(());
        }
        let (namespace, name) = names(&self.pod());
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/status");
        let patch =
            http::Request::patch(path).header("content-type", "application/merge-patch+json");
        let patch = patch.body(serde_json::to_vec(&serde_json::json!({"status": status}))?)?;
        match self.runtime.block_on(self.client.request::<Value>(patch)) {
            Ok(_) => self.reported = status,
            Err(kube::Error::Api(error)) if error.code == 404 => {}
            // The API server may be away: it is told when it is back.
            Err(_) => {}
        }
        Ok(())
    }

    /// The last word: the pod is gone.
    fn remove(&self) -> Result<()> {
        let (namespace, name) = names(&self.pod());
        let uid = self.pod()["metadata"]["uid"].clone();
        let options = serde_json::json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": uid},
        });
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        let delete = http::Request::delete(path).header("content-type", "application/json");
        let delete = delete.body(serde_json::to_vec(&options)?)?;
        // It may be gone already.
        let _ = self.runtime.block_on(self.client.request::<Value>(delete));
        Ok(())
    }
}

fn hook(spec: &Value, ip: &str) {
    let hook = &spec["lifecycle"]["preStop"];
    if hook.is_object() {
        // A hook that fails does not keep a container from ending.
        let _ = ask(hook, spec, ip);
    }
}

fn names(pod: &Value) -> (String, String) {
    let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "processes are looked at from time to time"
)]
fn pause(span: Duration) {
    std::thread::sleep(span);
}
