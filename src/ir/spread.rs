//! Which of a cluster's endpoints a client prefers for where they are.
//!
//! Shares by locality (`distribute`), or nearer ones first (`failover`, `failoverPriority`), which counts only where
//! outliers are detected, as in Istio: nobody would else notice that the nearer ones are gone.

use std::collections::BTreeMap;

use super::traffic_policy::{self, Policy};
use super::{Endpoint, LocalityEndpoints};
use crate::config::locality::{Locality, LocalityLb, ZoneAwareLb, covers};
use crate::config::mesh::MeshConfig;
use crate::config::meta::Labels;
use crate::text::Str;

/// Where a client is, with those of its labels that some `failoverPriority` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Where {
    pub locality: Locality,
    pub labels: Labels,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spread {
    /// Shares of patterns of localities, the most special first. Others get nothing.
    Shares(Vec<(Str, u32)>),
    /// Nearer ones first; of other regions this one.
    Nearest { from: Locality, then: Option<Str> },
    /// Those first that have more of these labels, in their order.
    Alike(Vec<(Str, Str)>),
    /// Its own region, then `then`, then the others: of these, those first that are more alike.
    OwnRegion {
        region: Str,
        then: Option<Str>,
        alike: Vec<(Str, Str)>,
    },
}

/// None where all are alike to the client.
pub fn of(policy: &Policy, mesh: &MeshConfig, from: Option<&Where>) -> Option<Spread> {
    let from = from?;
    let own = policy.load_balancer.as_ref();
    if let Some(zones) = own.and_then(traffic_policy::zone_aware) {
        return own_region(zones, from);
    }
    let own = own.and_then(|lb| lb.locality_lb_setting.as_ref());
    let setting = own.unwrap_or(&mesh.locality_lb_setting);
    if !setting.is_on() {
        return None;
    }
    if !setting.distribute.is_empty() {
        return shares(setting, &from.locality);
    }
    policy.outlier_detection.as_ref()?;
    if !setting.failover_priority.is_empty() {
        return Some(Spread::Alike(alike(&setting.failover_priority, from)));
    }
    let [region, ..] = &from.locality;
    let then = setting.failover.iter().find(|f| f.from == *region);
    (!region.is_empty()).then(|| Spread::Nearest {
        from: from.locality.clone(),
        then: then.map(|f| f.to.clone()),
    })
}

/// Regions come one after another even where nobody detects outliers, as in Istio.
fn own_region(zones: &ZoneAwareLb, from: &Where) -> Option<Spread> {
    let [region, ..] = &from.locality;
    let then = zones.failover.iter().find(|f| f.from == *region);
    (!region.is_empty()).then(|| Spread::OwnRegion {
        region: region.clone(),
        then: then.map(|f| f.to.clone()),
        alike: alike(&zones.failover_priority, from),
    })
}

fn shares(setting: &LocalityLb, from: &Locality) -> Option<Spread> {
    let [region, ..] = from;
    let mut fitting = setting.distribute.iter();
    let fitting = fitting.find(|d| !region.is_empty() && covers(&d.from, from))?;
    let mut shares: Vec<(Str, u32)> = fitting.to.iter().map(|(k, v)| (k.clone(), *v)).collect();
    let special = |pattern: &Str| {
        let parts = pattern.split('/').filter(|part| *part != "*");
        std::cmp::Reverse(parts.count())
    };
    shares.sort_by_key(|(pattern, _)| (special(pattern), pattern.clone()));
    Some(Spread::Shares(shares))
}

/// The node that something is on, and the cluster, count as labels of these names, as in Istio.
pub const NODE: &str = "kubernetes.io/hostname";
pub const CLUSTER: &str = "topology.istio.io/cluster";

/// A label without a value is to be as the client's. All endpoints are of the client's own cluster: it tells none apart,
/// and another has none.
fn alike(labels: &[Str], from: &Where) -> Vec<(Str, Str)> {
    let mut out = Vec::new();
    for text in labels {
        let (key, stated) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (text.as_str(), None),
        };
        let node = from.labels.get(NODE).map_or("", Str::as_str);
        let own = value(key, &from.locality, &from.labels, node);
        match stated {
            Some(other) if key == CLUSTER && other != own => break,
            _ if key == CLUSTER => {}
            stated => out.push((Str::new(key), Str::new(stated.unwrap_or(own)))),
        }
    }
    out
}

