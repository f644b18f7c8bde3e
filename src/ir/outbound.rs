//! What one host adds to a client's outbound configuration: clusters, virtual hosts, listeners.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

pub use super::asks::{Apart, Asks, Bytes, Targets};
use super::domains::{self, Claim};
use super::gateway_hosts;
use super::http_routes;
use super::l4_routes;
use super::outbound_cluster::{self, Caller, Destined, cluster_name, port_source};
use super::relation::{Lead, OwnPort, Reach, Relation, Virtuals, Way};
use super::spread::Spread;
use super::traffic_policy;
use super::{Cluster, Discovery, Route, Target};
use crate::config::mesh::MeshConfig;
use crate::config::meta::Labels;
use crate::config::{Key, Source};
use crate::model::Snapshot;
use crate::model::endpoints::EndpointSet;
use crate::model::policies::{Mode, Policies};
use crate::model::protocol::{Class, Protocol};
use crate::model::proxy::{Families, Interception, Taken};
use crate::model::rules::{Merged, Obeyed};
use crate::model::services::{Service, ServicePort};
use crate::text::{Hostname, Str};

/// Where a VirtualService's host is called that is no Service.
pub const ROUTED_PORT: u16 = 80;

/// Everything that a client holds because of one host. Joined again as a whole when the host is touched.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostView {
    pub clusters: Vec<(Cluster, Vec<Source>)>,
    pub assignments: Vec<Assignment>,
    pub virtual_hosts: Vec<TableEntry>,
    pub listeners: Vec<ListenerEntry>,
    /// Hosts whose Service or DestinationRule decided part of this view.
    pub destinations: BTreeSet<Hostname>,
}

/// Which endpoints a cluster has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Assignment {
    pub cluster: Str,
    pub port: u16,
    /// The subset's labels.
    pub labels: Labels,
    /// Which of them the client prefers.
    pub spread: Option<Box<Spread>>,
    pub speaking: Speaking,
    pub families: Families,
}

/// Which endpoints a cluster takes by what they speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Speaking {
    #[default]
    Anything,
    /// The mesh's own TLS alone, for it is not ended before them.
    MeshTls,
}

/// A virtual host before its table decides which of its domains it gets.
#[derive(Clone, Debug, PartialEq)]
pub struct TableEntry {
    /// `<port>`, or `<host>:<port>` for a port of unknown protocol.
    pub table: Str,
    pub name: Str,
    pub domains: Vec<(Str, Claim)>,
    pub routes: Vec<Route>,
    /// Whether plaintext is led to HTTPS.
    pub redirects: bool,
    pub sources: Vec<Source>,
}

/// What a host asks of the listener at an address.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerEntry {
    pub address: IpAddr,
    pub port: u16,
    pub asks: Asks,
    pub source: Source,
}

/// All that the join of a host reads of the mesh. Whatever changes one of these touches the host.
pub struct HostFacts<'s> {
    pub host: &'s Hostname,
    pub service: Option<&'s Service>,
    pub endpoints: Option<&'s EndpointSet>,
    /// The mTLS mode of the Service's namespace, and the policies that say so.
    pub namespace_mode: (Mode, Vec<Key>),
    /// Of these only the ones of the Service's namespace count.
    pub policies: &'s Policies,
    pub mesh: &'s MeshConfig,
    /// Kubernetes' DNS domain.
    pub domain: &'s str,
}

impl<'s> HostFacts<'s> {
    pub fn of(snapshot: &'s Snapshot, host: &'s Hostname) -> Self {
        let service = snapshot.services.get(host.as_str()).map(AsRef::as_ref);
        let namespace = service.map_or("", |s: &Service| &s.namespace);
        let root = &snapshot.mesh.root_namespace;
        Self {
            host,
            service,
            endpoints: snapshot.endpoints.get(host.as_str()).map(AsRef::as_ref),
            namespace_mode: snapshot.policies.namespace_mode(root, namespace),
            policies: &snapshot.policies,
            mesh: &snapshot.mesh,
            domain: &snapshot.settings.domain,
        }
    }
}

