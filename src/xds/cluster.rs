//! Renders clusters. Their endpoints are in `endpoint`, their transport sockets in `cluster/tls`.

mod limits;
mod proxy_protocol;
mod tls;
mod utilization;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::cluster::v3::cluster::common_lb_config::{
    LocalityConfigSpecifier, LocalityWeightedLbConfig,
};
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, CustomClusterType, DiscoveryType, EdsClusterConfig, LbConfig, LbPolicy,
    MaglevLbConfig, OriginalDstLbConfig, RingHashLbConfig,
};
use envoy_types::pb::envoy::config::core::v3::{
    BindConfig, ExtraSourceAddress, Http1ProtocolOptions, Metadata, UpstreamHttpProtocolOptions,
};
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, LocalityLbEndpoints};
use envoy_types::pb::envoy::extensions::clusters::common::dns::v3::DnsLookupFamily;
use envoy_types::pb::envoy::extensions::clusters::dns::v3::DnsCluster;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf::Any;

use super::{Render, ResourceType, Warming, endpoint, proto};
use crate::config::value::Span;
use crate::ir::{
    Certificates, Cluster, Discovery, Families, Limits, LoadBalancer, Lookup, Origin, Origination,
    Roots, UpstreamProtocol, UpstreamTls,
};
use crate::text::Str;

/// How long a cluster waits for its endpoints before it goes on without (never 0, that is for ever).
const EDS_TIMEOUT_SECONDS: i64 = 5;

/// Istio's: what of an answer's own time counts goes before.
const DNS_REFRESH_SECONDS: i64 = 60;
const DNS_JITTER: Span = Span(Duration::from_millis(100));

impl Render for Cluster {
    type Message = pb::Cluster;
    const KIND: ResourceType = ResourceType::Cluster;
    const EPOCH: u32 = 1;

    fn name(&self) -> Str {
        self.name.clone()
    }

    fn render(&self) -> pb::Cluster {
        let sockets = tls::sockets(&self.tls);
        let mut cluster = pb::Cluster {
            name: self.name.to_string(),
            // The delimiter by which stats_tags cut the name out again.
            alt_stat_name: format!("{};", self.name),
            connect_timeout: Some(proto::duration(self.connect_timeout)),
            lb_policy: lb_policy(&self.load_balancer).into(),
            lb_config: lb_config(&self.load_balancer),
            circuit_breakers: Some(limits::circuit_breakers(self.limits.as_deref())),
            typed_extension_protocol_options: protocol_options(self),
            transport_socket: sockets.every,
            transport_socket_matches: sockets.by_endpoint,
            metadata: self.origin.as_ref().map(metadata),
            ..Default::default()
        };
        discover(self, &mut cluster);
        if let Some(limits) = self.limits.as_deref() {
            limit(&self.load_balancer, limits, &mut cluster);
        }
        if let LoadBalancer::Utilization(load) = &self.load_balancer {
            let policy = utilization::policy(load, self.limits.as_deref());
            cluster.load_balancing_policy = Some(policy);
        }
        cluster
    }

    fn warming(&self) -> Warming {
        if matches!(self.discovery, Discovery::Dns(..)) {
            return Warming::Dns;
        }
        match &self.tls {
            UpstreamTls::Auto(_) | UpstreamTls::Mutual(_) => Warming::Secrets(
                [super::secret::WORKLOAD, super::secret::ROOTS]
                    .map(Str::new)
                    .into(),
            ),
            UpstreamTls::Originate(origination) => by_secrets(origination),
            UpstreamTls::Off => Warming::Plain,
        }
    }

    fn eds(&self) -> bool {
        self.discovery == Discovery::Eds
    }
}

fn limit(balancer: &LoadBalancer, limits: &Limits, cluster: &mut pb::Cluster) {
    cluster.upstream_connection_options = limits::keepalive(&limits.pool);
    if let Some(outliers) = &limits.outliers {
        cluster.outlier_detection = Some(limits::outlier_detection(outliers));
        cluster.common_lb_config = Some(CommonLbConfig {
            healthy_panic_threshold: Some(Percent {
                value: f64::from(outliers.min_health_percent),
            }),
            ..Default::default()
        });
    }
    if let Some(specifier) = localities(balancer, limits) {
        let common = cluster.common_lb_config.get_or_insert_default();
        common.locality_config_specifier = Some(specifier);
    }
    if let Some(version) = limits.proxy_protocol {
        proxy_protocol::announce(version, cluster);
    }
    if let Some(warmup) = &limits.warmup
        && let Some(config) = limits::warmup(balancer, warmup)
    {
        cluster.lb_config = Some(config);
    }
}

