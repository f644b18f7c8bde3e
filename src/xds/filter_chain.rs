//! Renders filter chains: match, downstream TLS, TCP proxy. HTTP is in `http`.

use std::net::Ipv6Addr;

use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::substitution_format_string::Format;
use envoy_types::pb::envoy::config::core::v3::{
    CidrRange, DataSource, SubstitutionFormatString, TransportSocket,
};
use envoy_types::pb::envoy::config::listener::v3 as pb;
use envoy_types::pb::envoy::config::listener::v3::Filter;
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3::FilterStateValue;
use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3::filter_state_value::{
    Key, SharedWithUpstream, Value,
};
use envoy_types::pb::envoy::extensions::filters::network::set_filter_state::v3::Config as SetFilterState;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, TunnelingConfig, WeightedCluster, weighted_cluster::ClusterWeight,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::DownstreamTlsContext;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::v3::HashPolicy;
use envoy_types::pb::envoy::r#type::v3::hash_policy::{PolicySpecifier, SourceIp};
use ipnet::IpNet;
use prost::{Message, Name};

use super::{Ref, ResourceType, access_log, http, proto, server_tls, tls};
use crate::config::destination_rule::Tunnel;
use crate::ir::{
    ChainMatch, Connect, DownstreamTls, FilterChain, HashSourceIp, InboundTls, NetworkFilter,
    Target, TcpProxy, TransportProtocol,
};
use crate::text::Str;

/// A client that began TLS and stays silent holds its connection no longer.
const HANDSHAKE_SECONDS: i64 = 15;

/// What Istio's servers offer below TLS 1.3.
pub(super) const SERVER_CIPHERS: &[&str] = &[
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];

pub fn render(chain: &FilterChain) -> pb::FilterChain {
    pb::FilterChain {
        name: chain.name.to_string(),
        filter_chain_match: chain_match(&chain.matches),
        transport_socket: chain.tls.as_ref().map(downstream_tls),
        transport_socket_connect_timeout: chain
            .tls
            .as_ref()
            .map(|_| proto::seconds(HANDSHAKE_SECONDS)),
        filters: match &chain.filter {
            NetworkFilter::Tcp(proxy) => tcp_filters(proxy),
            NetworkFilter::Http(manager) => vec![filter(
                "envoy.filters.network.http_connection_manager",
                &http::render(manager),
            )],
        },
        ..Default::default()
    }
}

pub fn refs(chain: &FilterChain) -> Vec<Ref> {
    match &chain.filter {
        NetworkFilter::Tcp(proxy) => proxy.targets.iter().map(to_cluster).collect(),
        NetworkFilter::Http(manager) => vec![http::reference(manager)],
    }
}

fn to_cluster(target: &Target) -> Ref {
    Ref {
        kind: ResourceType::Cluster,
        name: target.cluster.clone(),
    }
}

fn chain_match(matches: &ChainMatch) -> Option<pb::FilterChainMatch> {
    let transport = match matches.transport {
        None => "",
        Some(TransportProtocol::Tls) => "tls",
        Some(TransportProtocol::RawBuffer) => "raw_buffer",
    };
    (*matches != ChainMatch::default()).then(|| pb::FilterChainMatch {
        destination_port: matches
            .destination_port
            .and_then(|p| proto::uint32(p.into())),
        prefix_ranges: matches.destinations.iter().map(range).collect(),
        server_names: matches.server_names.iter().map(Str::to_string).collect(),
        transport_protocol: transport.to_owned(),
        application_protocols: matches.alpn.iter().map(Str::to_string).collect(),
        ..Default::default()
    })
}

fn range(net: &IpNet) -> CidrRange {
    CidrRange {
        address_prefix: net.network().to_string(),
        prefix_len: proto::uint32(net.prefix_len().into()),
    }
}

fn downstream_tls(node: &DownstreamTls) -> TransportSocket {
    match node {
        DownstreamTls::Mesh(node) => inbound_tls(node),
        DownstreamTls::Server(node) => server_tls::socket(node),
    }
}

