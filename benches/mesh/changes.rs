//! The changes made to a mesh, and by what proxies and Envoys show that they know.

use fairlead::xds::ResourceType;

use super::super::facts::Loading;
use super::super::manifests::{self, Object};
use super::super::order::Marker;
use super::super::packing::{Packing, WHOLE};
use super::super::probe::Probe;
use super::super::wire::varint;
use super::{EDITED, MOVED, Mesh, Port, Service, View, WEIGHT, namespace};

const ADDED_PORT: u16 = 20_000;

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

/// When an Envoy took the table of port 80, which is too large to be looked into.
const WHOLE_TABLE: &str =
    "/config_dump?resource=dynamic_route_configs&name_regex=80&mask=last_updated";
/// When it took or dropped a cluster, whichever.
const CLUSTER_UPDATES: &str = "/stats?filter=^cluster_manager.cds.update_time";
/// When it took scopes, which are one set.
const SCOPES: &str = "/config_dump?resource=dynamic_scoped_route_configs&mask=last_updated";

impl Mesh {
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
            probe: Some(Probe::Stats(assignments(self.size.packing, service))),
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
        let page = clusters(self.size.packing, service);
        let table = table_page(service);
        if let Some(rules) = &mut service.rules {
            match edit {
                Edit::Weight => {
                    rules.weight = WEIGHT + number;
                    markers.push(Marker::new(ResourceType::Route, wrapped(rules.weight)));
                    probe = Some(match self.size.packing {
                        Packing::Rds => Probe::Dump(WHOLE_TABLE.into(), String::new()),
                        Packing::Scoped | Packing::OnDemand => {
                            Probe::Dump(table, rules.weight.to_string())
                        }
                    });
                }
                Edit::Rule => {
                    rules.sni = number;
                    markers.push(Marker::new(ResourceType::Cluster, rules.sni()));
                    probe = Some(Probe::Dump(page, rules.sni()));
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
        let change = Change {
            put: vec![
                manifests::service(&service).alone(),
                manifests::slice(&service).alone(),
            ],
            markers: self.addition(&service),
            probe: Some(match self.size.packing.loading() {
                Loading::AtOnce => {
                    let page = clusters(self.size.packing, &service);
                    Probe::Dump(page, service.name.clone())
                }
                Loading::OnDemand => Probe::Dump(SCOPES.into(), String::new()),
            }),
            ..Change::default()
        };
        let namespace = service.namespace.clone();
        self.services.push(service);
        self.seen_in(change, &namespace)
    }

    /// What comes with a new Service.
    fn addition(&self, service: &Service) -> Vec<Marker> {
        let (name, port) = (service.name.as_str(), service.ports[0].number);
        let of = |kind| Marker::new(kind, name);
        // With scopes it comes after its table.
        let listener = Marker::new(ResourceType::Listener, format!("0.0.0.0_{port}"));
        let mut markers = match self.size.packing.loading() {
            Loading::AtOnce => vec![
                of(ResourceType::Cluster),
                of(ResourceType::Endpoint),
                of(ResourceType::Route),
            ],
            Loading::OnDemand => vec![Marker::new(ResourceType::Route, format!("{port}/*"))],
        };
        if self.size.packing != Packing::Rds {
            markers.push(of(ResourceType::ScopedRoute));
        }
        markers.push(listener);
        markers
    }

    fn delete(&mut self) -> Change {
        let Some(service) = self.services.pop() else {
            return Change::default();
        };
        let name = service.name.clone();
        let (kind, probe) = match self.size.packing.loading() {
            Loading::AtOnce => {
                let gone = Probe::Stats(CLUSTER_UPDATES.into());
                (ResourceType::Cluster, gone)
            }
            Loading::OnDemand => {
                let scopes = Probe::Dump(SCOPES.into(), String::new());
                (ResourceType::ScopedRoute, scopes)
            }
        };
        let change = Change {
            delete: vec![manifests::slice(&service), manifests::service(&service)],
            markers: vec![Marker::new(kind, name)],
            probe: Some(probe),
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

/// A page of Envoy's with the table of a Service's host, if tables are packed so.
pub fn table_page(service: &Service) -> String {
    let (port, host) = (service.ports[0].number, service.host());
    format!("/config_dump?resource=dynamic_route_configs&name_regex={port}.{host}")
}

/// A page of Envoy's with the clusters of a Service's port, in all subsets.
fn clusters(packing: Packing, service: &Service) -> String {
    let (port, host) = (shown(packing, service), service.host());
    format!("/config_dump?resource=dynamic_active_clusters&name_regex=outbound.{port}..*.{host}")
}

/// When it took their endpoints.
fn assignments(packing: Packing, service: &Service) -> String {
    let (port, host) = (shown(packing, service), service.host());
    format!("/stats?filter=^cluster.outbound.{port}..*.{host}.*update_time")
}

/// The first port that has clusters in an Envoy without requests.
fn shown(packing: Packing, service: &Service) -> u16 {
    let mut ports = service.ports.iter();
    let port = ports.find(|port| !packing.clusters(port, &[WHOLE]).is_empty());
    port.map_or(0, |port| port.number)
}

/// Three digits each, so that none begins another.
fn fresh_address(n: usize) -> String {
    format!("10.66.{}.{}", 100 + n / 150 % 150, 100 + n % 150)
}

/// The end of a wrapped number as protobuf has it: its length, its tag, its three bytes.
fn wrapped(number: u32) -> Vec<u8> {
    [&[4, 8], &varint(number)[..]].concat()
}
