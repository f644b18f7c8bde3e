//! The listeners a client calls out through, from what its hosts ask of each address.

use std::net::{IpAddr, Ipv4Addr};

use super::client::Client;
use super::outbound::{Asks, ListenerEntry};
use super::{
    AccessLog, Address, Capture, ChainMatch, Cluster, Connect, Direction, Discovery, FilterChain,
    HashSourceIp, HttpManager, Inspector, Listener, LoadBalancer, NetworkFilter, Routes, Socket,
    Target, TcpProxy, TransportProtocol, UpstreamProtocol, UpstreamTls,
};
use crate::config::mesh::MeshConfig;
use crate::config::sidecar::OutboundMode;
use crate::model::proxy::Interception;
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
    pub mode: OutboundMode,
    pub mesh: &'a MeshConfig,
}

impl<'a> Surroundings<'a> {
    pub fn of(client: &Client, snapshot: &'a crate::model::Snapshot) -> Self {
        Self {
            interception: client.interception,
            mode: client.outbound_mode(snapshot),
            mesh: &snapshot.mesh,
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
    Listener {
        name: Str::new_static("virtualOutbound"),
        address: Address::Ip(IpAddr::V4(Ipv4Addr::UNSPECIFIED), OUTBOUND_PORT),
        socket: Socket::Bound,
        direction: Direction::Outbound,
        capture: Capture::HandOver,
        tls_inspector: Inspector::Off,
        http_inspector: Inspector::Off,
        detection_timeout: around.mesh.protocol_detection_timeout,
        chains: vec![loop_guard],
        default_chain: Some(fallback(around, "virtualOutbound-catchall-tcp")),
        access_log: access_log(around.mesh),
    }
}

/// One listener from everything that is asked of its address. HTTP comes before bytes; of several that
/// want the bytes the first host by name gets them.
pub fn listener<'a>(
    around: &Surroundings<'_>,
    address: IpAddr,
    port: u16,
    entries: impl Iterator<Item = &'a ListenerEntry>,
) -> Listener {
    let mut http = None;
    let mut bytes = None;
    let mut detect = false;
    for entry in entries {
        match &entry.asks {
            Asks::Http { table } => http = http.or(Some(table)),
            Asks::Tcp {
                target,
                hash_source_ip,
            } => {
                bytes = bytes.or(Some((target, *hash_source_ip, None)));
            }
            Asks::Detect { table, target } => {
                detect = true;
                http = http.or(Some(table));
                bytes = bytes.or(Some((
                    target,
                    HashSourceIp::No,
                    Some(Str::new_static(TCP_ALPN)),
                )));
            }
        }
    }
    let name = Str::new(format!("{address}_{port}"));
    let own_bytes = bytes.map(|(target, hash, alpn)| FilterChain {
        name: Str::default(),
        matches: ChainMatch::default(),
        tls: None,
        filter: NetworkFilter::Tcp(TcpProxy {
            stat_prefix: target.cluster.clone(),
            targets: vec![target.clone()],
            hash_source_ip: hash,
            upstream_alpn: alpn,
            connect: Connect::AtOnce,
            access_log: access_log(around.mesh),
        }),
    });
    let other = own_bytes.or_else(|| match around.interception {
        Interception::None => None,
        Interception::Redirect | Interception::Tproxy => {
            Some(fallback(around, "PassthroughFilterChain"))
        }
    });
    // With nothing else to fall to, HTTP needs no telling apart.
    let alone = other.is_none();
    let chains = http
        .map(|table| http_chain(around, &name, table, alone))
        .into_iter()
        .collect();
    let inspects = http.is_some() && !alone;
    Listener {
        address: Address::Ip(address, port),
        socket: match around.interception {
            Interception::None => Socket::Bound,
            Interception::Redirect | Interception::Tproxy => Socket::Virtual,
        },
        direction: Direction::Outbound,
        capture: Capture::None,
        tls_inspector: if detect {
            Inspector::On
        } else {
            Inspector::Off
        },
        http_inspector: if inspects {
            Inspector::On
        } else {
            Inspector::Off
        },
        detection_timeout: around.mesh.protocol_detection_timeout,
        chains,
        default_chain: other,
        access_log: access_log(around.mesh),
        name,
    }
}

fn http_chain(around: &Surroundings<'_>, name: &str, table: &Str, alone: bool) -> FilterChain {
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
            routes: Routes::Rds(table.clone()),
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
        hash_source_ip: HashSourceIp::No,
        upstream_alpn: None,
        connect: Connect::AtOnce,
        access_log: access_log(around.mesh),
    })
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
    };
    let nowhere = Discovery::Static {
        endpoints: Vec::new(),
        source: None,
    };
    [
        cluster(
            PASSTHROUGH,
            Discovery::OriginalDst { source: None },
            LoadBalancer::ClusterProvided,
        ),
        cluster(BLACK_HOLE, nowhere, LoadBalancer::LeastRequest),
    ]
}
