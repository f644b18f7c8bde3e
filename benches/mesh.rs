//! The mesh that is measured, and the edits made to it. Its YAML is in `manifests.rs`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fairlead::xds::ResourceType;

use super::manifests;
use super::wire::varint;

pub const ENDPOINTS: usize = 10;
/// Objects of each kind that edits go through in turn; each has a file of its own.
const EDITED: usize = 10;
/// Numbers that edits count up from: three bytes as a varint, and nothing else in the mesh is near.
const WEIGHT: u32 = 1_000_000;
const RING: u32 = 1_200_000;
const SENTINEL_PORT: u32 = 20_000;

#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub services: usize,
    pub namespaces: usize,
}

/// What every proxy must hold at least. A run whose proxies hold less is void.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manifest {
    pub clusters: usize,
    pub listeners: usize,
}

/// Bytes by which a response shows that it brings an edit.
pub type Marker = (ResourceType, Vec<u8>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// One endpoint of a Service moves to another address.
    Endpoint,
    /// One weight of a VirtualService.
    Weight,
    /// The load balancer's ring size in a DestinationRule with two subsets.
    Ring,
    /// A new Service on a port of its own: it touches every resource type, a little.
    Sentinel,
}

/// A file about to be replaced, and how a client knows that it was.
pub struct Prepared {
    pub file: PathBuf,
    text: String,
    pub markers: Vec<Marker>,
}

/// What edits change, for each object that they go through.
#[derive(Clone)]
pub struct Values {
    pub moved: Option<String>,
    pub weight: u32,
    pub ring: u32,
    /// An annotation, which no proxy is told of.
    pub note: u32,
}

pub struct Mesh {
    root: PathBuf,
    size: Size,
    values: Vec<Values>,
    edits: u32,
}

/// One simulated proxy, beside an endpoint of a Service.
pub struct Identity {
    pub id: String,
    pub namespace: String,
    pub service: String,
    pub pod: String,
}

impl Mesh {
    /// Writes all files into `root`: one for each namespace, and one for each object that edits touch.
    pub fn write(root: &Path, size: Size) -> Result<Self> {
        let initial = Values {
            moved: None,
            weight: WEIGHT,
            ring: RING,
            note: 0,
        };
        let mesh = Self {
            root: root.into(),
            size,
            values: vec![initial; EDITED.min(size.ruled())],
            edits: 0,
        };
        fs::create_dir_all(root.join("edited")).context("make the config folder")?;
        for namespace in 0..size.namespaces {
            let text = mesh.namespace(namespace);
            let file = root.join(format!("ns-{namespace}.yaml"));
            fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        }
        for turn in 0..mesh.values.len() {
            for prepared in [mesh.slice(turn), mesh.route(turn), mesh.rule(turn)] {
                mesh.apply(&prepared)?;
            }
        }
        Ok(mesh)
    }

    fn namespace(&self, namespace: usize) -> String {
        let mut text = String::new();
        manifests::namespace(&mut text, namespace);
        let services = (namespace..self.size.services).step_by(self.size.namespaces);
        for service in services {
            let of = self.size.names(service);
            manifests::service(&mut text, &of);
            if self.size.services - service > self.values.len() {
                manifests::slice(&mut text, &of, None);
            }
            if service < self.size.ruled() {
                manifests::pods(&mut text, &of);
            }
            if (self.values.len()..self.size.ruled()).contains(&service) {
                manifests::route(&mut text, &of, WEIGHT, 0);
                manifests::rule(&mut text, &of, RING, 0);
            }
        }
        text
    }

    /// The endpoints that edits move are those of the last Services, where no rules are.
    fn slice(&self, turn: usize) -> Prepared {
        let of = self.size.names(self.size.services - 1 - turn);
        let moved = self.values[turn].moved.as_deref();
        let marker = moved.map(|m| (ResourceType::Endpoint, m.as_bytes().to_vec()));
        let mut text = String::new();
        manifests::slice(&mut text, &of, moved);
        self.prepared(&format!("slice-{turn}"), text, marker.into_iter().collect())
    }

    fn route(&self, turn: usize) -> Prepared {
        let Values { weight, note, .. } = self.values[turn];
        let mut text = String::new();
        manifests::route(&mut text, &self.size.names(turn), weight, note);
        let marker = (ResourceType::Route, wrapped(weight));
        self.prepared(&format!("route-{turn}"), text, vec![marker])
    }

