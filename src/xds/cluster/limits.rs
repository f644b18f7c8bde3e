//! Renders what bounds the use of a cluster: circuit breakers, outlier detection, keepalive, warm-up.

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::thresholds::RetryBudget as RetryBudgetPb;
use envoy_types::pb::envoy::config::cluster::v3::cluster::common_lb_config::ZoneAwareLbConfig;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    LbConfig, LeastRequestLbConfig, RoundRobinLbConfig, SlowStartConfig,
};
use envoy_types::pb::envoy::config::common::matcher::v3::match_predicate::{MatchSet, Rule};
use envoy_types::pb::envoy::config::common::matcher::v3::{HttpHeadersMatch, MatchPredicate};
use envoy_types::pb::envoy::config::core::v3::{
    Http2ProtocolOptions, HttpProtocolOptions as CommonOptions, KeepaliveSettings, RuntimeDouble,
    TcpKeepalive,
};
use envoy_types::pb::envoy::config::route::v3::HeaderMatcher;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::OutlierDetection as HttpOutliers;
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::v3::Percent;

use crate::config::connection_pool::{
    ConnectionPool, HttpSettings, OutlierDetection, RetryBudget, Warmup,
};
use crate::config::value::Decimal;
use crate::ir::{Limits, LoadBalancer, Zones};
use crate::xds::proto;

