//! <https://istio.io/latest/docs/reference/config/networking/sidecar/>

use schemars::JsonSchema;
use serde::Deserialize;

use super::{List, Text};

use super::common::{ConnectionPool, Destination, LabelsSelector, Port, ServerTls};

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sidecar {
    pub workload_selector: Option<LabelsSelector>,
    pub ingress: Option<List<IngressListener>>,
    pub egress: Option<List<EgressListener>>,
    pub inbound_connection_pool: Option<ConnectionPool>,
    pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngressListener {
    pub port: Option<Port>,
    pub bind: Option<Text>,
    pub capture_mode: Option<CaptureMode>,
    pub default_endpoint: Option<Text>,
    pub tls: Option<ServerTls>,
    pub connection_pool: Option<ConnectionPool>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressListener {
    pub port: Option<Port>,
    pub bind: Option<Text>,
    pub capture_mode: Option<CaptureMode>,
    pub hosts: Option<List<Text>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum CaptureMode {
    #[serde(rename = "DEFAULT")]
    Default,
    #[serde(rename = "IPTABLES")]
    Iptables,
    #[serde(rename = "NONE")]
    None,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutboundTrafficPolicy {
    pub mode: Option<OutboundMode>,
    pub egress_proxy: Option<Destination>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum OutboundMode {
    #[serde(rename = "REGISTRY_ONLY")]
    RegistryOnly,
    #[serde(rename = "ALLOW_ANY")]
    AllowAny,
}
