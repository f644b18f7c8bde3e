//! MeshConfig, as far as it is acted on. Defaults are applied here, once.
//!
//! Field meaning: <https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/>.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ingress::IngressMode;
use super::locality::LocalityLb;
use super::proxy_config::ProxyConfig;
use super::sidecar::{OutboundMode, OutboundTrafficPolicy};
use super::value::Span;
use super::virtual_service::HttpRetry;
use crate::text::Str;

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshConfig {
    pub connect_timeout: Span,
    /// 0 waits for ever.
    pub protocol_detection_timeout: Span,
    pub outbound_traffic_policy: OutboundTrafficPolicy,
    pub enable_auto_mtls: bool,
    pub trust_domain: Str,
    pub trust_domain_aliases: Vec<Str>,
    pub root_namespace: Str,
    pub default_service_export_to: Vec<Str>,
    pub default_virtual_service_export_to: Vec<Str>,
    pub default_destination_rule_export_to: Vec<Str>,
    pub default_http_retry_policy: Option<HttpRetry>,
    pub default_config: ProxyConfig,
    pub enable_prometheus_merge: bool,
    pub locality_lb_setting: LocalityLb,
    /// The class of Ingresses that are the mesh's, by their annotation.
    pub ingress_class: Str,
    pub ingress_controller_mode: IngressMode,
    /// In the root namespace: what stands before the proxies that serve Ingresses.
    pub ingress_service: Str,
    /// Their label `istio`; empty is the Service's name.
    pub ingress_selector: Str,
    pub access_log_file: Str,
    /// Empty means Istio's default text format.
    pub access_log_format: Str,
}

/// Whether Prometheus finds the proxy's statistics and the application's on one page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrometheusMerge {
    #[default]
    On,
    Off,
}

impl MeshConfig {
    pub fn prometheus_merge(&self) -> PrometheusMerge {
        match self.enable_prometheus_merge {
            true => PrometheusMerge::On,
            false => PrometheusMerge::Off,
        }
    }
}

impl Default for MeshConfig {
    fn default() -> Self {
        let everywhere = || vec![Str::new_static("*")];
        Self {
            connect_timeout: Span(Duration::from_secs(10)),
            protocol_detection_timeout: Span(Duration::ZERO),
            outbound_traffic_policy: OutboundTrafficPolicy {
                mode: OutboundMode::AllowAny,
            },
            enable_auto_mtls: true,
            trust_domain: Str::new_static("cluster.local"),
            trust_domain_aliases: Vec::new(),
            root_namespace: Str::new_static("istio-system"),
            default_service_export_to: everywhere(),
            default_virtual_service_export_to: everywhere(),
            default_destination_rule_export_to: everywhere(),
            default_http_retry_policy: None,
            default_config: ProxyConfig::default(),
            enable_prometheus_merge: true,
            locality_lb_setting: LocalityLb::default(),
            ingress_class: Str::new_static("istio"),
            ingress_controller_mode: IngressMode::Strict,
            ingress_service: Str::new_static("istio-ingressgateway"),
            ingress_selector: Str::default(),
            access_log_file: Str::default(),
            access_log_format: Str::default(),
        }
    }
}
