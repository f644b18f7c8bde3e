//! Inbound listeners: per port and mTLS mode the chains that take its connections.
//!
//! The chains that take mTLS are the same in PERMISSIVE and STRICT, and so are the listener filters: a
//! switch between them drains plaintext connections alone.

use std::net::Ipv4Addr;

use super::extension;
use super::gateway_listener;
use super::inbound::{InboundPort, Server, to_itself};
use super::outbound_listener::{BLACK_HOLE, access_log};
use super::{
    Address, Capture, ChainMatch, Cluster, Connect, Direction, Discovery, DownstreamTls,
    FilterChain, Flow, HttpManager, InboundRoute, InboundTls, Inspector, Limits, Listener,
    LoadBalancer, Loading, NetworkFilter, Routes, Socket, Target, TcpProxy, TransportProtocol,
    UpstreamProtocol, UpstreamTls,
};
use crate::config::Source;
use crate::config::gateway;
use crate::config::mesh::MeshConfig;
use crate::config::traffic_extension::Side;
use crate::config::virtual_service::HttpRetry;
use crate::model::policies::Mode;
use crate::model::protocol::{Class, Protocol};
use crate::model::proxy::Interception;
use crate::text::Str;

/// Where captured inbound connections arrive (MeshConfig `proxyInboundListenPort`).
pub const INBOUND_PORT: u16 = 15006;
pub const PASSTHROUGH: &str = "InboundPassthroughCluster";

/// ALPN tokens by which a mesh client says what is inside its mTLS.
const HTTP_TOKENS: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];
const TCP_TOKENS: [&str; 2] = ["istio-peer-exchange", "istio"];
/// What plaintext HTTP is known by to the inspector.
const PLAIN_HTTP: [&str; 2] = ["http/1.1", "h2c"];
/// What a server offers. No client of the mesh offers either, so nothing is negotiated between sidecars
/// and the codec follows the first bytes.
const SERVER_ALPN: [&str; 2] = ["h2", "http/1.1"];

/// A node with the objects that made it.
pub type Sourced<T> = (T, Vec<Source>);

/// What a workload's proxy holds for its inbound side.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InboundView {
    pub clusters: Vec<Sourced<Cluster>>,
    pub listeners: Vec<Sourced<Listener>>,
}

pub fn join(server: &Server, mesh: &MeshConfig) -> InboundView {
    let mut view = InboundView::default();
    for port in &server.ports {
        view.clusters
            .push((cluster(port, mesh), vec![port.source.clone()]));
    }
    match server.interception {
        Interception::None => {
            let own = server
                .ports
                .iter()
                .filter_map(|p| Some((p, p.own_listener.as_ref()?)));
            view.listeners
                .extend(own.map(|(p, at)| (own_listener(server, mesh, p, at), sources(server, p))));
        }
        Interception::Redirect | Interception::Tproxy => {
            let passthrough = passthrough_cluster(server, mesh);
            view.clusters.push((passthrough, Vec::new()));
            let mut all: Vec<Source> = server.ports.iter().map(|p| p.source.clone()).collect();
            all.extend(policy_sources(server));
            view.listeners.push((virtual_inbound(server, mesh), all));
        }
    }
    view
}

fn sources(server: &Server, port: &InboundPort) -> Vec<Source> {
    std::iter::once(port.source.clone())
        .chain(policy_sources(server))
        .collect()
}

fn policy_sources(server: &Server) -> impl Iterator<Item = Source> {
    let extensions = server.extensions.iter().flat_map(|all| all.iter());
    let keys = server.policies.iter().chain(extensions.map(|own| &own.key));
    keys.map(|key| Source {
        key: key.clone(),
        field: Str::default(),
    })
}

fn cluster_name(port: u16) -> Str {
    Str::new(format!("inbound|{port}||"))
}

