//! The endpoints of each Service port, from slices, Pods and WorkloadEntries.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use super::policies::Policies;
use super::services::{Resolution, Service, ServicePort};
use super::slices::{Slice, of_slice};
use super::workloads::{self, Place, Ports, Workload, Workloads};
use crate::config::core::{ContainerPort, TargetPort, Transport};
use crate::config::meta::Labels;
use crate::config::{Key, Kind};
use crate::text::{Hostname, Str};

/// Where a connection goes: a socket address or a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Address {
    Ip(IpAddr, u16),
    /// For clusters that look names up.
    Name(Str, u16),
    Pipe(Str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Health {
    Healthy,
    Unhealthy,
    Draining,
}

/// What the peer at an endpoint speaks: label `security.istio.io/tlsMode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum TlsMode {
    Istio,
    Disabled,
}

/// What Envoy is told of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Endpoint {
    pub address: Address,
    pub health: Health,
    pub weight: u32,
    pub tls_mode: TlsMode,
    /// `<workload>;<namespace>;<canonical service>;<revision>;<cluster>`.
    pub workload: Str,
}

/// An endpoint of one Service port. Meshes have hundreds of thousands: what several have in common is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub address: Address,
    pub health: Health,
    pub weight: u32,
    /// The number on the workload, which port-level policies go by; 0 for a Unix socket.
    pub target_port: u16,
    pub peer: Arc<Peer>,
}

/// Who is there, and where: it decides which clusters an endpoint belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// region, zone, subzone.
    pub locality: [Str; 3],
    pub tls_mode: TlsMode,
    pub workload: Str,
    pub labels: Labels,
    /// Empty when unknown.
    pub service_account: Str,
    pub namespace: Str,
}

/// A Service's endpoints by Service port, each list ordered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSet {
    pub by_port: BTreeMap<u16, Vec<Member>>,
    /// namespace and service account of the endpoints, ordered: whom a client may meet.
    pub accounts: Box<[(Str, Str)]>,
}

impl Member {
    /// What to speak to it: mTLS if it can and no policy of its workload refuses it on that port.
    pub fn tls_mode(&self, policies: &Policies, root: &str) -> TlsMode {
        let Peer {
            namespace, labels, ..
        } = &*self.peer;
        match self.peer.tls_mode {
            TlsMode::Istio if policies.takes_mtls(root, namespace, labels, self.target_port) => {
                TlsMode::Istio
            }
            TlsMode::Istio | TlsMode::Disabled => TlsMode::Disabled,
        }
    }

    /// As Envoy is told of it.
    pub fn endpoint(&self, policies: &Policies, root: &str) -> Endpoint {
        Endpoint {
            address: self.address.clone(),
            health: self.health,
            weight: self.weight,
            tls_mode: self.tls_mode(policies, root),
            workload: self.peer.workload.clone(),
        }
    }

    /// Where it stands among a Service's endpoints.
    fn rank(&self) -> impl Ord + '_ {
        let Peer {
            locality,
            tls_mode,
            workload,
            ..
        } = &*self.peer;
        (
            locality,
            &self.address,
            self.health,
            self.weight,
            tls_mode,
            workload,
        )
    }
}

impl EndpointSet {
    /// Whether there are endpoints of a Service port and mTLS can be spoken to all of them.
    pub fn all_speak_mtls(&self, port: u16, policies: &Policies, root: &str) -> bool {
        let members = self.by_port.get(&port).map_or(&[][..], Vec::as_slice);
        let speaks = |m: &Member| m.tls_mode(policies, root) == TlsMode::Istio;
        !members.is_empty() && members.iter().all(speaks)
    }

    fn told_to_clusters(&self, policies: &Policies, root: &str) -> Told {
        let ports = self.by_port.keys().copied();
        Told {
            accounts: self.accounts.clone(),
            mtls: ports
                .filter(|port| self.all_speak_mtls(*port, policies, root))
                .collect(),
        }
    }
}

/// What clusters say of their endpoints.
#[derive(Default, PartialEq)]
struct Told {
    accounts: Box<[(Str, Str)]>,
    /// Ports whose endpoints all speak mTLS.
    mtls: BTreeSet<u16>,
}

