//! What a workload listens on: its Services' target ports or its Sidecar's ingress, with its mTLS modes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::patches::Patches;
use super::{Address, Discovery};
use crate::config::connection_pool::ConnectionPool;
use crate::config::core::TargetPort;
use crate::config::gateway;
use crate::config::sidecar::IngressListener;
use crate::config::{Key, Source};
use crate::model::Snapshot;
use crate::model::endpoints;
use crate::model::extensions;
use crate::model::policies::{Mode, Mtls};
use crate::model::protocol::Protocol;
use crate::model::proxy::{Families, Interception, Proxy, Role};
use crate::model::services::{Service, ServicePort};
use crate::model::sidecars::Chosen;
use crate::model::workloads::Workload;
use crate::text::Str;

/// Proxies with equal servers share every inbound resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    pub interception: Interception,
    pub families: Families,
    /// Ordered by port; one each.
    pub ports: Vec<InboundPort>,
    pub mtls: Mtls,
    pub policies: Vec<Key>,
    pub extensions: extensions::Chosen,
    /// Of EnvoyFilters, on this side.
    pub patches: Patches,
}

impl Server {
    /// What a proxy at the edge is: nothing calls it as a workload.
    fn none() -> Self {
        Self {
            interception: Interception::None,
            families: Families::default(),
            ports: Vec::new(),
            mtls: Mtls {
                mode: Mode::Disable,
                ports: BTreeMap::new(),
            },
            policies: Vec::new(),
            extensions: None,
            patches: Patches::default(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InboundPort {
    /// Where it is called: the workload's own port.
    pub port: u16,
    pub protocol: Protocol,
    /// The Service port that leads here; the port itself for an ingress listener.
    pub service_port: u16,
    /// The Service's host; empty for an ingress listener.
    pub host: Str,
    pub backend: Discovery,
    pub pool: Option<Box<ConnectionPool>>,
    /// TLS of the workload's own, where no policy asks for the mesh's.
    pub tls: Option<Box<gateway::ServerTls>>,
    /// Bound by a listener of its own (no capture), else a chain of virtualInbound.
    pub own_listener: Option<Address>,
    pub source: Source,
}

/// Inbound traffic reaches the app from here, so that no capture rule takes it again.
const INBOUND_SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));
/// The same by IPv6; `fairlead init` gives it to the pod.
const INBOUND_SOURCE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6));

/// To the app at the address that was called.
pub fn to_itself(interception: Interception, families: Families) -> Discovery {
    let sources = match (interception, families) {
        // From the client's own address.
        (Interception::Tproxy, _) => Vec::new(),
        (Interception::Redirect | Interception::None, Families::V4) => vec![INBOUND_SOURCE],
        (Interception::Redirect | Interception::None, Families::V6) => vec![INBOUND_SOURCE_V6],
        (Interception::Redirect | Interception::None, Families::Both) => {
            vec![INBOUND_SOURCE, INBOUND_SOURCE_V6]
        }
    };
    Discovery::OriginalDst {
        sources,
        port: None,
    }
}

/// `workload` is absent for a proxy that no object describes: its labels are then its own word.
pub fn server(
    proxy: &Proxy,
    workload: Option<&Arc<Workload>>,
    sidecar: Option<&Arc<Chosen>>,
    snapshot: &Snapshot,
) -> Server {
    if proxy.role == Role::Router {
        return Server::none();
    }
    let labels = workload.map_or(&proxy.labels, |w| &w.labels);
    let root = &snapshot.mesh.root_namespace;
    let (mtls, policies) = snapshot
        .policies
        .workload_mtls(root, &proxy.namespace, labels);
    let pool = sidecar.and_then(|s| s.spec.inbound_connection_pool.as_ref());
    let mut ports = match sidecar.filter(|s| !s.spec.ingress.is_empty()) {
        Some(sidecar) => ingress_ports(proxy, sidecar),
        None if proxy.interception == Interception::None => Vec::new(),
        None => {
            let services = snapshot.services.selecting(&proxy.namespace, labels);
            let backend = to_itself(proxy.interception, proxy.families);
            service_ports(services.map(Arc::as_ref).collect(), workload, &backend)
        }
    };
    for port in &mut ports {
        port.pool = port.pool.take().or_else(|| pool.cloned());
    }
    Server {
        interception: proxy.interception,
        families: proxy.families,
        ports,
        mtls,
        policies,
        extensions: snapshot.extensions.select(root, &proxy.namespace, labels),
        patches: Patches::inbound(&snapshot.envoy_filters.select(root, proxy, labels)),
    }
}

