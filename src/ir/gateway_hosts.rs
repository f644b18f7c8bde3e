//! What one host adds to a proxy at the edge: a virtual host in each table that answers for it, and where the bytes
//! of its connections go.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::domains::Claim;
use super::http_routes;
use super::l4_routes;
use super::outbound::{
    Apart, Asks, Assignment, Bytes, HostFacts, HostView, ListenerEntry, Speaking, TableEntry,
    Targets,
};
use super::outbound_cluster::{self, Caller, Destined};
use super::relation::{Followed, Gate, Relation};
use super::{Flow, Route, Target};
use crate::config::Source;
use crate::config::gateway::Sort;
use crate::config::meta::Labels;
use crate::model::protocol::Protocol;
use crate::model::services::Resolution;
use crate::text::Str;

/// Adds what the host is at each gate.
pub fn add(facts: &HostFacts<'_>, relation: &Relation, view: &mut HostView) {
    add_virtual_hosts(facts, &relation.gates, view);
    for gate in &relation.gates {
        match gate.served.sort {
            Sort::Http | Sort::Https => {}
            Sort::Tcp => add_bytes(facts, gate, None, view),
            Sort::Tls | Sort::Passthrough => add_named_bytes(facts, gate, view),
            Sort::AutoPassthrough => add_through(facts, relation, gate, view),
        }
        let leads = gate.followed.iter().flat_map(|f| &f.leads);
        let others = leads
            .map(|(host, _)| host)
            .filter(|host| *host != facts.host);
        view.destinations.extend(others.cloned());
    }
}

/// Servers that share a table are one to a host: what VirtualServices say at each of them holds together, and one that
/// leads plaintext to HTTPS does so for all.
fn add_virtual_hosts(facts: &HostFacts<'_>, gates: &[Gate], view: &mut HostView) {
    let mut tables: BTreeMap<&Str, Vec<&Gate>> = BTreeMap::new();
    for gate in gates.iter().filter(|gate| gate.served.sort.has_table()) {
        tables.entry(&gate.served.table).or_default().push(gate);
    }
    let entries = tables.into_values();
    view.virtual_hosts
        .extend(entries.filter_map(|gates| virtual_host(facts, &gates)));
}

fn virtual_host(facts: &HostFacts<'_>, gates: &[&Gate]) -> Option<TableEntry> {
    let HostFacts {
        host, mesh, domain, ..
    } = *facts;
    let first = gates.first()?;
    let number = first.served.server().port.number;
    let mut obeyed: Vec<&Followed> = Vec::new();
    for followed in gates.iter().flat_map(|gate| &gate.followed) {
        if !obeyed.contains(&followed) {
            obeyed.push(followed);
        }
    }
    obeyed.sort_by(|a, b| a.entry.meta.age().cmp(&b.entry.meta.age()));
    let mut sources: Vec<Source> = gates.iter().map(|gate| gate.served.source()).collect();
    let mut routes = Vec::new();
    for followed in obeyed {
        let joined = http_routes::of_virtual(followed, host, number, mesh, domain);
        routes.extend(joined.routes);
        sources.extend(joined.sources);
    }
    let redirects = gates.iter().any(|gate| gate.served.server().redirects());
    if routes.is_empty() && !redirects {
        return None;
    }
    // Of several VirtualServices for one host, what takes everything comes last, whoever says it.
    let narrow = |route: &Route| {
        let matches = route.matches.as_ref();
        matches.is_some_and(|m| !http_routes::takes_all(m))
    };
    let (narrow, wide): (Vec<Route>, Vec<Route>) = routes.into_iter().partition(narrow);
    Some(TableEntry {
        table: first.served.table.clone(),
        name: Str::new(format!("{host}:{number}")),
        domains: vec![(host.to_str(), Claim::Own)],
        routes: narrow.into_iter().chain(wide).collect(),
        redirects,
        sources,
    })
}

/// By the rules for TCP; `server_name` is what the client asks for, where that tells its connections apart.
fn add_bytes(facts: &HostFacts<'_>, gate: &Gate, server_name: Option<&Str>, view: &mut HostView) {
    let apart = server_name.map(|name| Apart {
        server_name: name.clone(),
        range: None,
    });
    let apart: Vec<Apart> = apart.into_iter().collect();
    for followed in &gate.followed {
        let called = called(facts, gate, Protocol::Tcp);
        let ways = l4_routes::of_virtual(followed, &called, &apart);
        let (mut told, rest) = (ways.told, ways.rest);
        let rest = match (rest, &apart[..]) {
            (Some(bytes), [apart]) => {
                told.push((apart.clone(), bytes));
                None
            }
            (rest, _) => rest,
        };
        ask(gate, told, rest, view);
    }
}

