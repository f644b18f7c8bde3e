//! One outbound cluster: where it leads, how it balances, which TLS it speaks.

use std::collections::BTreeSet;

use super::assignments;
use super::http_routes;
use super::outbound::{Assignment, HostFacts, Speaking};
use super::spread::{self, Spread, Where};
use super::traffic_policy::{self, Policy, Server};
use super::{
    Cluster, Discovery, Limits, LoadBalancer, Lookup, Origin, UpstreamProtocol, UpstreamTls,
};
use crate::config::Source;
use crate::config::connection_pool::{ConnectionPool, H2UpgradePolicy};
use crate::model::endpoints::Member;
use crate::model::protocol::Protocol;
use crate::model::proxy::Families;
use crate::model::rules::Merged;
use crate::model::services::{Resolution, Service, ServicePort};
use crate::text::{Hostname, Str};

/// The cluster that a connection within the mesh's own TLS goes through unopened, under the name that its client asks
/// for: TLS ends at the endpoint.
pub(super) fn through(
    facts: &HostFacts<'_>,
    service: &Service,
    port: &ServicePort,
    by: &Caller<'_>,
    subset: &str,
) -> Joined {
    let (cluster, spread, sources) = join(facts, service, port, by, subset);
    let number = port.number;
    let unopened = cluster.limits.map(|limits| {
        Box::new(Limits {
            proxy_protocol: None,
            ..*limits
        })
    });
    let cluster = Cluster {
        name: Str::new(format!("outbound_.{number}_.{subset}_.{}", service.host)),
        limits: unopened,
        discovery: Discovery::Eds,
        protocol: UpstreamProtocol::Tcp,
        tls: UpstreamTls::Off,
        ..cluster
    };
    (cluster, spread, sources)
}

/// A cluster, which of its endpoints the client prefers, and what made it.
pub(super) type Joined = (Cluster, Option<Box<Spread>>, Vec<Source>);

/// Who calls, as far as a cluster depends on it.
pub(super) struct Caller<'a> {
    pub(super) rule: Option<&'a Merged>,
    pub(super) destined: Destined,
    pub(super) place: Option<&'a Where>,
    pub(super) families: Families,
}

/// Whether connections were going somewhere before they came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Destined {
    Yes,
    No,
}

/// The cluster of one port and subset (empty for all endpoints), and what made it.
pub(super) fn join(
    facts: &HostFacts<'_>,
    service: &Service,
    port: &ServicePort,
    by: &Caller<'_>,
    subset: &str,
) -> Joined {
    let (rule, destined, place) = (by.rule, by.destined, by.place);
    let policy = traffic_policy::policy(rule, port.number, subset);
    let spread = spread::of(&policy, facts.mesh, place).map(Box::new);
    let limits = traffic_policy::limits(&policy, spread.as_deref());
    let pool = limits.as_deref().map(|l| &l.pool);
    let protocol = protocol(port.protocol, pool);
    let mesh = facts.mesh;
    let server = Server {
        secrets: destined == Destined::No || rule.is_some_and(|rule| rule.chosen),
        ..server(facts, (service, port), subset, protocol)
    };
    let balancer = traffic_policy::load_balancer(&policy)
        .filter(|_| destined == Destined::No || service.resolution != Resolution::Headless);
    let of_rule = policy
        .sources
        .first()
        .map(|s| http_routes::config_path(&s.key));
    let cluster = Cluster {
        name: cluster_name(port.number, subset, &service.host),
        discovery: match (&balancer, service.resolution) {
            (None, _) => Discovery::OriginalDst {
                sources: Vec::new(),
                port: service.entry.as_ref().and_then(|_| port.instead()),
            },
            (Some(_), Resolution::Dns(lookup)) => {
                looked_up(facts, (lookup, by), port, spread.clone(), subset)
            }
            (Some(_), _) => Discovery::Eds,
        },
        protocol: spoken(&policy, protocol, pool),
        connect_timeout: pool
            .and_then(|p| p.tcp.connect_timeout)
            .unwrap_or(mesh.connect_timeout),
        tls: original_dst_tls(
            traffic_policy::upstream_tls(&policy, &server),
            balancer.as_ref(),
            || {
                let set = facts.endpoints;
                let root = &mesh.root_namespace;
                set.is_some_and(|s| s.all_speak_mtls(port.number, facts.policies, root))
            },
        ),
        load_balancer: balancer.unwrap_or(LoadBalancer::ClusterProvided),
        origin: Some(Origin {
            host: service.host.to_str(),
            name: service.name.clone(),
            namespace: service.namespace.clone(),
            subset: Str::new(subset),
            config: of_rule.unwrap_or_default(),
        }),
        limits,
    };
    let sources = sources(facts, (service, port), policy.sources);
    (cluster, spread, sources)
}

/// What made a cluster: its port, its rules, the policies of its namespace.
fn sources(
    facts: &HostFacts<'_>,
    (service, port): (&Service, &ServicePort),
    rules: Vec<Source>,
) -> Vec<Source> {
    let (_, policies) = &facts.namespace_mode;
    let whole = |key: &crate::config::Key| Source {
        key: key.clone(),
        field: Str::default(),
    };
    let sources = std::iter::once(port_source(service, port)).chain(rules);
    sources.chain(policies.iter().map(whole)).collect()
}

