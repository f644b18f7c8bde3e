//! DestinationRule's levels joined: which load balancer and TLS hold for a port and subset.

use super::spread::Spread;
use super::{
    Certificates, Flow, HashPolicy, HashSourceIp, Limits, LoadBalancer, MutualTls, Origination,
    Roots, UpstreamTls, Zones,
};
use crate::config::connection_pool::{ConnectionPool, OutlierDetection, RetryBudget, Warmup};
use crate::config::destination_rule::{
    self, ClientTls, ConsistentHash, ProxyProtocol, SimpleLb, TlsMode, TrafficPolicy, Tunnel,
};
use crate::config::locality::ZoneAwareLb;
use crate::config::secret;
use crate::config::{Key, Source};
use crate::model::policies::Mode;
use crate::model::protocol::Protocol;
use crate::model::rules::{Defined, Merged};
use crate::text::Str;

/// The blocks in force, each with the rule that set it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    pub load_balancer: Option<destination_rule::LoadBalancer>,
    pub connection_pool: Option<Box<ConnectionPool>>,
    pub outlier_detection: Option<Box<OutlierDetection>>,
    pub tls: Option<ClientTls>,
    pub retry_budget: Option<RetryBudget>,
    pub proxy_protocol: Option<ProxyProtocol>,
    pub tunnel: Option<Box<Tunnel>>,
    pub sources: Vec<Source>,
}

/// Rule < its port level < subset, block by block < subset's port level. A port level replaces all blocks,
/// so that what it leaves out is unset, not inherited.
pub fn policy(merged: Option<&Merged>, port: u16, subset: &str) -> Policy {
    let Some(merged) = merged else {
        return Policy::default();
    };
    let mut policy = Policy::default();
    if let Some((top, key)) = &merged.policy {
        policy.load_balancer = top.load_balancer.clone();
        policy.connection_pool = top.connection_pool.clone();
        policy.outlier_detection = top.outlier_detection.clone();
        policy.tls = top.tls.clone();
        policy.retry_budget = top.retry_budget.clone();
        policy.proxy_protocol = top.proxy_protocol;
        policy.tunnel = top.tunnel.clone();
        policy.sources.push(source(key, "spec.trafficPolicy"));
        replace_by_port(&mut policy, top, port);
    }
    let own = merged.subsets.iter().find(|d| d.subset.name == subset);
    if let Some(Defined { subset, key, index }) = own {
        policy
            .sources
            .push(source(key, &format!("spec.subsets[{index}]")));
        if let Some(own) = &subset.traffic_policy {
            policy.load_balancer = own.load_balancer.clone().or(policy.load_balancer);
            policy.connection_pool = own.connection_pool.clone().or(policy.connection_pool);
            policy.outlier_detection = own.outlier_detection.clone().or(policy.outlier_detection);
            policy.retry_budget = own.retry_budget.clone().or(policy.retry_budget);
            policy.proxy_protocol = own.proxy_protocol.or(policy.proxy_protocol);
            policy.tunnel = own.tunnel.clone().or(policy.tunnel);
            policy.tls = own.tls.clone().or(policy.tls);
            replace_by_port(&mut policy, own, port);
        }
    }
    policy
}

fn replace_by_port(policy: &mut Policy, level: &TrafficPolicy, port: u16) {
    if let Some(own) = level
        .port_level_settings
        .iter()
        .find(|p| p.port.number == port)
    {
        policy.load_balancer = own.load_balancer.clone();
        policy.connection_pool = own.connection_pool.clone();
        policy.outlier_detection = own.outlier_detection.clone();
        policy.tls = own.tls.clone();
    }
}

/// What of it bounds the use of a cluster; None leaves all to the defaults.
pub fn limits(policy: &Policy, spread: Option<&Spread>) -> Option<Box<Limits>> {
    let balancer = policy.load_balancer.as_ref();
    let warmup = balancer.and_then(|lb| {
        let older = lb.warmup_duration_secs.map(|duration| Warmup {
            duration: Some(duration),
            ..Warmup::default()
        });
        lb.warmup.clone().or(older)
    });
    let limits = Limits {
        pool: policy
            .connection_pool
            .as_deref()
            .cloned()
            .unwrap_or_default(),
        outliers: policy.outlier_detection.as_deref().cloned(),
        retry_budget: policy.retry_budget.clone(),
        warmup,
        shared_out: matches!(spread, Some(Spread::Shares(_))),
        zones: match spread {
            Some(Spread::OwnRegion { .. }) => balancer.and_then(zone_aware).map(|zones| Zones {
                min_cluster_size: zones.min_cluster_size,
            }),
            _ => None,
        },
        proxy_protocol: policy.proxy_protocol.map(|p| p.version),
    };
    (limits != Limits::default()).then(|| Box::new(limits))
}

