//! ProxyConfig: what MeshConfig's `defaultConfig` and a pod's annotation `proxy.istio.io/config` say of a sidecar.
//!
//! Field meaning: <https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#ProxyConfig>.

use serde::{Deserialize, Serialize};

use super::meta::Labels;
use super::value::Span;
use crate::text::Str;

/// Only what was said: an annotation is laid over the mesh's own, and defaults come where it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyConfig {
    pub service_cluster: Option<Str>,
    pub drain_duration: Option<Span>,
    pub termination_drain_duration: Option<Span>,
    pub discovery_address: Option<Str>,
    pub proxy_admin_port: Option<u16>,
    pub status_port: Option<u16>,
    /// 0 means as many threads as the container may use processors.
    pub concurrency: Option<u32>,
    pub interception_mode: Option<InterceptionMode>,
    pub hold_application_until_proxy_starts: Option<bool>,
    /// Environment of the proxy, in Istio `ISTIO_META_…` and the like.
    pub proxy_metadata: Labels,
    pub proxy_stats_matcher: Option<StatsMatcher>,
    pub gateway_topology: Option<Topology>,
    pub image: Option<ProxyImage>,
}

/// Which of the builds of the proxy's image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyImage {
    /// Empty is what the image itself says.
    pub image_type: Str,
}

/// The builds that there are; of `default` the tag says nothing.
pub const IMAGE_TYPES: &[&str] = &["default", "debug", "distroless"];

/// What stands before the proxies at the edge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Topology {
    pub num_trusted_proxies: u32,
    pub forward_client_cert_details: ForwardClientCert,
    /// Connections begin with the PROXY protocol's header.
    pub proxy_protocol: Option<ProxyProtocol>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProxyProtocol {}

/// What becomes of `x-forwarded-client-cert` at the edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ForwardClientCert {
    /// As SANITIZE_SET.
    #[default]
    Undefined,
    Sanitize,
    ForwardOnly,
    AppendForward,
    SanitizeSet,
    AlwaysForwardOnly,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum InterceptionMode {
    Redirect,
    Tproxy,
    None,
}

/// Statistics to keep besides the usual ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatsMatcher {
    pub inclusion_prefixes: Vec<Str>,
    pub inclusion_suffixes: Vec<Str>,
    pub inclusion_regexps: Vec<Str>,
}

impl ProxyConfig {
    /// What is said here, and beneath it what `base` says. `proxyMetadata` is joined by key, as in Istio.
    pub fn over(self, base: &Self) -> Self {
        let metadata = base.proxy_metadata.clone().into_iter();
        Self {
            service_cluster: self
                .service_cluster
                .or_else(|| base.service_cluster.clone()),
            drain_duration: self.drain_duration.or(base.drain_duration),
            termination_drain_duration: self
                .termination_drain_duration
                .or(base.termination_drain_duration),
            discovery_address: self
                .discovery_address
                .or_else(|| base.discovery_address.clone()),
            proxy_admin_port: self.proxy_admin_port.or(base.proxy_admin_port),
            status_port: self.status_port.or(base.status_port),
            concurrency: self.concurrency.or(base.concurrency),
            interception_mode: self.interception_mode.or(base.interception_mode),
            hold_application_until_proxy_starts: self
                .hold_application_until_proxy_starts
                .or(base.hold_application_until_proxy_starts),
            proxy_metadata: metadata.chain(self.proxy_metadata).collect(),
            proxy_stats_matcher: self
                .proxy_stats_matcher
                .or_else(|| base.proxy_stats_matcher.clone()),
            gateway_topology: self
                .gateway_topology
                .or_else(|| base.gateway_topology.clone()),
            image: self.image.or_else(|| base.image.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_annotation_lies_over_the_meshs_own() {
        let base: ProxyConfig = serde_json::from_str(
            r#"{"concurrency": 2, "proxyMetadata": {"A": "base", "B": "base"}}"#,
        )
        .unwrap();
        let over: ProxyConfig = serde_json::from_str(
            r#"{"drainDuration": "10s", "concurrency": 0, "proxyMetadata": {"A": "pod"}}"#,
        )
        .unwrap();
        let both = over.over(&base);
        assert_eq!(both.concurrency, Some(0));
        assert_eq!(both.drain_duration.unwrap().to_string(), "10s");
        let metadata: Vec<_> = both
            .proxy_metadata
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        assert_eq!(metadata, ["A=pod", "B=base"]);
    }
}