/// What a client that stands so to a host holds because of it.
pub fn join(facts: &HostFacts<'_>, relation: &Relation) -> HostView {
    let mut view = match (&relation.reach, facts.service) {
        (Reach::Routed(way), _) => join_routed_host(facts, relation, way),
        (Reach::Nowhere, _) | (_, None) => HostView::default(),
        (Reach::Led | Reach::Edge | Reach::Open | Reach::Ways(_), Some(service)) => {
            join_service(facts, relation, service)
        }
    };
    gateway_hosts::add(facts, relation, &mut view);
    view
}

fn join_service(facts: &HostFacts<'_>, relation: &Relation, service: &Service) -> HostView {
    let mut view = HostView::default();
    let rule = relation.rule.as_ref().map(Obeyed::merged);
    for (index, port) in service.ports.iter().enumerate() {
        if port.protocol == Protocol::Udp {
            continue;
        }
        let called = Called {
            facts,
            relation,
            service,
            port,
            rule: rule.as_ref(),
        };
        match relation.reach.way(index) {
            Some(way) => {
                called.add_clusters(&mut view);
                called.add_entry_points(&way, &mut view);
            }
            None if matches!(relation.reach, Reach::Led | Reach::Edge) => {
                called.add_clusters(&mut view);
            }
            None => {}
        }
    }
    view
}

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// One port of a Service, as a client meets it.
struct Called<'a> {
    facts: &'a HostFacts<'a>,
    relation: &'a Relation,
    service: &'a Service,
    port: &'a ServicePort,
    rule: Option<&'a Merged>,
}