fn cluster(port: &InboundPort, mesh: &MeshConfig) -> Cluster {
    let load_balancer = match port.backend {
        Discovery::OriginalDst { .. } => LoadBalancer::ClusterProvided,
        Discovery::Eds | Discovery::Dns(..) | Discovery::Static { .. } => LoadBalancer::RoundRobin,
    };
    let pool = port.pool.as_deref();
    Cluster {
        name: cluster_name(port.port),
        discovery: port.backend.clone(),
        protocol: match port.protocol {
            Protocol::Http => UpstreamProtocol::Http1,
            Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb => UpstreamProtocol::Http2,
            Protocol::Auto => UpstreamProtocol::Downstream,
            Protocol::Tcp | Protocol::Tls | Protocol::Https | Protocol::Udp => {
                UpstreamProtocol::Tcp
            }
        },
        connect_timeout: pool
            .and_then(|p| p.tcp.connect_timeout)
            .unwrap_or(mesh.connect_timeout),
        load_balancer,
        tls: UpstreamTls::Off,
        origin: None,
        limits: pool.map(|pool| {
            Box::new(Limits {
                pool: pool.clone(),
                ..Limits::default()
            })
        }),
    }
}

fn passthrough_cluster(server: &Server, mesh: &MeshConfig) -> Cluster {
    Cluster {
        name: Str::new_static(PASSTHROUGH),
        discovery: to_itself(server.interception, server.families),
        protocol: UpstreamProtocol::Downstream,
        connect_timeout: mesh.connect_timeout,
        load_balancer: LoadBalancer::ClusterProvided,
        tls: UpstreamTls::Off,
        origin: None,
        limits: None,
    }
}

fn own_listener(server: &Server, mesh: &MeshConfig, port: &InboundPort, at: &Address) -> Listener {
    let name = match at {
        Address::Ip(ip, number) => Str::new(format!("{ip}_{number}")),
        Address::Name(name, number) => Str::new(format!("{name}_{number}")),
        Address::Pipe(path) => path.clone(),
    };
    let mode = server.mtls.of_port(port.port);
    let inspect = |on: bool| if on { Inspector::On } else { Inspector::Off };
    Listener {
        address: at.clone(),
        also: None,
        socket: Socket::Bound,
        direction: Direction::Inbound,
        capture: Capture::None,
        proxy_protocol: false,
        tls_inspector: inspect(mode != Mode::Disable || port.tls.is_some()),
        http_inspector: inspect(port.protocol.class() == Class::Auto),
        detection_timeout: mesh.protocol_detection_timeout,
        chains: Chains::of(port, &name, None, mesh)
            .seen_by(server, port.port)
            .by_mode(mode),
        default_chain: None,
        access_log: access_log(mesh),
        name,
    }
}

fn virtual_inbound(server: &Server, mesh: &MeshConfig) -> Listener {
    let mut chains = vec![FilterChain {
        name: Str::new_static("virtualInbound-blackhole"),
        matches: ChainMatch {
            destination_port: Some(INBOUND_PORT),
            ..ChainMatch::default()
        },
        tls: None,
        filter: NetworkFilter::Tcp(tcp(BLACK_HOLE.into(), Connect::AtOnce, mesh)),
    }];
    let unknown = |port| Chains::passthrough(port, mesh).seen_by(server, port.unwrap_or(0));
    chains.extend(unknown(None).by_mode(server.mtls.mode));
    let known = |port: &u16| server.ports.iter().any(|p| p.port == *port);
    for (port, mode) in server.mtls.ports.iter().filter(|(p, _)| !known(p)) {
        chains.extend(unknown(Some(*port)).by_mode(*mode));
    }
    for port in &server.ports {
        let name = Str::new(format!("0.0.0.0_{}", port.port));
        let of_port = Chains::of(port, &name, Some(port.port), mesh);
        let of_port = of_port.seen_by(server, port.port);
        chains.extend(of_port.by_mode(server.mtls.of_port(port.port)));
    }
    let (address, also) = server.families.bound(Ipv4Addr::UNSPECIFIED.into());
    Listener {
        name: Str::new_static("virtualInbound"),
        address: Address::Ip(address, INBOUND_PORT),
        also,
        socket: Socket::Bound,
        direction: Direction::Inbound,
        capture: match server.interception {
            Interception::Tproxy => Capture::Transparent,
            Interception::Redirect | Interception::None => Capture::Restore,
        },
        proxy_protocol: false,
        tls_inspector: except(plaintext_ports(server)),
        http_inspector: except(told_ports(server)),
        detection_timeout: mesh.protocol_detection_timeout,
        chains,
        default_chain: None,
        access_log: access_log(mesh),
    }
}

fn except(ports: Vec<u16>) -> Inspector {
    if ports.is_empty() {
        Inspector::On
    } else {
        Inspector::ExceptPorts(ports)
    }
}

