//! ServiceEntry: hosts that Kubernetes does not know, inside the mesh and outside.
//!
//! Field meaning: <https://istio.io/latest/docs/reference/config/networking/service-entry/>.

use serde::{Deserialize, Serialize};

use super::meta::Labels;
use super::workload_entry::WorkloadEntry;
use crate::text::Str;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceEntry {
    pub hosts: Vec<Str>,
    /// IP addresses and CIDR ranges by which the hosts are called.
    pub addresses: Vec<Str>,
    pub ports: Vec<EntryPort>,
    pub location: Location,
    pub resolution: Resolution,
    pub endpoints: Vec<WorkloadEntry>,
    pub workload_selector: Option<Selector>,
    pub export_to: Vec<Str>,
    pub subject_alt_names: Vec<Str>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EntryPort {
    pub number: u16,
    pub protocol: Str,
    pub name: Str,
    /// Absent is the number itself.
    pub target_port: Option<u16>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Selector {
    pub labels: Labels,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Location {
    /// Without identities of the mesh: no mTLS.
    #[default]
    #[serde(rename = "MESH_EXTERNAL")]
    External,
    #[serde(rename = "MESH_INTERNAL")]
    Internal,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resolution {
    /// To where the client was calling.
    #[default]
    #[serde(rename = "NONE")]
    None,
    /// To the endpoints' addresses.
    #[serde(rename = "STATIC")]
    Static,
    /// To all addresses of the endpoints' names, or of the host's.
    #[serde(rename = "DNS")]
    Dns,
    /// To the first of them, for new connections alone.
    #[serde(rename = "DNS_ROUND_ROBIN")]
    DnsRoundRobin,
    /// To the address of whatever name under a wildcard was called.
    #[serde(rename = "DYNAMIC_DNS")]
    DynamicDns,
}