/// Of several Services on one target port the oldest counts.
fn service_ports(
    mut services: Vec<&Service>,
    workload: Option<&Arc<Workload>>,
    backend: &Discovery,
) -> Vec<InboundPort> {
    services.sort_by_key(|s| (s.created, s.host.clone()));
    let mut ports: Vec<InboundPort> = Vec::new();
    for service in services {
        for (index, port) in service.ports.iter().enumerate() {
            let number = match (workload, &port.target) {
                (Some(workload), _) => endpoints::target_port(port, &workload.ports),
                (None, TargetPort::Number(number)) => Some(*number),
                (None, TargetPort::Name(_)) => None,
            };
            let Some(number) = number.filter(|_| port.protocol != Protocol::Udp) else {
                continue;
            };
            if ports.iter().all(|p| p.port != number) {
                ports.push(service_port(service, port, index, (number, backend)));
            }
        }
    }
    ports.sort_by_key(|p| p.port);
    ports
}

fn service_port(
    service: &Service,
    port: &ServicePort,
    index: usize,
    (number, backend): (u16, &Discovery),
) -> InboundPort {
    let host = &service.host;
    let key = service.key();
    InboundPort {
        port: number,
        protocol: port.protocol,
        service_port: port.number,
        host: host.to_str(),
        backend: backend.clone(),
        pool: None,
        tls: None,
        own_listener: None,
        source: Source {
            key,
            field: Str::new(format!("spec.ports[{index}]")),
        },
    }
}

fn ingress_ports(proxy: &Proxy, sidecar: &Chosen) -> Vec<InboundPort> {
    let mut ports: Vec<InboundPort> = Vec::new();
    for (index, ingress) in sidecar.spec.ingress.iter().enumerate() {
        let number = ingress.port.number;
        if ports.iter().any(|p| p.port == number) {
            continue;
        }
        ports.push(InboundPort {
            port: number,
            protocol: match (Protocol::of_word(&ingress.port.protocol), &ingress.tls) {
                // TLS ends here.
                (Protocol::Https, Some(_)) => Protocol::Http,
                (protocol, _) => protocol,
            },
            service_port: number,
            host: Str::default(),
            backend: backend(proxy, ingress),
            pool: ingress.connection_pool.clone(),
            tls: ingress.tls.clone(),
            own_listener: match proxy.interception {
                Interception::None => {
                    let bind = ingress.bind.parse().unwrap_or(proxy.ip);
                    Some(Address::Ip(bind, number))
                }
                Interception::Redirect | Interception::Tproxy => None,
            },
            source: Source {
                key: sidecar.key.clone(),
                field: Str::new(format!("spec.ingress[{index}]")),
            },
        });
    }
    ports.sort_by_key(|p| p.port);
    ports
}

/// `defaultEndpoint`: a Unix socket, the loopback, or (as `0.0.0.0:port`) the workload's own address.
fn backend(proxy: &Proxy, ingress: &IngressListener) -> Discovery {
    let text = ingress.default_endpoint.as_str();
    let address = if let Some(path) = text.strip_prefix("unix://") {
        Some(Address::Pipe(Str::new(path)))
    } else if let Some((host, port)) = text.rsplit_once(':') {
        let port = port.parse().ok();
        let ip = match host {
            "0.0.0.0" | "[::]" => Some(proxy.ip),
            "" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            own => own.trim_matches(['[', ']']).parse().ok(),
        };
        ip.zip(port).map(|(ip, port)| Address::Ip(ip, port))
    } else {
        None
    };
    match address {
        Some(address) => Discovery::Static {
            endpoints: vec![address],
            source: None,
        },
        // Without a default endpoint, to where the connection was going.
        None => to_itself(proxy.interception, proxy.families),
    }
}
