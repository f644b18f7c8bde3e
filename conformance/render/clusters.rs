//! Clusters of every shape the renderer can be given.

use std::net::IpAddr;
use std::time::Duration;

use fairlead::config::connection_pool::{
    BackendUtilization, ConnectionPool, Http2KeepAlive, HttpSettings, OutlierDetection,
    RetryBudget, TcpKeepalive, TcpSettings, Warmup,
};
use fairlead::config::destination_rule::ProxyProtocolVersion;
use fairlead::config::value::Span;
use fairlead::ir::{
    Address, Certificates, Cluster, Discovery, Endpoint, Health, Limits, LoadAssignment,
    LoadBalancer, LocalityEndpoints, Lookup, MutualTls, Origin, Origination, Roots, TlsMode,
    UpstreamProtocol, UpstreamTls, Zones,
};
use fairlead::model::proxy::Families;
use fairlead::text::Str;

use super::Case;

const ALPN: [&str; 3] = ["istio-http/1.1", "istio-h2", "istio"];

pub fn clusters() -> Vec<Case<Cluster>> {
    let mut all = Vec::new();
    let mut add = |label: &'static str, change: fn(&mut Cluster)| {
        let mut cluster = Cluster {
            name: Str::new(label),
            ..plain()
        };
        change(&mut cluster);
        all.push((label, cluster));
    };
    protocols(&mut add);
    balancers(&mut add);
    discoveries(&mut add);
    mesh_tls(&mut add);
    own_tls(&mut add);
    limited(&mut add);
    all
}

type Add<'a> = dyn FnMut(&'static str, fn(&mut Cluster)) + 'a;

fn plain() -> Cluster {
    Cluster {
        name: Str::default(),
        discovery: Discovery::Eds,
        protocol: UpstreamProtocol::Http1,
        connect_timeout: Span(Duration::from_secs(10)),
        load_balancer: LoadBalancer::LeastRequest,
        tls: UpstreamTls::Off,
        origin: None,
        limits: None,
    }
}

fn protocols(add: &mut Add<'_>) {
    add("http1", |_| {});
    add("http2", |c| c.protocol = UpstreamProtocol::Http2);
    add("as the client", |c| {
        c.protocol = UpstreamProtocol::Downstream
    });
    add("tcp", |c| c.protocol = UpstreamProtocol::Tcp);
    add("of a service", |c| c.origin = Some(origin("", "")));
    add("of a subset", |c| {
        c.origin = Some(origin("v1", "/apis/networking.istio.io/v1/x"))
    });
    add("connects within 250 ms", |c| {
        c.connect_timeout = Span(Duration::from_millis(250))
    });
}

fn origin(subset: &str, config: &str) -> Origin {
    Origin {
        host: "reviews.shop.svc.cluster.local".into(),
        name: "reviews".into(),
        namespace: "shop".into(),
        subset: subset.into(),
        config: config.into(),
    }
}

fn balancers(add: &mut Add<'_>) {
    add("round robin", |c| {
        c.load_balancer = LoadBalancer::RoundRobin
    });
    add("random", |c| c.load_balancer = LoadBalancer::Random);
    add("ring hash", |c| {
        c.load_balancer = LoadBalancer::RingHash { minimum_size: 1024 }
    });
    add("maglev", |c| {
        c.load_balancer = LoadBalancer::Maglev { table_size: None }
    });
    add("maglev of a size", |c| {
        c.load_balancer = LoadBalancer::Maglev {
            table_size: Some(65537),
        };
    });
}

fn discoveries(add: &mut Add<'_>) {
    add("where it was going", |c| original_dst(c, None));
    add("where it was going, from 127.0.0.6", |c| {
        original_dst(c, Some([127, 0, 0, 6].into()))
    });
    add("where it was going, from ::6", |c| {
        original_dst(c, Some([0, 0, 0, 0, 0, 0, 0, 6].into()));
    });
    add("black hole", |c| fixed(c, vec![], None));
    add("fixed, v4, from 127.0.0.6", |c| {
        fixed(c, vec![ip("127.0.0.1", 8080)], Some([127, 0, 0, 6].into()));
    });
    add("fixed, v6", |c| fixed(c, vec![ip("::1", 8080)], None));
    add("fixed, a socket file", |c| {
        fixed(c, vec![Address::Pipe("/run/app.sock".into())], None)
    });
}

