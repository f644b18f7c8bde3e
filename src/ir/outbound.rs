//! What one host adds to a client's outbound configuration: clusters, virtual hosts, listeners.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use super::client::Client;
use super::domains::{self, Claim};
use super::http_routes;
use super::traffic_policy::{self, Server};
use super::{
    Cluster, Discovery, LoadBalancer, Origin, Route, Target, UpstreamProtocol, UpstreamTls,
};
use crate::config::meta::Labels;
use crate::config::{Key, Kind, Source};
use crate::model::Snapshot;
use crate::model::protocol::{Class, Protocol};
use crate::model::proxy::Interception;
use crate::model::routes::Virtual;
use crate::model::rules::Merged;
use crate::model::services::{Resolution, Service, ServicePort};
use crate::model::sidecars::Egress;
use crate::text::{Hostname, Str};

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
}

/// A virtual host before its table decides which of its domains it gets.
#[derive(Clone, Debug, PartialEq)]
pub struct TableEntry {
    /// `<port>`, or `<host>:<port>` for a port of unknown protocol.
    pub table: Str,
    pub name: Str,
    pub domains: Vec<(Str, Claim)>,
    pub routes: Vec<Route>,
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

#[derive(Clone, Debug, PartialEq)]
pub enum Asks {
    /// HTTP by the table of the port.
    Http { table: Str },
    /// Bytes to this cluster.
    Tcp {
        target: Target,
        hash_source_ip: super::HashSourceIp,
    },
    /// Whatever it turns out to be: HTTP by this table, else bytes to this cluster.
    Detect { table: Str, target: Target },
}

/// Whether a client sees a host, and by which of its egress listeners.
pub fn join(client: &Client, egress: &[Egress], snapshot: &Snapshot, host: &Hostname) -> HostView {
    let service = snapshot.services.get(host.as_str());
    let service = service.filter(|s| s.export_to.reaches(&client.namespace));
    match service {
        Some(service) => join_service(client, egress, snapshot, service),
        None => join_routed_host(client, egress, snapshot, host),
    }
}

/// A host that another host's route leads to: clusters, but no way to call it by name.
pub fn join_destination(client: &Client, snapshot: &Snapshot, host: &Hostname) -> HostView {
    let mut view = HostView::default();
    let service = snapshot.services.get(host.as_str());
    if let Some(service) = service.filter(|s| s.export_to.reaches(&client.namespace)) {
        let rule = rule_of(client, snapshot, service);
        for port in service.ports.iter().filter(|p| p.protocol != Protocol::Udp) {
            add_clusters(&mut view, snapshot, service, port, rule.as_ref());
        }
    }
    view
}

fn join_service(
    client: &Client,
    egress: &[Egress],
    snapshot: &Snapshot,
    service: &Service,
) -> HostView {
    let mut view = HostView::default();
    let rule = rule_of(client, snapshot, service);
    for port in service.ports.iter().filter(|p| p.protocol != Protocol::Udp) {
        let by = egress.iter().enumerate().find(|(index, e)| {
            takes_port(egress, *index, port.number) && e.imports(&service.namespace, &service.host)
        });
        let Some((_, listener)) = by else { continue };
        add_clusters(&mut view, snapshot, service, port, rule.as_ref());
        add_entry_points(
            &mut view,
            client,
            listener,
            snapshot,
            service,
            port,
            rule.as_ref(),
        );
    }
    view
}

/// A listener with a port takes that port alone, and no later one gets it.
fn takes_port(egress: &[Egress], index: usize, port: u16) -> bool {
    match &egress[index].spec.port {
        Some(own) => own.number == port,
        None => !egress[..index]
            .iter()
            .any(|e| e.spec.port.as_ref().is_some_and(|p| p.number == port)),
    }
}

fn rule_of(client: &Client, snapshot: &Snapshot, service: &Service) -> Option<Merged> {
    snapshot
        .rules
        .select(&snapshot.mesh.root_namespace, &client.namespace, service)
}

fn service_source(service: &Service, field: &str) -> Source {
    let Service {
        namespace, name, ..
    } = service;
    let key = Key {
        kind: Kind::Service,
        namespace: namespace.clone(),
        name: name.clone(),
    };
    Source {
        key,
        field: Str::new(field),
    }
}

fn port_source(service: &Service, port: &ServicePort) -> Source {
    let index = service
        .ports
        .iter()
        .position(|p| p.number == port.number)
        .unwrap_or_default();
    service_source(service, &format!("spec.ports[{index}]"))
}

fn cluster_name(port: u16, subset: &str, host: &Hostname) -> Str {
    Str::new(format!("outbound|{port}|{subset}|{host}"))
}

fn add_clusters(
    view: &mut HostView,
    snapshot: &Snapshot,
    service: &Service,
    port: &ServicePort,
    rule: Option<&Merged>,
) {
    let none = (Str::default(), Labels::new());
    let subsets = rule.into_iter().flat_map(|r| &r.subsets);
    let subsets = subsets.map(|(s, _)| (s.name.clone(), s.labels.clone()));
    for (subset, labels) in std::iter::once(none).chain(subsets) {
        let (cluster, sources) = cluster(snapshot, service, port, rule, &subset);
        if cluster.discovery == Discovery::Eds {
            let name = cluster.name.clone();
            view.assignments.push(Assignment {
                cluster: name,
                port: port.number,
                labels,
            });
        }
        view.clusters.push((cluster, sources));
    }
}

fn cluster(
    snapshot: &Snapshot,
    service: &Service,
    port: &ServicePort,
    rule: Option<&Merged>,
    subset: &str,
) -> (Cluster, Vec<Source>) {
    let policy = traffic_policy::policy(rule, port.number, subset);
    let mesh = &snapshot.mesh;
    let (namespace_mode, policies) = snapshot
        .policies
        .namespace_mode(&mesh.root_namespace, &service.namespace);
    let server = Server {
        host: service.host.as_str(),
        port: port.number,
        subset,
        protocol: port.protocol,
        identities: identities(snapshot, service),
        auto: mesh.enable_auto_mtls.then_some(namespace_mode),
    };
    let balancer = traffic_policy::load_balancer(&policy)
        .filter(|_| service.resolution == Resolution::Endpoints);
    let of_rule = policy
        .sources
        .first()
        .map(|s| http_routes::config_path(&s.key));
    let cluster = Cluster {
        name: cluster_name(port.number, subset, &service.host),
        discovery: match balancer {
            Some(_) => Discovery::Eds,
            None => Discovery::OriginalDst { source: None },
        },
        protocol: upstream_protocol(port.protocol),
        connect_timeout: mesh.connect_timeout,
        load_balancer: balancer.unwrap_or(LoadBalancer::ClusterProvided),
        tls: original_dst_tls(
            traffic_policy::upstream_tls(&policy, server),
            balancer,
            snapshot,
            service,
        ),
        origin: Some(Origin {
            host: service.host.to_str(),
            name: service.name.clone(),
            namespace: service.namespace.clone(),
            subset: Str::new(subset),
            config: of_rule.unwrap_or_default(),
        }),
    };
    let mut sources = vec![port_source(service, port)];
    sources.extend(policy.sources);
    sources.extend(policies.into_iter().map(|key| Source {
        key,
        field: Str::default(),
    }));
    (cluster, sources)
}

/// An original destination has no endpoint metadata to choose by: mTLS only if every endpoint speaks it.
fn original_dst_tls(
    tls: UpstreamTls,
    balancer: Option<LoadBalancer>,
    snapshot: &Snapshot,
    service: &Service,
) -> UpstreamTls {
    match tls {
        UpstreamTls::Auto(mutual) if balancer.is_none() => {
            let set = snapshot.endpoints.get(service.host.as_str());
            let mut members = set
                .iter()
                .flat_map(|s| s.by_port.values().flatten())
                .peekable();
            let all = members.peek().is_some()
                && members.all(|m| m.endpoint.tls_mode == super::TlsMode::Istio);
            if all {
                UpstreamTls::Mutual(mutual)
            } else {
                UpstreamTls::Off
            }
        }
        other => other,
    }
}

/// Who the endpoints are, in the mesh's trust domain and in each alias of it.
fn identities(snapshot: &Snapshot, service: &Service) -> Vec<Str> {
    let mesh = &snapshot.mesh;
    let accounts = snapshot
        .endpoints
        .get(service.host.as_str())
        .map(|s| &s.accounts);
    let domains: Vec<&Str> = std::iter::once(&mesh.trust_domain)
        .chain(&mesh.trust_domain_aliases)
        .collect();
    let uris = accounts
        .into_iter()
        .flatten()
        .flat_map(|(namespace, account)| {
            domains
                .iter()
                .map(move |td| Str::new(format!("spiffe://{td}/ns/{namespace}/sa/{account}")))
        });
    uris.collect::<BTreeSet<_>>().into_iter().collect()
}

fn upstream_protocol(protocol: Protocol) -> UpstreamProtocol {
    match protocol {
        Protocol::Http => UpstreamProtocol::Http1,
        Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb => UpstreamProtocol::Http2,
        Protocol::Auto => UpstreamProtocol::Downstream,
        Protocol::Tcp | Protocol::Tls | Protocol::Https | Protocol::Udp => UpstreamProtocol::Tcp,
    }
}

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

fn add_entry_points(
    view: &mut HostView,
    client: &Client,
    egress: &Egress,
    snapshot: &Snapshot,
    service: &Service,
    port: &ServicePort,
    rule: Option<&Merged>,
) {
    let source = port_source(service, port);
    let target = Target {
        cluster: cluster_name(port.number, "", &service.host),
        weight: 1,
    };
    let own_port = egress.spec.port.as_ref();
    let class = match own_port {
        Some(p) if !p.protocol.is_empty() => Protocol::of_word(&p.protocol).class(),
        _ => port.protocol.class(),
    };
    let bind = listener_address(client, egress, service);
    let number = port.number;
    let table = Str::new(number.to_string());
    let asks = match (class, bind) {
        (Class::Http, _) => Asks::Http {
            table: table.clone(),
        },
        (Class::Tcp, _) => Asks::Tcp {
            hash_source_ip: hash_source(rule, number),
            target,
        },
        (Class::Auto, ANY) => Asks::Detect {
            table: table.clone(),
            target,
        },
        (Class::Auto, _) if own_port.is_some() => Asks::Detect {
            table: table.clone(),
            target,
        },
        (Class::Auto, _) => Asks::Detect {
            table: Str::new(format!("{}:{number}", service.host)),
            target,
        },
    };
    let address = if class == Class::Http && own_port.is_none() {
        http_address(client)
    } else {
        bind
    };
    let table = match &asks {
        Asks::Http { table } | Asks::Detect { table, .. } => Some(table.clone()),
        Asks::Tcp { .. } => None,
    };
    // Bytes to a headless Service go where the client's own lookup led (PassthroughCluster).
    let headless_bytes = class != Class::Http && service.addresses.is_empty() && bind == ANY;
    if !headless_bytes {
        view.listeners.push(ListenerEntry {
            address,
            port: number,
            asks,
            source,
        });
    }
    if let Some(table) = table.filter(|_| !headless_bytes) {
        add_virtual_host(view, client, egress, snapshot, service, port, table);
    }
}

/// `bind` of the Sidecar listener; without capture the loopback; else the Service's own address.
fn listener_address(client: &Client, egress: &Egress, service: &Service) -> IpAddr {
    if let Ok(bind) = egress.spec.bind.parse() {
        return bind;
    }
    match client.interception {
        Interception::None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Interception::Redirect | Interception::Tproxy => service
            .addresses
            .iter()
            .copied()
            .find(IpAddr::is_ipv4)
            .unwrap_or(ANY),
    }
}

/// HTTP ports share one listener, whatever the address that was called.
pub fn http_address(client: &Client) -> IpAddr {
    match client.interception {
        Interception::None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Interception::Redirect | Interception::Tproxy => ANY,
    }
}

fn hash_source(rule: Option<&Merged>, port: u16) -> super::HashSourceIp {
    let policies = traffic_policy::hash_policies(&traffic_policy::policy(rule, port, ""));
    if policies.contains(&super::HashPolicy::SourceIp) {
        super::HashSourceIp::Yes
    } else {
        super::HashSourceIp::No
    }
}

fn add_virtual_host(
    view: &mut HostView,
    client: &Client,
    egress: &Egress,
    snapshot: &Snapshot,
    service: &Service,
    port: &ServicePort,
    table: Str,
) {
    let host = &service.host;
    let number = port.number;
    let entry = snapshot.virtuals.select(&client.namespace, host);
    let entry = entry.filter(|v| egress.imports(&v.key.namespace, host));
    let of_virtual = entry.map(|v| http_routes::of_virtual(client, snapshot, v, host, number));
    let joined = of_virtual
        .filter(|j| !j.routes.is_empty())
        .unwrap_or_else(|| http_routes::default(client, snapshot, host, number));
    view.destinations
        .extend(joined.destinations.into_iter().filter(|d| d != host));
    let own = table != number.to_string();
    let domains = if own {
        vec![(Str::new_static("*"), Claim::Own)]
    } else {
        domains::of_service(service, &client.namespace, &snapshot.settings.domain)
    };
    let mut sources = vec![port_source(service, port)];
    sources.extend(joined.sources);
    view.virtual_hosts.push(TableEntry {
        table,
        name: Str::new(format!("{host}:{number}")),
        domains,
        routes: joined.routes,
        sources,
    });
}

/// A VirtualService's host that is no Service stands on port 80 alone, as in Istio; a wildcard only while
/// no Service falls under it.
fn join_routed_host(
    client: &Client,
    egress: &[Egress],
    snapshot: &Snapshot,
    host: &Hostname,
) -> HostView {
    const PORT: u16 = 80;
    let mut view = HostView::default();
    let Some(entry) = snapshot.virtuals.named(&client.namespace, host) else {
        return view;
    };
    let imported = |e: &(usize, &Egress)| {
        takes_port(egress, e.0, PORT) && e.1.imports(&entry.key.namespace, host)
    };
    let shadowed = host.is_wildcard() && !visible_under(client, snapshot, host).is_empty();
    let Some((_, listener)) = egress.iter().enumerate().find(imported) else {
        return view;
    };
    if shadowed {
        return view;
    }
    add_routed_host(&mut view, client, listener, snapshot, entry, host);
    view
}

fn visible_under<'a>(
    client: &Client,
    snapshot: &'a Snapshot,
    host: &'a Hostname,
) -> Vec<&'a std::sync::Arc<Service>> {
    let mut services = snapshot.services.matching(host);
    services.retain(|s| s.export_to.reaches(&client.namespace));
    services
}

fn add_routed_host(
    view: &mut HostView,
    client: &Client,
    egress: &Egress,
    snapshot: &Snapshot,
    entry: &Virtual,
    host: &Hostname,
) {
    const PORT: u16 = 80;
    let joined = http_routes::of_virtual(client, snapshot, entry, host, PORT);
    if joined.routes.is_empty() {
        return;
    }
    view.destinations = joined.destinations;
    let address = egress
        .spec
        .bind
        .parse()
        .unwrap_or_else(|_| http_address(client));
    let table = Str::new_static("80");
    view.listeners.push(ListenerEntry {
        address,
        port: PORT,
        asks: Asks::Http {
            table: table.clone(),
        },
        source: Source {
            key: entry.key.clone(),
            field: Str::new_static("spec.hosts"),
        },
    });
    view.virtual_hosts.push(TableEntry {
        table,
        name: Str::new(format!("{host}:{PORT}")),
        domains: domains::of_host(host),
        routes: joined.routes,
        sources: joined.sources,
    });
}
