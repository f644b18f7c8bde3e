//! One mesh: a node, its control plane if it has one, its services and pods.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};

use super::control_plane::ControlPlane;
use super::manifest::{self, ServiceSpec};
use super::network::Network;
use super::packing;
use super::pod::PodSpec;

pub struct Mesh {
    // Ends before the network that it is in.
    control_plane: Option<Mutex<ControlPlane>>,
    network: Network,
    folder: PathBuf,
    inventory: Arc<Mutex<Inventory>>,
}

/// What is in the mesh, for its objects and for names in URLs.
#[derive(Default)]
pub struct Inventory {
    services: Vec<(ServiceSpec, Ipv4Addr)>,
    pub pods: Vec<(PodSpec, Ipv4Addr)>,
}

/// A file of configuration that is taken back when this is dropped.
#[must_use = "the configuration ends with it"]
pub struct Applied {
    path: Option<PathBuf>,
}

impl Applied {
    /// Leaves the file to who replaced it.
    pub fn keep(mut self) {
        self.path = None;
    }
}

impl Drop for Applied {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // It is gone already when the whole mesh is.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Mesh {
    /// Pods of it get a sidecar that passes everything through.
    pub fn without_control_plane() -> Result<Self> {
        let network = Network::new()?;
        let folder = PathBuf::from(format!("/run/mesh{}", network.index()));
        std::fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))?;
        Ok(Self {
            control_plane: None,
            network,
            folder,
            inventory: Arc::default(),
        })
    }

    /// With `fairlead discovery`, given `flags` and the scenario's packing, and no configuration yet.
    pub fn start(flags: &[&str]) -> Result<Self> {
        let mut mesh = Self::without_control_plane()?;
        let packing = format!("--route-packing={}", packing::current());
        let flags = [flags, &[&packing]].concat();
        let control_plane = ControlPlane::start(&mesh.folder, mesh.network.node(), &flags)?;
        mesh.control_plane = Some(Mutex::new(control_plane));
        Ok(mesh)
    }

    pub fn network(&self) -> &Network {
        &self.network
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn has_control_plane(&self) -> bool {
        self.control_plane.is_some()
    }

    pub fn control_plane(&self) -> Result<MutexGuard<'_, ControlPlane>> {
        let control_plane = self
            .control_plane
            .as_ref()
            .context("the mesh has no control plane")?;
        Ok(control_plane.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn inventory(&self) -> Arc<Mutex<Inventory>> {
        self.inventory.clone()
    }

    fn with_inventory<T>(&self, change: impl FnOnce(&mut Inventory) -> T) -> T {
        change(
            &mut self
                .inventory
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Puts configuration in force until it is dropped; the same name again replaces it.
    pub fn apply(&self, name: &str, yaml: &str) -> Result<Applied> {
        let path = self.control_plane()?.write(&format!("{name}.yaml"), yaml)?;
        Ok(Applied { path: Some(path) })
    }

    /// For configuration that lasts as long as the mesh.
    pub fn configure(&self, name: &str, yaml: &str) -> Result<()> {
        self.control_plane()?
            .write(&format!("{name}.yaml"), yaml)
            .map(drop)
    }

    pub fn add_namespace(&self, name: &str) -> Result<()> {
        self.configure(&format!("namespace-{name}"), &manifest::namespace(name))
    }

    pub fn add_service(&self, spec: ServiceSpec) -> Result<()> {
        let address = self.network.service_address();
        self.with_inventory(|inventory| inventory.services.push((spec, address)));
        self.publish()
    }

    /// Makes a pod known to the control plane, as when it is scheduled.
    pub(super) fn announce_pod(&self, spec: &PodSpec, ip: Ipv4Addr) -> Result<()> {
        if !self.has_control_plane() {
            return Ok(());
        }
        self.configure(&pod_file(spec), &manifest::pod(spec, ip))
    }

    /// Puts a pod into the services that select it.
    pub(super) fn add_endpoint(&self, spec: &PodSpec, ip: Ipv4Addr) -> Result<()> {
        self.with_inventory(|inventory| inventory.pods.push((spec.clone(), ip)));
        self.publish()
    }

    /// As when it is deleted: out of its services at once. The pod itself runs on.
    pub fn remove_pod(&self, spec: &PodSpec) -> Result<()> {
        self.with_inventory(|inventory| {
            inventory
                .pods
                .retain(|(p, _)| (&p.namespace, &p.name) != (&spec.namespace, &spec.name));
        });
        self.publish()?;
        let path = self
            .folder
            .join("config")
            .join(format!("{}.yaml", pod_file(spec)));
        std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))
    }

    fn publish(&self) -> Result<()> {
        if !self.has_control_plane() {
            return Ok(());
        }
        let files: BTreeMap<String, String> = self.with_inventory(|inventory| {
            let Inventory { services, pods } = &*inventory;
            let file = |(spec, ip): &(ServiceSpec, Ipv4Addr)| {
                let name = format!("service-{}-{}", spec.namespace, spec.name);
                (name, manifest::service(spec, *ip, pods))
            };
            services.iter().map(file).collect()
        });
        files
            .iter()
            .try_for_each(|(name, text)| self.configure(name, text))
    }
}

fn pod_file(spec: &PodSpec) -> String {
    format!("pod-{}-{}", spec.namespace, spec.name)
}

impl Inventory {
    /// The address behind `reviews:9080`, `reviews.shop`, its long forms, or an address itself; port 80 unless given.
    pub fn resolve(&self, authority: &str, namespace: &str) -> Result<SocketAddr> {
        if let Ok(address) = authority.parse() {
            return Ok(address);
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.parse()?),
            None => (authority, 80),
        };
        if let Ok(ip) = host.parse() {
            return Ok(SocketAddr::new(ip, port));
        }
        let named = |(spec, _): &&(ServiceSpec, Ipv4Addr)| {
            let full = format!("{}.{}.svc.cluster.local", spec.name, spec.namespace);
            let local = host == spec.name && spec.namespace == namespace;
            local || (host.contains('.') && format!("{full}.").starts_with(&format!("{host}.")))
        };
        let (_, ip) = self
            .services
            .iter()
            .find(named)
            .with_context(|| format!("no service {host}"))?;
        Ok(SocketAddr::from((*ip, port)))
    }
}
