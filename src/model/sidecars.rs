//! Sidecar objects: which one a workload obeys, and what its egress lets through.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::meta::{Labels, Meta, selects};
use crate::config::sidecar::{EgressListener, Sidecar};
use crate::config::{Key, Object};
use crate::text::{Hostname, Str};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    pub key: Key,
    pub meta: Meta,
    pub spec: Arc<Sidecar>,
    pub egress: Vec<Egress>,
}

/// One egress listener with its host patterns parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Egress {
    pub spec: EgressListener,
    imports: Vec<Import>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Import {
    namespace: From,
    host: Hostname,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum From {
    Any,
    Named(Str),
}

#[derive(Clone, Debug, Default)]
pub struct Sidecars {
    by_namespace: BTreeMap<Str, BTreeMap<Key, Arc<Chosen>>>,
}

impl Egress {
    /// What holds without a Sidecar: everything that is exported here.
    pub fn everything() -> Self {
        let host = Hostname::parse("*").into_iter();
        Self {
            spec: EgressListener::default(),
            imports: host
                .map(|host| Import {
                    namespace: From::Any,
                    host,
                })
                .collect(),
        }
    }

    fn of(spec: &EgressListener, own: &str) -> Self {
        let imports = spec.hosts.iter().filter_map(|entry| {
            let (namespace, host) = entry.split_once('/')?;
            let namespace = match namespace {
                "*" => From::Any,
                "." => From::Named(Str::new(own)),
                // Nothing, or (not yet in effect) all but this.
                name if name.starts_with('~') => return None,
                name => From::Named(Str::new(name)),
            };
            Some(Import {
                namespace,
                host: Hostname::parse(host).ok()?,
            })
        });
        Self {
            imports: imports.collect(),
            spec: spec.clone(),
        }
    }

    /// Whether a host of that namespace is imported. A wildcard host counts when the patterns overlap.
    pub fn imports(&self, namespace: &str, host: &Hostname) -> bool {
        self.imports.iter().any(|import| {
            let from = match &import.namespace {
                From::Any => true,
                From::Named(name) => name == namespace,
            };
            let bare = host.as_str().trim_start_matches('*');
            from && (import.host.matches(bare) || import.host == *host || {
                host.is_wildcard() && host.matches(import.host.as_str())
            })
        })
    }
}

impl Sidecars {
    pub(super) fn set(&mut self, key: &Key, object: Option<(&Object, &Sidecar)>) {
        let of_namespace = self.by_namespace.entry(key.namespace.clone()).or_default();
        let Some((object, spec)) = object else {
            of_namespace.remove(key);
            return;
        };
        let egress = spec
            .egress
            .iter()
            .map(|e| Egress::of(e, &key.namespace))
            .collect();
        of_namespace.insert(
            key.clone(),
            Arc::new(Chosen {
                key: key.clone(),
                meta: object.meta.clone(),
                spec: Arc::new(spec.clone()),
                egress,
            }),
        );
    }

    /// The oldest that selects the workload, else the namespace's without a selector, else the root's.
    pub fn select(&self, root: &str, namespace: &str, labels: &Labels) -> Option<&Arc<Chosen>> {
        let by_labels = |c: &Chosen| {
            c.spec
                .workload_selector
                .as_ref()
                .is_some_and(|s| selects(&s.labels, labels))
        };
        let for_all = |c: &Chosen| c.spec.workload_selector.is_none();
        self.oldest(namespace, by_labels)
            .or_else(|| self.oldest(namespace, for_all))
            .or_else(|| self.oldest(root, for_all))
    }

    fn oldest(&self, namespace: &str, wanted: impl Fn(&Chosen) -> bool) -> Option<&Arc<Chosen>> {
        let candidates = self
            .by_namespace
            .get(namespace)?
            .values()
            .filter(|c| wanted(c));
        candidates.min_by(|a, b| a.meta.age().cmp(&b.meta.age()))
    }
}
