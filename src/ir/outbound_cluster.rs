//! One outbound cluster: where it leads, how it balances, which TLS it speaks.

use std::collections::BTreeSet;

use super::http_routes;
use super::traffic_policy::{self, Server};
use super::{Cluster, Discovery, LoadBalancer, Origin, TlsMode, UpstreamProtocol, UpstreamTls};
use crate::config::{Key, Kind, Source};
use crate::model::Snapshot;
use crate::model::protocol::Protocol;
use crate::model::rules::Merged;
use crate::model::services::{Resolution, Service, ServicePort};
use crate::text::{Hostname, Str};

/// The cluster of one port and subset (empty for all endpoints), and what made it.
pub(super) fn join(
    snapshot: &Snapshot,
    service: &Service,
    port: &ServicePort,
    rule: Option<&Merged>,
    subset: &str,
) -> (Cluster, Vec<Source>) {
    let policy = traffic_policy::policy(rule, port.number, subset);
    let mesh = &snapshot.mesh;
    let (namespace_mode, policies) = snapshot
        .policies
        .namespace_mode(&mesh.root_namespace, &service.namespace);
    let server = Server {
        host: service.host.as_str(),
        port: port.number,
        subset,
        protocol: port.protocol,
        identities: identities(snapshot, service),
        auto: mesh.enable_auto_mtls.then_some(namespace_mode),
    };
    let balancer = traffic_policy::load_balancer(&policy)
        .filter(|_| service.resolution == Resolution::Endpoints);
    let of_rule = policy
        .sources
        .first()
        .map(|s| http_routes::config_path(&s.key));
    let cluster = Cluster {
        name: cluster_name(port.number, subset, &service.host),
        discovery: match balancer {
            Some(_) => Discovery::Eds,
            None => Discovery::OriginalDst { source: None },
        },
        protocol: upstream_protocol(port.protocol),
        connect_timeout: mesh.connect_timeout,
        load_balancer: balancer.unwrap_or(LoadBalancer::ClusterProvided),
        tls: original_dst_tls(
            traffic_policy::upstream_tls(&policy, server),
            balancer,
            snapshot,
            service,
        ),
        origin: Some(Origin {
            host: service.host.to_str(),
            name: service.name.clone(),
            namespace: service.namespace.clone(),
            subset: Str::new(subset),
            config: of_rule.unwrap_or_default(),
        }),
    };
    let mut sources = vec![port_source(service, port)];
    sources.extend(policy.sources);
    sources.extend(policies.into_iter().map(|key| Source {
        key,
        field: Str::default(),
    }));
    (cluster, sources)
}

/// An original destination has no endpoint metadata to choose by: mTLS only if every endpoint speaks it.
fn original_dst_tls(
    tls: UpstreamTls,
    balancer: Option<LoadBalancer>,
    snapshot: &Snapshot,
    service: &Service,
) -> UpstreamTls {
    match tls {
        UpstreamTls::Auto(mutual) if balancer.is_none() => {
            let set = snapshot.endpoints.get(service.host.as_str());
            let mut members = set
                .iter()
                .flat_map(|s| s.by_port.values().flatten())
                .peekable();
            let all =
                members.peek().is_some() && members.all(|m| m.endpoint.tls_mode == TlsMode::Istio);
            if all {
                UpstreamTls::Mutual(mutual)
            } else {
                UpstreamTls::Off
            }
        }
        other => other,
    }
}

/// Who the endpoints are, in the mesh's trust domain and in each alias of it.
fn identities(snapshot: &Snapshot, service: &Service) -> Vec<Str> {
    let mesh = &snapshot.mesh;
    let accounts = snapshot
        .endpoints
        .get(service.host.as_str())
        .map(|s| &s.accounts);
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

fn upstream_protocol(protocol: Protocol) -> UpstreamProtocol {
    match protocol {
        Protocol::Http => UpstreamProtocol::Http1,
        Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb => UpstreamProtocol::Http2,
        Protocol::Auto => UpstreamProtocol::Downstream,
        Protocol::Tcp | Protocol::Tls | Protocol::Https | Protocol::Udp => UpstreamProtocol::Tcp,
    }
}

fn service_source(service: &Service, field: &str) -> Source {
    let Service {
        namespace, name, ..
    } = service;
    let key = Key {
        kind: Kind::Service,
        namespace: namespace.clone(),
        name: name.clone(),
    };
    Source {
        key,
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