/// Where something is counts as labels of its own, as in Istio.
fn value<'a>(key: &str, locality: &'a Locality, labels: &'a Labels, node: &'a str) -> &'a str {
    let [region, zone, subzone] = locality;
    match key {
        "topology.kubernetes.io/region" => region,
        "topology.kubernetes.io/zone" => zone,
        "topology.istio.io/subzone" => subzone,
        NODE if !node.is_empty() => node,
        key => labels.get(key).map_or("", Str::as_str),
    }
}

/// An endpoint with what of it decides its place.
pub struct Placed<'a> {
    pub locality: &'a Locality,
    pub labels: &'a Labels,
    /// Empty unless the spread minds nodes.
    pub node: Str,
    pub endpoint: Endpoint,
}

/// Endpoints by locality, and where something is preferred by how much.
pub fn grouped(spread: Option<&Spread>, placed: Vec<Placed<'_>>) -> Vec<LocalityEndpoints> {
    let mut groups: BTreeMap<(u32, &Locality), Vec<Endpoint>> = BTreeMap::new();
    for one in placed {
        let priority = spread.map_or(0, |spread| spread.priority(&one));
        groups
            .entry((priority, one.locality))
            .or_default()
            .push(one.endpoint);
    }
    // Envoy wants them without gaps.
    let mut ranks: Vec<u32> = groups.keys().map(|(priority, _)| *priority).collect();
    ranks.dedup();
    let rank = |priority| ranks.iter().position(|rank| *rank == priority).unwrap_or(0);
    let mut out: Vec<LocalityEndpoints> = groups
        .into_iter()
        .map(|((priority, locality), endpoints)| LocalityEndpoints {
            locality: locality.clone(),
            priority: rank(priority) as u32,
            share: None,
            endpoints,
        })
        .collect();
    if let Some(Spread::Shares(shares)) = spread {
        share_out(shares, &mut out);
    }
    out
}

impl Spread {
    /// Whether it matters on which node an endpoint is.
    pub fn minds_nodes(&self) -> bool {
        match self {
            Self::Shares(_) | Self::Nearest { .. } => false,
            Self::Alike(alike) | Self::OwnRegion { alike, .. } => {
                alike.iter().any(|(key, _)| key == NODE)
            }
        }
    }

    fn priority(&self, one: &Placed<'_>) -> u32 {
        let locality = one.locality;
        match self {
            Self::Shares(_) => 0,
            Self::Nearest { from, then } => {
                let same = from
                    .iter()
                    .zip(locality)
                    .take_while(|(a, b)| a == b)
                    .count();
                match (same, then) {
                    (0, Some(region)) if locality[0] != *region => 4,
                    (same, _) => 3 - same as u32,
                }
            }
            Self::Alike(wanted) => lacking(wanted, one),
            Self::OwnRegion {
                region,
                then,
                alike,
            } => {
                if locality[0] == *region {
                    return 0;
                }
                let tiers = alike.len() as u32 + 1;
                let first = then.as_ref().is_none_or(|then| locality[0] == *then);
                let before = if first { 1 } else { 1 + tiers };
                before + lacking(alike, one)
            }
        }
    }
}

/// How many of these labels, in their order, something has not.
fn lacking(wanted: &[(Str, Str)], one: &Placed<'_>) -> u32 {
    let has = |(key, wanted): &&(Str, Str)| {
        value(key, one.locality, one.labels, &one.node) == wanted.as_str()
    };
    let shared = wanted.iter().take_while(has).count();
    (wanted.len() - shared) as u32
}

