//! Connections that begin with where they came from: what wraps a cluster's transport sockets.

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::core::v3::proxy_protocol_config::Version;
use envoy_types::pb::envoy::config::core::v3::{ProxyProtocolConfig, TransportSocket};
use envoy_types::pb::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;

use crate::config::destination_rule::ProxyProtocolVersion;
use crate::xds::tls;

/// On every connection, whatever is spoken after it.
pub fn announce(version: ProxyProtocolVersion, cluster: &mut pb::Cluster) {
    let by_endpoint = &mut cluster.transport_socket_matches;
    for one in by_endpoint.iter_mut() {
        one.transport_socket = one.transport_socket.take().map(|own| wrapped(version, own));
    }
    if by_endpoint.is_empty() {
        let own = cluster.transport_socket.take();
        cluster.transport_socket = Some(wrapped(version, own.unwrap_or_else(tls::plaintext)));
    }
}

fn wrapped(version: ProxyProtocolVersion, own: TransportSocket) -> TransportSocket {
    let version = match version {
        ProxyProtocolVersion::V1 => Version::V1,
        ProxyProtocolVersion::V2 => Version::V2,
    };
    tls::transport_socket(
        "envoy.transport_sockets.upstream_proxy_protocol",
        &ProxyProtocolUpstreamTransport {
            config: Some(ProxyProtocolConfig {
                version: version.into(),
                ..Default::default()
            }),
            transport_socket: Some(own),
            ..Default::default()
        },
    )
}
