//! The mesh that is measured, as plain data. Its YAML is in `manifests.rs`, what changes in `mesh/changes.rs`.

pub mod changes;

use super::manifests::{self, Object};
use super::packing::Packing;

/// Services whose endpoints are moved one by one; those at the end, where no rules are.
pub const MOVED: usize = 100;
/// Objects of each other kind that changes go through in turn.
pub const EDITED: usize = 10;
/// Numbers that changes count up from: three bytes as a varint, and nothing else in the mesh is near.
const WEIGHT: u32 = 1_000_000;

/// How large a mesh is, and what its proxies see of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub services: usize,
    pub endpoints: usize,
    pub namespaces: usize,
    pub proxies: usize,
    pub view: View,
    pub packing: Packing,
    /// Of every Service.
    pub ports: &'static [Port],
    /// Where the turns of changes begin.
    pub seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Every proxy sees every Service.
    Mesh,
    /// A Sidecar in each namespace shows it its own Services alone.
    Namespace,
}

#[derive(Clone, Debug)]
pub struct Service {
    pub name: String,
    pub namespace: String,
    pub address: String,
    pub ports: Vec<Port>,
    pub endpoints: Vec<String>,
    pub rules: Option<Rules>,
    /// One has the workloads whose labels rules choose by, or proxies.
    pub pods: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    pub name: &'static str,
    pub number: u16,
    pub target: u16,
}

impl Port {
    /// Whether it has a route table.
    pub fn is_http(&self) -> bool {
        self.name == "http"
    }
}

pub const PORTS: &[Port] = &[
    Port {
        name: "http",
        number: 80,
        target: 8080,
    },
    Port {
        name: "tcp",
        number: 9090,
        target: 9090,
    },
];
pub const HTTP_ALONE: &[Port] = &[PORTS[0]];

/// What a VirtualService and a DestinationRule with two subsets say.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub weight: u32,
    /// Which name clients ask for in TLS: it costs an Envoy nothing.
    pub sni: u32,
    /// An annotation, which no proxy is told of.
    pub note: u32,
}

pub struct Mesh {
    pub size: Size,
    pub services: Vec<Service>,
    /// Namespaces, by number, whose mode was set: strict or permissive.
    policies: Vec<Option<bool>>,
    edits: usize,
}

/// One simulated proxy, beside an endpoint of a Service.
pub struct Identity {
    pub address: String,
    pub namespace: String,
    pub service: String,
    pub pod: String,
}

impl Mesh {
    pub fn new(size: Size) -> Self {
        Self {
            size,
            services: (0..size.services).map(|n| service(size, n)).collect(),
            policies: vec![None; size.namespaces],
            edits: usize::try_from(size.seed % 10_000).unwrap_or(0),
        }
    }

    /// What a cluster has before anybody puts anything there.
    pub fn add_kubernetes(&mut self) {
        self.services.push(Service {
            name: "kubernetes".into(),
            namespace: "default".into(),
            address: "10.96.0.1".into(),
            ports: vec![Port {
                name: "https",
                number: 443,
                target: 6443,
            }],
            endpoints: Vec::new(),
            rules: None,
            pods: 0,
        });
    }

    /// Every object, in an order in which they can be made.
    pub fn objects(&self) -> Vec<Object> {
        let mut objects: Vec<Object> = (0..self.size.namespaces)
            .map(|n| manifests::namespace(&namespace(n)))
            .collect();
        if self.size.view == View::Namespace {
            objects.extend((0..self.size.namespaces).map(|n| manifests::sidecar(&namespace(n))));
        }
        let movable = self.services.len().saturating_sub(MOVED);
        for (number, service) in self.services.iter().enumerate() {
            objects.push(manifests::service(service));
            objects.extend((0..service.pods).map(|pod| manifests::pod(service, pod)));
            let slice = manifests::slice(service);
            objects.push(if number < movable {
                slice
            } else {
                slice.alone()
            });
            for rule in manifests::rules(service) {
                objects.push(if number < EDITED { rule.alone() } else { rule });
            }
        }
        objects
    }

    pub fn identity(&self, proxy: usize) -> Identity {
        let (service, endpoint) = self.size.beside(proxy);
        let name = format!("svc-{service}");
        Identity {
            address: address(self.size, service, endpoint),
            namespace: namespace(service % self.size.namespaces),
            pod: format!("{name}-{endpoint}"),
            service: name,
        }
    }

    /// The proxies of a namespace.
    pub fn proxies_of(&self, namespace: usize) -> Vec<usize> {
        let of = |proxy: &usize| self.size.beside(*proxy).0 % self.size.namespaces == namespace;
        (0..self.size.proxies).filter(of).collect()
    }
}

impl Size {
    /// As `http 80 and tcp 9090`.
    pub fn named_ports(self) -> String {
        let ports = self.ports.iter();
        let named: Vec<String> = ports.map(|p| format!("{} {}", p.name, p.number)).collect();
        named.join(" and ")
    }

    /// Services that have a VirtualService and a DestinationRule: one in ten.
    fn ruled(self) -> usize {
        (self.services / 10).max(1)
    }

    /// The Service and the endpoint that a proxy is beside.
    fn beside(self, proxy: usize) -> (usize, usize) {
        (
            proxy % self.services,
            proxy / self.services % self.endpoints,
        )
    }
}

impl Rules {
    /// So many digits that no name begins another.
    pub fn sni(&self) -> String {
        format!("m-{:07}.bench", self.sni)
    }
}

impl Service {
    pub fn host(&self) -> String {
        format!("{}.{}.svc.cluster.local", self.name, self.namespace)
    }

    pub fn pod(&self, endpoint: usize) -> String {
        format!("{}-{endpoint}", self.name)
    }
}

/// Half of the workloads are of each version.
pub fn version(endpoint: usize) -> &'static str {
    ["v1", "v2"][endpoint % 2]
}

pub fn namespace(number: usize) -> String {
    format!("ns-{number}")
}

fn service(size: Size, number: usize) -> Service {
    let n = number + 1;
    let ruled = number < size.ruled();
    let proxies = (size.proxies + size.services - 1 - number) / size.services;
    Service {
        name: format!("svc-{number}"),
        namespace: namespace(number % size.namespaces),
        address: format!("10.{}.{}.{}", 100 + (n >> 16), n >> 8 & 255, n & 255),
        ports: size.ports.into(),
        endpoints: (0..size.endpoints)
            .map(|endpoint| address(size, number, endpoint))
            .collect(),
        rules: ruled.then_some(Rules {
            weight: WEIGHT,
            sni: 0,
            note: 0,
        }),
        pods: if ruled {
            size.endpoints
        } else {
            proxies.min(size.endpoints)
        },
    }
}

fn address(size: Size, service: usize, endpoint: usize) -> String {
    let n = service * size.endpoints + endpoint;
    format!("10.{}.{}.{}", 80 + (n >> 16), n >> 8 & 255, n & 255)
}
