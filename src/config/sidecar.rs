//! Sidecar: what a workload listens on and what it sees.
//!
//! Field meaning: <https://istio.io/latest/docs/reference/config/networking/sidecar/>.

use serde::{Deserialize, Serialize};

use super::connection_pool::ConnectionPool;
use super::gateway::ServerTls;
use super::meta::Labels;
use crate::text::Str;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Sidecar {
    pub workload_selector: Option<LabelSelector>,
    pub ingress: Vec<IngressListener>,
    pub egress: Vec<EgressListener>,
    pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    /// Of what comes to the workload, where an ingress listener says nothing else.
    pub inbound_connection_pool: Option<Box<ConnectionPool>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct LabelSelector {
    pub labels: Labels,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressListener {
    pub port: SidecarPort,
    pub bind: Str,
    pub capture_mode: CaptureMode,
    /// `127.0.0.1:port`, `0.0.0.0:port` (the workload's own address) or `unix:///path`.
    pub default_endpoint: Str,
    pub connection_pool: Option<Box<ConnectionPool>>,
    /// For clients outside of the mesh, where no policy asks for the mesh's own TLS.
    pub tls: Option<Box<ServerTls>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EgressListener {
    pub port: Option<SidecarPort>,
    pub bind: Str,
    pub capture_mode: CaptureMode,
    /// `<namespace>/<host>`, namespace one of `*`, `.`, `~`, or a name.
    pub hosts: Vec<Str>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct SidecarPort {
    pub number: u16,
    pub protocol: Str,
    pub name: Str,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum CaptureMode {
    #[default]
    Default,
    Iptables,
    None,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct OutboundTrafficPolicy {
    pub mode: OutboundMode,
}

/// A block without a mode means REGISTRY_ONLY (enum zero of Istio's Sidecar and MeshConfig).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundMode {
    #[default]
    RegistryOnly,
    AllowAny,
}
