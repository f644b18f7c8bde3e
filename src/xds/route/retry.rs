//! Renders retry policies from Istio's HTTPRetry.

use envoy_types::pb::envoy::config::route::v3::retry_policy::{
    RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
};
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::{RetryPolicy, VirtualHost};
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;

use crate::config::virtual_service::HttpRetry;
use crate::xds::proto;

/// What may be tried again without harm, where the user does not say.
const DEFAULT_CONDITIONS: &str =
    "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
const BY_STATUS: &str = "retriable-status-codes";

/// Picks of a host that was tried before, until one of them is taken all the same.
const MAX_SELECTIONS: i64 = 5;
/// Retries after which the priorities tried so far are left aside.
const PRIORITY_UPDATES: i32 = 2;

/// Among which hosts a retry may choose another one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Hosts {
    Any,
    /// By consistent hash, which must not be led away from its host.
    Hashed,
    /// The app itself.
    One,
}

/// None where retries are off.
pub fn policy(retries: &HttpRetry, hosts: Hosts) -> Option<RetryPolicy> {
    if retries.attempts == 0 {
        return None;
    }
    let (conditions, codes) = conditions(&retries.retry_on);
    let policy = RetryPolicy {
        retry_on: conditions,
        retriable_status_codes: codes,
        num_retries: proto::uint32(retries.attempts),
        per_try_timeout: retries.per_try_timeout.map(proto::duration),
        retry_priority: (retries.retry_remote_localities == Some(true)).then(other_localities),
        retry_back_off: retries
            .backoff
            .filter(|b| !b.0.is_zero())
            .map(|b| RetryBackOff {
                base_interval: Some(proto::duration(b)),
                max_interval: None,
            }),
        ..Default::default()
    };
    Some(match hosts {
        Hosts::Hashed | Hosts::One => policy,
        Hosts::Any if retries.retry_ignore_previous_hosts == Some(false) => policy,
        Hosts::Any => RetryPolicy {
            retry_host_predicate: vec![other_hosts()],
            host_selection_retry_max_attempts: MAX_SELECTIONS,
            ..policy
        },
    })
}

/// A policy that all of several routes have is the host's: Envoy takes that for routes without one of their own.
pub fn say_once(host: &mut VirtualHost) {
    let routes = host.routes.iter_mut().filter_map(|r| match &mut r.action {
        Some(Action::Route(route)) => Some(&mut route.retry_policy),
        _ => None,
    });
    let policies: Vec<&mut Option<RetryPolicy>> = routes.collect();
    let agree = policies.windows(2).all(|two| two[0] == two[1]);
    if policies.len() > 1 && agree {
        for policy in policies {
            host.retry_policy = policy.take();
        }
    }
}

/// Istio lets status codes stand among the conditions; Envoy has a list of its own for them.
fn conditions(retry_on: &str) -> (String, Vec<u32>) {
    if retry_on.is_empty() {
        return (DEFAULT_CONDITIONS.to_owned(), Vec::new());
    }
    let parts = retry_on.split(',').map(str::trim).filter(|p| !p.is_empty());
    let (codes, mut names): (Vec<&str>, Vec<&str>) = parts.partition(|p| p.parse::<u32>().is_ok());
    if !codes.is_empty() && !names.contains(&BY_STATUS) {
        names.push(BY_STATUS);
    }
    let codes = codes.iter().filter_map(|c| c.parse().ok()).collect();
    (names.join(","), codes)
}

fn other_hosts() -> RetryHostPredicate {
    RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(proto::any(
            &PreviousHostsPredicate {},
        ))),
    }
}