fn inbound_tls(node: &InboundTls) -> TransportSocket {
    let of_domain = |domain: &Str| {
        tls::san(
            SanType::Uri,
            MatchPattern::Prefix(format!("spiffe://{domain}/")),
        )
    };
    let believed = node.trust_domains.iter().map(of_domain).collect();
    let parameters = tls::parameters(SERVER_CIPHERS);
    tls::socket(&DownstreamTlsContext {
        common_tls_context: Some(tls::mutual(parameters, &node.alpn, believed)),
        require_client_certificate: proto::boolean(true),
        ..Default::default()
    })
}

fn tcp_filters(proxy: &TcpProxy) -> Vec<Filter> {
    let alpn = proxy.upstream_alpn.as_ref().map(|protocols| {
        filter(
            "envoy.filters.network.set_filter_state",
            &upstream_alpn(protocols),
        )
    });
    let proxy = filter("envoy.filters.network.tcp_proxy", &tcp_proxy(proxy));
    alpn.into_iter().chain([proxy]).collect()
}

fn tcp_proxy(node: &TcpProxy) -> tcp::TcpProxy {
    let (mode, early_data) = match node.connect {
        Connect::AtOnce => (tcp::UpstreamConnectMode::Immediate, None),
        // Envoy refuses this mode without the limit.
        Connect::AfterHandshake => (
            tcp::UpstreamConnectMode::OnDownstreamTlsHandshake,
            proto::uint32(0),
        ),
    };
    tcp::TcpProxy {
        stat_prefix: node.stat_prefix.to_string(),
        cluster_specifier: Some(destination(&node.targets)),
        hash_policy: match node.flow.hash_source_ip {
            HashSourceIp::No => Vec::new(),
            HashSourceIp::Yes => vec![HashPolicy {
                policy_specifier: Some(PolicySpecifier::SourceIp(SourceIp {})),
            }],
        },
        idle_timeout: node.flow.idle_timeout.map(proto::duration),
        max_downstream_connection_duration: node.flow.max_duration.map(proto::duration),
        upstream_connect_mode: mode.into(),
        tunneling_config: node.flow.tunnel.as_deref().map(tunnel),
        max_early_data_bytes: early_data,
        access_log: access_log::file(node.access_log.as_ref()),
        ..Default::default()
    }
}

fn tunnel(node: &Tunnel) -> TunnelingConfig {
    let Tunnel {
        target_host: host,
        target_port: port,
        ..
    } = node;
    TunnelingConfig {
        hostname: match host.parse::<Ipv6Addr>() {
            Ok(ip) => format!("[{ip}]:{port}"),
            Err(_) => format!("{host}:{port}"),
        },
        use_post: node.protocol == "POST",
        ..Default::default()
    }
}

fn destination(targets: &[Target]) -> ClusterSpecifier {
    match targets {
        [only] => ClusterSpecifier::Cluster(only.cluster.to_string()),
        several => {
            let weighted = |t: &Target| ClusterWeight {
                name: t.cluster.to_string(),
                weight: t.weight,
                ..Default::default()
            };
            ClusterSpecifier::WeightedClusters(WeightedCluster {
                clusters: several.iter().map(weighted).collect(),
            })
        }
    }
}

/// Overrides the cluster's ALPN for this connection; Envoy keeps pools of other values apart.
fn upstream_alpn(protocols: &str) -> SetFilterState {
    let value = SubstitutionFormatString {
        format: Some(Format::TextFormatSource(DataSource {
            specifier: Some(Specifier::InlineString(protocols.to_owned())),
            ..Default::default()
        })),
        ..Default::default()
    };
    SetFilterState {
        on_new_connection: vec![FilterStateValue {
            key: Some(Key::ObjectKey(
                "envoy.network.application_protocols".to_owned(),
            )),
            value: Some(Value::FormatString(value)),
            shared_with_upstream: SharedWithUpstream::Once.into(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn filter<M: Message + Name>(name: &str, config: &M) -> Filter {
    Filter {
        name: name.to_owned(),
        config_type: Some(ConfigType::TypedConfig(proto::any(config))),
    }
}