fn source(key: &Key, field: &str) -> Source {
    Source {
        key: key.clone(),
        field: Str::new(field),
    }
}

/// None means the endpoints of the original destination (`PASSTHROUGH`).
pub fn load_balancer(policy: &Policy) -> Option<LoadBalancer> {
    const DEFAULT_RING: u64 = 1024;
    let Some(spec) = &policy.load_balancer else {
        return Some(LoadBalancer::LeastRequest);
    };
    if let Some(hash) = &spec.consistent_hash {
        let ring = hash.ring_hash.as_ref().and_then(|r| r.minimum_ring_size);
        return Some(match &hash.maglev {
            Some(maglev) => LoadBalancer::Maglev {
                table_size: maglev.table_size,
            },
            None => LoadBalancer::RingHash {
                minimum_size: ring.or(hash.minimum_ring_size).unwrap_or(DEFAULT_RING),
            },
        });
    }
    if let Some(load) = &spec.backend_utilization {
        return Some(LoadBalancer::Utilization(load.clone()));
    }
    match spec.simple.unwrap_or_default() {
        SimpleLb::Unspecified | SimpleLb::LeastConn | SimpleLb::LeastRequest => {
            Some(LoadBalancer::LeastRequest)
        }
        SimpleLb::Random => Some(LoadBalancer::Random),
        SimpleLb::RoundRobin => Some(LoadBalancer::RoundRobin),
        SimpleLb::Passthrough => None,
    }
}

/// What a route hashes on, so that the cluster's ring has something to go by.
pub fn hash_policies(policy: &Policy) -> Vec<HashPolicy> {
    let Some(hash) = policy
        .load_balancer
        .as_ref()
        .and_then(|l| l.consistent_hash.as_ref())
    else {
        return Vec::new();
    };
    let ConsistentHash {
        http_header_name,
        http_cookie,
        use_source_ip,
        ..
    } = hash;
    let header = http_header_name.clone().map(HashPolicy::Header);
    let cookie = http_cookie.clone().map(HashPolicy::Cookie);
    let source = use_source_ip.filter(|on| *on).map(|_| HashPolicy::SourceIp);
    let query = hash
        .http_query_parameter_name
        .clone()
        .map(HashPolicy::QueryParameter);
    header.or(cookie).or(source).or(query).into_iter().collect()
}

/// Its settings for zones, unless they are turned off.
pub fn zone_aware(lb: &destination_rule::LoadBalancer) -> Option<&ZoneAwareLb> {
    let setting = lb.zone_aware_lb_setting.as_deref();
    setting.filter(|zones| zones.enabled.unwrap_or(true))
}

/// What it says of byte streams to a port and subset.
pub fn flow(rule: Option<&Merged>, port: u16, subset: &str) -> Flow {
    let policy = policy(rule, port, subset);
    let hashes = hash_policies(&policy);
    let tcp = policy.connection_pool.as_ref().map(|pool| &pool.tcp);
    Flow {
        hash_source_ip: if hashes.contains(&HashPolicy::SourceIp) {
            HashSourceIp::Yes
        } else {
            HashSourceIp::No
        },
        idle_timeout: tcp.and_then(|tcp| tcp.idle_timeout),
        max_duration: tcp.and_then(|tcp| tcp.max_connection_duration),
        tunnel: policy.tunnel.clone(),
    }
}

/// Where the cluster leads, as far as TLS asks.
pub struct Server<'a> {
    pub host: &'a str,
    pub port: u16,
    pub subset: &'a str,
    pub protocol: Protocol,
    /// SPIFFE URIs of its endpoints.
    pub identities: Vec<Str>,
    /// None when auto mTLS is off.
    pub auto: Option<Mode>,
    /// Whether the client may name Secrets: at the edge, and where its rule chooses it, as in Istio.
    pub secrets: bool,
    /// Names that a server outside the mesh proves by its certificate (ServiceEntry `subjectAltNames`).
    pub names: &'a [Str],
}

/// Without a `tls` block mTLS is automatic; a block without a mode turns it off, as in Istio.
pub fn upstream_tls(policy: &Policy, server: &Server<'_>) -> UpstreamTls {
    let Some(tls) = &policy.tls else {
        return match server.auto {
            Some(Mode::Permissive | Mode::Strict) => {
                UpstreamTls::Auto(mutual(&ClientTls::default(), server))
            }
            Some(Mode::Disable) | None => UpstreamTls::Off,
        };
    };
    match tls.mode {
        TlsMode::Simple | TlsMode::Mutual if !tls.credential_name.is_empty() && !server.secrets => {
            UpstreamTls::Off
        }
        TlsMode::Disable => UpstreamTls::Off,
        TlsMode::IstioMutual => UpstreamTls::Mutual(mutual(tls, server)),
        TlsMode::Simple => UpstreamTls::Originate(origination(tls, None, server)),
        TlsMode::Mutual => {
            let client = match tls.credential_name.as_str() {
                "" => Certificates::Files(vec![(
                    tls.client_certificate.clone(),
                    tls.private_key.clone(),
                )]),
                name => Certificates::Secrets(vec![secret::sds_name(name)]),
            };
            UpstreamTls::Originate(origination(tls, Some(client), server))
        }
    }
}

