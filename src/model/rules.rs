//! DestinationRules: which of them a client's calls to a host obey.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::services::Service;
use crate::config::destination_rule::{DestinationRule, Subset, TrafficPolicy};
use crate::config::meta::{ExportTo, Labels, Meta, selects};
use crate::config::{Key, Object};
use crate::text::{Hostname, Str};

#[derive(Debug)]
struct Rule {
    key: Key,
    meta: Meta,
    host: Hostname,
    export_to: ExportTo,
    spec: Arc<DestinationRule>,
}

/// The rules of one host that a client obeys, oldest first. Equal only if they are the same versions.
#[derive(Clone, Debug)]
pub struct Obeyed(Box<[Arc<Rule>]>);

impl PartialEq for Obeyed {
    fn eq(&self, other: &Self) -> bool {
        let same = |(a, b): (&Arc<Rule>, &Arc<Rule>)| Arc::ptr_eq(a, b);
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(same)
    }
}

/// The rules of one host and namespace as one: subsets together, the policy of the oldest that has one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Merged {
    pub policy: Option<(TrafficPolicy, Key)>,
    pub subsets: Vec<Defined>,
    /// Whether it chooses its clients (`workloadSelector`).
    pub chosen: bool,
}

/// A subset, and where its rule has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Defined {
    pub subset: Subset,
    pub key: Key,
    /// Its place in that rule's own list.
    pub index: usize,
}

#[derive(Clone, Debug, Default)]
pub struct Rules {
    by_namespace: BTreeMap<Str, BTreeMap<Hostname, Vec<Arc<Rule>>>>,
    hosts: BTreeMap<Key, Hostname>,
    /// Rules for which it may matter where a client is, with the label keys that they ask for.
    minding: BTreeMap<Key, Vec<Str>>,
    /// Label keys by which rules choose their clients.
    choosing: BTreeMap<Key, Vec<Str>>,
}

/// Which rules of a namespace a lookup may use.
#[derive(Clone, Copy, PartialEq)]
enum Reach {
    /// The client's own namespace: all.
    Own,
    /// The root namespace's own clients: its rules for the mesh are none for them, at first.
    Private,
    /// Only what is exported beyond its namespace.
    Exported,
}

impl Rules {
    /// The hosts whose calls change: before and after.
    pub(super) fn set(
        &mut self,
        key: &Key,
        rule: Option<(&Object, &DestinationRule)>,
        domain: &str,
        default_export: &[Str],
    ) -> Vec<Hostname> {
        let mut touched: Vec<Hostname> = self.hosts.remove(key).into_iter().collect();
        self.minding.remove(key);
        self.choosing.remove(key);
        let of_namespace = self.by_namespace.entry(key.namespace.clone()).or_default();
        for host in &touched {
            if let Some(rules) = of_namespace.get_mut(host) {
                rules.retain(|r| r.key != *key);
                if rules.is_empty() {
                    of_namespace.remove(host);
                }
            }
        }
        let Some((object, spec)) = rule else {
            return touched;
        };
        let Ok(host) = Hostname::expand(&spec.host, &key.namespace, domain) else {
            return touched;
        };
        let export = if spec.export_to.is_empty() {
            default_export
        } else {
            &spec.export_to
        };
        let rules = of_namespace.entry(host.clone()).or_default();
        rules.push(Arc::new(Rule {
            key: key.clone(),
            meta: object.meta.clone(),
            host: host.clone(),
            export_to: ExportTo::of(export, &key.namespace),
            spec: Arc::new(spec.clone()),
        }));
        rules.sort_by(|a, b| a.meta.age().cmp(&b.meta.age()));
        self.hosts.insert(key.clone(), host.clone());
        if let Some(chosen) = &spec.workload_selector {
            let keys = chosen.match_labels.keys().cloned();
            self.choosing.insert(key.clone(), keys.collect());
        }
        if spec.minds_localities() {
            self.minding
                .insert(key.clone(), spec.priority_keys().collect());
        }
        touched.push(host);
        touched
    }