impl Called<'_> {
    fn add_clusters(&self, view: &mut HostView) {
        let none = (Str::default(), Labels::new());
        let subsets = self.rule.into_iter().flat_map(|r| &r.subsets);
        let subsets = subsets.map(|d| (d.subset.name.clone(), d.subset.labels.clone()));
        for (subset, labels) in std::iter::once(none).chain(subsets) {
            let destined = match self.relation.reach {
                Reach::Edge => Destined::No,
                _ => Destined::Yes,
            };
            let by = Caller {
                rule: self.rule,
                destined,
                place: self.relation.place.as_deref(),
                families: self.relation.families,
            };
            let (cluster, spread, sources) =
                outbound_cluster::join(self.facts, self.service, self.port, &by, &subset);
            if cluster.discovery == Discovery::Eds {
                view.assignments.push(Assignment {
                    cluster: cluster.name.clone(),
                    port: self.port.number,
                    labels,
                    spread,
                    speaking: Speaking::Anything,
                    families: self.relation.families,
                });
            }
            view.clusters.push((cluster, sources));
        }
    }

    fn add_entry_points(&self, way: &Way, view: &mut HostView) {
        let Self { service, port, .. } = self;
        let own_port = way.own_port != OwnPort::None;
        let class = match way.own_port {
            OwnPort::Stated(Some(class)) => class,
            OwnPort::Stated(None) | OwnPort::None => port.protocol.class(),
        };
        let binds = self.listener_addresses(way);
        // Bytes to a headless Service, or to one of another family, go where the client's own lookup led
        // (PassthroughCluster): the listener of all addresses would take what is for others.
        let none = self.reached().next().is_none();
        if class != Class::Http && none && binds == [ANY] && service.entry.is_none() {
            return;
        }
        let addresses = if class == Class::Http && !own_port {
            vec![http_address(self.relation.interception)]
        } else {
            binds
        };
        let places = self.places(class, addresses, own_port);
        let mut table = None;
        for (address, apart) in places {
            if is_taken(address, port.number, self.relation.taken) {
                continue;
            }
            let asks = self.asks(class, way, address == ANY || own_port, apart);
            table = table.or_else(|| asks.table().cloned());
            view.listeners.push(ListenerEntry {
                address,
                port: port.number,
                asks,
                source: port_source(service, port),
            });
        }
        if class != Class::Http
            && let Some(followed) = self.relation.followed.as_ref()
        {
            let led = followed.leads.iter().map(|(host, _)| host);
            let others = led.filter(|host| **host != service.host);
            view.destinations.extend(others.cloned());
        }
        if let Some(table) = table {
            self.add_virtual_host(way, table, view);
        }
    }

    /// The addresses at which the port is called. A ServiceEntry has as many as it lists, and where it lists none, or
    /// ranges, what is for it is told apart from the rest.
    fn places(
        &self,
        class: Class,
        addresses: Vec<IpAddr>,
        own_port: bool,
    ) -> Vec<(IpAddr, Vec<Apart>)> {
        let whole =
            |addresses: Vec<IpAddr>| addresses.into_iter().map(|a| (a, Vec::new())).collect();
        let Some(entry) = self.service.entry.as_deref() else {
            return whole(addresses);
        };
        if class == Class::Http || own_port || addresses != self.listener_addresses(&Way::default())
        {
            return whole(addresses);
        }
        let is_tls = matches!(self.port.protocol, Protocol::Tls | Protocol::Https);
        let by_name = Some(&self.service.host).filter(|_| is_tls);
        let server_name = by_name.and_then(l4_routes::server_name);
        if by_name.is_some() && server_name.is_none() {
            // Envoy tells no such names apart.
            return Vec::new();
        }
        let server_name = server_name.unwrap_or_default();
        let apart = |range| Apart {
            server_name: server_name.clone(),
            range,
        };
        let named = || match server_name.as_str() {
            "" => Vec::new(),
            _ => vec![apart(None)],
        };
        // Without capture clients call the loopback, whatever the entry's addresses.
        if self.relation.interception == Interception::None {
            return addresses.into_iter().map(|a| (a, named())).collect();
        }
        let mut all: Vec<_> = self.reached().map(|ip| (ip, Vec::new())).collect();
        let ranges: Vec<Apart> = entry.ranges.iter().map(|r| apart(Some(*r))).collect();
        if !ranges.is_empty() {
            all.push((ANY, ranges));
        } else if self.service.addresses.is_empty() {
            all.push((ANY, named()));
        }
        all
    }

    /// `shared` addresses detect by the table of the port, a Service's own by a table of its own.
    fn asks(&self, class: Class, way: &Way, shared: bool, apart: Vec<Apart>) -> Asks {
        let number = self.port.number;
        let of_port = || Str::new(number.to_string());
        match class {
            Class::Http => Asks::Http { table: of_port() },
            // What is told apart by where it goes, or by name, is not looked into.
            Class::Auto if !apart.is_empty() => self.bytes(way, apart),
            Class::Tcp => self.bytes(way, apart),
            Class::Auto => Asks::Detect {
                table: if shared {
                    of_port()
                } else {
                    Str::new(format!("{}:{number}", self.service.host))
                },
                bytes: match self.bytes(way, Vec::new()) {
                    Asks::Tcp(bytes)
                    | Asks::Told {
                        rest: Some(bytes), ..
                    } => bytes,
                    _ => self.own_bytes(),
                },
            },
        }
    }

    /// To the Service itself.
    fn own_bytes(&self) -> Bytes {
        let cluster = cluster_name(self.port.number, "", &self.service.host);
        Bytes {
            to: Targets {
                prefix: cluster.clone(),
                targets: vec![Target { cluster, weight: 1 }],
            },
            flow: traffic_policy::flow(self.rule, self.port.number, ""),
            server: None,
        }
    }

    fn bytes(&self, way: &Way, apart: Vec<Apart>) -> Asks {
        let followed = self.relation.followed.as_ref();
        let followed = followed.filter(|_| way.virtuals == Virtuals::Imported);
        let called = l4_routes::Called {
            port: self.port.number,
            protocol: self.port.protocol,
            domain: self.facts.domain,
        };
        let ways = followed.map(|f| l4_routes::of_virtual(f, &called, &apart));
        let l4_routes::Ways { mut told, rest } = ways.unwrap_or_default();
        let rest = rest.unwrap_or_else(|| self.own_bytes());
        if apart.is_empty() {
            return match told.is_empty() {
                true => Asks::Tcp(rest),
                false => Asks::Told {
                    ways: told,
                    rest: Some(rest),
                },
            };
        }
        // What a rule tells apart goes before the host's own.
        for apart in apart {
            if told.iter().all(|(known, _)| *known != apart) {
                told.push((apart, rest.clone()));
            }
        }
        Asks::Told {
            ways: told,
            rest: None,
        }
    }

    /// `bind` of the Sidecar listener; without capture the loopback; else the Service's own address, one of each family.
    fn listener_addresses(&self, way: &Way) -> Vec<IpAddr> {
        if let Some(bind) = way.bind {
            return vec![bind];
        }
        match self.relation.interception {
            Interception::None => vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            Interception::Redirect | Interception::Tproxy => {
                let first = self.reached().find(IpAddr::is_ipv4);
                let second = self.reached().find(IpAddr::is_ipv6);
                let own: Vec<IpAddr> = first.into_iter().chain(second).collect();
                if own.is_empty() { vec![ANY] } else { own }
            }
        }
    }

    /// The Service's addresses that the client can call.
    fn reached(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let families = self.relation.families;
        let all = self.service.addresses.iter().copied();
        all.filter(move |ip| families.reach(ip))
    }

    fn add_virtual_host(&self, way: &Way, table: Str, view: &mut HostView) {
        let HostFacts { mesh, domain, .. } = *self.facts;
        let host = &self.service.host;
        let number = self.port.number;
        let followed = self.relation.followed.as_ref();
        let followed = followed.filter(|_| way.virtuals == Virtuals::Imported);
        let of_virtual = followed.map(|f| http_routes::of_virtual(f, host, number, mesh, domain));
        let joined = of_virtual.filter(|j| !j.routes.is_empty());
        let joined = joined.unwrap_or_else(|| {
            let own = Lead {
                only_port: self.service.only_port(),
                rule: self.relation.rule.clone(),
            };
            http_routes::default(host, &own, number, mesh)
        });
        view.destinations
            .extend(joined.destinations.into_iter().filter(|d| d != host));
        let domains = if table == number.to_string() {
            domains::of_service(self.service, self.relation.home, domain)
        } else {
            vec![(Str::new_static("*"), Claim::Own)]
        };
        let mut sources = vec![port_source(self.service, self.port)];
        sources.extend(joined.sources);
        view.virtual_hosts.push(TableEntry {
            table,
            name: Str::new(format!("{host}:{number}")),
            domains,
            routes: joined.routes,
            redirects: false,
            sources,
        });
    }
}