/// How localities count. A policy of its own says that itself: Envoy refuses the two together.
fn localities(balancer: &LoadBalancer, limits: &Limits) -> Option<LocalityConfigSpecifier> {
    let own = matches!(balancer, LoadBalancer::Utilization(_));
    let shares = LocalityWeightedLbConfig {};
    match &limits.zones {
        _ if own => None,
        Some(zones) => Some(LocalityConfigSpecifier::ZoneAwareLbConfig(
            limits::zone_aware(zones),
        )),
        None if limits.shared_out => {
            Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(shares))
        }
        None => None,
    }
}

/// Where endpoints come from: the fields that differ by discovery type.
fn discover(node: &Cluster, cluster: &mut pb::Cluster) {
    match &node.discovery {
        Discovery::Eds => {
            set_type(cluster, DiscoveryType::Eds);
            cluster.eds_cluster_config = Some(EdsClusterConfig {
                eds_config: Some(proto::ads(proto::seconds(EDS_TIMEOUT_SECONDS))),
                service_name: node.name.to_string(),
            });
            // Unhealthy endpoints are sent too; the default threshold would send them requests.
            cluster.common_lb_config = Some(CommonLbConfig {
                healthy_panic_threshold: Some(Percent { value: 0.0 }),
                ..Default::default()
            });
        }
        Discovery::Dns(lookup, families, names) => {
            let dns = dns(*lookup, *families);
            cluster.cluster_discovery_type = Some(ClusterDiscoveryType::ClusterType(dns));
            cluster.load_assignment = Some(names.render());
        }
        Discovery::OriginalDst { sources, port } => {
            set_type(cluster, DiscoveryType::OriginalDst);
            cluster.lb_config = port.map(|port| {
                LbConfig::OriginalDstLbConfig(OriginalDstLbConfig {
                    upstream_port_override: proto::uint32(port.into()),
                    ..Default::default()
                })
            });
            cluster.upstream_bind_config = bind(sources);
        }
        Discovery::Static { endpoints, source } => {
            set_type(cluster, DiscoveryType::Static);
            cluster.upstream_bind_config = bind(source.as_slice());
            cluster.load_assignment = (!endpoints.is_empty()).then(|| ClusterLoadAssignment {
                cluster_name: node.name.to_string(),
                endpoints: vec![LocalityLbEndpoints {
                    lb_endpoints: endpoints.iter().map(endpoint::plain).collect(),
                    ..Default::default()
                }],
                ..Default::default()
            });
        }
    }
}

fn dns(lookup: Lookup, families: Families) -> CustomClusterType {
    let config = DnsCluster {
        respect_dns_ttl: true,
        dns_refresh_rate: Some(proto::seconds(DNS_REFRESH_SECONDS)),
        dns_jitter: Some(proto::duration(DNS_JITTER)),
        dns_lookup_family: match families {
            Families::V4 => DnsLookupFamily::V4Only,
            Families::V6 => DnsLookupFamily::V6Only,
            Families::Both => DnsLookupFamily::All,
        }
        .into(),
        all_addresses_in_single_endpoint: lookup == Lookup::First,
        ..Default::default()
    };
    CustomClusterType {
        name: "envoy.cluster.dns".to_owned(),
        typed_config: Some(proto::any(&config)),
    }
}

fn set_type(cluster: &mut pb::Cluster, kind: DiscoveryType) {
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(kind.into()));
}

/// Of several, Envoy takes the one of the family that it connects to.
fn bind(sources: &[IpAddr]) -> Option<BindConfig> {
    let address = |source: &IpAddr| proto::socket_address(&source.to_string(), 0);
    let (first, more) = sources.split_first()?;
    let extra = more.iter().map(|source| ExtraSourceAddress {
        address: Some(address(source)),
        socket_options: None,
    });
    Some(BindConfig {
        source_address: Some(address(first)),
        extra_source_addresses: extra.collect(),
        ..Default::default()
    })
}

fn lb_policy(balancer: &LoadBalancer) -> LbPolicy {
    match balancer {
        LoadBalancer::LeastRequest => LbPolicy::LeastRequest,
        // What `load_balancing_policy` says goes before it.
        LoadBalancer::RoundRobin | LoadBalancer::Utilization(_) => LbPolicy::RoundRobin,
        LoadBalancer::Random => LbPolicy::Random,
        LoadBalancer::RingHash { .. } => LbPolicy::RingHash,
        LoadBalancer::Maglev { .. } => LbPolicy::Maglev,
        LoadBalancer::ClusterProvided => LbPolicy::ClusterProvided,
    }
}

