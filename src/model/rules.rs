//! DestinationRules: which of them a client's calls to a host obey.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::services::Service;
use crate::config::destination_rule::{DestinationRule, Subset, TrafficPolicy};
use crate::config::meta::{ExportTo, Meta};
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
    pub subsets: Vec<(Subset, Key)>,
}

#[derive(Clone, Debug, Default)]
pub struct Rules {
    by_namespace: BTreeMap<Str, BTreeMap<Hostname, Vec<Arc<Rule>>>>,
    hosts: BTreeMap<Key, Hostname>,
}

/// Which rules of a namespace a lookup may use.
#[derive(Clone, Copy, PartialEq)]
enum Reach {
    /// The client's own namespace.
    Own,
    /// Another's: only what is exported beyond its namespace.
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
        let of_namespace = self.by_namespace.entry(key.namespace.clone()).or_default();
        for host in &touched {
            if let Some(rules) = of_namespace.get_mut(host) {
                rules.retain(|r| r.key != *key);
                if rules.is_empty() {
                    of_namespace.remove(host);
                }
            }
        }
        // A rule for chosen clients is not yet in effect: better for none than for all of them.
        let rule = rule.filter(|(_, spec)| spec.workload_selector.is_none());
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
        touched.push(host);
        touched
    }

    /// The client's namespace, then the service's, then the root: the first with a matching host wins,
    /// even if that leaves nothing visible.
    pub fn select(&self, root: &str, client: &str, service: &Service) -> Option<Obeyed> {
        let levels = [
            (
                client,
                if client == root {
                    Reach::Exported
                } else {
                    Reach::Own
                },
            ),
            (service.namespace.as_str(), Reach::Exported),
            (root, Reach::Exported),
        ];
        for (namespace, reach) in levels {
            let reach = if namespace == client {
                Reach::Own
            } else {
                reach
            };
            if let Some(rules) = self.most_specific(namespace, &service.host, reach) {
                return obeyed(rules, client);
            }
        }
        None
    }

    fn most_specific(
        &self,
        namespace: &str,
        host: &Hostname,
        reach: Reach,
    ) -> Option<&[Arc<Rule>]> {
        let of_namespace = self.by_namespace.get(namespace)?;
        let usable = |rules: &'_ [Arc<Rule>]| {
            reach == Reach::Own
                || rules
                    .iter()
                    .any(|r| r.export_to != ExportTo::Namespaces(vec![r.key.namespace.clone()]))
        };
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

/// Of those that the client sees, the oldest and all with the same host and reach.
fn obeyed(rules: &[Arc<Rule>], client: &str) -> Option<Obeyed> {
    let sees = |r: &&Arc<Rule>| r.key.namespace == client || r.export_to.reaches(client);
    let first = rules.iter().find(sees)?;
    let alike = |r: &&Arc<Rule>| r.export_to == first.export_to && r.host == first.host;
    let chosen = rules.iter().filter(sees).filter(alike);
    Some(Obeyed(chosen.cloned().collect()))
}

impl Obeyed {
    pub fn merged(&self) -> Merged {
        let mut merged = Merged::default();
        for rule in &self.0 {
            if merged.policy.is_none() {
                let own = rule.spec.traffic_policy.clone();
                merged.policy = own.map(|p| (p, rule.key.clone()));
            }
            for subset in &rule.spec.subsets {
                if !merged.subsets.iter().any(|(s, _)| s.name == subset.name) {
                    merged.subsets.push((subset.clone(), rule.key.clone()));
                }
            }
        }
        merged
    }
}
