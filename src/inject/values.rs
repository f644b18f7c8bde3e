//! The ConfigMap `istio-sidecar-injector`: its keys `config` and `values`, by Istio's names.
//!
//! `values` are those of the Helm chart, as far as injection reads them; others may stand there.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::config::meta::Labels;
use crate::text::Str;

/// Key `config`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Injector {
    pub policy: Policy,
    /// Laid over every injected pod, in this order, unless its annotation `inject.istio.io/templates` says
    /// which. `sidecar` and `gateway` are what Fairlead makes itself.
    pub default_templates: Vec<Str>,
    /// By name: a part of a pod as YAML, merged as `kubectl patch` does (lists by their key).
    pub templates: BTreeMap<Str, Overlay>,
    pub never_inject_selector: Vec<LabelSelector>,
    pub always_inject_selector: Vec<LabelSelector>,
    pub injected_annotations: Labels,
}

/// What holds where neither the pod nor a selector says anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Policy {
    #[default]
    Enabled,
    Disabled,
}

/// YAML inside YAML, as in Istio, or a tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Overlay(Value);

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    pub match_labels: Labels,
    pub match_expressions: Vec<LabelExpression>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct LabelExpression {
    pub key: Str,
    pub operator: Operator,
    #[serde(default)]
    pub values: Vec<Str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

/// Key `values`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Values {
    pub global: Global,
    pub sidecar_injector_webhook: Webhook,
    pub pilot: Pilot,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Global {
    pub hub: Str,
    pub tag: Tag,
    pub istio_namespace: Str,
    pub image_pull_policy: Str,
    pub image_pull_secrets: Vec<Str>,
    pub ca_address: Str,
    pub remote_pilot_address: Str,
    pub multi_cluster: MultiCluster,
    pub native_nftables: bool,
    pub proxy: Proxy,
    #[serde(rename = "proxy_init")]
    pub proxy_init: ProxyInit,
    pub sds: Sds,
}

/// `tag: 1.2` is a number in YAML.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Tag {
    #[default]
    None,
    Text(Str),
    Number(serde_json::Number),
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MultiCluster {
    pub cluster_name: Str,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Proxy {
    pub image: Str,
    pub cluster_domain: Str,
    pub log_level: Str,
    pub component_log_level: Str,
    /// Absent means all.
    #[serde(rename = "includeIPRanges")]
    pub include_ip_ranges: Option<Str>,
    #[serde(rename = "excludeIPRanges")]
    pub exclude_ip_ranges: Str,
    pub include_inbound_ports: Option<Str>,
    pub exclude_inbound_ports: Str,
    pub include_outbound_ports: Str,
    pub exclude_outbound_ports: Str,
    pub resources: Value,
    pub status_port: u16,
    pub readiness_initial_delay_seconds: u32,
    pub readiness_period_seconds: u32,
    pub readiness_failure_threshold: u32,
    pub startup_probe: StartupProbe,
    pub hold_application_until_proxy_starts: bool,
    pub privileged: bool,
    pub seccomp_profile: Value,
    pub lifecycle: Value,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StartupProbe {
    pub enabled: bool,
    pub failure_threshold: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyInit {
    pub image: Str,
    pub resources: Value,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Sds {
    pub token: Token,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct Token {
    pub aud: Str,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct Webhook {
    #[serde(rename = "rewriteAppHTTPProbe")]
    pub rewrite_app_http_probe: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Pilot {
    pub cni: Cni,
    pub env: BTreeMap<Str, Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Cni {
    pub enabled: bool,
}

/// A ConfigMap that cannot be read; what was read before stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {why}")]
pub struct ValuesError {
    /// `config` or `values`.
    pub key: &'static str,
    pub why: String,
}

/// The Envoy that the rest is proven on, in the form without a shell.
pub const ENVOY_IMAGE: &str = "envoyproxy/envoy:distroless-v1.40.0";

impl Injector {
    pub fn parse(text: &str) -> Result<Self, ValuesError> {
        parse("config", text)
    }
}

impl Values {
    pub fn parse(text: &str) -> Result<Self, ValuesError> {
        parse("values", text)
    }
}

fn parse<T: for<'de> Deserialize<'de> + Default>(
    key: &'static str,
    text: &str,
) -> Result<T, ValuesError> {
    if text.trim().is_empty() {
        return Ok(T::default());
    }
    serde_saphyr::from_str(text).map_err(|e| ValuesError {
        key,
        why: e.to_string(),
    })
}

impl<'de> Deserialize<'de> for Overlay {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let tree = match Value::deserialize(d)? {
            Value::String(text) => serde_saphyr::from_str(&text)
                .map_err(|e| serde::de::Error::custom(format!("this is no YAML: {e}")))?,
            tree => tree,
        };
        match tree.is_object() {
            true => Ok(Self(tree)),
            false => Err(serde::de::Error::custom(
                "a template is a part of a pod, an object",
            )),
        }
    }
}

impl Overlay {
    /// A part of a pod: an object.
    pub fn part(&self) -> &Value {
        &self.0
    }
}

impl LabelSelector {
    /// As in Kubernetes: all of it holds; an empty one holds for none here, as in Istio's injector.
    pub fn matches(&self, labels: &Labels) -> bool {
        let empty = self.match_labels.is_empty() && self.match_expressions.is_empty();
        !empty
            && self
                .match_labels
                .iter()
                .all(|(k, v)| labels.get(k) == Some(v))
            && self.match_expressions.iter().all(|e| e.holds(labels))
    }
}

impl LabelExpression {
    fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let listed = value.is_some_and(|v| self.values.contains(v));
        match self.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl Global {
    /// An image by its whole name, or a name of the chart's hub and tag.
    pub fn image(&self, image: &str) -> Str {
        if image.contains(['/', ':']) || self.hub.is_empty() {
            return Str::new(image);
        }
        let tag = match &self.tag {
            Tag::None => return Str::new(format!("{}/{image}", self.hub)),
            Tag::Text(tag) => tag.to_string(),
            Tag::Number(tag) => tag.to_string(),
        };
        Str::new(format!("{}/{image}:{tag}", self.hub))
    }
}

impl Default for Global {
    fn default() -> Self {
        Self {
            hub: Str::default(),
            tag: Tag::None,
            istio_namespace: Str::new_static("istio-system"),
            image_pull_policy: Str::default(),
            image_pull_secrets: Vec::new(),
            ca_address: Str::default(),
            remote_pilot_address: Str::default(),
            multi_cluster: MultiCluster::default(),
            native_nftables: false,
            proxy: Proxy::default(),
            proxy_init: ProxyInit::default(),
            sds: Sds::default(),
        }
    }
}

impl Default for MultiCluster {
    fn default() -> Self {
        Self {
            cluster_name: Str::new_static("Kubernetes"),
        }
    }
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            image: Str::new_static(ENVOY_IMAGE),
            cluster_domain: Str::new_static("cluster.local"),
            log_level: Str::new_static("warning"),
            component_log_level: Str::new_static("misc:error"),
            include_ip_ranges: None,
            exclude_ip_ranges: Str::default(),
            include_inbound_ports: None,
            exclude_inbound_ports: Str::default(),
            include_outbound_ports: Str::default(),
            exclude_outbound_ports: Str::default(),
            resources: serde_json::json!({
                "requests": {"cpu": "100m", "memory": "128Mi"},
                "limits": {"cpu": "2000m", "memory": "1024Mi"},
            }),
            status_port: 15020,
            readiness_initial_delay_seconds: 0,
            readiness_period_seconds: 15,
            readiness_failure_threshold: 4,
            startup_probe: StartupProbe::default(),
            hold_application_until_proxy_starts: false,
            privileged: false,
            seccomp_profile: Value::Null,
            lifecycle: Value::Null,
        }
    }
}

impl Default for StartupProbe {
    fn default() -> Self {
        Self {
            enabled: true,
            failure_threshold: 600,
        }
    }
}

impl Default for Token {
    fn default() -> Self {
        Self {
            aud: Str::new_static("istio-ca"),
        }
    }
}

impl Default for Webhook {
    fn default() -> Self {
        Self {
            rewrite_app_http_probe: true,
        }
    }
}