fn lb_config(balancer: &LoadBalancer) -> Option<LbConfig> {
    match balancer {
        LoadBalancer::RingHash { minimum_size } => {
            Some(LbConfig::RingHashLbConfig(RingHashLbConfig {
                minimum_ring_size: proto::uint64(*minimum_size),
                ..Default::default()
            }))
        }
        LoadBalancer::Maglev {
            table_size: Some(size),
        } => Some(LbConfig::MaglevLbConfig(MaglevLbConfig {
            table_size: proto::uint64(*size),
        })),
        LoadBalancer::Maglev { table_size: None }
        | LoadBalancer::LeastRequest
        | LoadBalancer::RoundRobin
        | LoadBalancer::Random
        | LoadBalancer::ClusterProvided
        | LoadBalancer::Utilization(_) => None,
    }
}

/// At most one entry, so the map's order is no question.
fn protocol_options(node: &Cluster) -> HashMap<String, Any> {
    const KEY: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let pool = node.limits.as_deref().map(|l| &l.pool);
    let outliers = node.limits.as_deref().and_then(|l| l.outliers.as_ref());
    let http1 = Http1ProtocolOptions::default;
    let http2 = || pool.map_or_else(Default::default, |p| limits::http2(&p.http));
    let explicit = |config| {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(config),
        })
    };
    let protocol = match node.protocol {
        UpstreamProtocol::Tcp => return HashMap::new(),
        UpstreamProtocol::Http1 => explicit(ProtocolConfig::HttpProtocolOptions(http1())),
        UpstreamProtocol::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(http2())),
        UpstreamProtocol::Downstream => {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(http1()),
                http2_protocol_options: Some(http2()),
                ..Default::default()
            })
        }
    };
    let options = HttpProtocolOptions {
        common_http_protocol_options: pool.and_then(limits::common_options),
        outlier_detection: outliers.and_then(limits::counted_statuses),
        upstream_protocol_options: Some(protocol),
        upstream_http_protocol_options: match &node.tls {
            UpstreamTls::Originate(origination) => name_from_request(origination),
            UpstreamTls::Off | UpstreamTls::Auto(_) | UpstreamTls::Mutual(_) => None,
        },
        ..Default::default()
    };
    HashMap::from([(KEY.to_owned(), proto::any(&options))])
}

/// Those of its certificates and roots that come as Secrets.
fn by_secrets(origination: &Origination) -> Warming {
    let own = match &origination.client {
        Some(Certificates::Secrets(names)) => names.clone(),
        Some(Certificates::Files(_)) | None => Vec::new(),
    };
    let roots = match &origination.roots {
        Roots::Secret(name) => Some(name.clone()),
        Roots::System | Roots::Files(..) | Roots::Unverified => None,
    };
    let all: Vec<Str> = own.into_iter().chain(roots).collect();
    match all.is_empty() {
        true => Warming::Plain,
        false => Warming::Secrets(all),
    }
}

/// Without a server name of the user's, the request's host is asked for, and must be certified.
fn name_from_request(origination: &Origination) -> Option<UpstreamHttpProtocolOptions> {
    let certified = origination.subject_alt_names.is_empty() && tls::verifies(origination);
    origination
        .sni
        .is_empty()
        .then(|| UpstreamHttpProtocolOptions {
            auto_sni: true,
            auto_san_validation: certified,
            ..Default::default()
        })
}

