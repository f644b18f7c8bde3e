//! Random small meshes: few names, so that edits meet.

use std::sync::Arc;
use std::time::Duration;

use fairlead::config::connection_pool::{ConnectionPool, OutlierDetection};
use fairlead::config::core::{
    EndpointSlice, Node, Pod, Service, ServicePort, SliceEndpoint, SlicePort, TargetPort, TargetRef,
};
use fairlead::config::destination_rule::{
    ClientTls, ConsistentHash, DestinationRule, LoadBalancer, SimpleLb, Subset, TlsMode,
    TrafficPolicy, WorkloadSelector,
};
use fairlead::config::envoy_filter::EnvoyFilter;
use fairlead::config::gateway::{self, Gateway, Server, ServerPort, ServerTls};
use fairlead::config::http_action::Delegate;
use fairlead::config::ingress::{
    self, Backend, BackendPort, BackendService, Ingress, IngressClass, IngressMode, IngressPath,
    IngressPaths, IngressRule, IngressTls, PathType,
};
use fairlead::config::l4_route::{L4Match, RouteDestination, TcpRoute, TlsRoute};
use fairlead::config::locality::{Distribute, LocalityLb};
use fairlead::config::mesh::MeshConfig;
use fairlead::config::meta::{Labels, Meta};
use fairlead::config::peer_authentication::{MtlsMode, MutualTls, PeerAuthentication};
use fairlead::config::service_entry::{EntryPort, Location, Resolution, Selector, ServiceEntry};
use fairlead::config::sidecar::{
    EgressListener, OutboundMode, OutboundTrafficPolicy, Sidecar, SidecarPort,
};
use fairlead::config::traffic_extension::{
    Lua, Phase, TrafficExtension, TrafficMode, TrafficSelector,
};
use fairlead::config::value::{Span, StringMatch};
use fairlead::config::virtual_service::{
    Destination, HttpMatchRequest, HttpRoute, HttpRouteDestination, PortSelector, VirtualService,
};
use fairlead::config::workload_entry::WorkloadEntry;
use fairlead::config::{Change, Key, Object, Spec};
use fairlead::model::proxy::{Interception, Proxy, Role, RoutePacking, Taken};
use fairlead::text::Str;
use proptest::prelude::*;
use proptest::sample::select;

const NAMESPACES: [&str; 3] = ["shop", "back", "istio-system"];
const NAMES: [&str; 3] = ["reviews", "ratings", "www"];
const VERSIONS: [&str; 2] = ["v1", "v2"];

pub fn proxies() -> Vec<Proxy> {
    let one = |name: &str, namespace: &str, ip: &str, interception, packing| Proxy {
        id: Str::new(format!("sidecar~{ip}~{name}.{namespace}~x")),
        role: Role::Sidecar,
        ip: ip.parse().unwrap(),
        name: Str::new(name),
        namespace: Str::new(namespace),
        dns_domain: Str::new_static("x"),
        identity: None,
        interception,
        taken: Taken::default(),
        labels: labels("app", "caller"),
        locality: [Str::new(namespace), Str::default(), Str::default()],
        topology: None,
        packing,
        metadata: Labels::new(),
        families: Default::default(),
    };
    let captured = Interception::Redirect;
    let scoped = Some(RoutePacking::Scoped);
    let on_demand = Some(RoutePacking::OnDemand);
    vec![
        one("caller", "shop", "10.1.0.1", captured, None),
        one("reviews-v1", "shop", "10.0.0.1", captured, None),
        one("other", "back", "10.1.0.2", captured, None),
        one("bare", "shop", "127.0.1.1", Interception::None, None),
        one("bare", "back", "127.0.1.2", Interception::None, None),
        one("caller", "away", "10.1.0.3", captured, None),
        one("wide", "shop", "10.1.0.4", captured, scoped),
        one("bare-wide", "back", "127.0.1.3", Interception::None, scoped),
        one("wide-on-demand", "shop", "10.1.0.5", captured, on_demand),
        one(
            "bare-on-demand",
            "back",
            "127.0.1.4",
            Interception::None,
            on_demand,
        ),
        Proxy {
            id: Str::new("router~10.1.0.9~gate.shop~x"),
            role: Role::Router,
            labels: [("app", "caller"), ("istio", "ingressgateway")]
                .into_iter()
                .map(|(k, v)| (Str::new(k), Str::new(v)))
                .collect(),
            ..one("gate", "shop", "10.1.0.9", captured, None)
        },
    ]
}

