//! The endpoints of each Service port, from slices, Pods and WorkloadEntries.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use super::policies::Policies;
use super::services::{Service, ServicePort};
use super::workloads::{self, Place, Ports, Workload, Workloads};
use crate::config::core::{
    AddressType, ContainerPort, EndpointSlice, SliceEndpoint, SlicePort, TargetPort, Transport,
};
use crate::config::meta::Labels;
use crate::config::{Key, Kind};
use crate::text::{Hostname, Str};

/// Where a connection goes: a socket address or a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Address {
    Ip(IpAddr, u16),
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Endpoint {
    pub address: Address,
    pub health: Health,
    pub weight: u32,
    pub tls_mode: TlsMode,
    /// `<workload>;<namespace>;<canonical service>;<revision>;<cluster>`.
    pub workload: Str,
}

/// An endpoint with what decides which clusters it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub endpoint: Endpoint,
    /// region, zone, subzone.
    pub locality: [Str; 3],
    pub labels: Labels,
    /// Empty when unknown.
    pub service_account: Str,
    pub namespace: Str,
    /// The number on the workload, which port-level policies go by; 0 for a Unix socket.
    pub target_port: u16,
}

/// A Service's endpoints by Service port, each list ordered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSet {
    pub by_port: BTreeMap<u16, Vec<Member>>,
    /// namespace and service account of the endpoints: whom a client may meet.
    pub accounts: BTreeSet<(Str, Str)>,
}

impl Member {
    /// What to speak to it: mTLS if it can and no policy of its workload refuses it on that port.
    pub fn tls_mode(&self, policies: &Policies, root: &str) -> TlsMode {
        let (labels, port) = (&self.labels, self.target_port);
        match self.endpoint.tls_mode {
            TlsMode::Istio if policies.takes_mtls(root, &self.namespace, labels, port) => {
                TlsMode::Istio
            }
            TlsMode::Istio | TlsMode::Disabled => TlsMode::Disabled,
        }
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
    accounts: BTreeSet<(Str, Str)>,
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
    slices: BTreeMap<Hostname, BTreeMap<Key, Arc<Slice>>>,
    slice_host: BTreeMap<Key, Hostname>,
    sets: BTreeMap<Hostname, Arc<EndpointSet>>,
    /// Hosts whose set has a member at this address.
    at: BTreeMap<IpAddr, BTreeSet<Hostname>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    pub namespace: Str,
    pub spec: EndpointSlice,
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
        match slice {
            Some(slice) => {
                slices.insert(key.clone(), Arc::new(slice));
                self.slice_host.insert(key.clone(), host.clone());
            }
            None => {
                slices.remove(key);
                self.slice_host.remove(key);
            }
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
        let set = service.map(|s| Arc::new(join(s, self.slices.get(host), workloads)));
        let before = match &set {
            Some(set) => self.sets.insert(host.clone(), set.clone()),
            None => self.sets.remove(host),
        };
        if before == set {
            return Difference::None;
        }
        for ip in before.iter().flat_map(|s| addresses(s)) {
            if let Some(hosts) = self.at.get_mut(&ip) {
                hosts.remove(host);
                if hosts.is_empty() {
                    self.at.remove(&ip);
                }
            }
        }
        for ip in set.iter().flat_map(|s| addresses(s)) {
            self.at.entry(ip).or_default().insert(host.clone());
        }
        let told = |s: &Option<Arc<EndpointSet>>| {
            let told = s.as_ref().map(|s| s.told_to_clusters(policies, root));
            told.unwrap_or_default()
        };
        if told(&before) == told(&set) {
            Difference::Endpoints
        } else {
            Difference::Clusters
        }
    }
}

fn addresses(set: &EndpointSet) -> BTreeSet<IpAddr> {
    let members = set.by_port.values().flatten();
    members
        .filter_map(|m| match m.endpoint.address {
            Address::Ip(ip, _) => Some(ip),
            Address::Pipe(_) => None,
        })
        .collect()
}

/// Slices where the Service has any, else the Pods that its selector selects; WorkloadEntries always.
fn join(
    service: &Service,
    slices: Option<&BTreeMap<Key, Arc<Slice>>>,
    workloads: &Workloads,
) -> EndpointSet {
    let mut set = EndpointSet::default();
    for port in service
        .ports
        .iter()
        .filter(|p| p.protocol != super::protocol::Protocol::Udp)
    {
        let mut members = Vec::new();
        for slice in slices.into_iter().flat_map(|s| s.values()) {
            members.extend(of_slice(service, port, slice, workloads));
        }
        for workload in workloads.in_namespace(&service.namespace) {
            let counts = workload.key.kind == Kind::WorkloadEntry || slices.is_none();
            if counts && service.selects(workload.namespace(), &workload.labels) {
                members.extend(of_workload(service, port, workload));
            }
        }
        members.sort_by(|a, b| (&a.locality, &a.endpoint).cmp(&(&b.locality, &b.endpoint)));
        members.dedup_by(|a, b| a.endpoint.address == b.endpoint.address);
        for member in members.iter().filter(|m| !m.service_account.is_empty()) {
            set.accounts
                .insert((member.namespace.clone(), member.service_account.clone()));
        }
        set.by_port.insert(port.number, members);
    }
    set
}

fn of_slice(
    service: &Service,
    port: &ServicePort,
    slice: &Slice,
    workloads: &Workloads,
) -> Vec<Member> {
    if slice.spec.address_type == AddressType::Fqdn {
        return Vec::new();
    }
    let named = |p: &&SlicePort| p.name == port.name && p.protocol == Transport::Tcp;
    let Some(number) = slice.spec.ports.iter().find(named).and_then(|p| p.port) else {
        return Vec::new();
    };
    let mut out = Vec::new();
    for endpoint in &slice.spec.endpoints {
        let Some(health) = health(service, endpoint) else {
            continue;
        };
        for ip in endpoint
            .addresses
            .iter()
            .filter_map(|a| a.parse::<IpAddr>().ok())
        {
            let workload = pod_of(endpoint, &slice.namespace, ip, workloads);
            out.push(member(
                Address::Ip(ip, number),
                number,
                health,
                endpoint,
                workload,
                slice,
            ));
        }
    }
    out
}

/// Absent conditions mean ready. Not ready but serving and terminating drains; the rest is unhealthy,
/// and is shipped as such, so that panic and warm-up behave as in Istio.
fn health(service: &Service, endpoint: &SliceEndpoint) -> Option<Health> {
    let conditions = &endpoint.conditions;
    if service.publish_not_ready || conditions.ready.unwrap_or(true) {
        return Some(Health::Healthy);
    }
    match (
        conditions.serving.unwrap_or(true),
        conditions.terminating.unwrap_or(false),
    ) {
        (true, true) => Some(Health::Draining),
        (false, true) => None,
        (_, false) => Some(Health::Unhealthy),
    }
}

/// The Pod that the slice names, if the address is its own, else whoever is there. So whatever changes
/// the answer is a workload at this address.
fn pod_of<'a>(
    endpoint: &SliceEndpoint,
    namespace: &str,
    ip: IpAddr,
    workloads: &'a Workloads,
) -> Option<&'a Arc<Workload>> {
    let by_ref = endpoint
        .target_ref
        .as_ref()
        .filter(|r| r.kind == "Pod")
        .and_then(|r| {
            let namespace = if r.namespace.is_empty() {
                namespace
            } else {
                &r.namespace
            };
            workloads.named(Kind::Pod, namespace, &r.name)
        });
    let there = by_ref.filter(|pod| pod.places.contains(&Place::Ip(ip)));
    there.or_else(|| workloads.at(ip))
}

