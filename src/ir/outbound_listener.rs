//! The listeners a client calls out through, from what its hosts ask of each address.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::client::Client;
use super::extension;
use super::outbound::{Apart, Asks, Bytes, ListenerEntry};
use super::scopes::Packing;
use super::{
    AccessLog, Address, Capture, ChainMatch, Cluster, Connect, Direction, Discovery, FilterChain,
    Flow, HttpManager, Inspector, Listener, LoadBalancer, NetworkFilter, Routes, Scoping, Socket,
    Target, TcpProxy, TransportProtocol, UpstreamProtocol, UpstreamTls,
};
use crate::config::mesh::MeshConfig;
use crate::config::sidecar::OutboundMode;
use crate::config::traffic_extension::Side;
use crate::model::extensions;
use crate::model::proxy::{Families, Interception};
use crate::text::Str;

/// Where captured outbound connections arrive (MeshConfig `proxyListenPort`).
pub const OUTBOUND_PORT: u16 = 15001;
pub const PASSTHROUGH: &str = "PassthroughCluster";
pub const BLACK_HOLE: &str = "BlackHoleCluster";
/// What a mesh server's chains know a byte stream by.
const TCP_ALPN: &str = "istio";

/// What all listeners of a client share.
#[derive(Clone, Debug, PartialEq)]
pub struct Surroundings<'a> {
    pub interception: Interception,
    pub families: Families,
    pub mode: OutboundMode,
    pub packing: Packing,
    pub mesh: &'a MeshConfig,
    pub extensions: extensions::Chosen,
}

impl<'a> Surroundings<'a> {
    pub fn of(client: &Client, packing: Packing, snapshot: &'a crate::model::Snapshot) -> Self {
        Self {
            interception: client.interception,
            families: client.families,
            mode: client.outbound_mode(snapshot),
            packing,
            mesh: &snapshot.mesh,
            extensions: client.extensions.clone(),
        }
    }
}

pub fn access_log(mesh: &MeshConfig) -> Option<AccessLog> {
    let MeshConfig {
        access_log_file: path,
        access_log_format: format,
        ..
    } = mesh;
    (!path.is_empty()).then(|| AccessLog {
        path: path.clone(),
        format: format.clone(),
    })
}

/// Takes every captured connection and hands it to the listener of its address, else to the catch-all.
pub fn virtual_outbound(around: &Surroundings<'_>) -> Listener {
    let loop_guard = FilterChain {
        name: Str::new_static("virtualOutbound-blackhole"),
        matches: ChainMatch {
            destination_port: Some(OUTBOUND_PORT),
            ..ChainMatch::default()
        },
        tls: None,
        filter: tcp(around, BLACK_HOLE, BLACK_HOLE),
    };
    let (address, also) = around.families.bound(Ipv4Addr::UNSPECIFIED.into());
    Listener {
        name: Str::new_static("virtualOutbound"),
        address: Address::Ip(address, OUTBOUND_PORT),
        also,
        socket: Socket::Bound,
        direction: Direction::Outbound,
        capture: Capture::HandOver,
        proxy_protocol: false,
        tls_inspector: Inspector::Off,
        http_inspector: Inspector::Off,
        detection_timeout: around.mesh.protocol_detection_timeout,
        chains: vec![loop_guard],
        default_chain: Some(fallback(around, "virtualOutbound-catchall-tcp")),
        access_log: access_log(around.mesh),
    }
}

/// What all hosts together ask of one address. HTTP comes before bytes; of several that want the bytes the
/// first host by name gets them.
#[derive(Default)]
struct Asked<'a> {
    http: Option<&'a Str>,
    bytes: Option<Stream<'a>>,
    /// What is told apart from the rest. Of several that ask for the same the first host by name gets it: two equal
    /// matches would be refused.
    told: BTreeMap<&'a Apart, Stream<'a>>,
    detect: bool,
}

#[derive(Clone, Copy)]
struct Stream<'a> {
    bytes: &'a Bytes,
    /// The cluster's own ALPN is for HTTP.
    alpn: Option<&'static str>,
}

impl<'a> Asked<'a> {
    fn add(mut self, asks: &'a Asks) -> Self {
        let plain = |bytes| Stream { bytes, alpn: None };
        match asks {
            Asks::Http { table } => self.http = self.http.or(Some(table)),
            Asks::Tcp(bytes) => self.bytes = self.bytes.or(Some(plain(bytes))),
            Asks::Told { ways, rest } => {
                for (apart, bytes) in ways {
                    self.told.entry(apart).or_insert(plain(bytes));
                }
                self.bytes = self.bytes.or(rest.as_ref().map(plain));
            }
            Asks::Detect { table, bytes } => {
                self.detect = true;
                self.http = self.http.or(Some(table));
                let own = Stream {
                    bytes,
                    alpn: Some(TCP_ALPN),
                };
                self.bytes = self.bytes.or(Some(own));
            }
        }
        self
    }
}

