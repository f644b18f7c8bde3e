//! WorkloadGroup: what proxies of machines that come by themselves are entered as.
//!
//! Field meaning: <https://istio.io/latest/docs/reference/config/networking/workload-group/>.

use serde::{Deserialize, Serialize};

use super::meta::Labels;
use super::workload_entry::WorkloadEntry;
use crate::text::Str;

/// The annotation of a WorkloadEntry that a proxy was entered as: its group.
pub const GROUP_ANNOTATION: Str = Str::new_static("istio.io/autoRegistrationGroup");

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkloadGroup {
    pub metadata: GroupMetadata,
    /// Its address is each proxy's own.
    pub template: WorkloadEntry,
}

/// Of every entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupMetadata {
    pub labels: Labels,
    pub annotations: Labels,
}