/// Proxies, by place, that differ in packing alone: whole tables, scopes, scopes on demand.
pub const PACKED: [(u64, u64, u64); 2] = [(0, 6, 8), (4, 7, 9)];

pub fn change() -> impl Strategy<Value = Change> {
    of(select(&NAMESPACES[..]), spec())
}

/// Changes of endpoints and of what decides how to speak to them, for Services of one namespace of which
/// some are headless: edits that meet much more often than among all kinds. Some workloads, and what is
/// asked of them, are in another namespace, where a slice finds them by their address.
pub fn rollout() -> impl Strategy<Value = Vec<Change>> {
    let start = of(Just("shop"), service().prop_map(Spec::Service));
    let kinds = prop_oneof![
        6 => pod().prop_map(Spec::Pod),
        1 => entry().prop_map(Spec::WorkloadEntry),
        1 => slice().prop_map(Spec::EndpointSlice),
        2 => peer_authentication().prop_map(Spec::PeerAuthentication),
        1 => service().prop_map(Spec::Service),
    ];
    let (start, then) = (
        prop::collection::vec(start, 2..5),
        prop::collection::vec(of(select(&["shop", "shop", "back"][..]), kinds), 2..30),
    );
    (start, then).prop_map(|(mut all, then)| {
        all.extend(then);
        all
    })
}

