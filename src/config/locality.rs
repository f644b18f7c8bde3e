//! Where endpoints are preferred: `localityLbSetting` of DestinationRules and of the mesh.
//!
//! <https://istio.io/latest/docs/reference/config/networking/destination-rule/#LocalityLoadBalancerSetting>

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::text::Str;

/// region, zone, subzone; what is not known is empty.
pub type Locality = [Str; 3];

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityLb {
    /// True unless it is said.
    pub enabled: Option<bool>,
    pub distribute: Vec<Distribute>,
    pub failover: Vec<Failover>,
    /// Labels, each `key` or `key=value`, that an endpoint has to share; the first counts most.
    pub failover_priority: Vec<Str>,
}

/// Of what clients in `from` call, so many of a hundred go to each locality.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Distribute {
    pub from: Str,
    pub to: BTreeMap<Str, u32>,
}

/// Of other regions, this one comes first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Failover {
    pub from: Str,
    pub to: Str,
}

impl LocalityLb {
    pub fn is_on(&self) -> bool {
        self.enabled.unwrap_or(true)
    }

    /// The keys of `failoverPriority`.
    pub fn label_keys(&self) -> impl Iterator<Item = Str> {
        let each = self.failover_priority.iter();
        each.map(|text| Str::new(text.split_once('=').map_or(text.as_str(), |(key, _)| key)))
    }
}

/// Whether `region/zone/subzone`, cut short or with `*` for any, is where something is.
pub fn covers(pattern: &str, place: &Locality) -> bool {
    let mut parts = pattern.split('/').zip(place);
    parts.all(|(part, own)| part == "*" || own == part)
}
