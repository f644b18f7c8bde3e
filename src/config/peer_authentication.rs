//! PeerAuthentication: which mTLS mode a workload's ports accept.
//!
//! Field meaning: <https://istio.io/latest/docs/reference/config/security/peer_authentication/>.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::destination_rule::WorkloadSelector;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PeerAuthentication {
    /// One without labels selects as none does, as in Istio: it is absent here.
    #[serde(deserialize_with = "selecting")]
    pub selector: Option<WorkloadSelector>,
    pub mtls: Option<MutualTls>,
    /// By workload (target) port, not service port.
    pub port_level_mtls: BTreeMap<u16, MutualTls>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct MutualTls {
    pub mode: MtlsMode,
}

#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MtlsMode {
    /// Inherits from the level above.
    #[default]
    Unset,
    Disable,
    Permissive,
    Strict,
}

fn selecting<'de, D: Deserializer<'de>>(from: D) -> Result<Option<WorkloadSelector>, D::Error> {
    let selector = Option::<WorkloadSelector>::deserialize(from)?;
    Ok(selector.filter(|s| !s.match_labels.is_empty()))
}
