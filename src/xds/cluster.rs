//! Renders clusters. Their endpoints are in `endpoint`, their transport sockets in `cluster/tls`.

mod tls;

use std::collections::HashMap;
use std::net::IpAddr;

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, EdsClusterConfig, LbConfig, LbPolicy,
    MaglevLbConfig, RingHashLbConfig,
};
use envoy_types::pb::envoy::config::core::v3::{
    BindConfig, Http1ProtocolOptions, Http2ProtocolOptions, Metadata, UpstreamHttpProtocolOptions,
};
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, LocalityLbEndpoints};
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf::{Any, Duration};

use super::{Render, ResourceType, Warming, endpoint, proto};
use crate::ir::{
    Cluster, Discovery, LoadBalancer, Origin, Origination, UpstreamProtocol, UpstreamTls,
};
use crate::text::Str;

/// How long a cluster waits for its endpoints before it goes on without (never 0, that is for ever).
const EDS_TIMEOUT_SECONDS: i64 = 5;

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
            lb_policy: lb_policy(self.load_balancer).into(),
            lb_config: lb_config(self.load_balancer),
            circuit_breakers: Some(unlimited()),
            typed_extension_protocol_options: protocol_options(self.protocol, &self.tls),
            transport_socket: sockets.every,
            transport_socket_matches: sockets.by_endpoint,
            metadata: self.origin.as_ref().map(metadata),
            ..Default::default()
        };
        discover(self, &mut cluster);
        cluster
    }

    fn warming(&self) -> Warming {
        match self.tls {
            UpstreamTls::Auto(_) | UpstreamTls::Mutual(_) => Warming::Secrets(
                [super::secret::WORKLOAD, super::secret::ROOTS]
                    .map(Str::new)
                    .into(),
            ),
            UpstreamTls::Off | UpstreamTls::Originate(_) => Warming::Plain,
        }
    }

    fn eds(&self) -> bool {
        self.discovery == Discovery::Eds
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
        Discovery::OriginalDst { source } => {
            set_type(cluster, DiscoveryType::OriginalDst);
            cluster.upstream_bind_config = source.map(bind);
            if source.is_some() && node.origin.is_some() {
                // The port of a service here has one address for ever, so there is nothing to forget.
                cluster.cleanup_interval = Some(LONGEST);
            }
        }
        Discovery::Static { endpoints, source } => {
            set_type(cluster, DiscoveryType::Static);
            cluster.upstream_bind_config = source.map(bind);
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

/// The most that Envoy can count in nanoseconds.
const LONGEST: Duration = Duration {
    seconds: 9_223_372_036,
    nanos: 854_775_807,
};

fn set_type(cluster: &mut pb::Cluster, kind: DiscoveryType) {
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(kind.into()));
}

fn bind(source: IpAddr) -> BindConfig {
    BindConfig {
        source_address: Some(proto::socket_address(&source.to_string(), 0)),
        ..Default::default()
    }
}

fn lb_policy(balancer: LoadBalancer) -> LbPolicy {
    match balancer {
        LoadBalancer::LeastRequest => LbPolicy::LeastRequest,
        LoadBalancer::RoundRobin => LbPolicy::RoundRobin,
        LoadBalancer::Random => LbPolicy::Random,
        LoadBalancer::RingHash { .. } => LbPolicy::RingHash,
        LoadBalancer::Maglev { .. } => LbPolicy::Maglev,
        LoadBalancer::ClusterProvided => LbPolicy::ClusterProvided,
    }
}

fn lb_config(balancer: LoadBalancer) -> Option<LbConfig> {
    match balancer {
        LoadBalancer::RingHash { minimum_size } => {
            Some(LbConfig::RingHashLbConfig(RingHashLbConfig {
                minimum_ring_size: proto::uint64(minimum_size),
                ..Default::default()
            }))
        }
        LoadBalancer::Maglev {
            table_size: Some(size),
        } => Some(LbConfig::MaglevLbConfig(MaglevLbConfig {
            table_size: proto::uint64(size),
        })),
        LoadBalancer::Maglev { table_size: None }
        | LoadBalancer::LeastRequest
        | LoadBalancer::RoundRobin
        | LoadBalancer::Random
        | LoadBalancer::ClusterProvided => None,
    }
}

/// Envoy's own defaults (1024, and 3 retries) would answer 503 under load.
fn unlimited() -> pb::CircuitBreakers {
    let most = proto::uint32(u32::MAX);
    pb::CircuitBreakers {
        thresholds: vec![Thresholds {
            max_connections: most,
            max_pending_requests: most,
            max_requests: most,
            max_retries: most,
            track_remaining: false,
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// At most one entry, so the map's order is no question.
fn protocol_options(protocol: UpstreamProtocol, tls: &UpstreamTls) -> HashMap<String, Any> {
    const KEY: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let http1 = Http1ProtocolOptions::default;
    let http2 = Http2ProtocolOptions::default;
    let explicit = |config| {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(config),
        })
    };
    let protocol = match protocol {
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
        upstream_protocol_options: Some(protocol),
        upstream_http_protocol_options: match tls {
            UpstreamTls::Originate(origination) => name_from_request(origination),
            UpstreamTls::Off | UpstreamTls::Auto(_) | UpstreamTls::Mutual(_) => None,
        },
        ..Default::default()
    };
    HashMap::from([(KEY.to_owned(), proto::any(&options))])
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