    /// Whether it may matter to some rule where a client is, and which of its labels then do.
    pub fn minds(&self) -> Option<BTreeSet<&Str>> {
        let keys = self.minding.values().flatten().collect();
        (!self.minding.is_empty()).then_some(keys)
    }

    /// Label keys that can tell two clients of a namespace apart.
    pub fn choosing_keys(&self) -> impl Iterator<Item = &Str> {
        self.choosing.values().flatten()
    }

    /// The client's namespace, then the service's, then the root: the first with a matching host wins,
    /// even if that leaves nothing visible.
    pub fn select(
        &self,
        root: &str,
        (client, labels): (&str, &Labels),
        service: &Service,
    ) -> Option<Obeyed> {
        let own = if client == root {
            Reach::Private
        } else {
            Reach::Own
        };
        let levels = [
            (client, own),
            (service.namespace.as_str(), Reach::Exported),
            (root, Reach::Exported),
        ];
        for (namespace, reach) in levels {
            let by = Caller {
                namespace: client,
                labels,
                reach,
            };
            if let Some(rules) = self.most_specific(namespace, &service.host, &by) {
                return obeyed(rules, &by);
            }
        }
        None
    }

    fn most_specific(
        &self,
        namespace: &str,
        host: &Hostname,
        by: &Caller<'_>,
    ) -> Option<&[Arc<Rule>]> {
        let of_namespace = self.by_namespace.get(namespace)?;
        let usable = |rules: &'_ [Arc<Rule>]| rules.iter().any(|r| by.is_meant(r));
        let exact = of_namespace.get(host).filter(|r| usable(r));
        let found = exact.or_else(|| {
            // Wildcards come first in the order of hosts.
            let wild = of_namespace.iter().take_while(|(h, _)| h.is_wildcard());
            let wild = wild.filter(|(h, r)| h.matches(host.as_str()) && usable(r));
            wild.max_by_key(|(h, _)| h.specificity())
                .map(|(_, rules)| rules)
        });
        found.map(Vec::as_slice)
    }
}

/// Who looks for a rule, and among which.
struct Caller<'a> {
    namespace: &'a str,
    labels: &'a Labels,
    reach: Reach,
}

impl Caller<'_> {
    /// A rule for chosen workloads is for those of its own namespace.
    fn is_meant(&self, rule: &Rule) -> bool {
        let chosen = rule.spec.workload_selector.as_ref().is_none_or(|chosen| {
            rule.key.namespace == self.namespace && selects(&chosen.match_labels, self.labels)
        });
        chosen && self.reach.covers(rule)
    }
}

impl Reach {
    fn covers(self, rule: &Rule) -> bool {
        match self {
            Self::Own => true,
            Self::Private => rule.is_private(),
            Self::Exported => !rule.is_private(),
        }
    }
}

impl Rule {
    /// Whether it is meant for its own namespace alone.
    fn is_private(&self) -> bool {
        self.export_to == ExportTo::Namespaces(vec![self.key.namespace.clone()])
    }
}

/// Of those in reach that the client sees, the oldest and all with the same host and export. One that chooses the client
/// goes before those for all.
fn obeyed(rules: &[Arc<Rule>], by: &Caller<'_>) -> Option<Obeyed> {
    let client = by.namespace;
    let sees = |r: &&Arc<Rule>| {
        by.is_meant(r) && (r.key.namespace == client || r.export_to.reaches(client))
    };
    let chooses = |r: &&Arc<Rule>| r.spec.workload_selector.is_some();
    let chosen = rules.iter().filter(sees).find(chooses);
    let first = chosen.or_else(|| rules.iter().find(sees))?;
    let alike = |r: &&Arc<Rule>| {
        r.export_to == first.export_to
            && r.host == first.host
            && r.spec.workload_selector == first.spec.workload_selector
    };
    let chosen = rules.iter().filter(sees).filter(alike);
    Some(Obeyed(chosen.cloned().collect()))
}

impl Obeyed {
    pub fn minds_localities(&self) -> bool {
        self.0.iter().any(|rule| rule.spec.minds_localities())
    }