/// How a host's endpoints differ from before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    None,
    /// Its load assignments alone.
    Endpoints,
    /// Also what its clusters say of them: the accounts, or whether all speak mTLS.
    Clusters,
}

#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    /// Ordered by key; mostly it is one.
    slices: BTreeMap<Hostname, Vec<Slice>>,
    slice_host: BTreeMap<Key, Hostname>,
    sets: BTreeMap<Hostname, Arc<EndpointSet>>,
    /// Hosts whose set has a member at this address: nearly always one, in no order that means anything.
    at: BTreeMap<IpAddr, Vec<Hostname>>,
}

impl Endpoints {
    pub fn get(&self, host: &str) -> Option<&Arc<EndpointSet>> {
        self.sets.get(host)
    }

    /// Hosts that have an endpoint at this address.
    pub fn hosts_at(&self, ip: IpAddr) -> impl Iterator<Item = &Hostname> {
        self.at.get(&ip).into_iter().flatten()
    }

    pub(super) fn hosts_of_slice(&self, key: &Key) -> Vec<Hostname> {
        self.slice_host.get(key).cloned().into_iter().collect()
    }

    pub(super) fn set_slice(&mut self, host: &Hostname, key: &Key, slice: Option<Slice>) {
        let slices = self.slices.entry(host.clone()).or_default();
        slices.retain(|s| s.key() != *key);
        match slice {
            Some(slice) => {
                let at = slices.partition_point(|s| s.key() < *key);
                slices.reserve_exact(1);
                slices.insert(at, slice);
                self.slice_host.insert(key.clone(), host.clone());
            }
            None => drop(self.slice_host.remove(key)),
        }
        if slices.is_empty() {
            self.slices.remove(host);
        }
    }

    /// Joins the host's endpoints again.
    pub(super) fn refresh(
        &mut self,
        host: &Hostname,
        service: Option<&Service>,
        workloads: &Workloads,
        (policies, root): (&Policies, &str),
    ) -> Difference {
        let set =
            service.map(|s| Arc::new(join(s, self.slices.get(host).map(Vec::as_slice), workloads)));
        let before = match &set {
            Some(set) => self.sets.insert(host.clone(), set.clone()),
            None => self.sets.remove(host),
        };
        if before == set {
            return Difference::None;
        }
        for ip in before.iter().flat_map(|s| addresses(s)) {
            if let Some(hosts) = self.at.get_mut(&ip) {
                hosts.retain(|h| h != host);
                if hosts.is_empty() {
                    self.at.remove(&ip);
                }
            }
        }
        for ip in set.iter().flat_map(|s| addresses(s)) {
            let hosts = self.at.entry(ip).or_default();
            hosts.reserve_exact(1);
            hosts.push(host.clone());
        }
        let told = |s: &Option<Arc<EndpointSet>>| {
            let told = s.as_ref().map(|s| s.told_to_clusters(policies, root));
            told.unwrap_or_default()
        };
        // Names to look up stand in the cluster itself.
        let inline = |s: &Service| matches!(s.resolution, Resolution::Dns(_));
        if told(&before) == told(&set) && !service.is_some_and(inline) {
            Difference::Endpoints
        } else {
            Difference::Clusters
        }
    }
}

fn addresses(set: &EndpointSet) -> BTreeSet<IpAddr> {
    let members = set.by_port.values().flatten();
    members
        .filter_map(|m| match m.address {
            Address::Ip(ip, _) => Some(ip),
            Address::Name(..) | Address::Pipe(_) => None,
        })
        .collect()
}