    fn rule(&self, turn: usize) -> Prepared {
        let Values { ring, note, .. } = self.values[turn];
        let mut text = String::new();
        manifests::rule(&mut text, &self.size.names(turn), ring, note);
        let marker = (ResourceType::Cluster, wrapped(ring));
        self.prepared(&format!("rule-{turn}"), text, vec![marker])
    }

    fn sentinel(&self, n: u32) -> Prepared {
        let (name, port) = (format!("sentinel-{n}."), SENTINEL_PORT + n);
        let mut text = String::new();
        manifests::sentinel(&mut text, n, port);
        let marked = [
            ResourceType::Cluster,
            ResourceType::Endpoint,
            ResourceType::Route,
        ];
        let markers = marked.map(|kind| (kind, name.clone().into_bytes()));
        self.prepared(&format!("sentinel-{n}"), text, markers.into())
    }

    fn prepared(&self, name: &str, text: String, markers: Vec<Marker>) -> Prepared {
        Prepared {
            file: self.root.join(format!("edited/{name}.yaml")),
            text,
            markers,
        }
    }

    /// What the next edit of this sort writes; every edit is of another object than the last one.
    pub fn next(&mut self, edit: Edit) -> Prepared {
        self.edits += 1;
        let n = self.edits;
        let turn = n as usize % self.values.len();
        let values = &mut self.values[turn];
        match edit {
            Edit::Endpoint => {
                values.moved = Some(format!("10.66.{}.{}", 100 + n / 100, 100 + n % 100));
                self.slice(turn)
            }
            Edit::Weight => {
                values.weight = WEIGHT + n;
                self.route(turn)
            }
            Edit::Ring => {
                values.ring = RING + n;
                self.rule(turn)
            }
            Edit::Sentinel => self.sentinel(n),
        }
    }

    /// Only an annotation differs, in a VirtualService and a DestinationRule.
    pub fn annotate(&mut self) -> [Prepared; 2] {
        self.edits += 1;
        let turn = self.edits as usize % self.values.len();
        self.values[turn].note = self.edits;
        [self.route(turn), self.rule(turn)]
    }

    /// Replaces the file by rename, as an editor or `git pull` does.
    pub fn apply(&self, prepared: &Prepared) -> Result<()> {
        let partial = self.root.join(".partial");
        fs::write(&partial, &prepared.text)
            .and_then(|()| fs::rename(&partial, &prepared.file))
            .with_context(|| format!("write {}", prepared.file.display()))
    }
}

impl Size {
    /// Services that have a VirtualService and a DestinationRule: one in ten.
    fn ruled(self) -> usize {
        (self.services / 10).max(1)
    }

    pub fn manifest(self) -> Manifest {
        // Ports http and tcp; two subsets of each where there is a DestinationRule.
        let clusters = 2 * self.services + 4 * self.ruled();
        // One for each tcp port's address, one for all of http, and the two of capture.
        let listeners = self.services + 3;
        Manifest {
            clusters,
            listeners,
        }
    }

    fn names(self, service: usize) -> Names {
        Names {
            number: service,
            name: format!("svc-{service}"),
            namespace: format!("ns-{}", service % self.namespaces),
        }
    }

    pub fn identity(self, proxy: usize) -> Identity {
        let of = self.names(proxy % self.services);
        let endpoint = proxy / self.services % ENDPOINTS;
        let (namespace, pod) = (of.namespace.clone(), of.pod(endpoint));
        Identity {
            id: format!(
                "sidecar~{}~{pod}.{namespace}~{namespace}.svc.cluster.local",
                of.address(endpoint)
            ),
            namespace,
            service: of.name,
            pod,
        }
    }
}

/// A Service as its manifests name it.
pub struct Names {
    pub number: usize,
    pub name: String,
    pub namespace: String,
}

impl Names {
    pub fn pod(&self, endpoint: usize) -> String {
        format!("{}-{endpoint}", self.name)
    }

    pub fn address(&self, endpoint: usize) -> String {
        let n = self.number * ENDPOINTS + endpoint;
        format!("10.{}.{}.{}", 16 + (n >> 16), n >> 8 & 255, n & 255)
    }

    pub fn cluster_ip(&self) -> String {
        let n = self.number + 1;
        format!("172.{}.{}.{}", 20 + (n >> 16), n >> 8 & 255, n & 255)
    }
}

/// The end of a wrapped number as protobuf has it: its length, its tag, its three bytes.
fn wrapped(number: u32) -> Vec<u8> {
    [&[4, 8], &varint(number)[..]].concat()
}
