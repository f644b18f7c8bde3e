//! The mesh that is measured, as plain data, and the changes made to it. Its YAML is in `manifests.rs`.

use fairlead::xds::ResourceType;

use super::envoys::Probe;
use super::manifests::{self, Object};
use super::order::Marker;
use super::packing::Packing;
use super::wire::varint;

/// Services whose endpoints are moved one by one; those at the end, where no rules are.
pub const MOVED: usize = 100;
/// Objects of each other kind that changes go through in turn.
const EDITED: usize = 10;
/// Numbers that changes count up from: three bytes as a varint, and nothing else in the mesh is near.
const WEIGHT: u32 = 1_000_000;
const ADDED_PORT: u16 = 20_000;

/// How large a mesh is, and what its proxies see of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub services: usize,
    pub endpoints: usize,
    pub namespaces: usize,
    pub proxies: usize,
    pub view: View,
    pub packing: Packing,
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

pub const PORTS: [Port; 2] = [
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

/// What a VirtualService and a DestinationRule with two subsets say.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub weight: u32,
    /// Which name clients ask for in TLS: it costs an Envoy nothing.
    pub sni: u32,
    /// An annotation, which no proxy is told of.
    pub note: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// One endpoint of a Service moves to another address.
    Endpoint,
    /// One of a thousand.
    BigEndpoint,
    Weight,
    /// The SNI in a DestinationRule with two subsets.
    Rule,
    /// Annotations of a VirtualService and a DestinationRule.
    Note,
    /// A new Service with three endpoints, on a port of its own.
    Add,
    /// That Service goes.
    Delete,
    /// A PeerAuthentication in one namespace.
    Policy,
}

/// What is done at the source, and how a proxy shows that it knows.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub put: Vec<Object>,
    pub delete: Vec<Object>,
    pub markers: Vec<Marker>,
    /// By what a real Envoy shows it.
    pub probe: Option<Probe>,
    /// The proxies that it concerns, if not all.
    pub only: Option<Vec<usize>>,
}

pub struct Mesh {
    pub size: Size,
    pub services: Vec<Service>,
    /// Namespaces, by number, whose mode was set: strict or permissive.
    policies: Vec<Option<bool>>,
    edits: usize,
}

