//! What an EndpointSlice says of a Service port's endpoints.

use std::net::IpAddr;
use std::sync::Arc;

use super::endpoints::{Address, Health, Member, Peer, Peers, TlsMode};
use super::services::{Service, ServicePort};
use super::workloads::{Place, Workload, Workloads};
use crate::config::core::{AddressType, EndpointSlice, SliceEndpoint, SlicePort, Transport};
use crate::config::meta::Labels;
use crate::config::{Key, Kind, Object, Spec};
use crate::text::Str;

/// An accepted EndpointSlice; `Slice::of` has seen that it is one.
#[derive(Clone, Debug)]
pub struct Slice(Arc<Object>);

impl Slice {
    pub fn of(object: &Arc<Object>) -> Option<Self> {
        matches!(object.spec, Spec::EndpointSlice(_)).then(|| Self(object.clone()))
    }

    pub(super) fn key(&self) -> Key {
        self.0.key()
    }

    fn namespace(&self) -> &Str {
        &self.0.meta.namespace
    }

    fn spec(&self) -> Option<&EndpointSlice> {
        match &self.0.spec {
            Spec::EndpointSlice(spec) => Some(spec),
            _ => None,
        }
    }
}

pub(super) fn of_slice(
    (service, port): (&Service, &ServicePort),
    slice: &Slice,
    workloads: &Workloads,
    peers: &mut Peers,
) -> Vec<Member> {
    let addressed = |spec: &&EndpointSlice| spec.address_type != AddressType::Fqdn;
    let Some(spec) = slice.spec().filter(addressed) else {
        return Vec::new();
    };
    let named = |p: &&SlicePort| p.name == port.name && p.protocol == Transport::Tcp;
    let Some(number) = spec.ports.iter().find(named).and_then(|p| p.port) else {
        return Vec::new();
    };
    let mut out = Vec::new();
    for endpoint in &spec.endpoints {
        let Some(health) = health(service, endpoint) else {
            continue;
        };
        for ip in endpoint
            .addresses
            .iter()
            .filter_map(|a| a.parse::<IpAddr>().ok())
        {
            let workload = pod_of(endpoint, slice.namespace(), ip, workloads);
            out.push(Member {
                address: Address::Ip(ip, number),
                health,
                weight: 1,
                target_port: number,
                peer: peers.shared(peer(endpoint, workload, slice)),
            });
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
    // A machine is where its own namespace says that it is, and nobody else's.
    let is_near = |w: &&Arc<Workload>| w.key.kind == Kind::Pod || w.key.namespace == namespace;
    there.or_else(|| workloads.at(ip).filter(is_near))
}

fn peer(endpoint: &SliceEndpoint, workload: Option<&Arc<Workload>>, slice: &Slice) -> Peer {
    let mut peer = match workload {
        Some(workload) => Peer::of(workload),
        None => Peer {
            locality: Default::default(),
            tls_mode: TlsMode::Disabled,
            workload: Str::default(),
            labels: Labels::new(),
            service_account: Str::default(),
            namespace: slice.namespace().clone(),
        },
    };
    let [_, zone, _] = &mut peer.locality;
    if zone.is_empty() {
        *zone = endpoint.zone.clone().unwrap_or_default();
    }
    peer
}