/// One listener from everything that is asked of its address.
pub fn listener<'a>(
    around: &Surroundings<'_>,
    address: IpAddr,
    port: u16,
    asks: impl IntoIterator<Item = &'a Asks>,
) -> Listener {
    let asked = asks.into_iter().fold(Asked::default(), Asked::add);
    let name = Str::new(format!("{address}_{port}"));
    let captured = around.interception != Interception::None;
    let other = match asked.bytes {
        Some(bytes) => Some(bytes_chain(around, bytes)),
        None => captured.then(|| fallback(around, "PassthroughFilterChain")),
    };
    // With nothing else to fall to, HTTP needs no telling apart.
    let alone = other.is_none();
    let alone = alone && asked.told.is_empty();
    let http = asked
        .http
        .map(|table| http_chain(around, (&name, port), table, alone));
    let named = asked.told.keys().any(|apart| !apart.server_name.is_empty());
    let told = asked.told.into_iter();
    let told = told.map(|(apart, bytes)| FilterChain {
        matches: told_apart(apart),
        ..bytes_chain(around, bytes)
    });
    let inspect = |on: bool| if on { Inspector::On } else { Inspector::Off };
    // Under one name whatever the family, for what asks of it does not know it either.
    let (bound, also) = around.families.bound(address);
    Listener {
        address: Address::Ip(bound, port),
        also,
        socket: if captured {
            Socket::Virtual
        } else {
            Socket::Bound
        },
        direction: Direction::Outbound,
        capture: Capture::None,
        proxy_protocol: false,
        tls_inspector: inspect(asked.detect || named),
        http_inspector: inspect(http.is_some() && !alone),
        detection_timeout: around.mesh.protocol_detection_timeout,
        chains: http.into_iter().chain(told).collect(),
        default_chain: other,
        access_log: access_log(around.mesh),
        name,
    }
}

fn told_apart(apart: &Apart) -> ChainMatch {
    let by_name = !apart.server_name.is_empty();
    ChainMatch {
        server_names: by_name
            .then(|| apart.server_name.clone())
            .into_iter()
            .collect(),
        transport: by_name.then_some(TransportProtocol::Tls),
        destinations: apart.range.into_iter().collect(),
        ..ChainMatch::default()
    }
}

/// The listener of an address for which one host alone asks, for bytes: what becomes of traffic that no
/// host takes has no part in it, nor has packing.
pub fn alone(interception: Interception, mesh: &MeshConfig, entry: &ListenerEntry) -> Listener {
    let around = Surroundings {
        interception,
        // The address is one alone.
        families: Families::default(),
        mode: OutboundMode::AllowAny,
        packing: Packing::Whole,
        mesh,
        extensions: None,
    };
    listener(&around, entry.address, entry.port, [&entry.asks])
}

fn bytes_chain(around: &Surroundings<'_>, stream: Stream<'_>) -> FilterChain {
    let Stream { bytes, alpn } = stream;
    FilterChain {
        name: Str::default(),
        matches: ChainMatch::default(),
        tls: None,
        filter: NetworkFilter::Tcp(TcpProxy {
            stat_prefix: bytes.to.prefix.clone(),
            targets: bytes.to.targets.clone(),
            flow: bytes.flow.clone(),
            upstream_alpn: alpn.map(Str::new_static),
            connect: Connect::AtOnce,
            access_log: access_log(around.mesh),
        }),
    }
}

fn http_chain(
    around: &Surroundings<'_>,
    (name, port): (&str, u16),
    table: &Str,
    alone: bool,
) -> FilterChain {
    let told_apart = ChainMatch {
        transport: Some(TransportProtocol::RawBuffer),
        alpn: vec![Str::new_static("http/1.1"), Str::new_static("h2c")],
        ..ChainMatch::default()
    };
    FilterChain {
        name: Str::default(),
        matches: if alone {
            ChainMatch::default()
        } else {
            told_apart
        },
        tls: None,
        filter: NetworkFilter::Http(Box::new(HttpManager {
            direction: Direction::Outbound,
            stat_prefix: Str::new(format!("outbound_{name};")),
            routes: match around.packing.of(table) {
                Packing::Whole => Routes::Rds(table.clone()),
                Packing::Scoped(_) => Routes::Scoped(Scoping {
                    table: table.clone(),
                }),
            },
            loading: around.packing.loading(),
            edge: None,
            extensions: extension::passed(&around.extensions, Side::Client, port),
            access_log: access_log(around.mesh),
        })),
    }
}

fn fallback(around: &Surroundings<'_>, name: &'static str) -> FilterChain {
    let cluster = fallback_cluster(around.mode);
    FilterChain {
        name: Str::new_static(name),
        matches: ChainMatch::default(),
        tls: None,
        filter: tcp(around, cluster, cluster),
    }
}

pub fn fallback_cluster(mode: OutboundMode) -> &'static str {
    match mode {
        OutboundMode::AllowAny => PASSTHROUGH,
        OutboundMode::RegistryOnly => BLACK_HOLE,
    }
}

fn tcp(
    around: &Surroundings<'_>,
    stat_prefix: &'static str,
    cluster: &'static str,
) -> NetworkFilter {
    NetworkFilter::Tcp(TcpProxy {
        stat_prefix: Str::new_static(stat_prefix),
        targets: vec![Target {
            cluster: Str::new_static(cluster),
            weight: 1,
        }],
        flow: Flow::default(),
        upstream_alpn: None,
        connect: Connect::AtOnce,
        access_log: access_log(around.mesh),
    })
}

/// Whether every client has the cluster.
pub fn is_fixed(cluster: &str) -> bool {
    cluster == PASSTHROUGH || cluster == BLACK_HOLE
}

/// The clusters that every client has.
pub fn fixed_clusters(mesh: &MeshConfig) -> [Cluster; 2] {
    let cluster = |name, discovery, load_balancer| Cluster {
        name: Str::new_static(name),
        discovery,
        protocol: UpstreamProtocol::Downstream,
        connect_timeout: mesh.connect_timeout,
        load_balancer,
        tls: UpstreamTls::Off,
        origin: None,
        limits: None,
    };
    let nowhere = Discovery::Static {
        endpoints: Vec::new(),
        source: None,
    };
    [
        cluster(
            PASSTHROUGH,
            Discovery::OriginalDst {
                sources: Vec::new(),
                port: None,
            },
            LoadBalancer::ClusterProvided,
        ),
        cluster(BLACK_HOLE, nowhere, LoadBalancer::LeastRequest),
    ]
}
