//! A host's join with its resources encoded, shared by all clients alike to the host.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::places::Place;
use crate::config::mesh::MeshConfig;
use crate::ir::domains::Claim;
use crate::ir::outbound::{Asks, Assignment, HostView, ListenerEntry, TableEntry};
use crate::ir::relation::Relation;
use crate::ir::{VirtualHost, assignments, outbound_listener};
use crate::model::Snapshot;
use crate::model::proxy::Interception;
use crate::text::{Hostname, Str};
use crate::xds::encode::{Cache, Part};
use crate::xds::{Encoded, route};

/// What one host adds to the configuration of every client that stands to it in this relation.
#[derive(Clone, Debug)]
pub struct JoinedHost {
    pub relation: Relation,
    pub clusters: Box<[Arc<Encoded>]>,
    pub assignments: Box<[Assigned]>,
    pub virtual_hosts: Box<[JoinedVirtualHost]>,
    pub listeners: Box<[JoinedListener]>,
    /// Hosts whose Service or DestinationRule decided part of this.
    pub destinations: BTreeSet<Hostname>,
}

#[derive(Clone, Debug)]
pub struct Assigned {
    pub which: Assignment,
    pub encoded: Arc<Encoded>,
}

#[derive(Clone, Debug)]
pub struct JoinedVirtualHost {
    pub table: Str,
    /// With all the domains: what a client holds to whom no other host claims one of them.
    pub part: Arc<Part>,
    pub domains: Box<[(Str, Claim)]>,
}

#[derive(Clone, Debug)]
pub struct JoinedListener {
    pub address: IpAddr,
    pub port: u16,
    pub asks: Asks,
    /// The listener where nobody else asks for the address; absent where others are likely to.
    pub alone: Option<Arc<Encoded>>,
}

impl JoinedHost {
    pub fn new(
        host: &Hostname,
        relation: Relation,
        view: HostView,
        snapshot: &Snapshot,
        cache: &mut Cache,
    ) -> Self {
        let interception = relation.interception;
        let assigned = view.assignments.into_iter();
        Self {
            relation,
            clusters: view.clusters.iter().map(|(c, _)| cache.get(c)).collect(),
            assignments: assigned
                .map(|which| assigned_to(host, which, snapshot, cache))
                .collect(),
            virtual_hosts: view
                .virtual_hosts
                .into_iter()
                .map(|entry| virtual_host(entry, cache))
                .collect(),
            listeners: view
                .listeners
                .into_iter()
                .map(|entry| listener(entry, interception, &snapshot.mesh, cache))
                .collect(),
            destinations: view.destinations,
        }
    }

    /// The same with the endpoints as they are now.
    pub fn assigned_again(&self, host: &Hostname, snapshot: &Snapshot, cache: &mut Cache) -> Self {
        let again = |a: &Assigned| assigned_to(host, a.which.clone(), snapshot, cache);
        Self {
            assignments: self.assignments.iter().map(again).collect(),
            ..self.clone()
        }
    }

    /// Whether both add the same to route tables.
    pub fn routes_as(&self, other: &Self) -> bool {
        let same = |(a, b): (&JoinedVirtualHost, &JoinedVirtualHost)| {
            a.table == b.table && a.part.version == b.part.version && a.domains == b.domains
        };
        let mut pairs = self.virtual_hosts.iter().zip(&other.virtual_hosts);
        self.virtual_hosts.len() == other.virtual_hosts.len() && pairs.all(same)
    }

    pub fn virtual_host(&self, table: &str) -> Option<&JoinedVirtualHost> {
        self.virtual_hosts.iter().find(|v| v.table == table)
    }
}

impl JoinedListener {
    pub fn place(&self) -> Place {
        (self.address, self.port)
    }
}

impl JoinedVirtualHost {
    pub fn claim(&self, domain: &str) -> Option<Claim> {
        let mut domains = self.domains.iter();
        domains.find(|(d, _)| d == domain).map(|(_, claim)| *claim)
    }
}

fn assigned_to(
    host: &Hostname,
    which: Assignment,
    snapshot: &Snapshot,
    cache: &mut Cache,
) -> Assigned {
    let joined = assignments::join(snapshot, host.as_str(), &which);
    let encoded = cache.get(&joined);
    Assigned { which, encoded }
}

fn virtual_host(entry: TableEntry, cache: &mut Cache) -> JoinedVirtualHost {
    let node = VirtualHost {
        name: entry.name,
        domains: entry.domains.iter().map(|(d, _)| d.clone()).collect(),
        routes: entry.routes,
        redirects: entry.redirects,
    };
    JoinedVirtualHost {
        table: entry.table,
        part: route::part(cache, &node),
        domains: entry.domains.into(),
    }
}

fn listener(
    entry: ListenerEntry,
    interception: Interception,
    mesh: &MeshConfig,
    cache: &mut Cache,
) -> JoinedListener {
    let own_address = interception != Interception::None && !entry.address.is_unspecified();
    let of_bytes = match &entry.asks {
        Asks::Tcp(_) | Asks::Detect { .. } => own_address,
        Asks::Http { .. } | Asks::Told { .. } => false,
    };
    let alone = of_bytes.then(|| cache.get(&outbound_listener::alone(interception, mesh, &entry)));
    JoinedListener {
        address: entry.address,
        port: entry.port,
        asks: entry.asks,
        alone,
    }
}