/// Slices where the Service has any, else the Pods that its selector selects; WorkloadEntries always.
fn join(service: &Service, slices: Option<&[Slice]>, workloads: &Workloads) -> EndpointSet {
    let mut by_port = BTreeMap::new();
    let mut accounts = BTreeSet::new();
    let mut peers = Peers::default();
    for port in service
        .ports
        .iter()
        .filter(|p| p.protocol != super::protocol::Protocol::Udp)
    {
        let mut members = Vec::new();
        for slice in slices.into_iter().flatten() {
            members.extend(of_slice((service, port), slice, workloads, &mut peers));
        }
        for workload in workloads.in_namespace(&service.namespace) {
            let counts = workload.key.kind == Kind::WorkloadEntry || slices.is_none();
            if counts && service.selects(workload.namespace(), &workload.labels) {
                members.extend(of_workload((service, port), workload, &mut peers));
            }
        }
        let listed = service.entry.as_deref();
        for workload in listed.into_iter().flat_map(|entry| &entry.endpoints) {
            members.extend(of_workload((service, port), workload, &mut peers));
        }
        if members.is_empty() && service.looks_itself_up() {
            members.push(itself(service, port, &mut peers));
        }
        // A name is an address only to those who look it up.
        if !matches!(service.resolution, Resolution::Dns(_)) {
            members.retain(|m| !matches!(m.address, Address::Name(..)));
        }
        members.sort_by(|a, b| a.rank().cmp(&b.rank()));
        members.dedup_by(|a, b| a.address == b.address);
        members.shrink_to_fit();
        let known = members.iter().map(|m| &m.peer);
        for peer in known.filter(|p| !p.service_account.is_empty()) {
            accounts.insert((peer.namespace.clone(), peer.service_account.clone()));
        }
        by_port.insert(port.number, members);
    }
    EndpointSet {
        by_port,
        accounts: accounts.into_iter().collect(),
    }
}

/// Without endpoints, a host that is looked up stands for itself.
fn itself(service: &Service, port: &ServicePort, peers: &mut Peers) -> Member {
    let number = match port.target {
        TargetPort::Number(number) => number,
        TargetPort::Name(_) => port.number,
    };
    Member {
        address: Address::Name(service.host.to_str(), number),
        health: Health::Healthy,
        weight: 1,
        target_port: number,
        peer: peers.shared(Peer {
            locality: Default::default(),
            tls_mode: TlsMode::Disabled,
            workload: Str::default(),
            labels: Labels::new(),
            service_account: Str::default(),
            namespace: service.namespace.clone(),
        }),
    }
}

/// The peers of one join: those of a Service's ports are the same.
#[derive(Default)]
pub(super) struct Peers(BTreeSet<Arc<Peer>>);

impl Peers {
    pub(super) fn shared(&mut self, peer: Peer) -> Arc<Peer> {
        if let Some(known) = self.0.get(&peer) {
            return known.clone();
        }
        let peer = Arc::new(peer);
        self.0.insert(peer.clone());
        peer
    }
}

impl Peer {
    pub(super) fn of(workload: &Workload) -> Self {
        Self {
            locality: workload.locality.clone(),
            tls_mode: workload.tls_mode,
            workload: workload.tag.clone(),
            labels: workload.labels.clone(),
            service_account: workload.service_account.clone(),
            namespace: workload.namespace().clone(),
        }
    }
}

fn of_workload(
    (service, port): (&Service, &ServicePort),
    workload: &Workload,
    peers: &mut Peers,
) -> Vec<Member> {
    let Some(number) = target_port(port, &workload.ports) else {
        return Vec::new();
    };
    let health = if workload.ready || service.publish_not_ready {
        Health::Healthy
    } else {
        Health::Unhealthy
    };
    let peer = peers.shared(Peer::of(workload));
    let member = |place: &Place| Member {
        address: workloads::address(place, number),
        health,
        weight: workload.weight,
        target_port: number,
        peer: peer.clone(),
    };
    workload.places.iter().map(member).collect()
}

/// A named target port that the workload lacks gives no endpoint.
pub fn target_port(port: &ServicePort, ports: &Ports) -> Option<u16> {
    match (ports, &port.target) {
        (Ports::Named(named), _) if named.contains_key(&port.name) => {
            named.get(&port.name).copied()
        }
        (_, TargetPort::Number(number)) => Some(*number),
        (Ports::Containers(ports), TargetPort::Name(name)) => {
            let named = |p: &&ContainerPort| p.name == *name && p.protocol == Transport::Tcp;
            ports.iter().find(named).map(|p| p.port)
        }
        (Ports::Named(named), TargetPort::Name(name)) => named.get(name).copied(),
    }
}
