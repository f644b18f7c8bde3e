//! Tables and clusters that come when a request first needs them.

use envoy_types::pb::envoy::extensions::filters::http::on_demand::v3::{OnDemand, OnDemandCds};
use envoy_types::pb::google::protobuf::Duration;

use super::proto;

/// The filter's name where it asks for a scope's table and for clusters.
pub const FIRST: &str = "fairlead.on_demand";
/// Where it asks for clusters that the fallback leads to.
pub const AGAIN: &str = "fairlead.on_demand_fallback";

/// Seconds that a request waits for what it needs, if the control plane does not answer: 504 without a route,
/// 503 without a cluster. More than a table waits for a cluster that warms (`--warming-timeout`).
const PATIENCE: i64 = 7;

/// Asks for a scope's table, then for the cluster that the route leads to.
pub fn filter() -> OnDemand {
    OnDemand {
        odcds: Some(OnDemandCds {
            source: Some(proto::ads(proto::seconds(0))),
            timeout: Some(patience()),
            ..Default::default()
        }),
    }
}

/// How long a stream without a route may be silent. Each route that forwards has its own bound, which is none.
pub fn patience() -> Duration {
    proto::seconds(PATIENCE)
}