/// Ports that take no TLS of ours, where the app may speak first.
fn plaintext_ports(server: &Server) -> Vec<u16> {
    let own = server.ports.iter().map(|p| p.port);
    let mut ports: Vec<u16> = own.chain(server.mtls.ports.keys().copied()).collect();
    ports.sort_unstable();
    ports.dedup();
    let own = |port: u16| {
        server
            .ports
            .iter()
            .any(|p| p.port == port && p.tls.is_some())
    };
    ports.retain(|p| server.mtls.of_port(*p) == Mode::Disable && !own(*p));
    ports
}

/// Ports whose protocol is declared: nothing to detect.
fn told_ports(server: &Server) -> Vec<u16> {
    let told = server
        .ports
        .iter()
        .filter(|p| p.protocol.class() != Class::Auto);
    told.map(|p| p.port).collect()
}

fn tcp(cluster: Str, connect: Connect, mesh: &MeshConfig) -> TcpProxy {
    TcpProxy {
        stat_prefix: cluster.clone(),
        targets: vec![Target { cluster, weight: 1 }],
        flow: Flow::default(),
        upstream_alpn: None,
        connect,
        access_log: access_log(mesh),
    }
}

fn flow(port: &InboundPort) -> Flow {
    let tcp = port.pool.as_deref().map(|pool| &pool.tcp);
    Flow {
        idle_timeout: tcp.and_then(|tcp| tcp.idle_timeout),
        max_duration: tcp.and_then(|tcp| tcp.max_connection_duration),
        ..Flow::default()
    }
}

/// The chains of one port (or of all unknown ones), to be chosen from by mode.
struct Chains<'a> {
    name: Str,
    destination_port: Option<u16>,
    class: Class,
    http: HttpManager,
    cluster: Str,
    flow: Flow,
    /// TLS of the workload's own, where no policy asks for the mesh's.
    own_tls: Option<&'a gateway::ServerTls>,
    mesh: &'a MeshConfig,
}

#[derive(Clone, Copy, PartialEq)]
enum Speaks {
    Http,
    Bytes,
}

impl<'a> Chains<'a> {
    fn of(
        port: &'a InboundPort,
        name: &Str,
        destination: Option<u16>,
        mesh: &'a MeshConfig,
    ) -> Self {
        let cluster = cluster_name(port.port);
        let operation = match port.host.as_str() {
            "" => Str::new(format!("{cluster}/*")),
            host => Str::new(format!("{host}:{}/*", port.service_port)),
        };
        let route = InboundRoute {
            cluster: cluster.clone(),
            virtual_host: Str::new(format!("inbound|http|{}", port.service_port)),
            operation,
            retries: (port.protocol != Protocol::Grpc).then(inbound_retry),
        };
        Self {
            name: name.clone(),
            destination_port: destination,
            class: port.protocol.class(),
            http: manager(format!("inbound_0.0.0.0_{};", port.port), route, mesh),
            cluster,
            flow: flow(port),
            own_tls: port.tls.as_deref(),
            mesh,
        }
    }

    fn passthrough(destination: Option<u16>, mesh: &'a MeshConfig) -> Self {
        let cluster = Str::new_static(PASSTHROUGH);
        let route = InboundRoute {
            cluster: cluster.clone(),
            virtual_host: Str::new_static("inbound|http|0"),
            operation: Str::new_static("/*"),
            retries: None,
        };
        Self {
            name: Str::new_static("virtualInbound"),
            destination_port: destination,
            class: Class::Auto,
            http: manager(format!("{PASSTHROUGH};"), route, mesh),
            cluster,
            flow: Flow::default(),
            own_tls: None,
            mesh,
        }
    }

    fn seen_by(mut self, server: &Server, port: u16) -> Self {
        self.http.extensions = extension::passed(&server.extensions, Side::Server, port);
        self
    }

    fn by_mode(self, mode: Mode) -> Vec<FilterChain> {
        let mut chains = Vec::new();
        if mode != Mode::Disable {
            chains.extend(self.mesh_chains());
        }
        match mode {
            Mode::Strict => chains.push(self.tls_chain(self.plain_class(), &[])),
            Mode::Permissive => {
                chains.extend(self.plain_chains());
                // The app's own TLS, untouched. An HTTP port has none, as in Istio.
                if self.class != Class::Http {
                    chains.push(self.chain(TransportProtocol::Tls, &[], None, Speaks::Bytes));
                }
            }
            Mode::Disable if self.own_tls.is_some() => chains.extend(self.own_chain()),
            Mode::Disable => {
                chains.extend(self.plain_chains());
                // Unknown ports are inspected, so TLS of the app's own is told apart there.
                if self.destination_port.is_none() && self.class == Class::Auto {
                    chains.push(self.chain(TransportProtocol::Tls, &[], None, Speaks::Bytes));
                }
            }
        }
        chains
    }

