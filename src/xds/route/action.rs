//! Renders where a route leads: clusters, timeout, hash policies. Retries are in `retry`.

use envoy_types::pb::envoy::config::core::v3::{DataSource, RuntimeFractionalPercent, data_source};
use envoy_types::pb::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use envoy_types::pb::envoy::config::route::v3::route_action::hash_policy::{
    ConnectionProperties, Cookie, CookieAttribute, Header, PolicySpecifier, QueryParameter,
};
use envoy_types::pb::envoy::config::route::v3::route_action::{
    ClusterSpecifier, HashPolicy as HashPolicyPb, HostRewriteSpecifier, MaxStreamDuration,
    RequestMirrorPolicy,
};
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::cluster_weight::HostRewriteSpecifier as TargetHost;
use envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction, RedirectAction, RouteAction, WeightedCluster,
};
use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;

use super::retry::{self, Hosts};
use super::{filters, headers, matcher};
use crate::config::http_action::Percent;
use crate::ir::http_actions;
use crate::ir::{
    Forward, HashPolicy, HttpTarget, InboundRoute, Mirror, Redirect, Response, Rewrite,
};
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
        request_mirror_policies: node.mirrors.iter().map(mirror).collect(),
        ..rewritten(node.rewrite.as_deref())
    }
}

fn rewritten(node: Option<&Rewrite>) -> RouteAction {
    let Some(node) = node else {
        return RouteAction::default();
    };
    RouteAction {
        prefix_rewrite: node.prefix.to_string(),
        regex_rewrite: node.regex.as_ref().map(|regex| RegexMatchAndSubstitute {
            pattern: Some(matcher::regex(&regex.matches)),
            substitution: regex.rewrite.to_string(),
        }),
        host_rewrite_specifier: (!node.authority.is_empty())
            .then(|| HostRewriteSpecifier::HostRewriteLiteral(node.authority.to_string())),
        ..Default::default()
    }
}

/// The copy is told from its original by nothing: Istio turns Envoy's `-shadow` in its host off.
fn mirror(node: &Mirror) -> RequestMirrorPolicy {
    RequestMirrorPolicy {
        cluster: node.cluster.to_string(),
        runtime_fraction: Some(share(node.share)),
        trace_sampled: proto::boolean(false),
        disable_shadow_host_suffix_append: true,
        ..Default::default()
    }
}

pub(super) fn share(percent: Percent) -> RuntimeFractionalPercent {
    RuntimeFractionalPercent {
        default_value: Some(filters::fraction(percent)),
        ..Default::default()
    }
}

pub fn redirect(node: &Redirect) -> RedirectAction {
    let spec = &node.spec;
    let path = match (spec.uri.as_str(), spec.prefix_rewrite.as_str()) {
        ("", "") => None,
        ("", prefix) => Some(PathRewriteSpecifier::PrefixRewrite(prefix.to_owned())),
        (path, _) => Some(PathRewriteSpecifier::PathRedirect(path.to_owned())),
    };
    let scheme = &spec.scheme;
    RedirectAction {
        host_redirect: spec.authority.to_string(),
        port_redirect: node.port.map_or(0, u32::from),
        scheme_rewrite_specifier: (!scheme.is_empty())
            .then(|| SchemeRewriteSpecifier::SchemeRedirect(scheme.to_string())),
        path_rewrite_specifier: path,
        response_code: match spec.redirect_code {
            302 => RedirectResponseCode::Found,
            303 => RedirectResponseCode::SeeOther,
            307 => RedirectResponseCode::TemporaryRedirect,
            308 => RedirectResponseCode::PermanentRedirect,
            _ => RedirectResponseCode::MovedPermanently,
        }
        .into(),
        ..Default::default()
    }
}

pub fn respond(node: &Response) -> DirectResponseAction {
    DirectResponseAction {
        status: u32::from(node.status),
        body: (!node.body.is_empty()).then(|| DataSource {
            specifier: Some(data_source::Specifier::InlineBytes(node.body.clone())),
            ..Default::default()
        }),
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

fn clusters(targets: &[HttpTarget]) -> ClusterSpecifier {
    match targets {
        [only] => ClusterSpecifier::Cluster(only.cluster.to_string()),
        several => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: several.iter().map(weighted).collect(),
            ..Default::default()
        }),
    }
}

fn weighted(target: &HttpTarget) -> ClusterWeight {
    let mut weighted = ClusterWeight {
        name: target.cluster.to_string(),
        weight: proto::uint32(target.weight),
        ..Default::default()
    };
    if let Some(changes) = target.headers.as_deref() {
        headers::of_target(&mut weighted, changes);
        let authority = http_actions::authority(changes);
        weighted.host_rewrite_specifier =
            authority.map(|a| TargetHost::HostRewriteLiteral(a.to_string()));
    }
    weighted
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
            attributes: cookie
                .attributes
                .iter()
                .map(|attribute| CookieAttribute {
                    name: attribute.name.to_string(),
                    value: attribute.value.to_string(),
                })
                .collect(),
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
        let target = |&(cluster, weight): &(&str, u32)| HttpTarget {
            weight,
            ..HttpTarget::only(Str::new(cluster))
        };
        Forward {
            targets: targets.iter().map(target).collect(),
            timeout: Span(timeout),
            retries: None,
            hash: vec![],
            rewrite: None,
            mirrors: vec![],
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