fn member(
    address: Address,
    target_port: u16,
    health: Health,
    endpoint: &SliceEndpoint,
    workload: Option<&Arc<Workload>>,
    slice: &Slice,
) -> Member {
    let zone = endpoint.zone.clone().unwrap_or_default();
    let locality = workload.map(|w| w.locality.clone()).unwrap_or_default();
    let locality = if locality[1].is_empty() {
        let [region, _, subzone] = locality;
        [region, zone, subzone]
    } else {
        locality
    };
    Member {
        endpoint: Endpoint {
            address,
            health,
            weight: 1,
            tls_mode: workload.map_or(TlsMode::Disabled, |w| w.tls_mode),
            workload: workload.map(|w| w.tag.clone()).unwrap_or_default(),
        },
        locality,
        labels: workload.map(|w| w.labels.clone()).unwrap_or_default(),
        service_account: workload
            .map(|w| w.service_account.clone())
            .unwrap_or_default(),
        namespace: workload.map_or(&slice.namespace, |w| w.namespace()).clone(),
        target_port,
    }
}

fn of_workload(service: &Service, port: &ServicePort, workload: &Workload) -> Vec<Member> {
    let Some(number) = target_port(port, &workload.ports) else {
        return Vec::new();
    };
    let health = if workload.ready || service.publish_not_ready {
        Health::Healthy
    } else {
        Health::Unhealthy
    };
    let member = |place: &Place| Member {
        endpoint: Endpoint {
            address: workloads::address(place, number),
            health,
            weight: workload.weight,
            tls_mode: workload.tls_mode,
            workload: workload.tag.clone(),
        },
        locality: workload.locality.clone(),
        labels: workload.labels.clone(),
        service_account: workload.service_account.clone(),
        namespace: workload.namespace().clone(),
        target_port: number,
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
