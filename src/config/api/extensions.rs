//! <https://istio.io/latest/docs/reference/config/proxy_extensions/>

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Anything, List, Text};

use super::common::{PluginPhase, TargetReference, TrafficSelector, WorkloadSelector};

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WasmPlugin {
    pub selector: Option<WorkloadSelector>,
    pub target_ref: Option<TargetReference>,
    pub target_refs: Option<List<TargetReference>>,
    pub url: Option<Text>,
    pub sha256: Option<Text>,
    pub image_pull_policy: Option<PullPolicy>,
    pub image_pull_secret: Option<Text>,
    pub verification_key: Option<Text>,
    pub plugin_config: Option<Anything>,
    pub plugin_name: Option<Text>,
    pub phase: Option<WasmPhase>,
    pub priority: Option<i32>,
    pub fail_strategy: Option<FailStrategy>,
    pub vm_config: Option<VmConfig>,
    #[serde(rename = "match")]
    pub matches: Option<List<TrafficSelector>>,
    #[serde(rename = "type")]
    pub kind: Option<PluginType>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum WasmPhase {
    #[serde(rename = "UNSPECIFIED_PHASE")]
    UnspecifiedPhase,
    #[serde(rename = "AUTHN")]
    Authn,
    #[serde(rename = "AUTHZ")]
    Authz,
    #[serde(rename = "STATS")]
    Stats,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum PullPolicy {
    #[serde(rename = "UNSPECIFIED_POLICY")]
    UnspecifiedPolicy,
    #[serde(rename = "IfNotPresent")]
    IfNotPresent,
    #[serde(rename = "Always")]
    Always,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum FailStrategy {
    #[serde(rename = "FAIL_CLOSE")]
    FailClose,
    #[serde(rename = "FAIL_OPEN")]
    FailOpen,
    #[serde(rename = "FAIL_RELOAD")]
    FailReload,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum PluginType {
    #[serde(rename = "UNSPECIFIED_PLUGIN_TYPE")]
    UnspecifiedPluginType,
    #[serde(rename = "HTTP")]
    Http,
    #[serde(rename = "NETWORK")]
    Network,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VmConfig {
    pub env: Option<List<EnvVar>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    pub name: Option<Text>,
    pub value_from: Option<EnvValueSource>,
    pub value: Option<Text>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum EnvValueSource {
    #[serde(rename = "INLINE")]
    Inline,
    #[serde(rename = "HOST")]
    Host,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrafficExtension {
    pub selector: Option<WorkloadSelector>,
    pub target_refs: Option<List<TargetReference>>,
    pub phase: Option<PluginPhase>,
    pub priority: Option<i32>,
    #[serde(rename = "match")]
    pub matches: Option<List<TrafficSelector>>,
    pub wasm: Option<WasmConfig>,
    pub lua: Option<LuaConfig>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WasmConfig {
    pub url: Option<Text>,
    pub sha256: Option<Text>,
    pub image_pull_policy: Option<PullPolicy>,
    pub image_pull_secret: Option<Text>,
    pub verification_key: Option<Text>,
    pub plugin_config: Option<Anything>,
    pub plugin_name: Option<Text>,
    pub fail_strategy: Option<FailStrategy>,
    pub vm_config: Option<VmConfig>,
    #[serde(rename = "type")]
    pub kind: Option<PluginType>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LuaConfig {
    pub inline_code: Option<Text>,
}