fn other_localities() -> RetryPriority {
    RetryPriority {
        name: "envoy.retry_priorities.previous_priorities".to_owned(),
        config_type: Some(retry_priority::ConfigType::TypedConfig(proto::any(
            &PreviousPrioritiesConfig {
                update_frequency: PRIORITY_UPDATES,
            },
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use envoy_types::pb::envoy::config::route::v3::{Route, RouteAction};

    use super::*;
    use crate::xds::json::shown;

    fn host(attempts: &[u32]) -> VirtualHost {
        let route = |attempts: &u32| {
            let retries = HttpRetry {
                attempts: *attempts,
                ..HttpRetry::default()
            };
            let action = Action::Route(RouteAction {
                retry_policy: policy(&retries, Hosts::Any),
                ..Default::default()
            });
            Route {
                action: Some(action),
                ..Default::default()
            }
        };
        VirtualHost {
            routes: attempts.iter().map(route).collect(),
            ..Default::default()
        }
    }

    /// Attempts by the host, and by each route.
    fn said(attempts: &[u32]) -> (Option<u32>, Vec<Option<u32>>) {
        let mut host = host(attempts);
        say_once(&mut host);
        let count = |p: &Option<RetryPolicy>| p.as_ref()?.num_retries.map(|n| n.value);
        let of_route = |r: &Route| match &r.action {
            Some(Action::Route(route)) => count(&route.retry_policy),
            _ => None,
        };
        (
            count(&host.retry_policy),
            host.routes.iter().map(of_route).collect(),
        )
    }

    #[test]
    fn what_all_routes_of_a_host_say_is_said_once() {
        assert_eq!(said(&[2, 2]), (Some(2), vec![None, None]));
        assert_eq!(said(&[2]), (None, vec![Some(2)]));
        assert_eq!(said(&[2, 3]), (None, vec![Some(2), Some(3)]));
        // A route without retries must not get the host's.
        assert_eq!(said(&[2, 0]), (None, vec![Some(2), None]));
        assert_eq!(said(&[0, 0]), (None, vec![None, None]));
    }

    fn on(conditions: &str) -> HttpRetry {
        HttpRetry {
            attempts: 3,
            retry_on: conditions.into(),
            ..HttpRetry::default()
        }
    }

    #[test]
    fn no_attempts_are_no_policy() {
        assert_eq!(policy(&HttpRetry::default(), Hosts::Any), None);
    }

    #[test]
    fn status_codes_among_the_conditions_go_to_their_own_list() {
        let split = |text: &str| conditions(text);
        let both = (
            "5xx,reset,retriable-status-codes".to_owned(),
            vec![429, 503],
        );
        assert_eq!(split("5xx, 429 ,reset,,503"), both);
        let once = ("retriable-status-codes".to_owned(), vec![503]);
        assert_eq!(split("503,retriable-status-codes"), once);
        assert_eq!(split("").0, DEFAULT_CONDITIONS);
    }

    #[test]
    fn a_retry_looks_for_another_host_unless_a_hash_or_the_user_says_no() {
        let predicates =
            |r: &HttpRetry, hosts| policy(r, hosts).unwrap().retry_host_predicate.len();
        assert_eq!(predicates(&on("reset"), Hosts::Any), 1);
        assert_eq!(predicates(&on("reset"), Hosts::Hashed), 0);
        assert_eq!(predicates(&on("reset"), Hosts::One), 0);
        let stay = HttpRetry {
            retry_ignore_previous_hosts: Some(false),
            ..on("reset")
        };
        assert_eq!(predicates(&stay, Hosts::Any), 0);
    }

    #[test]
    fn every_field_of_a_retry_is_written() {
        let span = |ms| {
            Some(crate::config::value::Span(
                std::time::Duration::from_millis(ms),
            ))
        };
        let retries = HttpRetry {
            per_try_timeout: span(2500),
            retry_remote_localities: Some(true),
            retry_ignore_previous_hosts: Some(false),
            backoff: span(25),
            ..on("gateway-error")
        };
        let expected = json!({
            "retryOn": "gateway-error",
            "numRetries": 3,
            "perTryTimeout": "2.500s",
            "retryBackOff": {"baseInterval": "0.025s"},
            "retryPriority": {
                "name": "envoy.retry_priorities.previous_priorities",
                "typedConfig": {
                    "@type": "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                    "updateFrequency": 2
                }
            }
        });
        assert_eq!(shown(&policy(&retries, Hosts::Any).unwrap()), expected);
    }
}