/// What several localities have of one pattern they share by their endpoints' weights; what none has is lost, and
/// localities of no pattern get nothing.
fn share_out(shares: &[(Str, u32)], groups: &mut Vec<LocalityEndpoints>) {
    let mut taken = vec![false; groups.len()];
    let weigh = |group: &LocalityEndpoints| -> u64 {
        group.endpoints.iter().map(|e| u64::from(e.weight)).sum()
    };
    let weights: Vec<u64> = groups.iter().map(weigh).collect();
    for (pattern, share) in shares {
        let fits = |at: &usize| !taken[*at] && covers(pattern, &groups[*at].locality);
        let own: Vec<usize> = (0..groups.len()).filter(fits).collect();
        let total: u64 = own.iter().map(|at| weights[*at]).sum();
        for at in own {
            taken[at] = true;
            let part = (u64::from(*share) * weights[at]).div_ceil(total.max(1));
            groups[at].share = Some(part as u32);
        }
    }
    groups.retain(|group| group.share.is_some());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Address, Health, TlsMode};

    fn locality(text: &str) -> Locality {
        let mut parts = text.split('/').map(Str::new);
        std::array::from_fn(|_| parts.next().unwrap_or_default())
    }

    fn endpoint(n: u8) -> Endpoint {
        Endpoint {
            address: Address::Ip([10, 0, 0, n].into(), 80),
            health: Health::Healthy,
            weight: 1,
            tls_mode: TlsMode::Disabled,
            workload: Str::default(),
        }
    }

    fn groups(spread: &Spread, places: &[&str]) -> Vec<(String, u32, Option<u32>, usize)> {
        let localities: Vec<Locality> = places.iter().map(|text| locality(text)).collect();
        let none = Labels::new();
        let placed = localities.iter().zip(1..);
        let placed = placed.map(|(locality, n)| Placed {
            locality,
            labels: &none,
            node: Str::default(),
            endpoint: endpoint(n),
        });
        let placed = placed.collect();
        let line = |g: LocalityEndpoints| {
            let count = g.endpoints.len();
            (g.locality.join("/"), g.priority, g.share, count)
        };
        grouped(Some(spread), placed)
            .into_iter()
            .map(line)
            .collect()
    }

    #[test]
    fn the_nearest_come_first_without_gaps() {
        let spread = Spread::Nearest {
            from: locality("r/z/s"),
            then: Some("eu".into()),
        };
        let found = groups(&spread, &["us/z/s", "r/z/other", "eu/a/b", "r/z/s"]);
        let ranks: Vec<(&str, u32)> = found.iter().map(|(l, p, ..)| (l.as_str(), *p)).collect();
        assert_eq!(
            ranks,
            [("r/z/s", 0), ("r/z/other", 1), ("eu/a/b", 2), ("us/z/s", 3)]
        );
    }

    #[test]
    fn the_own_region_comes_first_as_a_whole_and_the_others_in_their_order() {
        let spread = Spread::OwnRegion {
            region: "r".into(),
            then: Some("eu".into()),
            alike: vec![("topology.kubernetes.io/zone".into(), "z".into())],
        };
        let places = ["us/z/s", "us/y/s", "r/z/s", "r/y/s", "eu/y/s", "eu/z/s"];
        let found = groups(&spread, &places);
        let ranks: Vec<(&str, u32)> = found.iter().map(|(l, p, ..)| (l.as_str(), *p)).collect();
        let expected = [
            ("r/y/s", 0),
            ("r/z/s", 0),
            ("eu/z/s", 1),
            ("eu/y/s", 2),
            ("us/z/s", 3),
            ("us/y/s", 4),
        ];
        assert_eq!(ranks, expected);
    }

    #[test]
    fn a_cluster_tells_nothing_apart_and_after_another_one_nothing_counts() {
        let labels = Labels::from([(CLUSTER.into(), "east".into()), (NODE.into(), "n1".into())]);
        let from = Where {
            locality: locality("r/z/s"),
            labels,
        };
        let of = |labels: &[&str]| {
            let labels: Vec<Str> = labels.iter().map(Str::new).collect();
            let found = alike(&labels, &from);
            let lines = found.iter().map(|(key, value)| format!("{key}={value}"));
            lines.collect::<Vec<_>>()
        };
        let node = "kubernetes.io/hostname=n1";
        assert_eq!(of(&[CLUSTER, NODE]), [node]);
        assert_eq!(of(&["topology.istio.io/cluster=east", NODE]), [node]);
        let other = ["a=b", "topology.istio.io/cluster=west", NODE];
        assert_eq!(of(&other), ["a=b"]);
    }

    #[test]
    fn shares_go_to_their_localities_and_others_get_nothing() {
        let spread = Spread::Shares(vec![("r/z/*".into(), 70), ("r2/*".into(), 30)]);
        let found = groups(&spread, &["r/z/a", "r/z/b", "r/y/a", "r2/z/a"]);
        let shares: Vec<_> = found
            .iter()
            .map(|(l, _, s, n)| (l.as_str(), *s, *n))
            .collect();
        assert_eq!(
            shares,
            [
                ("r/z/a", Some(35), 1),
                ("r/z/b", Some(35), 1),
                ("r2/z/a", Some(30), 1)
            ]
        );
    }
}