/// By the rules for TLS, each for the names that it lists, and where TLS ends here by those for TCP too.
fn add_named_bytes(facts: &HostFacts<'_>, gate: &Gate, view: &mut HostView) {
    for followed in &gate.followed {
        let called = called(facts, gate, Protocol::Tls);
        let mut told = l4_routes::of_virtual(followed, &called, &[]).told;
        let served = gate.served.hosts();
        told.retain(|(apart, _)| {
            let mut names = served.iter().map(|host| &host.name);
            names.any(|name| name.matches(&apart.server_name))
        });
        ask(gate, told, None, view);
    }
    let name = l4_routes::server_name(facts.host);
    // Envoy tells no other wildcards apart than those of whole labels.
    let told = name.is_some() || facts.host.as_str() == "*";
    if gate.served.sort == Sort::Tls && told {
        add_bytes(facts, gate, name.as_ref(), view);
    }
}

/// Whatever port, subset and Service a client of another network asks for, as the mesh's own TLS names them.
fn add_through(facts: &HostFacts<'_>, relation: &Relation, gate: &Gate, view: &mut HostView) {
    let Some(service) = facts.service else {
        return;
    };
    // Nobody outside of the mesh is called through it, and nobody by a name that is none.
    let by_name = matches!(service.resolution, Resolution::Dns(_));
    if service.is_external() || service.host.is_wildcard() || by_name {
        return;
    }
    let rule = relation
        .rule
        .as_ref()
        .map(crate::model::rules::Obeyed::merged);
    let mut told = Vec::new();
    for port in service.ports.iter().filter(|p| p.protocol != Protocol::Udp) {
        let none = (Str::default(), Labels::new());
        let subsets = rule.iter().flat_map(|rule| &rule.subsets);
        let subsets = subsets.map(|d| (d.subset.name.clone(), d.subset.labels.clone()));
        for (subset, labels) in std::iter::once(none).chain(subsets) {
            let by = Caller {
                rule: rule.as_ref(),
                destined: Destined::No,
                place: relation.place.as_deref(),
                families: relation.families,
            };
            let (cluster, spread, sources) =
                outbound_cluster::through(facts, service, port, &by, &subset);
            view.assignments.push(Assignment {
                cluster: cluster.name.clone(),
                port: port.number,
                labels,
                spread,
                speaking: Speaking::MeshTls,
                families: relation.families,
            });
            let apart = Apart {
                server_name: cluster.name.clone(),
                range: None,
            };
            told.push((apart, only(&cluster.name)));
            view.clusters.push((cluster, sources));
        }
    }
    ask(gate, told, None, view);
}

fn only(cluster: &Str) -> Bytes {
    Bytes {
        to: Targets {
            prefix: cluster.clone(),
            targets: vec![Target {
                cluster: cluster.clone(),
                weight: 1,
            }],
        },
        flow: Flow::default(),
        server: None,
    }
}

fn called<'a>(facts: &'a HostFacts<'_>, gate: &Gate, protocol: Protocol) -> l4_routes::Called<'a> {
    l4_routes::Called {
        port: gate.served.server().port.number,
        protocol,
        domain: facts.domain,
    }
}

/// Several servers may stand at one place: what a host asks for there is asked together.
fn ask(gate: &Gate, mut told: Vec<(Apart, Bytes)>, mut rest: Option<Bytes>, view: &mut HostView) {
    if told.is_empty() && rest.is_none() {
        return;
    }
    let server = Arc::new((gate.served.key().clone(), gate.served.index));
    let all = told.iter_mut().map(|(_, bytes)| bytes).chain(&mut rest);
    for bytes in all {
        bytes.server = Some(server.clone());
    }
    let (address, port): (IpAddr, u16) = gate.place;
    let known = view.listeners.iter_mut();
    let mut known = known.filter(|entry| (entry.address, entry.port) == gate.place);
    if let Some(entry) = known.next()
        && let Asks::Told { ways, rest: other } = &mut entry.asks
    {
        for (apart, bytes) in told {
            if ways.iter().all(|(known, _)| *known != apart) {
                ways.push((apart, bytes));
            }
        }
        *other = other.take().or(rest);
        return;
    }
    view.listeners.push(ListenerEntry {
        address,
        port,
        asks: Asks::Told { ways: told, rest },
        source: gate.served.source(),
    });
}