/// HTTP ports share one listener, whatever the address that was called.
pub fn http_address(interception: Interception) -> IpAddr {
    match interception {
        Interception::None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Interception::Redirect | Interception::Tproxy => ANY,
    }
}

/// Whether the proxy's own bootstrap, or its capture, has a listener there: a second one is refused.
pub fn is_taken(address: IpAddr, port: u16, taken: Taken) -> bool {
    (address.is_unspecified() || address.is_loopback()) && taken.covers(port)
}

fn join_routed_host(facts: &HostFacts<'_>, relation: &Relation, way: &Way) -> HostView {
    let mut view = HostView::default();
    let HostFacts {
        host, mesh, domain, ..
    } = *facts;
    let Some(followed) = &relation.followed else {
        return view;
    };
    let joined = http_routes::of_virtual(followed, host, ROUTED_PORT, mesh, domain);
    if joined.routes.is_empty() {
        return view;
    }
    view.destinations = joined.destinations;
    let table = Str::new(ROUTED_PORT.to_string());
    let http_address = http_address(relation.interception);
    view.listeners.push(ListenerEntry {
        address: way.bind.unwrap_or(http_address),
        port: ROUTED_PORT,
        asks: Asks::Http {
            table: table.clone(),
        },
        source: Source {
            key: followed.entry.key.clone(),
            field: Str::new_static("spec.hosts"),
        },
    });
    view.virtual_hosts.push(TableEntry {
        table,
        name: Str::new(format!("{host}:{ROUTED_PORT}")),
        domains: domains::of_host(host),
        routes: joined.routes,
        redirects: false,
        sources: joined.sources,
    });
    view
}
