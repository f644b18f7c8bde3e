//! WorkloadEntry: a workload that is no pod.
//!
//! Field meaning: <https://istio.io/latest/docs/reference/config/networking/workload-entry/>.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::meta::Labels;
use crate::text::Str;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadEntry {
    /// An IP address or `unix:///path`.
    pub address: Str,
    /// Port name → number; overrides a Service's target port of that name.
    pub ports: BTreeMap<Str, u16>,
    pub labels: Labels,
    pub network: Str,
    /// `region/zone/subzone`.
    pub locality: Str,
    pub weight: u32,
    pub service_account: Str,
}
