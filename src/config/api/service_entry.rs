//! <https://istio.io/latest/docs/reference/config/networking/service-entry/>

use schemars::JsonSchema;
use serde::Deserialize;

use super::{List, Text};

use super::common::{LabelsSelector, Port};

use super::workload::WorkloadEntry;

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceEntry {
    pub hosts: Option<List<Text>>,
    pub addresses: Option<List<Text>>,
    pub ports: Option<List<Port>>,
    pub location: Option<Location>,
    pub resolution: Option<Resolution>,
    pub endpoints: Option<List<WorkloadEntry>>,
    pub workload_selector: Option<LabelsSelector>,
    pub export_to: Option<List<Text>>,
    pub subject_alt_names: Option<List<Text>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Location {
    #[serde(rename = "MESH_EXTERNAL")]
    MeshExternal,
    #[serde(rename = "MESH_INTERNAL")]
    MeshInternal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Resolution {
    #[serde(rename = "NONE")]
    None,
    #[serde(rename = "STATIC")]
    Static,
    #[serde(rename = "DNS")]
    Dns,
    #[serde(rename = "DNS_ROUND_ROBIN")]
    DnsRoundRobin,
    #[serde(rename = "DYNAMIC_DNS")]
    DynamicDns,
}