fn limited(add: &mut Add<'_>) {
    add("looked up", |c| looked_up(c, Lookup::Every));
    add("looked up, the first", |c| looked_up(c, Lookup::First));
    add("bounded", |c| {
        c.limits = Some(Box::new(limits()));
        c.protocol = UpstreamProtocol::Http2;
    });
    add("by the load that endpoints report", |c| {
        c.limits = Some(Box::new(limits()));
        c.load_balancer = LoadBalancer::Utilization(Box::new(BackendUtilization {
            metric_names_for_computing_utilization: vec!["named_metrics.queue".into()],
            error_utilization_penalty_percent: Some(150),
            weight_update_period: Some(Span(Duration::from_secs(1))),
            ..BackendUtilization::default()
        }));
    });
    add("the same, by shares of localities", |c| {
        c.load_balancer = LoadBalancer::Utilization(Box::default());
        c.limits = Some(Box::new(Limits {
            shared_out: true,
            ..Limits::default()
        }));
    });
    add("with statuses that count as errors", |c| {
        c.protocol = UpstreamProtocol::Http1;
        c.limits = Some(Box::new(Limits {
            outliers: Some(OutlierDetection {
                outlier_detection_http_error_codes: vec![429, 503],
                ..OutlierDetection::default()
            }),
            ..Limits::default()
        }));
    });
    add("zones weighed", |c| {
        c.limits = Some(Box::new(Limits {
            zones: Some(Zones {
                min_cluster_size: Some(3),
            }),
            ..Limits::default()
        }));
    });
    add("begun by the PROXY protocol, 1", |c| {
        c.limits = Some(Box::new(announced(ProxyProtocolVersion::V1)));
    });
    add("begun by the PROXY protocol, 2, then mTLS", |c| {
        c.limits = Some(Box::new(announced(ProxyProtocolVersion::V2)));
        c.tls = UpstreamTls::Auto(mutual());
    });
    add("warmed up, round robin", |c| {
        c.limits = Some(Box::new(limits()));
        c.load_balancer = LoadBalancer::RoundRobin;
    });
}

fn announced(version: ProxyProtocolVersion) -> Limits {
    Limits {
        proxy_protocol: Some(version),
        ..Limits::default()
    }
}

fn looked_up(cluster: &mut Cluster, lookup: Lookup) {
    let endpoint = Endpoint {
        address: Address::Name("api.example.com".into(), 443),
        health: Health::Healthy,
        weight: 1,
        tls_mode: TlsMode::Disabled,
        workload: Str::default(),
    };
    let names = LoadAssignment {
        cluster: cluster.name.clone(),
        localities: vec![LocalityEndpoints {
            priority: 0,
            share: None,
            locality: Default::default(),
            endpoints: vec![endpoint],
        }],
    };
    cluster.discovery = Discovery::Dns(lookup, Families::V4, Box::new(names));
}

fn limits() -> Limits {
    let seconds = |s| Some(Span(Duration::from_secs(s)));
    Limits {
        shared_out: false,
        zones: None,
        proxy_protocol: None,
        pool: ConnectionPool {
            tcp: TcpSettings {
                max_connections: 1,
                tcp_keepalive: Some(TcpKeepalive {
                    probes: 3,
                    time: seconds(60),
                    interval: None,
                }),
                max_connection_duration: seconds(3600),
                ..TcpSettings::default()
            },
            http: HttpSettings {
                http1_max_pending_requests: 2,
                http2_max_requests: 3,
                max_requests_per_connection: 4,
                max_retries: 5,
                idle_timeout: seconds(6),
                max_concurrent_streams: 7,
                http2_keep_alive: Some(Http2KeepAlive {
                    interval: seconds(8),
                    timeout: seconds(9),
                }),
                ..HttpSettings::default()
            },
        },
        outliers: Some(OutlierDetection {
            consecutive_5xx_errors: Some(3),
            split_external_local_origin_errors: true,
            consecutive_local_origin_failures: Some(0),
            min_health_percent: 50,
            ..OutlierDetection::default()
        }),
        retry_budget: Some(RetryBudget::default()),
        warmup: Some(Warmup {
            duration: seconds(30),
            ..Warmup::default()
        }),
    }
}

