//! Which objects made each resource of a scope, found again when somebody asks.
//!
//! Nothing of it is kept: joining the hosts of one client once more tells it.

use std::collections::BTreeMap;

use super::Resources;
use super::hosts::Hosts;
use super::outbound::Outbound;
use crate::config::Source;
use crate::ir::inbound::Server;
use crate::ir::inbound_listener;
use crate::ir::outbound::{self, HostFacts, ListenerEntry};
use crate::model::Snapshot;
use crate::text::Str;
use crate::xds::{Entry, ResourceType};

type Sources = BTreeMap<(ResourceType, Str), Vec<Source>>;

/// Every resource of a scope with the objects that made it.
pub fn entries(
    resources: Resources<'_>,
    outbound: &Outbound,
    server: &Server,
    (snapshot, hosts): (&Snapshot, &Hosts),
) -> Vec<Entry> {
    let mut sources = of_outbound(outbound, snapshot, hosts);
    sources.extend(of_inbound(server, snapshot));
    let all = ResourceType::ALL
        .into_iter()
        .flat_map(|kind| resources.of(kind));
    all.map(|encoded| {
        let encoded = encoded.clone();
        let sources = sources.remove(&(encoded.kind, encoded.name.clone()));
        let sources = sources.into_iter().flatten();
        let sources = sources.chain(encoded.patched.sources().cloned()).collect();
        Entry { encoded, sources }
    })
    .collect()
}

fn of_inbound(server: &Server, snapshot: &Snapshot) -> Sources {
    let view = inbound_listener::join(server, &snapshot.mesh);
    let clusters = view.clusters.into_iter();
    let clusters = clusters.map(|(c, s)| ((ResourceType::Cluster, c.name), s));
    let listeners = view.listeners.into_iter();
    let listeners = listeners.map(|(l, s)| ((ResourceType::Listener, l.name), s));
    clusters.chain(listeners).collect()
}

fn of_outbound(outbound: &Outbound, snapshot: &Snapshot, hosts: &Hosts) -> Sources {
    let mut sources = Sources::new();
    for (host, joined) in outbound.joined() {
        let view = outbound::join(&HostFacts::of(snapshot, host), &joined.relation);
        let first = view.clusters.first().and_then(|(_, s)| s.first()).cloned();
        for assignment in view.assignments {
            let name = (ResourceType::Endpoint, assignment.cluster);
            sources.insert(name, first.clone().into_iter().collect());
        }
        for (cluster, of_cluster) in view.clusters {
            sources.insert((ResourceType::Cluster, cluster.name), of_cluster);
        }
        for entry in view.virtual_hosts {
            for name in outbound.names_of(host, &entry, hosts) {
                let known = sources.entry(name).or_default();
                known.extend(entry.sources.iter().cloned());
            }
        }
        for entry in &view.listeners {
            add_listener(&mut sources, entry);
        }
    }
    for entry in outbound.fixed() {
        add_listener(&mut sources, entry);
    }
    let front = outbound.client.front.iter();
    for ((address, port), served) in front.flat_map(|front| front.servers()) {
        let listener = (
            ResourceType::Listener,
            Str::new(format!("{address}_{port}")),
        );
        let table = (ResourceType::Route, served.table.clone());
        for name in [listener, table] {
            let known = sources.entry(name).or_default();
            if !known.contains(&served.source()) {
                known.push(served.source());
            }
        }
    }
    sources
}

fn add_listener(sources: &mut Sources, entry: &ListenerEntry) {
    let name = Str::new(format!("{}_{}", entry.address, entry.port));
    let of_listener = sources.entry((ResourceType::Listener, name));
    of_listener.or_default().push(entry.source.clone());
}
