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

/// The timeout is always written: Envoy's own default is 15 s.
///
/// Without one, a gRPC client's own (`grpc-timeout`) counts, as it does on the inbound side; never write both,
/// for `max_stream_duration` turns the route's timeout off (seen on Envoy 1.40). Beside a timeout Istio
/// bounds it by `max_grpc_timeout`, which Envoy logs as deprecated for every route it reads: there the
/// route's timeout alone rules, and a client that asked for less gives up by itself.
pub fn forward(node: &Forward) -> RouteAction {
    let hosts = if node.hash.is_empty() {
        Hosts::Any
    } else {
        Hosts::Hashed
    };
    RouteAction {
        cluster_specifier: Some(clusters(&node.targets)),
        timeout: Some(proto::duration(node.timeout)),
        max_stream_duration: node.timeout.0.is_zero().then(|| MaxStreamDuration {
            grpc_timeout_header_max: Some(proto::seconds(0)),
            ..Default::default()
        }),
        retry_policy: node.retries.as_ref().and_then(|r| retry::policy(r, hosts)),
        hash_policy: node.hash.iter().map(hash_policy).collect(),
        // None, whatever the listener has for requests without a route.
        idle_timeout: Some(proto::seconds(0)),
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::config::value::Span;
    use crate::text::Str;
    use crate::xds::json::shown;

    fn to(targets: &[(&str, u32)], timeout: Duration) -> Forward {
        let target = |&(cluster, weight): &(&str, u32)| Target {
            cluster: Str::new(cluster),
            weight,
        };
        Forward {
            targets: targets.iter().map(target).collect(),
            timeout: Span(timeout),
            retries: None,
            hash: vec![],
        }
    }

    #[test]
    fn one_target_takes_all_whatever_its_weight() {
        let expected = json!({
            "cluster": "a",
            "timeout": "0s",
            "idleTimeout": "0s",
            "maxStreamDuration": {"grpcTimeoutHeaderMax": "0s"}
        });
        assert_eq!(shown(&forward(&to(&[("a", 0)], Duration::ZERO))), expected);
    }

    #[test]
    fn several_targets_share_by_weight_and_a_timeout_rules_alone() {
        let expected = json!({
            "weightedClusters": {"clusters": [{"name": "a", "weight": 90}, {"name": "b", "weight": 10}]},
            "timeout": "1.500s",
            "idleTimeout": "0s"
        });
        let node = to(&[("a", 90), ("b", 10)], Duration::from_millis(1500));
        assert_eq!(shown(&forward(&node)), expected);
    }
}