fn metadata(origin: &Origin) -> Metadata {
    let service = proto::structure([
        ("host", proto::text(&origin.host)),
        ("name", proto::text(&origin.name)),
        ("namespace", proto::text(&origin.namespace)),
    ]);
    let mut fields = vec![("services", proto::list(vec![proto::object(service)]))];
    for (key, value) in [("subset", &origin.subset), ("config", &origin.config)] {
        if !value.is_empty() {
            fields.push((key, proto::text(value)));
        }
    }
    proto::metadata([("istio", proto::structure(fields))])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::config::value::Span;
    use crate::ir::{MutualTls, Roots};
    use crate::xds::json::shown;

    fn cluster(protocol: UpstreamProtocol, tls: UpstreamTls) -> Cluster {
        Cluster {
            name: "outbound|80||a".into(),
            discovery: Discovery::Eds,
            protocol,
            connect_timeout: Span(Duration::from_secs(10)),
            load_balancer: LoadBalancer::LeastRequest,
            tls,
            origin: None,
            limits: None,
        }
    }

    fn mutual() -> MutualTls {
        MutualTls {
            sni: "outbound_.80_._.a".into(),
            subject_alt_names: vec!["spiffe://td/ns/n/sa/s".into()],
            alpn: vec!["istio-http/1.1".into(), "istio".into()],
        }
    }

    #[test]
    fn a_plain_eds_cluster_is_unlimited_and_waits_for_its_endpoints_a_bounded_time() {
        let most = json!(u32::MAX);
        let expected = json!({
            "name": "outbound|80||a",
            "altStatName": "outbound|80||a;",
            "type": "EDS",
            "edsClusterConfig": {
                "edsConfig": {"ads": {}, "initialFetchTimeout": "5s", "resourceApiVersion": "V3"},
                "serviceName": "outbound|80||a"
            },
            "connectTimeout": "10s",
            "lbPolicy": "LEAST_REQUEST",
            "commonLbConfig": {"healthyPanicThreshold": {}},
            "circuitBreakers": {"thresholds": [{
                "maxConnections": most, "maxPendingRequests": most, "maxRequests": most, "maxRetries": most
            }]}
        });
        let plain = cluster(UpstreamProtocol::Tcp, UpstreamTls::Off);
        assert_eq!(shown(&plain.render()), expected);
        assert_eq!((plain.eds(), plain.warming()), (true, Warming::Plain));
    }

    #[test]
    fn automatic_mtls_asks_the_endpoint_and_falls_back_to_plaintext() {
        let auto = cluster(UpstreamProtocol::Http1, UpstreamTls::Auto(mutual()));
        let rendered = shown(&auto.render());
        let sockets = &rendered["transportSocketMatches"];
        assert_eq!(sockets[0]["match"], json!({"tlsMode": "istio"}));
        assert_eq!(sockets[1]["match"], json!({}));
        assert_eq!(
            sockets[1]["transportSocket"]["name"],
            "envoy.transport_sockets.raw_buffer"
        );
        let context = &sockets[0]["transportSocket"]["typedConfig"];
        assert_eq!(context["sni"], "outbound_.80_._.a");
        let validation = &context["commonTlsContext"]["combinedValidationContext"];
        let believed = json!([{"sanType": "URI", "matcher": {"exact": "spiffe://td/ns/n/sa/s"}}]);
        assert_eq!(
            validation["defaultValidationContext"]["matchTypedSubjectAltNames"],
            believed
        );
        assert_eq!(
            validation["validationContextSdsSecretConfig"]["name"],
            "ROOTCA"
        );
        let secrets = ["default", "ROOTCA"].map(Str::new);
        assert_eq!(auto.warming(), Warming::Secrets(secrets.into()));
    }

    fn originated(sni: &str, names: &[&str], roots: Roots) -> Value {
        let origination = Origination {
            sni: sni.into(),
            subject_alt_names: names.iter().map(Str::new).collect(),
            roots,
            client: None,
            alpn: vec![],
        };
        let node = cluster(UpstreamProtocol::Http1, UpstreamTls::Originate(origination));
        let rendered = shown(&node.render());
        let options = &rendered["typedExtensionProtocolOptions"];
        json!({
            "validation": rendered["transportSocket"]["typedConfig"]["commonTlsContext"]["validationContext"],
            "from request": options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]["upstreamHttpProtocolOptions"],
        })
    }

    #[test]
    fn tls_without_a_server_name_takes_the_requests_and_has_it_certified() {
        let expected = json!({
            "validation": {"trustedCa": {"filename": "/etc/ssl/certs/ca-certificates.crt"}},
            "from request": {"autoSni": true, "autoSanValidation": true}
        });
        assert_eq!(originated("", &[], Roots::System), expected);
    }

    #[test]
    fn tls_to_a_named_server_matches_each_name_by_its_kind() {
        let names = ["a.example", "10.0.0.1", "me@a.example", "spiffe://a/b"];
        let of = |kind: &str, name: &str| json!({"sanType": kind, "matcher": {"exact": name}});
        let expected = json!({
            "validation": {
                "trustedCa": {"filename": "/roots.pem"},
                "matchTypedSubjectAltNames": [
                    of("DNS", names[0]), of("IP_ADDRESS", names[1]), of("EMAIL", names[2]), of("URI", names[3])
                ]
            },
            "from request": null
        });
        assert_eq!(
            originated(
                "a.example",
                &names,
                Roots::Files("/roots.pem".into(), Str::default())
            ),
            expected
        );
    }

    #[test]
    fn tls_unverified_verifies_nothing() {
        let expected = json!({"validation": {}, "from request": {"autoSni": true}});
        assert_eq!(originated("", &["a.example"], Roots::Unverified), expected);
    }
}
