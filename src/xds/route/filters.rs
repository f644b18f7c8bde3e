//! Renders what filters do on one route alone: faults and CORS.

use std::collections::HashMap;

use envoy_types::pb::envoy::extensions::filters::common::fault::v3::FaultDelay;
use envoy_types::pb::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
use envoy_types::pb::envoy::extensions::filters::http::cors::v3::CorsPolicy as CorsPb;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::fault_abort::ErrorType;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::{FaultAbort, HttpFault};
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::v3::FractionalPercent;
use envoy_types::pb::envoy::r#type::v3::fractional_percent::DenominatorType;
use envoy_types::pb::google::protobuf::Any;

use super::action::share;
use super::matcher;
use crate::config::http_action::{
    Abort, CorsPolicy, Delay, HttpFaultInjection, Percent, UnmatchedPreflights,
};
use crate::config::value::StringMatch;
use crate::ir::Also;
use crate::text::Str;
use crate::xds::proto;

pub const CORS: &str = "envoy.filters.http.cors";
pub const FAULT: &str = "envoy.filters.http.fault";

/// By filter, as `typed_per_filter_config` has it.
pub fn of_route(also: &Also) -> HashMap<String, Any> {
    let fault = also.fault.as_ref().and_then(fault);
    let fault = fault.map(|f| (FAULT.to_owned(), proto::any(&f)));
    let cors = also.cors.as_ref().map(cors);
    let cors = cors.map(|c| (CORS.to_owned(), proto::any(&c)));
    fault.into_iter().chain(cors).collect()
}

fn fault(node: &HttpFaultInjection) -> Option<HttpFault> {
    let fault = HttpFault {
        delay: node.delay.as_ref().and_then(delay),
        abort: node.abort.as_ref().and_then(abort),
        ..Default::default()
    };
    (fault.delay.is_some() || fault.abort.is_some()).then_some(fault)
}

fn delay(node: &Delay) -> Option<FaultDelay> {
    let percentage = node.percentage.unwrap_or(Percent::whole(node.percent));
    Some(FaultDelay {
        percentage: Some(fraction(percentage)),
        fault_delay_secifier: Some(FaultDelaySecifier::FixedDelay(proto::duration(
            node.fixed_delay?,
        ))),
    })
}

fn abort(node: &Abort) -> Option<FaultAbort> {
    let error = match node.http_status {
        Some(status) => ErrorType::HttpStatus(u32::from(status)),
        None => ErrorType::GrpcStatus(grpc_status(&node.grpc_status)?),
    };
    Some(FaultAbort {
        percentage: Some(fraction(node.percentage.unwrap_or_default())),
        error_type: Some(error),
        ..Default::default()
    })
}

/// By its name in gRPC's list, or its number.
fn grpc_status(text: &str) -> Option<u32> {
    let named = crate::config::value::GRPC_STATUSES
        .iter()
        .position(|name| *name == text);
    match named {
        Some(number) => u32::try_from(number).ok(),
        None => text.parse().ok(),
    }
}

pub(super) fn fraction(percent: Percent) -> FractionalPercent {
    FractionalPercent {
        numerator: percent.0,
        denominator: DenominatorType::Million.into(),
    }
}

fn cors(node: &CorsPolicy) -> CorsPb {
    let joined = |words: &[Str]| words.join(",");
    let exact = |origin: &Str| StringMatcher {
        match_pattern: Some(MatchPattern::Exact(origin.to_string())),
        ignore_case: false,
    };
    let origins = node.allow_origins.iter();
    let origins = origins.map(|origin| match matcher::text(origin) {
        Some(matcher) => matcher,
        // An empty text matches no origin, and Envoy takes none for a matcher.
        None => exact(&match origin {
            StringMatch::Exact(text)
            | StringMatch::Prefix(text)
            | StringMatch::Regex(text)
            | StringMatch::Segments(text) => text.clone(),
        }),
    });
    CorsPb {
        allow_origin_string_match: match node.allow_origins.is_empty() {
            true => node.allow_origin.iter().map(exact).collect(),
            false => origins.collect(),
        },
        allow_methods: joined(&node.allow_methods),
        allow_headers: joined(&node.allow_headers),
        expose_headers: joined(&node.expose_headers),
        max_age: node
            .max_age
            .map_or_else(String::new, |age| age.0.as_secs().to_string()),
        allow_credentials: node.allow_credentials.and_then(proto::boolean),
        filter_enabled: Some(share(Percent::ALL)),
        forward_not_matching_preflights: proto::boolean(match node.unmatched_preflights {
            UnmatchedPreflights::Forward => true,
            UnmatchedPreflights::Ignore => false,
        }),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::xds::json::shown;

    #[test]
    fn faults_have_their_share_and_status() {
        let of = |value| fault(&serde_json::from_value(value).unwrap());
        let node = of(json!({
            "delay": {"percentage": {"value": 0.1}, "fixedDelay": "5s"},
            "abort": {"percentage": {"value": 50}, "grpcStatus": "UNAVAILABLE"},
        }));
        let expected = json!({
            "delay": {"percentage": {"numerator": 1000, "denominator": "MILLION"}, "fixedDelay": "5s"},
            "abort": {"percentage": {"numerator": 500_000, "denominator": "MILLION"}, "grpcStatus": 14},
        });
        assert_eq!(shown(&node.unwrap()), expected);
        assert!(of(json!({})).is_none());
    }
}
