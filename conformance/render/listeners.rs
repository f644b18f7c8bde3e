//! Listeners of every shape the renderer can be given.

use std::net::IpAddr;
use std::time::Duration;

use fairlead::config::destination_rule::Tunnel;
use fairlead::config::value::Span;
use fairlead::config::virtual_service::HttpRetry;
use fairlead::ir::{
    AccessLog, Address, Capture, ChainMatch, Connect, Direction, DownstreamTls, FilterChain, Flow,
    HashSourceIp, HttpManager, InboundRoute, InboundTls, Inspector, Listener, Loading,
    NetworkFilter, Routes, Socket, Target, TcpProxy, TransportProtocol,
};
use fairlead::text::Str;

use super::Case;

/// Every listener has an address of its own: Envoy refuses a second one.
pub fn listeners() -> Vec<Case<Listener>> {
    let shapes: Vec<(&'static str, Listener)> = vec![
        ("a port of HTTP services", http_port()),
        ("a port of unknown protocol", auto_port()),
        ("a TCP service", tcp_service()),
        ("chains by address and server name", shared_tcp_port()),
        ("captured, outbound", captured_outbound()),
        ("captured, inbound", captured_inbound()),
        ("inbound, no port to leave out", except(vec![])),
        ("inbound, one port to leave out", except(vec![65535])),
        ("a listener of its own on a socket file", own_socket_file()),
        ("bytes through a tunnel", tunnelled()),
    ];
    let named = |(number, (label, listener)): (u16, (&'static str, Listener))| {
        let address = match listener.address {
            Address::Ip(ip, _) => Address::Ip(ip, 20000 + number),
            Address::Name(name, _) => Address::Name(name, 20000 + number),
            Address::Pipe(path) => Address::Pipe(path),
        };
        let listener = Listener {
            name: Str::new(label),
            address,
            ..listener
        };
        (label, listener)
    };
    (0..).zip(shapes).map(named).collect()
}

/// A listener for each of these route tables, so that Envoy reads them.
pub fn of_tables(tables: &[Str]) -> Vec<Listener> {
    let of_table = |(number, table): (u16, &Str)| Listener {
        name: Str::new(format!("of table {table}")),
        address: Address::Ip([127, 0, 0, 1].into(), 21000 + number),
        chains: vec![outbound_http(table)],
        default_chain: None,
        ..http_port()
    };
    (0..).zip(tables).map(of_table).collect()
}

fn any() -> IpAddr {
    [0, 0, 0, 0].into()
}

fn http_port() -> Listener {
    Listener {
        name: Str::default(),
        address: Address::Ip(any(), 0),
        also: None,
        socket: Socket::Virtual,
        direction: Direction::Outbound,
        capture: Capture::None,
        proxy_protocol: false,
        tls_inspector: Inspector::Off,
        http_inspector: Inspector::On,
        detection_timeout: Span(Duration::from_secs(5)),
        chains: vec![outbound_http("80")],
        default_chain: Some(chain("PassthroughFilterChain", tcp("PassthroughCluster"))),
        access_log: None,
    }
}

fn auto_port() -> Listener {
    let bytes = TcpProxy {
        upstream_alpn: Some("istio".into()),
        ..tcp("outbound|8000||reviews.shop.svc.cluster.local")
    };
    Listener {
        address: Address::Ip([10, 96, 0, 1].into(), 0),
        tls_inspector: Inspector::On,
        default_chain: Some(chain("bytes", bytes)),
        ..http_port()
    }
}

fn tcp_service() -> Listener {
    let target = |subset: &str, weight| Target {
        cluster: Str::new(format!("outbound|3306|{subset}|db.shop.svc.cluster.local")),
        weight,
    };
    let proxy = TcpProxy {
        targets: vec![target("v1", 90), target("v2", 10)],
        flow: Flow {
            hash_source_ip: HashSourceIp::Yes,
            idle_timeout: Some(Span(Duration::from_secs(60))),
            max_duration: Some(Span(Duration::from_secs(3600))),
            tunnel: None,
        },
        access_log: Some(default_log()),
        ..tcp("db")
    };
    Listener {
        address: Address::Ip([10, 96, 0, 2].into(), 0),
        http_inspector: Inspector::Off,
        detection_timeout: Span(Duration::ZERO),
        chains: vec![chain("", proxy)],
        default_chain: None,
        ..http_port()
    }
}

fn tunnelled() -> Listener {
    let through = |protocol: &str, host: &str| {
        let flow = Flow {
            tunnel: Some(Box::new(Tunnel {
                protocol: protocol.into(),
                target_host: host.into(),
                target_port: 443,
            })),
            ..Flow::default()
        };
        TcpProxy { flow, ..tcp(host) }
    };
    let posted = FilterChain {
        matches: ChainMatch {
            destination_port: Some(443),
            ..ChainMatch::default()
        },
        ..chain("posted", through("POST", "fd00::1"))
    };
    Listener {
        chains: vec![posted, chain("", through("", "wiki.example.com"))],
        ..tcp_service()
    }
}

fn shared_tcp_port() -> Listener {
    let by = |name: &str, matches| FilterChain {
        matches,
        ..chain(name, tcp(name))
    };
    let nets = ["10.96.0.3/32", "10.97.1.2/16", "fd00::/64"];
    let by_address = ChainMatch {
        destinations: nets.map(|net| net.parse().expect("a network")).into(),
        ..ChainMatch::default()
    };
    let by_name = ChainMatch {
        server_names: vec!["a.example".into(), "*.b.example".into()],
        transport: Some(TransportProtocol::Tls),
        ..ChainMatch::default()
    };
    Listener {
        tls_inspector: Inspector::On,
        http_inspector: Inspector::Off,
        chains: vec![by("by address", by_address), by("by name", by_name)],
        ..http_port()
    }
}

fn captured_outbound() -> Listener {
    Listener {
        socket: Socket::Bound,
        capture: Capture::HandOver,
        proxy_protocol: false,
        http_inspector: Inspector::Off,
        detection_timeout: Span(Duration::ZERO),
        chains: vec![black_hole(15001)],
        access_log: Some(default_log()),
        ..http_port()
    }
}

fn captured_inbound() -> Listener {
    Listener {
        socket: Socket::Bound,
        direction: Direction::Inbound,
        capture: Capture::Restore,
        proxy_protocol: false,
        tls_inspector: Inspector::On,
        http_inspector: Inspector::ExceptPorts(vec![3306, 8081, 65535]),
        chains: [vec![black_hole(15006)], mesh_chains(), plain_chains()].concat(),
        default_chain: None,
        access_log: Some(default_log()),
        ..http_port()
    }
}

fn except(ports: Vec<u16>) -> Listener {
    Listener {
        tls_inspector: Inspector::ExceptPorts(ports),
        ..captured_inbound()
    }
}

fn own_socket_file() -> Listener {
    Listener {
        address: Address::Pipe("/tmp/fairlead-validate.sock".into()),
        socket: Socket::Bound,
        direction: Direction::Inbound,
        chains: vec![FilterChain {
            filter: NetworkFilter::Http(Box::new(HttpManager {
                access_log: Some(AccessLog {
                    path: "/dev/stdout".into(),
                    format: "%START_TIME% %RESPONSE_CODE%\n".into(),
                }),
                ..inbound_http(None)
            })),
            ..chain("own", tcp(""))
        }],
        default_chain: None,
        ..http_port()
    }
}

fn mesh_chains() -> Vec<FilterChain> {
    let tls = |domains: &[&str]| {
        DownstreamTls::Mesh(InboundTls {
            alpn: ["h2", "http/1.1"].map(Str::new).into(),
            trust_domains: domains.iter().map(Str::new).collect(),
        })
    };
    let by_alpn = |port, alpn: &[&str]| ChainMatch {
        destination_port: Some(port),
        transport: Some(TransportProtocol::Tls),
        alpn: alpn.iter().map(Str::new).collect(),
        ..ChainMatch::default()
    };
    let retried = HttpRetry {
        attempts: 2,
        retry_on: "reset-before-request".into(),
        ..HttpRetry::default()
    };
    vec![
        FilterChain {
            name: "0.0.0.0_8080".into(),
            matches: by_alpn(8080, &["istio-http/1.1", "istio-h2"]),
            tls: Some(tls(&["cluster.local", "old.local"])),
            filter: NetworkFilter::Http(Box::new(inbound_http(Some(retried)))),
        },
        FilterChain {
            matches: by_alpn(8080, &["istio"]),
            tls: Some(tls(&[])),
            ..chain(
                "0.0.0.0_8080",
                TcpProxy {
                    connect: Connect::AfterHandshake,
                    ..tcp("inbound|8080||")
                },
            )
        },
        FilterChain {
            matches: by_alpn(8080, &[]),
            ..chain("0.0.0.0_8080", tcp("inbound|8080||"))
        },
    ]
}

fn plain_chains() -> Vec<FilterChain> {
    let raw = |port: Option<u16>, alpn: &[&str]| ChainMatch {
        destination_port: port,
        transport: Some(TransportProtocol::RawBuffer),
        alpn: alpn.iter().map(Str::new).collect(),
        ..ChainMatch::default()
    };
    vec![
        FilterChain {
            matches: raw(Some(8080), &["http/1.1", "h2c"]),
            filter: NetworkFilter::Http(Box::new(inbound_http(None))),
            ..chain("0.0.0.0_8080", tcp(""))
        },
        FilterChain {
            matches: raw(Some(8080), &[]),
            ..chain("0.0.0.0_8080", tcp("inbound|8080||"))
        },
        FilterChain {
            matches: raw(None, &[]),
            ..chain("virtualInbound", tcp("InboundPassthroughCluster"))
        },
    ]
}

fn inbound_http(retries: Option<HttpRetry>) -> HttpManager {
    HttpManager {
        loading: Loading::AtOnce,
        edge: None,
        direction: Direction::Inbound,
        stat_prefix: "inbound_0.0.0.0_8080;".into(),
        routes: Routes::Inline(InboundRoute {
            cluster: "inbound|8080||".into(),
            virtual_host: "inbound|http|80".into(),
            operation: "reviews.shop.svc.cluster.local:80/*".into(),
            retries,
        }),
        extensions: Vec::new(),
        access_log: Some(default_log()),
    }
}

fn outbound_http(table: &str) -> FilterChain {
    FilterChain {
        matches: ChainMatch {
            transport: Some(TransportProtocol::RawBuffer),
            alpn: ["http/1.1", "h2c"].map(Str::new).into(),
            ..ChainMatch::default()
        },
        filter: NetworkFilter::Http(Box::new(HttpManager {
            direction: Direction::Outbound,
            stat_prefix: "outbound_0.0.0.0_80;".into(),
            routes: Routes::Rds(table.into()),
            loading: Loading::AtOnce,
            edge: None,
            extensions: Vec::new(),
            access_log: None,
        })),
        ..chain("", tcp(""))
    }
}

fn black_hole(port: u16) -> FilterChain {
    FilterChain {
        matches: ChainMatch {
            destination_port: Some(port),
            ..ChainMatch::default()
        },
        ..chain("blackhole", tcp("BlackHoleCluster"))
    }
}

fn chain(name: &str, proxy: TcpProxy) -> FilterChain {
    FilterChain {
        name: name.into(),
        matches: ChainMatch::default(),
        tls: None,
        filter: NetworkFilter::Tcp(proxy),
    }
}

fn tcp(cluster: &str) -> TcpProxy {
    TcpProxy {
        stat_prefix: cluster.into(),
        targets: vec![Target {
            cluster: cluster.into(),
            weight: 1,
        }],
        flow: Flow::default(),
        upstream_alpn: None,
        connect: Connect::AtOnce,
        access_log: None,
    }
}

fn default_log() -> AccessLog {
    AccessLog {
        path: "/dev/stdout".into(),
        format: Str::default(),
    }
}
