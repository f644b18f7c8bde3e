//! Endpoints by the load that they report (ORCA, in each answer), as a load balancing policy of its own.

use envoy_types::pb::envoy::config::cluster::v3::LoadBalancingPolicy;
use envoy_types::pb::envoy::config::cluster::v3::load_balancing_policy::Policy;
use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::load_balancing_policies::client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin;
use envoy_types::pb::envoy::extensions::load_balancing_policies::common::v3::SlowStartConfig;
use envoy_types::pb::envoy::extensions::load_balancing_policies::wrr_locality::v3::WrrLocality;
use envoy_types::pb::google::protobuf::FloatValue;
use prost::{Message, Name};

use super::limits;
use crate::config::connection_pool::BackendUtilization;
use crate::ir::Limits;
use crate::xds::proto;

/// Shares of localities, if there are any, come before it.
pub fn policy(node: &BackendUtilization, limits: Option<&Limits>) -> LoadBalancingPolicy {
    let warmup = limits.and_then(|l| l.warmup.as_ref());
    let by_load = ClientSideWeightedRoundRobin {
        blackout_period: node.weight_stabilization_period.map(proto::duration),
        weight_expiration_period: node.weight_expiration_period.map(proto::duration),
        weight_update_period: node.weight_update_period.map(proto::duration),
        error_utilization_penalty: node.error_utilization_penalty_percent.map(|percent| {
            FloatValue {
                value: percent as f32 / 100.0,
            }
        }),
        metric_names_for_computing_utilization: node
            .metric_names_for_computing_utilization
            .iter()
            .map(ToString::to_string)
            .collect(),
        slow_start_config: warmup.map(|warmup| {
            let config = limits::slow_start(warmup);
            SlowStartConfig {
                slow_start_window: config.slow_start_window,
                aggression: config.aggression,
                min_weight_percent: config.min_weight_percent,
            }
        }),
        ..Default::default()
    };
    let by_load = only(
        "envoy.load_balancing_policies.client_side_weighted_round_robin",
        &by_load,
    );
    match limits.is_some_and(|l| l.shared_out) {
        false => by_load,
        true => only(
            "envoy.load_balancing_policies.wrr_locality",
            &WrrLocality {
                endpoint_picking_policy: Some(by_load),
            },
        ),
    }
}

fn only<M: Message + Name>(name: &str, config: &M) -> LoadBalancingPolicy {
    LoadBalancingPolicy {
        policies: vec![Policy {
            typed_extension_config: Some(TypedExtensionConfig {
                name: name.to_owned(),
                typed_config: Some(proto::any(config)),
            }),
        }],
    }
}
