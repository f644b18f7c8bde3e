//! How much of a destination a client uses, and when it leaves some of it out: connection pools, outlier detection,
//! warm-up, retry budgets, weights by load.
//!
//! Field meaning: <https://istio.io/latest/docs/reference/config/networking/destination-rule/>.

use serde::{Deserialize, Serialize};

use super::value::{Decimal, Span};
use crate::text::Str;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectionPool {
    pub tcp: TcpSettings,
    pub http: HttpSettings,
}

/// 0 is no bound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpSettings {
    pub max_connections: u32,
    pub connect_timeout: Option<Span>,
    pub tcp_keepalive: Option<TcpKeepalive>,
    pub max_connection_duration: Option<Span>,
    pub idle_timeout: Option<Span>,
}

/// What is absent is the operating system's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpKeepalive {
    pub probes: u32,
    pub time: Option<Span>,
    pub interval: Option<Span>,
}

/// 0 is no bound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpSettings {
    pub http1_max_pending_requests: u32,
    pub http2_max_requests: u32,
    pub max_requests_per_connection: u32,
    pub max_retries: u32,
    pub idle_timeout: Option<Span>,
    pub h2_upgrade_policy: H2UpgradePolicy,
    pub use_client_protocol: bool,
    pub max_concurrent_streams: u32,
    pub http2_keep_alive: Option<Http2KeepAlive>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum H2UpgradePolicy {
    /// The mesh's, which is no upgrade.
    #[default]
    Default,
    DoNotUpgrade,
    /// HTTP/1 goes on as HTTP/2.
    Upgrade,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Http2KeepAlive {
    pub interval: Option<Span>,
    pub timeout: Option<Span>,
}

/// An absent count is Envoy's default, 0 turns the check off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutlierDetection {
    #[serde(rename = "consecutive5xxErrors")]
    pub consecutive_5xx_errors: Option<u32>,
    pub consecutive_gateway_errors: Option<u32>,
    pub consecutive_local_origin_failures: Option<u32>,
    pub split_external_local_origin_errors: bool,
    pub interval: Option<Span>,
    pub base_ejection_time: Option<Span>,
    /// 0 is Envoy's default.
    pub max_ejection_percent: u32,
    /// Below this share of healthy endpoints all are used; 0 never.
    pub min_health_percent: u32,
    /// Statuses that count as errors, instead of all from 500 on.
    pub outlier_detection_http_error_codes: Vec<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryBudget {
    /// Of the active requests; absent is 20.
    pub percent: Option<Decimal>,
    /// Absent is 3.
    pub min_retry_concurrency: Option<u32>,
    /// How long a request counts as active; absent only while it is.
    pub budget_interval: Option<Span>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Warmup {
    pub duration: Option<Span>,
    /// Absent is 10.
    pub minimum_percent: Option<Decimal>,
    /// Absent is 1.
    pub aggression: Option<Decimal>,
}

/// Endpoints get requests by what they report of their load. What is absent is Envoy's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendUtilization {
    pub metric_names_for_computing_utilization: Vec<Str>,
    pub error_utilization_penalty_percent: Option<u32>,
    pub weight_expiration_period: Option<Span>,
    pub weight_stabilization_period: Option<Span>,
    pub weight_update_period: Option<Span>,
}
