//! Renders where a route leads: clusters, timeout, hash policies. Retries are in `retry`.

use envoy_types::pb::envoy::config::route::v3::route_action::hash_policy::{
    ConnectionProperties, Cookie, Header, PolicySpecifier, QueryParameter,
};
use envoy_types::pb::envoy::config::route::v3::route_action::{
    ClusterSpecifier, HashPolicy as HashPolicyPb, MaxStreamDuration,
};
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::config::route::v3::{RouteAction, WeightedCluster};

use super::retry::{self, Hosts};
use crate::ir::{Forward, HashPolicy, InboundRoute, Target};
use crate::xds::proto;

/// The timeout is always written (Envoy's own default is 15 s), for gRPC's own header as well.
#[expect(
    deprecated,
    reason = "max_grpc_timeout alone bounds what grpc-timeout asks for as Istio does"
)]
pub fn forward(node: &Forward) -> RouteAction {
    let timeout = Some(proto::duration(node.timeout));
    let hosts = if node.hash.is_empty() {
        Hosts::Any
    } else {
        Hosts::Hashed
    };
    RouteAction {
        cluster_specifier: Some(clusters(&node.targets)),
        timeout,
        max_grpc_timeout: timeout,
        retry_policy: node.retries.as_ref().and_then(|r| retry::policy(r, hosts)),
        hash_policy: node.hash.iter().map(hash_policy).collect(),
        ..Default::default()
    }
}

/// To the app beside the proxy, which has no limit but its callers'.
pub fn to_app(node: &InboundRoute) -> RouteAction {
    RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(node.cluster.to_string())),
        timeout: Some(proto::seconds(0)),
        max_stream_duration: Some(MaxStreamDuration {
            max_stream_duration: Some(proto::seconds(0)),
            grpc_timeout_header_max: Some(proto::seconds(0)),
            ..Default::default()
        }),
        retry_policy: node
            .retries
            .as_ref()
            .and_then(|r| retry::policy(r, Hosts::One)),
        ..Default::default()
    }
}

fn clusters(targets: &[Target]) -> ClusterSpecifier {
    match targets {
        [only] => ClusterSpecifier::Cluster(only.cluster.to_string()),
        several => {
            let weighted = |target: &Target| ClusterWeight {
                name: target.cluster.to_string(),
                weight: proto::uint32(target.weight),
                ..Default::default()
            };
            ClusterSpecifier::WeightedClusters(WeightedCluster {
                clusters: several.iter().map(weighted).collect(),
                ..Default::default()
            })
        }
    }
}

fn hash_policy(node: &HashPolicy) -> HashPolicyPb {
    let specifier = match node {
        HashPolicy::Header(name) => PolicySpecifier::Header(Header {
            header_name: name.to_string(),
            ..Default::default()
        }),
        HashPolicy::Cookie(cookie) => PolicySpecifier::Cookie(Cookie {
            name: cookie.name.to_string(),
            path: cookie.path.to_string(),
            ttl: cookie.ttl.map(proto::duration),
            ..Default::default()
        }),
        HashPolicy::SourceIp => {
            PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true })
        }
        HashPolicy::QueryParameter(name) => PolicySpecifier::QueryParameter(QueryParameter {
            name: name.to_string(),
        }),
    };
    HashPolicyPb {
        policy_specifier: Some(specifier),
        ..Default::default()
    }
}