fn of(
    namespace: impl Strategy<Value = &'static str>,
    spec: impl Strategy<Value = Spec>,
) -> impl Strategy<Value = Change> {
    let name = select(&NAMES[..]);
    let extra = (select(&VERSIONS[..]), select(&NAMES[..]), 0u8..4);
    let index = any::<prop::sample::Index>();
    (namespace, name, spec, index, extra).prop_map(|(ns, name, spec, index, extra)| {
        // One in six is a deletion.
        let gone = index.index(6) == 0;
        let mut meta = Meta {
            name: Str::new(name),
            namespace: Str::new(ns),
            labels: own_labels(&spec, name, extra),
            annotations: annotations(&spec),
            ..Meta::default()
        };
        if matches!(spec, Spec::Node(_) | Spec::IngressClass(_)) {
            meta.namespace = Str::default();
        }
        if matches!(spec, Spec::MeshConfig(_)) {
            // There is one.
            (meta.name, meta.namespace) = ("istio".into(), "istio-system".into());
        }
        let key = Key {
            kind: spec.kind(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
        };
        let object = (!gone).then(|| Arc::new(Object { meta, spec }));
        Change { key, object }
    })
}

fn spec() -> impl Strategy<Value = Spec> {
    prop_oneof![
        4 => service().prop_map(Spec::Service),
        3 => pod().prop_map(Spec::Pod),
        2 => slice().prop_map(Spec::EndpointSlice),
        1 => entry().prop_map(Spec::WorkloadEntry),
        3 => service_entry().prop_map(|entry| Spec::ServiceEntry(Box::new(entry))),
        1 => mesh_config().prop_map(|mesh| Spec::MeshConfig(Box::new(mesh))),
        4 => virtual_service().prop_map(Spec::VirtualService),
        4 => destination_rule().prop_map(|rule| Spec::DestinationRule(Box::new(rule))),
        2 => peer_authentication().prop_map(Spec::PeerAuthentication),
        1 => sidecar().prop_map(Spec::Sidecar),
        2 => gateway().prop_map(Spec::Gateway),
        3 => envoy_filter().prop_map(|filter| Spec::EnvoyFilter(Box::new(filter))),
        1 => Just(Spec::Node(Node {})),
        2 => ingress().prop_map(|ingress| Spec::Ingress(Box::new(ingress))),
        1 => ingress_class().prop_map(Spec::IngressClass),
        1 => extension().prop_map(|own| Spec::TrafficExtension(Box::new(own))),
    ]
}

fn labels(key: &str, value: &str) -> Labels {
    Labels::from([(Str::new(key), Str::new(value))])
}

/// Of a workload: what selects it, and, one in four without, that it speaks mTLS. Of a slice: its Service.
fn own_labels(spec: &Spec, name: &str, (version, service, tls): (&str, &str, u8)) -> Labels {
    match spec {
        Spec::Pod(_) | Spec::WorkloadEntry(_) => {
            let speaks = ("security.istio.io/tlsMode", "istio");
            let own = [("app", name), ("version", version)].into_iter();
            let own = own.chain((tls > 0).then_some(speaks));
            own.map(|(k, v)| (Str::new(k), Str::new(v))).collect()
        }
        Spec::EndpointSlice(_) => labels("kubernetes.io/service-name", service),
        Spec::Node(_) if tls > 0 => labels(
            "topology.kubernetes.io/region",
            if tls > 1 { "shop" } else { "back" },
        ),
        _ => Labels::new(),
    }
}

/// `exportTo` of a Service, taken from its external name, which has no meaning of its own here.
fn annotations(spec: &Spec) -> Labels {
    let export = match spec {
        Spec::Service(service) => service.external_name.clone(),
        _ => None,
    };
    export.map_or_else(Labels::new, |to| {
        labels("networking.istio.io/exportTo", &to)
    })
}

fn service() -> impl Strategy<Value = Service> {
    let port = (
        select(vec![80u16, 81, 9000, 15001]),
        select(vec!["http", "grpc", "tcp", "", "http2-x"]),
    );
    (
        prop::collection::vec(port, 1..3),
        select(&NAMES[..]),
        0u8..4,
        select(vec![None, None, Some("."), Some("shop"), Some("~")]),
        any::<bool>(),
    )
        .prop_map(|(ports, app, ip, export, external)| {
            let mut own: Vec<ServicePort> = Vec::new();
            for (port, name) in ports {
                if own.iter().all(|p| p.port != port) {
                    own.push(ServicePort {
                        name: Str::new(name),
                        port,
                        target_port: Some(TargetPort::Number(8000 + port % 10)),
                        ..ServicePort::default()
                    });
                }
            }
            Service {
                selector: labels("app", app),
                ports: own,
                cluster_ip: Some(match ip {
                    0 => Str::new("None"),
                    n => Str::new(format!("10.96.0.{n}")),
                }),
                // One address for several Services: a domain that they all claim.
                external_ips: external
                    .then(|| std::net::IpAddr::from([192, 0, 2, 1]))
                    .into_iter()
                    .collect(),
                external_name: export.map(Str::new),
                ..Service::default()
            }
        })
}

fn pod() -> impl Strategy<Value = Pod> {
    (1u8..5, select(&NAMES[..]), any::<bool>()).prop_map(|(ip, account, ready)| Pod {
        service_account: Str::new(account),
        // As many nodes as accounts.
        node_name: Str::new(account),
        ips: vec![std::net::IpAddr::from([10, 0, 0, ip])],
        ready,
        ..Pod::default()
    })
}

/// Endpoints at addresses that may be Pods', some naming the Pod.
fn slice() -> impl Strategy<Value = EndpointSlice> {
    let pod = prop::option::of(select(&NAMES[..]));
    let endpoint = (1u8..5, pod, prop::option::of(any::<bool>()));
    let endpoint = endpoint.prop_map(|(ip, pod, ready)| SliceEndpoint {
        addresses: vec![Str::new(format!("10.0.0.{ip}"))],
        conditions: fairlead::config::core::Conditions {
            ready,
            ..Default::default()
        },
        target_ref: pod.map(|name| {
            Box::new(TargetRef {
                kind: Str::new("Pod"),
                name: Str::new(name),
                namespace: Str::default(),
            })
        }),
        ..SliceEndpoint::default()
    });
    let port = (select(vec!["http", "tcp", "", "grpc"]), 8000u16..8002);
    let port = port.prop_map(|(name, port)| SlicePort {
        name: Str::new(name),
        port: Some(port),
        ..SlicePort::default()
    });
    let (endpoints, ports) = (
        prop::collection::vec(endpoint, 0..3),
        prop::collection::vec(port, 1..3),
    );
    (endpoints, ports).prop_map(|(endpoints, ports)| EndpointSlice {
        endpoints,
        ports,
        ..EndpointSlice::default()
    })
}

fn entry() -> impl Strategy<Value = WorkloadEntry> {
    let address = select(vec![
        "10.0.0.1",
        "10.2.0.1",
        "unix:///run/app",
        "db.example",
    ]);
    (address, select(&NAMES[..]), 0u32..3).prop_map(|(address, account, weight)| WorkloadEntry {
        address: Str::new(address),
        service_account: Str::new(account),
        weight,
        ..WorkloadEntry::default()
    })
}

/// Hosts that Services have too, hosts under others' wildcards, and ports that many share.
fn service_entry() -> impl Strategy<Value = ServiceEntry> {
    let hosts = select(vec![
        "example.com",
        "*.example.com",
        "www.example.com",
        "reviews.shop.svc.cluster.local",
    ]);
    let port = (
        select(vec![80u16, 443, 9000]),
        select(vec!["HTTP", "TLS", "TCP", "HTTPS", "GRPC", ""]),
    );
    let resolution = select(vec![
        Resolution::None,
        Resolution::Static,
        Resolution::Dns,
        Resolution::DnsRoundRobin,
    ]);
    let addresses = select(vec![
        vec![],
        vec!["240.0.0.1"],
        vec!["10.9.0.0/16", "240.0.0.2"],
    ]);
    let location = select(vec![Location::External, Location::Internal]);
    (
        prop::collection::vec(hosts, 1..3),
        prop::collection::vec(port, 1..3),
        (resolution, location, addresses),
        prop::collection::vec(entry(), 0..3),
        prop::option::of(select(&NAMES[..])),
        select(vec![vec![], vec![Str::new(".")], vec![Str::new("back")]]),
    )
        .prop_map(|(hosts, ports, how, endpoints, app, export_to)| {
            let (resolution, location, addresses) = how;
            let mut own: Vec<EntryPort> = Vec::new();
            for (number, protocol) in ports {
                if own.iter().all(|p| p.number != number) {
                    own.push(EntryPort {
                        number,
                        protocol: Str::new(protocol),
                        name: Str::new(format!("p{number}")),
                        target_port: Some(8000),
                    });
                }
            }
            ServiceEntry {
                hosts: hosts.into_iter().map(Str::new).collect(),
                addresses: addresses.into_iter().map(Str::new).collect(),
                ports: own,
                location,
                resolution,
                endpoints: if app.is_none() { endpoints } else { Vec::new() },
                workload_selector: app.map(|app| Selector {
                    labels: labels("app", app),
                }),
                export_to,
                subject_alt_names: Vec::new(),
            }
        })
}

/// Acceptance holds the trust domain while a program runs; the engine follows it all the same.
fn mesh_config() -> impl Strategy<Value = MeshConfig> {
    let export = || select(vec!["*", "*", ".", "~"]).prop_map(|to| vec![Str::new(to)]);
    let mode = select(vec![OutboundMode::AllowAny, OutboundMode::RegistryOnly]);
    let domain = select(vec!["cluster.local", "cluster.local", "shop.example"]);
    let alias = prop::option::of(select(vec!["old.example"]));
    let root = select(vec!["istio-system", "istio-system", "back"]);
    let ingresses = select(vec![
        IngressMode::Strict,
        IngressMode::Default,
        IngressMode::Off,
    ]);
    (
        (any::<bool>(), ingresses),
        mode,
        domain,
        alias,
        root,
        (export(), export(), export()),
    )
        .prop_map(
            |((auto, ingresses), mode, domain, alias, root, (services, virtuals, rules))| {
                MeshConfig {
                    enable_auto_mtls: auto,
                    ingress_controller_mode: ingresses,
                    outbound_traffic_policy: OutboundTrafficPolicy { mode },
                    trust_domain: Str::new(domain),
                    trust_domain_aliases: alias.into_iter().map(Str::new).collect(),
                    root_namespace: Str::new(root),
                    default_service_export_to: services,
                    default_virtual_service_export_to: virtuals,
                    default_destination_rule_export_to: rules,
                    ..MeshConfig::default()
                }
            },
        )
}

fn host() -> impl Strategy<Value = Str> {
    select(vec![
        "reviews",
        "ratings",
        "reviews.shop.svc.cluster.local",
        "ratings.back.svc.cluster.local",
        "*.shop.svc.cluster.local",
        "example.com",
        "*.example.com",
        // Nobody's full name: a short form of a Service.
        "reviews.shop",
        "ratings.back.svc",
        "192.0.2.1",
    ])
    .prop_map(Str::new)
}

fn exact_host() -> impl Strategy<Value = Str> {
    host().prop_filter("a destination is no wildcard", |h| !h.starts_with('*'))
}

fn http_match() -> impl Strategy<Value = HttpMatchRequest> {
    let from = select(vec!["", "", "shop", "back"]);
    (select(vec!["/", "/a", "/b"]), any::<bool>(), from).prop_map(|(path, labelled, from)| {
        HttpMatchRequest {
            uri: Some(StringMatch::Prefix(Str::new(path))),
            source_namespace: Str::new(from),
            source_labels: if labelled {
                labels("app", "caller")
            } else {
                Labels::new()
            },
            ..HttpMatchRequest::default()
        }
    })
}

fn http_rule() -> impl Strategy<Value = Arc<HttpRoute>> {
    let destination =
        (exact_host(), select(vec!["", "v1", "v2"]), 1u32..3).prop_map(|(h, s, weight)| {
            HttpRouteDestination {
                headers: Default::default(),
                destination: Destination {
                    host: h,
                    subset: Str::new(s),
                    port: None,
                },
                weight,
            }
        });
    let matches = http_match();
    (
        prop::collection::vec(matches, 0..2),
        prop::collection::vec(destination, 1..3),
        0u64..3,
        // One in eight hands its requests on to another's rules.
        (0u8..8, select(&NAMES[..])),
    )
        .prop_map(|(matches, route, seconds, (hands_on, to))| {
            let delegate = (hands_on == 0).then(|| Delegate {
                name: Str::new(to),
                ..Delegate::default()
            });
            Arc::new(HttpRoute {
                matches,
                route: if delegate.is_some() {
                    Vec::new()
                } else {
                    route
                },
                delegate,
                timeout: (seconds > 0).then(|| Span(Duration::from_secs(seconds))),
                ..HttpRoute::default()
            })
        })
}

fn virtual_service() -> impl Strategy<Value = VirtualService> {
    let export = select(vec![vec![], vec![Str::new(".")], vec![Str::new("back")]]);
    let gateways = select(vec![
        vec![],
        vec![],
        vec!["mesh", "shop/reviews"],
        vec!["shop/reviews", "back/www", "ratings"],
    ]);
    (
        prop_oneof![
            4 => prop::collection::vec(host(), 1..3),
            1 => Just(Vec::new()),
        ],
        prop::collection::vec(http_rule(), 1..3),
        (prop::option::of(l4_route()), prop::option::of(l4_route())),
        (export, gateways),
    )
        .prop_map(|(hosts, http, (tls, tcp), (export_to, gateways))| {
            let named = |mut one: TcpRoute| {
                let hosts = hosts.clone();
                one.matches
                    .iter_mut()
                    .for_each(|m| m.sni_hosts = hosts.clone());
                TlsRoute {
                    matches: one.matches,
                    route: one.route,
                }
            };
            VirtualService {
                tls: tls.map(named).into_iter().collect(),
                tcp: tcp.into_iter().collect(),
                gateways: match hosts.is_empty() {
                    true => Vec::new(),
                    false => gateways.into_iter().map(Str::new).collect(),
                },
                hosts,
                http,
                export_to,
            }
        })
}

/// Servers of few ports and hosts, so that they meet.
fn gateway() -> impl Strategy<Value = Gateway> {
    let hosts = prop_oneof![
        3 => host(),
        1 => Just(Str::new("*")),
        1 => Just(Str::new("*.shop.svc.cluster.local")),
        1 => host().prop_map(|host| Str::new(format!("back/{host}"))),
    ];
    let sort = select(vec![
        ("HTTP", None),
        ("HTTP", None),
        ("HTTPS", Some(gateway::TlsMode::Simple)),
        ("HTTPS", Some(gateway::TlsMode::IstioMutual)),
        ("TCP", None),
        ("TLS", Some(gateway::TlsMode::Passthrough)),
        ("TLS", Some(gateway::TlsMode::Mutual)),
        ("TLS", Some(gateway::TlsMode::AutoPassthrough)),
    ]);
    let server = (
        select(vec![80u16, 443, 7000]),
        sort,
        prop::collection::vec(hosts, 1..3),
        any::<bool>(),
    );
    let server = server.prop_map(|(number, (protocol, mode), hosts, redirects)| {
        let tls = mode.map(|mode| ServerTls {
            mode,
            credential_name: match mode {
                gateway::TlsMode::IstioMutual => Str::default(),
                _ => Str::new_static("certificate"),
            },
            ..ServerTls::default()
        });
        let redirect = (protocol == "HTTP" && redirects).then(|| ServerTls {
            https_redirect: true,
            ..ServerTls::default()
        });
        Server {
            port: ServerPort {
                number,
                protocol: Str::new(protocol),
                name: Str::new(format!("{protocol}-{number}")),
            },
            hosts,
            tls: tls.or(redirect).map(Box::new),
            ..Server::default()
        }
    });
    let selector = select(vec![
        Labels::new(),
        labels("app", "caller"),
        labels("app", "x"),
    ]);
    (selector, prop::collection::vec(server, 1..4))
        .prop_map(|(selector, servers)| Gateway { selector, servers })
}

/// By classes that are there at times, for hosts that VirtualServices have too.
fn ingress() -> impl Strategy<Value = Ingress> {
    let port = select(vec![(80, ""), (81, ""), (0, "http"), (0, "grpc")]);
    let backend = (select(&NAMES[..]), port).prop_map(|(name, (number, port))| Backend {
        service: Some(BackendService {
            name: Str::new(name),
            port: BackendPort {
                number,
                name: Str::new(port),
            },
        }),
        resource: None,
    });
    let backend = || backend.clone();
    let kinds = vec![
        PathType::Exact,
        PathType::Prefix,
        PathType::ImplementationSpecific,
    ];
    let path = (
        select(vec!["/", "/a", "/a/", "/a/b"]),
        select(kinds),
        backend(),
    );
    let path = path.prop_map(|(path, path_type, backend)| IngressPath {
        path: Str::new(path),
        path_type,
        backend,
    });
    let hosts = vec!["", "example.com", "*.example.com", "a.example.com"];
    let rule = (select(hosts), prop::collection::vec(path, 1..3));
    let rule = rule.prop_map(|(host, paths)| IngressRule {
        host: Str::new(host),
        http: Some(IngressPaths { paths }),
    });
    let secured = select(vec!["example.com", "*.example.com"]);
    let tls = prop::collection::vec(secured, 0..3).prop_map(|hosts| IngressTls {
        hosts: hosts.into_iter().map(Str::new).collect(),
        secret_name: Str::new_static("certificate"),
    });
    (
        prop::option::of(select(&NAMES[..])),
        prop::option::of(backend()),
        prop::collection::vec(rule, 0..3),
        prop::option::of(tls),
    )
        .prop_map(|(class, default_backend, rules, tls)| Ingress {
            ingress_class_name: class.map(Str::new),
            default_backend,
            rules,
            tls: tls.into_iter().collect(),
        })
}

fn ingress_class() -> impl Strategy<Value = IngressClass> {
    let controllers = vec![
        ingress::CONTROLLER,
        ingress::CONTROLLER,
        "example.com/other",
    ];
    select(controllers).prop_map(|controller| IngressClass {
        controller: Str::new(controller),
    })
}

fn extension() -> impl Strategy<Value = TrafficExtension> {
    let selector = prop::option::of(select(vec!["caller", "reviews"]));
    let phases = vec![Phase::Authn, Phase::Stats, Phase::Unspecified];
    let modes = vec![TrafficMode::Client, TrafficMode::Server];
    let matched = prop::option::of((select(modes), prop::option::of(select(vec![80u16, 8000]))));
    (selector, select(phases), 0i32..2, matched).prop_map(|(app, phase, priority, matched)| {
        let selector = app.map(|app| WorkloadSelector {
            match_labels: labels("app", app),
        });
        let matched = matched.map(|(mode, port)| TrafficSelector {
            mode,
            ports: port
                .map(|number| PortSelector { number })
                .into_iter()
                .collect(),
        });
        TrafficExtension {
            selector,
            phase,
            priority,
            matches: matched.into_iter().collect(),
            lua: Some(Lua {
                inline_code: Str::new_static("-- nothing"),
            }),
            ..TrafficExtension::default()
        }
    })
}

fn l4_route() -> impl Strategy<Value = TcpRoute> {
    let destination = (exact_host(), select(vec!["", "v1"]), 0u32..3);
    let destination = destination.prop_map(|(host, subset, weight)| RouteDestination {
        destination: Destination {
            host,
            subset: Str::new(subset),
            port: None,
        },
        weight,
    });
    let subnets = select(vec![
        vec![],
        vec!["10.9.1.0/24"],
        vec!["10.9.0.0/16", "240.0.0.9"],
    ]);
    let matches = (
        subnets,
        any::<bool>(),
        prop::option::of(select(vec![443u16, 9000])),
    );
    let matches = matches.prop_map(|(subnets, labelled, port)| L4Match {
        destination_subnets: subnets.into_iter().map(Str::new).collect(),
        source_labels: if labelled {
            labels("app", "caller")
        } else {
            Labels::new()
        },
        port,
        ..L4Match::default()
    });
    (
        prop::collection::vec(matches, 0..3),
        prop::collection::vec(destination, 1..3),
    )
        .prop_map(|(matches, route)| TcpRoute { matches, route })
}

fn load_balancer() -> impl Strategy<Value = LoadBalancer> {
    let lb = select(vec![
        SimpleLb::RoundRobin,
        SimpleLb::Random,
        SimpleLb::Passthrough,
    ]);
    let near = select(vec![
        None,
        Some(LocalityLb {
            distribute: vec![Distribute {
                from: Str::new_static("shop"),
                to: [("shop".into(), 80), ("*".into(), 20)].into(),
            }],
            ..LocalityLb::default()
        }),
        Some(LocalityLb {
            failover_priority: vec![Str::new_static("app"), Str::new_static("version=v1")],
            ..LocalityLb::default()
        }),
        Some(LocalityLb {
            enabled: Some(false),
            ..LocalityLb::default()
        }),
    ]);
    (lb, any::<bool>(), near).prop_map(|(simple, by_source, near)| LoadBalancer {
        locality_lb_setting: near,
        zone_aware_lb_setting: by_source.then(Box::default),
        simple: (!by_source).then_some(simple),
        consistent_hash: by_source.then(|| ConsistentHash {
            use_source_ip: Some(true),
            ..ConsistentHash::default()
        }),
        ..LoadBalancer::default()
    })
}

fn destination_rule() -> impl Strategy<Value = DestinationRule> {
    let subset = select(&VERSIONS[..]).prop_map(|v| Subset {
        name: Str::new(v),
        labels: labels("version", v),
        traffic_policy: None,
    });
    let lb = load_balancer();
    let limits = prop::option::of(1u32..3);
    let tls = select(vec![
        None,
        Some(TlsMode::Disable),
        Some(TlsMode::IstioMutual),
    ]);
    let policy = (lb, tls, limits).prop_map(|(lb, tls, limit)| TrafficPolicy {
        load_balancer: Some(lb),
        connection_pool: limit.map(|max| {
            let mut pool = ConnectionPool::default();
            pool.tcp.max_connections = max;
            Box::new(pool)
        }),
        outlier_detection: limit.map(|max| {
            Box::new(OutlierDetection {
                consecutive_5xx_errors: Some(max),
                ..OutlierDetection::default()
            })
        }),
        retry_budget: None,
        proxy_protocol: None,
        tunnel: None,
        tls: tls.map(|mode| ClientTls {
            mode,
            ..ClientTls::default()
        }),
        port_level_settings: Vec::new(),
    });
    let export = select(vec![vec![], vec![Str::new(".")], vec![Str::new("back")]]);
    (
        host(),
        prop::option::of(policy),
        prop::collection::vec(subset, 0..3),
        export,
    )
        .prop_map(
            |(host, traffic_policy, subsets, export_to)| DestinationRule {
                host,
                traffic_policy,
                subsets,
                export_to,
                ..Default::default()
            },
        )
}

fn peer_authentication() -> impl Strategy<Value = PeerAuthentication> {
    let mode = || {
        select(vec![
            MtlsMode::Unset,
            MtlsMode::Disable,
            MtlsMode::Permissive,
            MtlsMode::Strict,
        ])
    };
    let selector = prop::option::of(select(&NAMES[..]));
    (selector, mode(), prop::option::of(mode())).prop_map(|(app, mode, port)| {
        let selector = app.map(|a| WorkloadSelector {
            match_labels: labels("app", a),
        });
        let ports = port
            .filter(|_| selector.is_some())
            .map(|m| (8000, MutualTls { mode: m }));
        PeerAuthentication {
            selector,
            mtls: Some(MutualTls { mode }),
            port_level_mtls: ports.into_iter().collect(),
        }
    })
}

fn sidecar() -> impl Strategy<Value = Sidecar> {
    let hosts = select(vec![
        "./*",
        "*/*",
        "back/*",
        "*/reviews.shop.svc.cluster.local",
        "~/*",
    ]);
    let hosts = prop::collection::vec(hosts.prop_map(Str::new), 1..3);
    let port = select(vec![
        None,
        Some((80, "HTTP")),
        Some((81, "HTTP")),
        Some((9000, "TCP")),
    ]);
    let bind = select(vec!["", "", "127.0.0.9"]);
    let listener = (hosts, port, bind).prop_map(|(hosts, port, bind)| EgressListener {
        hosts,
        bind: Str::new(if port.is_some() { bind } else { "" }),
        port: port.map(|(number, protocol)| SidecarPort {
            number,
            protocol: Str::new(protocol),
            name: Str::default(),
        }),
        ..EgressListener::default()
    });
    let mode = select(vec![None, Some(OutboundMode::RegistryOnly)]);
    let mode = mode.prop_map(|mode| mode.map(|mode| OutboundTrafficPolicy { mode }));
    (prop::collection::vec(listener, 1..3), mode).prop_map(|(mut egress, mode)| {
        // As every accepted one: a port once, and the listener of all others last.
        let number = |e: &EgressListener| e.port.as_ref().map_or(u16::MAX, |p| p.number);
        egress.sort_by_key(number);
        egress.dedup_by_key(|e| number(e));
        Sidecar {
            egress,
            outbound_traffic_policy: mode,
            ..Sidecar::default()
        }
    })
}

/// One for each thing that a patch may apply to, at names that the meshes have.
const PATCHES: &[&str] = &[
    r#"{"applyTo": "CLUSTER", "match": {"cluster": {"service": "reviews.shop.svc.cluster.local"}},
        "patch": {"operation": "MERGE", "value": {"connect_timeout": "3s"}}}"#,
    r#"{"applyTo": "CLUSTER", "match": {"context": "SIDECAR_OUTBOUND", "cluster": {"portNumber": 80}},
        "patch": {"operation": "REMOVE"}}"#,
    r#"{"applyTo": "CLUSTER", "match": {"context": "SIDECAR_INBOUND"},
        "patch": {"operation": "MERGE", "value": {"connect_timeout": "4s"}}}"#,
    r#"{"applyTo": "CLUSTER", "patch": {"operation": "ADD",
        "value": {"name": "outbound|80||ratings.shop.svc.cluster.local", "type": "STATIC"}}}"#,
    r#"{"applyTo": "CLUSTER", "match": {"context": "SIDECAR_INBOUND"}, "patch": {"operation": "ADD",
        "value": {"name": "added", "type": "STATIC"}}}"#,
    r#"{"applyTo": "LISTENER", "match": {"listener": {"portNumber": 9000}}, "patch": {"operation": "REMOVE"}}"#,
    r#"{"applyTo": "LISTENER", "patch": {"operation": "ADD", "value": {"name": "0.0.0.0_81"}}}"#,
    r#"{"applyTo": "FILTER_CHAIN", "match": {"context": "SIDECAR_INBOUND", "listener": {"portNumber": 8000}},
        "patch": {"operation": "REMOVE"}}"#,
    r#"{"applyTo": "HTTP_FILTER", "match": {"listener": {"portNumber": 80}},
        "patch": {"operation": "INSERT_FIRST", "value": {"name": "first"}}}"#,
    r#"{"applyTo": "ROUTE_CONFIGURATION", "match": {"routeConfiguration": {"name": "80"}},
        "patch": {"operation": "MERGE", "value": {"internal_only_headers": ["x"]}}}"#,
    r#"{"applyTo": "VIRTUAL_HOST", "match": {"routeConfiguration": {"portNumber": 80}},
        "patch": {"operation": "ADD", "value": {"name": "added", "domains": ["added.example"]}}}"#,
    r#"{"applyTo": "HTTP_ROUTE", "match": {"routeConfiguration": {"vhost": {"domainName": "reviews.shop"}}},
        "patch": {"operation": "MERGE", "value": {"stat_prefix": "patched"}}}"#,
];

fn envoy_filter() -> impl Strategy<Value = EnvoyFilter> {
    let patches = prop::collection::vec(select(PATCHES), 1..3);
    let selector = prop::option::of(select(vec!["caller", "reviews"]));
    (patches, selector, -1i32..2).prop_map(|(patches, app, priority)| {
        let patches: Vec<serde_json::Value> = patches
            .into_iter()
            .map(|text| serde_json::from_str(text).unwrap())
            .collect();
        let selector = app.map(|app| serde_json::json!({"labels": {"app": app}}));
        let spec = serde_json::json!({
            "configPatches": patches,
            "workloadSelector": selector,
            "priority": priority,
        });
        serde_json::from_value(spec).unwrap()
    })
}