/// Envoy's own defaults (1024, and 3 retries) would answer 503 under load.
pub fn circuit_breakers(limits: Option<&Limits>) -> pb::CircuitBreakers {
    const NONE: u32 = 0;
    let pool = limits.map(|l| &l.pool);
    let bound = |of: fn(&ConnectionPool) -> u32| {
        let said = pool.map_or(NONE, of);
        proto::uint32(if said == NONE { u32::MAX } else { said })
    };
    pb::CircuitBreakers {
        thresholds: vec![Thresholds {
            max_connections: bound(|p| p.tcp.max_connections),
            max_pending_requests: bound(|p| p.http.http1_max_pending_requests),
            max_requests: bound(|p| p.http.http2_max_requests),
            max_retries: bound(|p| p.http.max_retries),
            retry_budget: limits.and_then(|l| l.retry_budget.as_ref()).map(budget),
            track_remaining: false,
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn budget(node: &RetryBudget) -> RetryBudgetPb {
    RetryBudgetPb {
        budget_percent: Some(percent(node.percent.unwrap_or(Decimal(20_000)))),
        min_retry_concurrency: proto::uint32(node.min_retry_concurrency.unwrap_or(3)),
        budget_interval: node.budget_interval.map(proto::duration),
    }
}

fn percent(value: Decimal) -> Percent {
    Percent {
        value: value.value(),
    }
}

/// Whatever is not told stays as without detection; success rates eject nobody, as in Istio.
pub fn outlier_detection(node: &OutlierDetection) -> pb::OutlierDetection {
    let enforced =
        |count: Option<u32>| count.and_then(|n| proto::uint32(if n > 0 { 100 } else { 0 }));
    let counted = |count: Option<u32>| count.filter(|n| *n > 0).and_then(proto::uint32);
    let mut detection = pb::OutlierDetection {
        consecutive_5xx: counted(node.consecutive_5xx_errors),
        enforcing_consecutive_5xx: enforced(node.consecutive_5xx_errors),
        consecutive_gateway_failure: counted(node.consecutive_gateway_errors),
        enforcing_consecutive_gateway_failure: enforced(node.consecutive_gateway_errors),
        enforcing_success_rate: proto::uint32(0),
        interval: node.interval.map(proto::duration),
        base_ejection_time: node.base_ejection_time.map(proto::duration),
        max_ejection_percent: match node.max_ejection_percent {
            0 => None,
            percent => proto::uint32(percent),
        },
        ..Default::default()
    };
    if node.split_external_local_origin_errors {
        let count = node.consecutive_local_origin_failures;
        detection.split_external_local_origin_errors = true;
        detection.consecutive_local_origin_failure = counted(count);
        detection.enforcing_consecutive_local_origin_failure = enforced(count);
        detection.enforcing_local_origin_success_rate = proto::uint32(0);
    }
    detection
}

/// None leaves it to Envoy's, which are those from 500 on.
pub fn counted_statuses(node: &OutlierDetection) -> Option<HttpOutliers> {
    let is = |code: &u32| MatchPredicate {
        rule: Some(Rule::HttpResponseHeadersMatch(HttpHeadersMatch {
            headers: vec![HeaderMatcher {
                name: ":status".to_owned(),
                header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(StringMatcher {
                    match_pattern: Some(MatchPattern::Exact(code.to_string())),
                    ignore_case: false,
                })),
                ..Default::default()
            }],
        })),
    };
    let counted = match node.outlier_detection_http_error_codes.as_slice() {
        [] => return None,
        [only] => is(only),
        // Envoy takes no set of one.
        several => MatchPredicate {
            rule: Some(Rule::OrMatch(MatchSet {
                rules: several.iter().map(is).collect(),
            })),
        },
    };
    Some(HttpOutliers {
        error_matcher: Some(counted),
    })
}

pub fn zone_aware(node: &Zones) -> ZoneAwareLbConfig {
    ZoneAwareLbConfig {
        min_cluster_size: node.min_cluster_size.and_then(|n| proto::uint64(n.into())),
        ..Default::default()
    }
}

pub fn keepalive(pool: &ConnectionPool) -> Option<pb::UpstreamConnectionOptions> {
    let node = pool.tcp.tcp_keepalive.as_ref()?;
    let seconds = |span: Option<crate::config::value::Span>| {
        let seconds = span.map(|span| span.0.as_secs());
        seconds.and_then(|s| proto::uint32(u32::try_from(s).unwrap_or(u32::MAX)))
    };
    Some(pb::UpstreamConnectionOptions {
        tcp_keepalive: Some(TcpKeepalive {
            keepalive_probes: match node.probes {
                0 => None,
                probes => proto::uint32(probes),
            },
            keepalive_time: seconds(node.time),
            keepalive_interval: seconds(node.interval),
        }),
        ..Default::default()
    })
}

/// Of all HTTP versions. The idle timeout of HTTP goes before that of TCP.
pub fn common_options(pool: &ConnectionPool) -> Option<CommonOptions> {
    let ConnectionPool { tcp, http } = pool;
    let options = CommonOptions {
        idle_timeout: http.idle_timeout.or(tcp.idle_timeout).map(proto::duration),
        max_connection_duration: tcp.max_connection_duration.map(proto::duration),
        max_requests_per_connection: match http.max_requests_per_connection {
            0 => None,
            most => proto::uint32(most),
        },
        ..Default::default()
    };
    (options != CommonOptions::default()).then_some(options)
}

pub fn http2(http: &HttpSettings) -> Http2ProtocolOptions {
    Http2ProtocolOptions {
        max_concurrent_streams: match http.max_concurrent_streams {
            0 => None,
            most => proto::uint32(most),
        },
        connection_keepalive: http.http2_keep_alive.as_ref().map(|k| KeepaliveSettings {
            interval: k.interval.map(proto::duration),
            timeout: k.timeout.map(proto::duration),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub fn slow_start(node: &Warmup) -> SlowStartConfig {
    SlowStartConfig {
        slow_start_window: node.duration.map(proto::duration),
        aggression: Some(RuntimeDouble {
            default_value: node.aggression.unwrap_or(Decimal(1000)).value(),
            runtime_key: String::new(),
        }),
        min_weight_percent: Some(percent(node.minimum_percent.unwrap_or(Decimal(10_000)))),
    }
}

/// Only the balancers that weigh endpoints can warm them up; the one by load has it in its own policy.
pub fn warmup(balancer: &LoadBalancer, node: &Warmup) -> Option<LbConfig> {
    let slow_start = slow_start(node);
    match balancer {
        LoadBalancer::LeastRequest => Some(LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
            slow_start_config: Some(slow_start),
            ..Default::default()
        })),
        LoadBalancer::RoundRobin => Some(LbConfig::RoundRobinLbConfig(RoundRobinLbConfig {
            slow_start_config: Some(slow_start),
        })),
        LoadBalancer::Random
        | LoadBalancer::RingHash { .. }
        | LoadBalancer::Maglev { .. }
        | LoadBalancer::ClusterProvided
        | LoadBalancer::Utilization(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::xds::json::shown;

    #[test]
    fn a_count_of_0_turns_a_check_off_and_an_absent_one_leaves_envoys() {
        let of = |value| outlier_detection(&serde_json::from_value(value).unwrap());
        let expected = json!({
            "consecutive5xx": 5, "enforcingConsecutive5xx": 100,
            "enforcingConsecutiveGatewayFailure": 0,
            "enforcingSuccessRate": 0, "interval": "1s", "maxEjectionPercent": 50,
        });
        let node = json!({
            "consecutive5xxErrors": 5, "consecutiveGatewayErrors": 0, "interval": "1s", "maxEjectionPercent": 50,
        });
        assert_eq!(shown(&of(node)), expected);
    }

    #[test]
    fn what_is_not_bounded_is_unlimited() {
        let limits = Limits {
            pool: serde_json::from_value(json!({"tcp": {"maxConnections": 7}})).unwrap(),
            ..Limits::default()
        };
        let shown = shown(&circuit_breakers(Some(&limits)));
        let bounds = &shown["thresholds"][0];
        assert_eq!(
            (&bounds["maxConnections"], &bounds["maxRequests"]),
            (&json!(7), &json!(u32::MAX))
        );
    }
}
