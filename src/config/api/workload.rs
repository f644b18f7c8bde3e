//! WorkloadEntry, WorkloadGroup, and the ProxyConfig of workloads.
//!
//! <https://istio.io/latest/docs/reference/config/networking/workload-group/>

use schemars::JsonSchema;
use serde::Deserialize;

use super::{List, Map, Text};

use super::common::{Pair, WorkloadSelector};

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadEntry {
    pub address: Option<Text>,
    pub ports: Option<Map<u32>>,
    pub labels: Option<Map<Text>>,
    pub network: Option<Text>,
    pub locality: Option<Text>,
    pub weight: Option<u32>,
    pub service_account: Option<Text>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadGroup {
    pub metadata: Option<WorkloadMetadata>,
    pub template: Option<WorkloadEntry>,
    pub probe: Option<ReadinessProbe>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadMetadata {
    pub labels: Option<Map<Text>>,
    pub annotations: Option<Map<Text>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReadinessProbe {
    pub initial_delay_seconds: Option<i32>,
    pub timeout_seconds: Option<i32>,
    pub period_seconds: Option<i32>,
    pub success_threshold: Option<i32>,
    pub failure_threshold: Option<i32>,
    pub http_get: Option<HttpProbe>,
    pub tcp_socket: Option<TcpProbe>,
    pub exec: Option<ExecProbe>,
    pub grpc: Option<GrpcProbe>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpProbe {
    pub path: Option<Text>,
    pub port: Option<u32>,
    pub host: Option<Text>,
    pub scheme: Option<Text>,
    pub http_headers: Option<List<Pair>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpProbe {
    pub host: Option<Text>,
    pub port: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecProbe {
    pub command: Option<List<Text>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrpcProbe {
    pub port: Option<u32>,
    pub service: Option<Text>,
}

/// A kind of its own; MeshConfig's `defaultConfig` is another message of the same name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyConfig {
    pub selector: Option<WorkloadSelector>,
    pub concurrency: Option<i32>,
    pub environment_variables: Option<Map<Text>>,
    pub image: Option<ProxyImage>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyImage {
    pub image_type: Option<Text>,
}
