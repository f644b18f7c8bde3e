//! Tables and clusters that come when a request first needs them.

use envoy_types::pb::envoy::extensions::filters::http::on_demand::v3::{OnDemand, OnDemandCds};
use envoy_types::pb::google::protobuf::Duration;

use super::proto;

pub const FILTER: &str = "envoy.filters.http.on_demand";

/// Seconds that a request waits for what it needs, if the control plane does not answer: 504 without a route,
/// 503 without a cluster.
const PATIENCE: i64 = 5;

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

/// How long a stream may be silent before its route says so itself: every forwarding route does.
pub fn patience() -> Duration {
    proto::seconds(PATIENCE)
}