/// How often an Envoy took the table of port 80, which is too large to be looked into.
const TABLE_UPDATES: &str = "/stats?filter=rds.80.update_success";

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

    /// The next change of this sort; every one is of another object than the last one.
    pub fn next(&mut self, edit: Edit) -> Change {
        self.edits += 1;
        let n = self.edits;
        match edit {
            Edit::Endpoint => {
                let moved = MOVED.min(self.size.services / 2).max(1);
                let at = self.size.services - 1 - n % moved;
                self.move_endpoint(at, n % self.size.endpoints, &fresh_address(n))
            }
            Edit::BigEndpoint => {
                let at = self.services.len() - 1;
                let endpoint = n % self.services[at].endpoints.len();
                self.move_endpoint(at, endpoint, &fresh_address(n))
            }
            Edit::Weight | Edit::Rule | Edit::Note => self.rule(edit, n),
            Edit::Add => self.add(added(n, 3)),
            Edit::Delete => self.delete(),
            Edit::Policy => self.policy(n % self.size.namespaces),
        }
    }

    /// A Service so large is added; [`Self::next`] may delete it again.
    pub fn add_big(&mut self, endpoints: usize) -> Change {
        self.edits += 1;
        self.add(added(self.edits, endpoints))
    }

    pub fn move_endpoint(&mut self, service: usize, endpoint: usize, to: &str) -> Change {
        let service = &mut self.services[service];
        service.endpoints[endpoint] = to.to_owned();
        let namespace = service.namespace.clone();
        let change = Change {
            put: vec![manifests::slice(service)],
            probe: Some(Probe::Text(
                dump("include_eds&resource=dynamic_endpoint_configs", service),
                to.into(),
            )),
            markers: vec![Marker::new(ResourceType::Endpoint, to)],
            ..Change::default()
        };
        self.seen_in(change, &namespace)
    }

    fn rule(&mut self, edit: Edit, n: usize) -> Change {
        let ruled = EDITED.min(self.size.ruled());
        let service = &mut self.services[n % ruled];
        let number = u32::try_from(n).unwrap_or(u32::MAX);
        let mut markers = Vec::new();
        let mut probe = None;
        let page = dump("resource=dynamic_active_clusters", service);
        let table = format!(
            "/config_dump?resource=dynamic_route_configs&name_regex={}.{}",
            service.ports[0].number,
            service.host()
        );
        if let Some(rules) = &mut service.rules {
            match edit {
                Edit::Weight => {
                    rules.weight = WEIGHT + number;
                    markers.push(Marker::new(ResourceType::Route, wrapped(rules.weight)));
                    probe = Some(match self.size.packing {
                        Packing::Rds => Probe::Grown(TABLE_UPDATES.into()),
                        Packing::Scoped => Probe::Text(table, rules.weight.to_string()),
                    });
                }
                Edit::Rule => {
                    rules.sni = number;
                    markers.push(Marker::new(ResourceType::Cluster, rules.sni()));
                    probe = Some(Probe::Text(page, rules.sni()));
                }
                _ => rules.note = number,
            }
        }
        let [route, rule] = match &manifests::rules(service)[..] {
            [route, rule] => [route.clone(), rule.clone()],
            _ => return Change::default(),
        };
        let put = match edit {
            Edit::Weight => vec![route],
            Edit::Rule => vec![rule],
            _ => vec![route, rule],
        };
        let namespace = service.namespace.clone();
        let change = Change {
            put,
            markers,
            probe,
            ..Change::default()
        };
        self.seen_in(change, &namespace)
    }

    fn add(&mut self, service: Service) -> Change {
        let name = service.name.clone();
        let mut kinds = vec![
            ResourceType::Cluster,
            ResourceType::Endpoint,
            ResourceType::Route,
        ];
        if self.size.packing == Packing::Scoped {
            kinds.push(ResourceType::ScopedRoute);
        }
        let markers = kinds.into_iter().map(|k| Marker::new(k, name.as_str()));
        // With scopes it comes after its table.
        let listener = format!("0.0.0.0_{}", service.ports[0].number);
        let listener = Marker::new(ResourceType::Listener, listener);
        let change = Change {
            put: vec![
                manifests::service(&service).alone(),
                manifests::slice(&service).alone(),
            ],
            markers: markers.chain([listener]).collect(),
            probe: Some(Probe::Text(
                dump("resource=dynamic_active_clusters", &service),
                name.clone(),
            )),
            ..Change::default()
        };
        let namespace = service.namespace.clone();
        self.services.push(service);
        self.seen_in(change, &namespace)
    }

    fn delete(&mut self) -> Change {
        let Some(service) = self.services.pop() else {
            return Change::default();
        };
        let change = Change {
            delete: vec![manifests::slice(&service), manifests::service(&service)],
            markers: vec![Marker::new(ResourceType::Cluster, service.name.as_str())],
            probe: Some(Probe::Gone(
                dump("resource=dynamic_active_clusters", &service),
                service.name.clone(),
            )),
            ..Change::default()
        };
        self.seen_in(change, &service.namespace)
    }

    fn policy(&mut self, number: usize) -> Change {
        let strict = !self.policies[number].unwrap_or(false);
        self.policies[number] = Some(strict);
        let mode = if strict { "STRICT" } else { "PERMISSIVE" };
        Change {
            put: vec![manifests::policy(&namespace(number), mode)],
            markers: vec![Marker::new(ResourceType::Listener, "virtualInbound")],
            only: Some(self.proxies_of(number)),
            ..Change::default()
        }
    }

    fn seen_in(&self, change: Change, of: &str) -> Change {
        if self.size.view == View::Mesh {
            return change;
        }
        let number = (0..self.size.namespaces).find(|n| namespace(*n) == of);
        Change {
            only: number.map(|n| self.proxies_of(n)),
            ..change
        }
    }
}

impl Size {
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
        ports: PORTS.into(),
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

/// On a port of its own, so that it touches every resource type.
fn added(n: usize, endpoints: usize) -> Service {
    let number = ADDED_PORT + u16::try_from(n % 10_000).unwrap_or_default();
    let (a, b) = (n >> 8 & 255, n & 255);
    Service {
        name: format!("added-{n:05}"),
        namespace: namespace(0),
        address: format!("10.99.{a}.{b}"),
        ports: vec![Port {
            name: "http",
            number,
            target: 8080,
        }],
        endpoints: (0..endpoints)
            .map(|e| format!("10.67.{}.{}", e >> 8 & 255, e & 255))
            .collect(),
        rules: None,
        pods: 0,
    }
}

fn address(size: Size, service: usize, endpoint: usize) -> String {
    let n = service * size.endpoints + endpoint;
    format!("10.{}.{}.{}", 80 + (n >> 16), n >> 8 & 255, n & 255)
}

/// A page of Envoy's with what it holds of a Service's first port, and no more.
fn dump(what: &str, service: &Service) -> String {
    let (number, host) = (service.ports[0].number, service.host());
    format!("/config_dump?{what}&name_regex=outbound.{number}..{host}")
}

/// Three digits each, so that none begins another.
fn fresh_address(n: usize) -> String {
    format!("10.66.{}.{}", 100 + n / 150 % 150, 100 + n % 150)
}

/// The end of a wrapped number as protobuf has it: its length, its tag, its three bytes.
fn wrapped(number: u32) -> Vec<u8> {
    [&[4, 8], &varint(number)[..]].concat()
}