fn mutual(tls: &ClientTls, server: &Server<'_>) -> MutualTls {
    let Server {
        host, port, subset, ..
    } = server;
    let sni = match tls.sni.as_str() {
        "" => Str::new(format!("outbound_.{port}_.{subset}_.{host}")),
        own => Str::new(own),
    };
    let subject_alt_names = match tls.subject_alt_names.as_slice() {
        [] => server
            .identities
            .iter()
            .chain(server.names)
            .cloned()
            .collect(),
        own => own.to_vec(),
    };
    MutualTls {
        sni,
        subject_alt_names,
        alpn: mesh_alpn(server.protocol),
    }
}

fn origination(tls: &ClientTls, client: Option<Certificates>, server: &Server<'_>) -> Origination {
    let files = (&tls.ca_certificates, &tls.ca_crl);
    let roots = match (tls.credential_name.as_str(), files) {
        _ if tls.insecure_skip_verify.unwrap_or(false) => Roots::Unverified,
        ("", (roots, _)) if roots.is_empty() => Roots::System,
        ("", (roots, revoked)) => Roots::Files(roots.clone(), revoked.clone()),
        (name, _) => Roots::Secret(secret::sds_roots(name)),
    };
    let h2 = matches!(
        server.protocol,
        Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb
    );
    Origination {
        sni: tls.sni.clone(),
        subject_alt_names: match tls.subject_alt_names.as_slice() {
            [] => server.names.to_vec(),
            own => own.to_vec(),
        },
        roots,
        client,
        alpn: if h2 {
            vec![Str::new_static("h2")]
        } else {
            Vec::new()
        },
    }
}

/// Tokens that the server's chains match on, and that no server negotiates. `h2` is never among them: a
/// server would take it, and the codec of the connection would no longer be the cluster's.
fn mesh_alpn(protocol: Protocol) -> Vec<Str> {
    let tokens: &[&'static str] = match protocol {
        Protocol::Http => &["istio-http/1.1", "istio"],
        Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb => &["istio-h2", "istio"],
        Protocol::Tcp | Protocol::Tls | Protocol::Https | Protocol::Udp => &["istio"],
        Protocol::Auto => &["istio-http/1.1", "istio-h2", "istio"],
    };
    tokens.iter().copied().map(Str::new_static).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Kind;
    use crate::config::destination_rule::{PortTrafficPolicy, Subset};
    use crate::config::virtual_service::PortSelector;

    fn simple(lb: SimpleLb) -> Option<destination_rule::LoadBalancer> {
        Some(destination_rule::LoadBalancer {
            simple: Some(lb),
            ..Default::default()
        })
    }

    fn rule() -> Merged {
        let key = Key {
            kind: Kind::DestinationRule,
            namespace: Str::new("n"),
            name: Str::new("r"),
        };
        let tls = Some(ClientTls {
            mode: TlsMode::Simple,
            ..Default::default()
        });
        let port = PortTrafficPolicy {
            port: PortSelector { number: 81 },
            load_balancer: simple(SimpleLb::Random),
            ..Default::default()
        };
        let top = TrafficPolicy {
            load_balancer: simple(SimpleLb::RoundRobin),
            tls: tls.clone(),
            port_level_settings: vec![port],
            ..Default::default()
        };
        let own = TrafficPolicy {
            load_balancer: simple(SimpleLb::Passthrough),
            ..Default::default()
        };
        let subset = Subset {
            name: Str::new("v1"),
            traffic_policy: Some(own),
            ..Default::default()
        };
        Merged {
            policy: Some((top, key.clone())),
            subsets: vec![Defined {
                subset,
                key,
                index: 0,
            }],
            chosen: false,
        }
    }

    #[test]
    fn a_port_level_replaces_all_blocks_and_a_subset_only_its_own() {
        let rule = rule();
        let port = policy(Some(&rule), 81, "");
        assert_eq!(
            (load_balancer(&port), port.tls),
            (Some(LoadBalancer::Random), None)
        );
        let subset = policy(Some(&rule), 80, "v1");
        assert_eq!(load_balancer(&subset), None);
        assert!(subset.tls.is_some());
    }
}