    fn own_chain(&self) -> Option<FilterChain> {
        let speaks = self.plain_class();
        let own = gateway_listener::own(self.own_tls?, speaks == Speaks::Http);
        let tls = Some(DownstreamTls::Server(Box::new(own)));
        Some(self.chain(TransportProtocol::Tls, &[], tls, speaks))
    }

    fn plain_class(&self) -> Speaks {
        match self.class {
            Class::Http => Speaks::Http,
            Class::Tcp | Class::Auto => Speaks::Bytes,
        }
    }

    fn mesh_chains(&self) -> Vec<FilterChain> {
        let all: Vec<&str> = HTTP_TOKENS.into_iter().chain(TCP_TOKENS).collect();
        match self.class {
            Class::Http => vec![self.tls_chain(Speaks::Http, &all)],
            Class::Tcp => vec![self.tls_chain(Speaks::Bytes, &all)],
            Class::Auto => vec![
                self.tls_chain(Speaks::Http, &HTTP_TOKENS),
                self.tls_chain(Speaks::Bytes, &TCP_TOKENS),
            ],
        }
    }

    fn plain_chains(&self) -> Vec<FilterChain> {
        let raw = TransportProtocol::RawBuffer;
        match self.class {
            Class::Http => vec![self.chain(raw, &[], None, Speaks::Http)],
            Class::Tcp => vec![self.chain(raw, &[], None, Speaks::Bytes)],
            Class::Auto => vec![
                self.chain(raw, &PLAIN_HTTP, None, Speaks::Http),
                self.chain(raw, &[], None, Speaks::Bytes),
            ],
        }
    }

    fn tls_chain(&self, speaks: Speaks, tokens: &[&str]) -> FilterChain {
        let domains = std::iter::once(&self.mesh.trust_domain);
        let tls = InboundTls {
            alpn: SERVER_ALPN.into_iter().map(Str::new_static).collect(),
            trust_domains: domains
                .chain(&self.mesh.trust_domain_aliases)
                .cloned()
                .collect(),
        };
        let tls = Some(DownstreamTls::Mesh(tls));
        self.chain(TransportProtocol::Tls, tokens, tls, speaks)
    }

    fn chain(
        &self,
        transport: TransportProtocol,
        tokens: &[&str],
        tls: Option<DownstreamTls>,
        speaks: Speaks,
    ) -> FilterChain {
        let catch_all_http = self.cluster == PASSTHROUGH && speaks == Speaks::Http;
        let name = if catch_all_http {
            Str::new_static("virtualInbound-catchall-http")
        } else {
            self.name.clone()
        };
        let connect = if tls.is_some() {
            Connect::AfterHandshake
        } else {
            Connect::AtOnce
        };
        FilterChain {
            name,
            matches: ChainMatch {
                destination_port: self.destination_port,
                transport: Some(transport),
                alpn: tokens.iter().map(Str::new).collect(),
                ..ChainMatch::default()
            },
            tls,
            filter: match speaks {
                Speaks::Http => NetworkFilter::Http(Box::new(self.http.clone())),
                Speaks::Bytes => NetworkFilter::Tcp(TcpProxy {
                    flow: self.flow.clone(),
                    ..tcp(self.cluster.clone(), connect, self.mesh)
                }),
            },
        }
    }
}

fn manager(stat_prefix: String, route: InboundRoute, mesh: &MeshConfig) -> HttpManager {
    HttpManager {
        loading: Loading::AtOnce,
        edge: None,
        direction: Direction::Inbound,
        stat_prefix: Str::new(stat_prefix),
        routes: Routes::Inline(route),
        extensions: Vec::new(),
        access_log: access_log(mesh),
    }
}

