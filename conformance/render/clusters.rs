//! Clusters of every shape the renderer can be given.

use std::net::IpAddr;
use std::time::Duration;

use fairlead::config::value::Span;
use fairlead::ir::{
    Address, Cluster, Discovery, LoadBalancer, MutualTls, Origin, Origination, Roots,
    UpstreamProtocol, UpstreamTls,
};
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

fn original_dst(cluster: &mut Cluster, source: Option<IpAddr>) {
    cluster.discovery = Discovery::OriginalDst { source };
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
            roots: Roots::File("/test/roots.pem".into()),
            client: None,
            alpn: vec![],
        });
    });
    add("TLS with a client certificate", |c| {
        c.tls = UpstreamTls::Originate(Origination {
            roots: Roots::File("/test/roots.pem".into()),
            client: Some(("/test/chain.pem".into(), "/test/key.pem".into())),
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
