//! DestinationRule: subsets, client TLS, load balancer, tunnels.
//!
//! Field meaning: <https://istio.io/latest/docs/reference/config/networking/destination-rule/>.

use serde::{Deserialize, Serialize};

use super::connection_pool::{
    BackendUtilization, ConnectionPool, OutlierDetection, RetryBudget, Warmup,
};
use super::locality::{self, LocalityLb, ZoneAwareLb};
use super::meta::Labels;
use super::value::Span;
use crate::text::Str;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DestinationRule {
    pub host: Str,
    pub traffic_policy: Option<TrafficPolicy>,
    pub subsets: Vec<Subset>,
    pub export_to: Vec<Str>,
    pub workload_selector: Option<WorkloadSelector>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSelector {
    pub match_labels: Labels,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subset {
    pub name: Str,
    pub labels: Labels,
    pub traffic_policy: Option<TrafficPolicy>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficPolicy {
    pub load_balancer: Option<LoadBalancer>,
    pub connection_pool: Option<Box<ConnectionPool>>,
    pub outlier_detection: Option<Box<OutlierDetection>>,
    pub tls: Option<ClientTls>,
    pub port_level_settings: Vec<PortTrafficPolicy>,
    pub retry_budget: Option<RetryBudget>,
    pub proxy_protocol: Option<ProxyProtocol>,
    pub tunnel: Option<Box<Tunnel>>,
}

/// Each connection begins with where it came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct ProxyProtocol {
    pub version: ProxyProtocolVersion,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProxyProtocolVersion {
    #[default]
    V1,
    V2,
}

/// Byte streams go through an HTTP proxy to the target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tunnel {
    /// `CONNECT`, which empty is too, or `POST`.
    pub protocol: Str,
    pub target_host: Str,
    pub target_port: u16,
}

/// Replaces the policy blocks of its level for one port, wholesale.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortTrafficPolicy {
    pub port: super::virtual_service::PortSelector,
    pub load_balancer: Option<LoadBalancer>,
    pub connection_pool: Option<Box<ConnectionPool>>,
    pub outlier_detection: Option<Box<OutlierDetection>>,
    pub tls: Option<ClientTls>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancer {
    pub simple: Option<SimpleLb>,
    pub consistent_hash: Option<ConsistentHash>,
    pub locality_lb_setting: Option<LocalityLb>,
    pub zone_aware_lb_setting: Option<Box<ZoneAwareLb>>,
    /// Deprecated: `warmup.duration`.
    pub warmup_duration_secs: Option<Span>,
    pub warmup: Option<Warmup>,
    pub backend_utilization: Option<Box<BackendUtilization>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SimpleLb {
    #[default]
    Unspecified,
    LeastConn,
    Random,
    Passthrough,
    RoundRobin,
    LeastRequest,
}

impl DestinationRule {
    /// The policies of all its levels: load balancer, and whether outliers are detected.
    fn levels(&self) -> impl Iterator<Item = (Option<&LoadBalancer>, bool)> {
        let subsets = self.subsets.iter().map(|s| s.traffic_policy.as_ref());
        let policies = std::iter::once(self.traffic_policy.as_ref()).chain(subsets);
        policies.flatten().flat_map(|policy| {
            let own = (
                policy.load_balancer.as_ref(),
                policy.outlier_detection.is_some(),
            );
            let ports = policy.port_level_settings.iter();
            let ports = ports.map(|p| (p.load_balancer.as_ref(), p.outlier_detection.is_some()));
            std::iter::once(own).chain(ports)
        })
    }

    /// Whether it may matter where a client is.
    pub fn minds_localities(&self) -> bool {
        let minds = |lb: &LoadBalancer| {
            lb.locality_lb_setting.is_some() || lb.zone_aware_lb_setting.is_some()
        };
        let mut levels = self.levels();
        levels.any(|(lb, outliers)| outliers || lb.is_some_and(minds))
    }

    /// Label keys of clients that its `failoverPriority` asks for.
    pub fn priority_keys(&self) -> impl Iterator<Item = Str> {
        let balancers = self.levels().filter_map(|(lb, _)| lb);
        balancers.flat_map(|lb| {
            let of_locality = lb.locality_lb_setting.iter();
            let of_zone = lb.zone_aware_lb_setting.iter();
            let of_zone = of_zone.flat_map(|zones| locality::label_keys(&zones.failover_priority));
            of_locality.flat_map(LocalityLb::label_keys).chain(of_zone)
        })
    }
}

/// Exactly one of the keys is set (checked at decode).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsistentHash {
    pub http_header_name: Option<Str>,
    pub http_cookie: Option<HttpCookie>,
    pub use_source_ip: Option<bool>,
    pub http_query_parameter_name: Option<Str>,
    pub ring_hash: Option<RingHash>,
    pub maglev: Option<Maglev>,
    /// Older spelling of `ringHash.minimumRingSize`.
    pub minimum_ring_size: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpCookie {
    pub name: Str,
    pub path: Str,
    pub ttl: Option<Span>,
    pub attributes: Vec<CookieAttribute>,
}

/// Of the cookie that Envoy makes up, such as `SameSite=Strict`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct CookieAttribute {
    pub name: Str,
    pub value: Str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RingHash {
    pub minimum_ring_size: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Maglev {
    pub table_size: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TlsMode {
    /// Also what a `tls` block without a mode means (enum zero): mTLS off.
    #[default]
    Disable,
    Simple,
    Mutual,
    IstioMutual,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientTls {
    pub mode: TlsMode,
    pub client_certificate: Str,
    pub private_key: Str,
    pub ca_certificates: Str,
    pub ca_crl: Str,
    /// Name of a Secret in the client's own namespace.
    pub credential_name: Str,
    pub subject_alt_names: Vec<Str>,
    pub sni: Str,
    pub insecure_skip_verify: Option<bool>,
}