/// A request that the app cannot have seen is safe to send again.
fn inbound_retry() -> HttpRetry {
    HttpRetry {
        attempts: 2,
        retry_on: Str::new_static("reset-before-request"),
        retry_ignore_previous_hosts: Some(false),
        ..HttpRetry::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Key, Kind};
    use crate::model::proxy::Families;

    fn port(protocol: Protocol) -> InboundPort {
        let key = Key {
            kind: Kind::Service,
            namespace: Str::new("shop"),
            name: Str::new("reviews"),
        };
        InboundPort {
            tls: None,
            pool: None,
            port: 8080,
            protocol,
            service_port: 80,
            host: Str::new("reviews.shop.svc.cluster.local"),
            backend: to_itself(Interception::Redirect, Families::V4),
            own_listener: None,
            source: Source {
                key,
                field: Str::default(),
            },
        }
    }

    /// How each chain is chosen, and what it does: `tls[istio-h2 …] mtls http`.
    fn table(protocol: Protocol, mode: Mode) -> Vec<String> {
        let mesh = MeshConfig::default();
        let chains = Chains::of(&port(protocol), &Str::new("x"), Some(8080), &mesh).by_mode(mode);
        let line = |chain: &FilterChain| {
            let transport = match chain.matches.transport {
                Some(TransportProtocol::Tls) => "tls",
                Some(TransportProtocol::RawBuffer) => "raw",
                None => "any",
            };
            let tls = if chain.tls.is_some() { " mtls" } else { "" };
            let filter = match chain.filter {
                NetworkFilter::Http(_) => "http",
                NetworkFilter::Tcp(_) => "tcp",
            };
            format!(
                "{transport}[{}]{tls} {filter}",
                chain.matches.alpn.join(" ")
            )
        };
        chains.iter().map(line).collect()
    }

    const ALL: &str = "istio-http/1.0 istio-http/1.1 istio-h2 istio-peer-exchange istio";

    #[test]
    fn permissive_takes_mtls_and_plaintext() {
        let http = [format!("tls[{ALL}] mtls http"), "raw[] http".to_owned()];
        assert_eq!(table(Protocol::Http, Mode::Permissive), http);
        assert_eq!(
            table(Protocol::Auto, Mode::Permissive),
            [
                "tls[istio-http/1.0 istio-http/1.1 istio-h2] mtls http",
                "tls[istio-peer-exchange istio] mtls tcp",
                "raw[http/1.1 h2c] http",
                "raw[] tcp",
                "tls[] tcp",
            ]
        );
    }

    #[test]
    fn strict_takes_no_plaintext_and_disable_no_mtls() {
        for protocol in [
            Protocol::Http,
            Protocol::Grpc,
            Protocol::Tcp,
            Protocol::Auto,
        ] {
            let strict = table(protocol, Mode::Strict);
            assert!(
                strict.iter().all(|line| line.contains(" mtls ")),
                "{strict:?}"
            );
            let disabled = table(protocol, Mode::Disable);
            assert!(
                disabled.iter().all(|line| line.starts_with("raw")),
                "{disabled:?}"
            );
        }
    }

    #[test]
    fn the_chains_that_take_mtls_from_the_mesh_are_the_same_in_both_modes() {
        let mesh = MeshConfig::default();
        for protocol in [
            Protocol::Http,
            Protocol::Http2,
            Protocol::Tcp,
            Protocol::Auto,
        ] {
            let chains = |mode| {
                let port = port(protocol);
                let all = Chains::of(&port, &Str::new("x"), Some(8080), &mesh);
                let mut chains = all.by_mode(mode);
                chains.retain(|c| c.tls.is_some() && !c.matches.alpn.is_empty());
                chains
            };
            assert_eq!(chains(Mode::Permissive), chains(Mode::Strict));
        }
    }

    #[test]
    fn listener_filters_do_not_depend_on_permissive_or_strict() {
        let mesh = MeshConfig::default();
        let listener = |mode| {
            let server = Server {
                interception: Interception::Redirect,
                families: Families::V4,
                ports: vec![port(Protocol::Tcp)],
                mtls: crate::model::policies::Mtls {
                    mode,
                    ports: Default::default(),
                },
                policies: Vec::new(),
                extensions: None,
                patches: crate::ir::patches::Patches::default(),
            };
            virtual_inbound(&server, &mesh)
        };
        let (permissive, strict) = (listener(Mode::Permissive), listener(Mode::Strict));
        assert_eq!(permissive.tls_inspector, strict.tls_inspector);
        assert_eq!(permissive.http_inspector, strict.http_inspector);
        assert_eq!(
            listener(Mode::Disable).tls_inspector,
            Inspector::ExceptPorts(vec![8080])
        );
    }
}
