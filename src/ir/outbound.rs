//! What one host adds to a client's outbound configuration: clusters, virtual hosts, listeners.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use super::client::Client;
use super::domains::{self, Claim};
use super::http_routes;
use super::outbound_cluster::{self, cluster_name, port_source};
use super::traffic_policy;
use super::{Cluster, Discovery, Route, Target};
use crate::config::Source;
use crate::config::meta::Labels;
use crate::model::Snapshot;
use crate::model::protocol::{Class, Protocol};
use crate::model::proxy::Interception;
use crate::model::routes::Virtual;
use crate::model::rules::Merged;
use crate::model::services::{Service, ServicePort};
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
        let (cluster, sources) = outbound_cluster::join(snapshot, service, port, rule, &subset);
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
