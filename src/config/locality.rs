//! Where endpoints are preferred: `localityLbSetting` of DestinationRules and of the mesh, `zoneAwareLbSetting`.
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
        label_keys(&self.failover_priority)
    }
}

/// Keys of labels, each `key` or `key=value`.
pub fn label_keys(labels: &[Str]) -> impl Iterator<Item = Str> {
    let each = labels.iter();
    each.map(|text| Str::new(text.split_once('=').map_or(text.as_str(), |(key, _)| key)))
}

/// The client's own region comes first, within which Envoy weighs its zone against the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ZoneAwareLb {
    /// True unless it is said.
    pub enabled: Option<bool>,
    /// These two order the other regions.
    pub failover: Vec<Failover>,
    pub failover_priority: Vec<Str>,
    /// With fewer endpoints zones do not count; absent is Envoy's 6.
    pub min_cluster_size: Option<u32>,
}

/// Whether `region/zone/subzone`, cut short or with `*` for any, is where something is.
pub fn covers(pattern: &str, place: &Locality) -> bool {
    let mut parts = pattern.split('/').zip(place);
    parts.all(|(part, own)| part == "*" || own == part)
}
