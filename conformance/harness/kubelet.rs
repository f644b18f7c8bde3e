//! Plays kubelet: pods of an API server as processes on this machine, each pod in a network namespace of its own.
//!
//! It watches Pods and does what the kubelet documents: volumes, init containers, probes, hooks, restarts, and the order
//! of a pod's end (<https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/>). An image is a program of
//! this machine, by a table. There is no scheduler: every pod is this node's.

mod container;
mod env;
mod life;
mod probe;
mod report;
mod root;
mod services;
mod volumes;

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;
use kube::api::DynamicObject;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};

use self::life::Life;
use super::network::{Namespace, Network};

/// The one node.
pub const NODE: &str = "node";

/// What pods run on.
#[derive(Clone)]
pub struct Machine {
    pub kubeconfig: PathBuf,
    pub network: Arc<Network>,
    pub folder: PathBuf,
    /// Images by how their names begin, and the program that stands for each.
    pub images: Vec<(String, PathBuf)>,
    /// Where pods find the API server.
    pub api: SocketAddrV4,
}

/// Runs the pods of an API server until it is dropped; then all of them end.
pub struct Kubelet {
    shared: Arc<Shared>,
    watch: Option<JoinHandle<Result<()>>>,
}

pub(crate) struct Shared {
    pub(crate) machine: Machine,
    services: services::Services,
    stop: AtomicBool,
    running: Mutex<BTreeMap<String, Running>>,
}

/// A pod that runs, by its uid.
struct Running {
    name: String,
    namespace: String,
    network: Namespace,
    /// Raised when the pod is deleted.
    ending: Arc<AtomicBool>,
    /// The pod as it was seen last.
    seen: Arc<Mutex<Value>>,
    thread: JoinHandle<()>,
}

impl Kubelet {
    #[expect(clippy::disallowed_methods, reason = "pods run beside the test")]
    pub fn start(machine: Machine) -> Result<Self> {
        let shared = Arc::new(Shared {
            machine,
            services: services::Services::default(),
            stop: AtomicBool::new(false),
            running: Mutex::default(),
        });
        services::prepare(&shared.machine.network)?;
        let runtime = runtime()?;
        runtime.block_on(shared.machine.register())?;
        let watched = shared.clone();
        let watch = std::thread::spawn(move || runtime.block_on(watched.watch()));
        Ok(Self {
            shared,
            watch: Some(watch),
        })
    }

    /// The network of a pod that runs, for who sends something from inside.
    pub fn network_of(&self, namespace: &str, name: &str) -> Result<Namespace> {
        let running = self.shared.running();
        let found = running
            .values()
            .find(|pod| pod.namespace == namespace && pod.name.starts_with(name));
        let found = found.map(|pod| pod.network.clone());
        found.with_context(|| format!("no pod {namespace}/{name} runs"))
    }

    /// What the containers of a pod wrote.
    pub fn logs(&self, name: &str) -> String {
        let mut text = String::new();
        let folders = std::fs::read_dir(&self.shared.machine.folder)
            .into_iter()
            .flatten();
        for pod in folders.flatten().map(|entry| entry.path()) {
            let of_pod = pod
                .file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with(name));
            let files = std::fs::read_dir(&pod).into_iter().flatten().flatten();
            let logs = files
                .map(|file| file.path())
                .filter(|path| path.extension().is_some_and(|e| e == "log"));
            for log in logs.filter(|_| of_pod) {
                let said = std::fs::read(&log).unwrap_or_default();
                text.push_str(&format!(
                    "--- {}\n{}",
                    log.display(),
                    String::from_utf8_lossy(&said)
                ));
            }
        }
        text
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(watch) = self.watch.take() {
            let _ = watch.join();
        }
        let running = std::mem::take(&mut *self.shared.running());
        for (_, pod) in running {
            let _ = pod.thread.join();
        }
    }
}

pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_all().build()?)
}

impl Machine {
    pub(crate) async fn client(&self) -> Result<Client> {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig)?;
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        Ok(Client::try_from(config)?)
    }

    /// Controllers want to know the node of a pod.
    async fn register(&self) -> Result<()> {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}});
        let request =
            http::Request::post("/api/v1/nodes").header("content-type", "application/json");
        let request = request.body(serde_json::to_vec(&node)?)?;
        match self.client().await?.request::<Value>(request).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            other => other.map(drop).context("register the node"),
        }
    }

    /// The program of an image.
    pub(crate) fn program(&self, image: &str) -> Result<&Path> {
        let found = self
            .images
            .iter()
            .find(|(prefix, _)| image.starts_with(prefix.as_str()));
        let found = found.map(|(_, program)| program.as_path());
        found.with_context(|| format!("no program stands for the image {image}"))
    }
}

impl Shared {
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn running(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn watch(self: Arc<Self>) -> Result<()> {
        let pods = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Pod"));
        let api = Api::<DynamicObject>::all_with(self.machine.client().await?, &pods);
        let mut events = watcher(api, Config::default()).default_backoff().boxed();
        let mut services = std::pin::pin!(self.services.follow(self.machine.client().await?));
        while !self.is_stopping() {
            let waited = tokio::time::timeout(Duration::from_millis(100), events.next());
            let waited = tokio::select! {
                waited = waited => waited,
                ended = &mut services => return ended,
            };
            match waited {
                Ok(Some(Ok(Event::Apply(pod) | Event::InitApply(pod)))) => {
                    self.clone().on_pod(serde_json::to_value(pod)?)?;
                }
                // Whoever deletes without grace asks for an end at once.
                Ok(Some(Ok(Event::Delete(pod)))) => {
                    let uid = pod.metadata.uid.unwrap_or_default();
                    if let Some(pod) = self.running().get(&uid) {
                        pod.ending.store(true, Ordering::SeqCst);
                    }
                }
                Ok(Some(_)) | Err(_) => {}
                Ok(None) => break,
            }
        }
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "pods run beside the test")]
    fn on_pod(self: Arc<Self>, pod: Value) -> Result<()> {
        let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default().to_owned();
        let (uid, name, namespace) = (text("uid"), text("name"), text("namespace"));
        let is_ending = pod["metadata"]["deletionTimestamp"].is_string();
        let mut running = self.running();
        if let Some(known) = running.get(&uid) {
            *known.seen.lock().unwrap_or_else(PoisonError::into_inner) = pod;
            if is_ending {
                known.ending.store(true, Ordering::SeqCst);
            }
            return Ok(());
        }
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        if is_ending || phase == "Succeeded" || phase == "Failed" {
            return Ok(());
        }
        let ending = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(pod));
        let owner = self.machine.network.namespace()?;
        let network = owner.0.clone();
        let (shared, watched, told) = (self.clone(), seen.clone(), ending.clone());
        let thread = std::thread::spawn(move || Life::begin(shared, watched, told, owner));
        let pod = Running {
            name,
            namespace,
            network,
            ending,
            seen,
            thread,
        };
        running.insert(uid, pod);
        Ok(())
    }
}