    pub fn merged(&self) -> Merged {
        let mut merged = Merged::default();
        for rule in &self.0 {
            merged.chosen |= rule.spec.workload_selector.is_some();
            if merged.policy.is_none() {
                let own = rule.spec.traffic_policy.clone();
                merged.policy = own.map(|p| (p, rule.key.clone()));
            }
            for (index, subset) in rule.spec.subsets.iter().enumerate() {
                if !merged.subsets.iter().any(|d| d.subset.name == subset.name) {
                    merged.subsets.push(Defined {
                        subset: subset.clone(),
                        key: rule.key.clone(),
                        index,
                    });
                }
            }
        }
        merged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::core;
    use crate::config::{Kind, Spec};

    /// A rule with subsets, `created` seconds after 1970.
    fn put(rules: &mut Rules, namespace: &str, name: &str, created: i64, spec: &DestinationRule) {
        let meta = Meta {
            name: name.into(),
            namespace: namespace.into(),
            creation_timestamp: created,
            ..Meta::default()
        };
        let key = Key {
            kind: Kind::DestinationRule,
            namespace: namespace.into(),
            name: name.into(),
        };
        let object = Object {
            meta,
            spec: Spec::DestinationRule(Box::new(spec.clone())),
        };
        rules.set(&key, Some((&object, spec)), "cluster.local", &["*".into()]);
    }

    fn spec(host: &str, subsets: &[&str], export_to: &[&str]) -> DestinationRule {
        let subset = |name: &&str| Subset {
            name: (*name).into(),
            ..Subset::default()
        };
        DestinationRule {
            host: host.into(),
            subsets: subsets.iter().map(subset).collect(),
            export_to: export_to.iter().map(Str::new).collect(),
            ..DestinationRule::default()
        }
    }

    /// The subsets of `reviews.shop` for clients of a namespace, each with its rule and its place there.
    fn seen(rules: &Rules, client: &str) -> Vec<(String, String, usize)> {
        let meta = Meta {
            name: "reviews".into(),
            namespace: "shop".into(),
            ..Meta::default()
        };
        let service = Service::of(&meta, &core::Service::default(), "cluster.local", &[]).unwrap();
        let obeyed = rules.select("root", (client, &Labels::new()), &service);
        let merged = obeyed.map_or_else(Merged::default, |o| o.merged());
        let line = |d: &Defined| (d.subset.name.to_string(), d.key.to_string(), d.index);
        merged.subsets.iter().map(line).collect()
    }

    fn is(subset: &str, rule: &str, index: usize) -> (String, String, usize) {
        let rule = format!("DestinationRule {rule}");
        (subset.to_owned(), rule, index)
    }

    #[test]
    fn a_subset_is_found_where_its_own_rule_has_it() {
        let mut rules = Rules::default();
        put(&mut rules, "shop", "a", 1, &spec("reviews", &["v1"], &[]));
        put(
            &mut rules,
            "shop",
            "b",
            2,
            &spec("reviews", &["v2", "v1", "v3"], &[]),
        );
        assert_eq!(
            seen(&rules, "shop"),
            [
                is("v1", "shop/a", 0),
                is("v2", "shop/b", 0),
                is("v3", "shop/b", 2)
            ]
        );
    }

    #[test]
    fn what_the_root_namespace_says_to_the_mesh_does_not_shadow_a_services_own_rule() {
        let mut rules = Rules::default();
        put(
            &mut rules,
            "root",
            "all",
            1,
            &spec("*.local", &["all"], &[]),
        );
        assert_eq!(seen(&rules, "root"), [is("all", "root/all", 0)]);
        put(
            &mut rules,
            "shop",
            "own",
            2,
            &spec("reviews", &["own"], &[]),
        );
        assert_eq!(seen(&rules, "root"), [is("own", "shop/own", 0)]);
        assert_eq!(seen(&rules, "other"), [is("own", "shop/own", 0)]);
        put(
            &mut rules,
            "root",
            "mine",
            3,
            &spec("*.local", &["mine"], &["."]),
        );
        assert_eq!(seen(&rules, "root"), [is("mine", "root/mine", 0)]);
        assert_eq!(seen(&rules, "other"), [is("own", "shop/own", 0)]);
    }
}