/// Whom a client meets there, as far as TLS asks.
fn server<'a>(
    facts: &HostFacts<'_>,
    (service, port): (&'a Service, &ServicePort),
    subset: &'a str,
    protocol: Protocol,
) -> Server<'a> {
    let (namespace_mode, _) = &facts.namespace_mode;
    Server {
        host: service.host.as_str(),
        port: port.number,
        subset,
        secrets: false,
        protocol,
        identities: identities(facts),
        // Nobody outside has an identity of the mesh.
        auto: (facts.mesh.enable_auto_mtls && !service.is_external()).then_some(*namespace_mode),
        names: service
            .entry
            .as_deref()
            .map_or(&[][..], |e| &e.subject_alt_names),
    }
}

/// The names stand in the cluster itself. Of several, or none, the first alone cannot be meant.
fn looked_up(
    facts: &HostFacts<'_>,
    (lookup, by): (Lookup, &Caller<'_>),
    port: &ServicePort,
    spread: Option<Box<Spread>>,
    subset: &str,
) -> Discovery {
    let families = by.families;
    let defined = by
        .rule
        .and_then(|r| r.subsets.iter().find(|d| d.subset.name == subset));
    let assignment = Assignment {
        cluster: cluster_name(port.number, subset, facts.host),
        port: port.number,
        labels: defined.map(|d| d.subset.labels.clone()).unwrap_or_default(),
        spread,
        speaking: Speaking::Anything,
        families,
    };
    let root = facts.mesh.root_namespace.as_str();
    let nowhere = |_: &Member| None;
    let policies = (facts.policies, root);
    let names = assignments::of_set(facts.endpoints, policies, &assignment, &nowhere);
    let count: usize = names.localities.iter().map(|l| l.endpoints.len()).sum();
    let lookup = if count == 1 { lookup } else { Lookup::Every };
    Discovery::Dns(lookup, families, Box::new(names))
}

/// An original destination has no endpoint metadata to choose by: mTLS only if every endpoint speaks it.
fn original_dst_tls(
    tls: UpstreamTls,
    balancer: Option<&LoadBalancer>,
    all_speak_mtls: impl Fn() -> bool,
) -> UpstreamTls {
    match tls {
        UpstreamTls::Auto(mutual) if balancer.is_none() => {
            if all_speak_mtls() {
                UpstreamTls::Mutual(mutual)
            } else {
                UpstreamTls::Off
            }
        }
        other => other,
    }
}

/// Who the endpoints are, in the mesh's trust domain and in each alias of it.
fn identities(facts: &HostFacts<'_>) -> Vec<Str> {
    let mesh = facts.mesh;
    let accounts = facts.endpoints.map(|s| &s.accounts);
    let domains: Vec<&Str> = std::iter::once(&mesh.trust_domain)
        .chain(&mesh.trust_domain_aliases)
        .collect();
    let uris = accounts
        .into_iter()
        .flatten()
        .flat_map(|(namespace, account)| {
            domains
                .iter()
                .map(move |td| Str::new(format!("spiffe://{td}/ns/{namespace}/sa/{account}")))
        });
    uris.collect::<BTreeSet<_>>().into_iter().collect()
}

/// What is spoken to the port, where a rule says another than the port's own. Bytes stay bytes.
fn protocol(own: Protocol, pool: Option<&ConnectionPool>) -> Protocol {
    let http = pool.map(|pool| &pool.http);
    match (own, http) {
        (Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb, Some(http))
            if http.use_client_protocol =>
        {
            Protocol::Auto
        }
        (Protocol::Http, Some(_)) if upgraded(pool) => Protocol::Http2,
        (own, _) => own,
    }
}

fn upgraded(pool: Option<&ConnectionPool>) -> bool {
    pool.is_some_and(|pool| pool.http.h2_upgrade_policy == H2UpgradePolicy::Upgrade)
}

/// An upgrade of bytes is for the proxy that they go through.
fn spoken(policy: &Policy, protocol: Protocol, pool: Option<&ConnectionPool>) -> UpstreamProtocol {
    match policy.tunnel.is_some() && upgraded(pool) {
        true => UpstreamProtocol::Http2,
        false => upstream_protocol(protocol),
    }
}

fn upstream_protocol(protocol: Protocol) -> UpstreamProtocol {
    match protocol {
        Protocol::Http => UpstreamProtocol::Http1,
        Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb => UpstreamProtocol::Http2,
        Protocol::Auto => UpstreamProtocol::Downstream,
        Protocol::Tcp | Protocol::Tls | Protocol::Https | Protocol::Udp => UpstreamProtocol::Tcp,
    }
}

fn service_source(service: &Service, field: &str) -> Source {
    Source {
        key: service.key(),
        field: Str::new(field),
    }
}

pub(super) fn port_source(service: &Service, port: &ServicePort) -> Source {
    let index = service
        .ports
        .iter()
        .position(|p| p.number == port.number)
        .unwrap_or_default();
    service_source(service, &format!("spec.ports[{index}]"))
}

pub(super) fn cluster_name(port: u16, subset: &str, host: &Hostname) -> Str {
    Str::new(format!("outbound|{port}|{subset}|{host}"))
}