fn original_dst(cluster: &mut Cluster, source: Option<IpAddr>) {
    let sources = source.into_iter().collect();
    cluster.discovery = Discovery::OriginalDst {
        sources,
        port: None,
    };
    cluster.load_balancer = LoadBalancer::ClusterProvided;
}

fn fixed(cluster: &mut Cluster, endpoints: Vec<Address>, source: Option<IpAddr>) {
    cluster.discovery = Discovery::Static { endpoints, source };
    cluster.load_balancer = LoadBalancer::RoundRobin;
}

fn ip(text: &str, port: u16) -> Address {
    Address::Ip(text.parse().expect("an address"), port)
}

fn mesh_tls(add: &mut Add<'_>) {
    add("auto mTLS", |c| c.tls = UpstreamTls::Auto(mutual()));
    add("auto mTLS, original destination", |c| {
        original_dst(c, None);
        c.tls = UpstreamTls::Mutual(mutual());
    });
    add("mTLS", |c| c.tls = UpstreamTls::Mutual(mutual()));
    add("mTLS, any identity", |c| {
        c.tls = UpstreamTls::Mutual(MutualTls {
            subject_alt_names: vec![],
            ..mutual()
        });
    });
}

fn mutual() -> MutualTls {
    let account = |sa| Str::new(format!("spiffe://cluster.local/ns/shop/sa/{sa}"));
    MutualTls {
        sni: "outbound_.80_._.reviews.shop.svc.cluster.local".into(),
        subject_alt_names: vec![account("reviews"), account("reviews-old")],
        alpn: ALPN.map(Str::new).into(),
    }
}

fn own_tls(add: &mut Add<'_>) {
    add("TLS to the request's host", |c| {
        c.tls = UpstreamTls::Originate(to_anyone())
    });
    add("TLS over h2", |c| {
        c.protocol = UpstreamProtocol::Http2;
        c.tls = UpstreamTls::Originate(Origination {
            alpn: vec!["h2".into()],
            ..to_anyone()
        });
    });
    add("TLS for bytes", |c| {
        c.protocol = UpstreamProtocol::Tcp;
        c.tls = UpstreamTls::Originate(to_anyone());
    });
    add("TLS to a named server", |c| {
        let names = ["a.example", "10.0.0.1", "me@a.example", "spiffe://a/b"];
        c.tls = UpstreamTls::Originate(Origination {
            sni: "a.example".into(),
            subject_alt_names: names.map(Str::new).into(),
            roots: Roots::Files("/test/roots.pem".into(), Str::default()),
            client: None,
            alpn: vec![],
        });
    });
    add("TLS with a client certificate", |c| {
        c.tls = UpstreamTls::Originate(Origination {
            roots: Roots::Files("/test/roots.pem".into(), Str::default()),
            client: Some(Certificates::Files(vec![(
                "/test/chain.pem".into(),
                "/test/key.pem".into(),
            )])),
            ..to_anyone()
        });
    });
    add("TLS to whoever answers", |c| {
        c.tls = UpstreamTls::Originate(Origination {
            roots: Roots::Unverified,
            subject_alt_names: vec!["ignored.example".into()],
            ..to_anyone()
        });
    });
}

fn to_anyone() -> Origination {
    Origination {
        sni: Str::default(),
        subject_alt_names: vec![],
        roots: Roots::System,
        client: None,
        alpn: vec![],
    }
}
