//! VirtualServices: which of them a client's calls to a host obey.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::meta::{ExportTo, Meta};
use crate::config::virtual_service::VirtualService;
use crate::config::{Key, Object};
use crate::text::{Hostname, Str};

/// A VirtualService that sidecars obey (`gateways` absent, or with `mesh`).
#[derive(Clone, Debug, PartialEq)]
pub struct Virtual {
    pub key: Key,
    pub meta: Meta,
    pub hosts: Vec<Hostname>,
    pub export_to: ExportTo,
    pub spec: Arc<VirtualService>,
}

#[derive(Clone, Debug, Default)]
pub struct Virtuals {
    by_key: BTreeMap<Key, Arc<Virtual>>,
    by_host: BTreeMap<Hostname, BTreeSet<Key>>,
    /// Keys of `sourceLabels` in use, with how many VirtualServices name them.
    source_labels: BTreeMap<Str, usize>,
}

impl Virtuals {
    /// The hosts (also wildcards) whose calls change: before and after.
    pub(super) fn set(
        &mut self,
        key: &Key,
        object: Option<(&Object, &VirtualService)>,
        domain: &str,
        default_export: &[Str],
    ) -> BTreeSet<Hostname> {
        let mut touched = BTreeSet::new();
        if let Some(old) = self.by_key.remove(key) {
            for host in &old.hosts {
                if let Some(keys) = self.by_host.get_mut(host) {
                    keys.remove(key);
                    if keys.is_empty() {
                        self.by_host.remove(host);
                    }
                }
            }
            self.count_labels(&old.spec, |n| n - 1);
            touched.extend(old.hosts.iter().cloned());
        }
        let of_mesh = |spec: &VirtualService| {
            spec.gateways.is_empty() || spec.gateways.iter().any(|g| g == "mesh")
        };
        let Some((object, spec)) = object.filter(|(_, spec)| of_mesh(spec)) else {
            return touched;
        };
        let mut hosts: Vec<Hostname> = Vec::new();
        for host in &spec.hosts {
            if let Ok(host) = Hostname::expand(host, &key.namespace, domain)
                && !hosts.contains(&host)
            {
                hosts.push(host);
            }
        }
        let export = if spec.export_to.is_empty() {
            default_export
        } else {
            &spec.export_to
        };
        for host in &hosts {
            self.by_host
                .entry(host.clone())
                .or_default()
                .insert(key.clone());
        }
        touched.extend(hosts.iter().cloned());
        let entry = Virtual {
            key: key.clone(),
            meta: object.meta.clone(),
            hosts,
            export_to: ExportTo::of(export, &key.namespace),
            spec: Arc::new(spec.clone()),
        };
        self.count_labels(&entry.spec, |n| n + 1);
        self.by_key.insert(key.clone(), Arc::new(entry));
        touched
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// All hosts that some VirtualService names, wildcards included.
    pub fn hosts(&self) -> impl Iterator<Item = &Hostname> {
        self.by_host.keys()
    }

    /// Label keys that can tell two clients of a namespace apart.
    pub fn source_label_keys(&self) -> impl Iterator<Item = &Str> {
        self.source_labels.keys()
    }

    /// The one of exactly this name, else of the longest wildcard; on a tie private before exported to
    /// the client's namespace before public, then the oldest.
    pub fn select(&self, client: &str, host: &Hostname) -> Option<&Arc<Virtual>> {
        self.named(client, host).or_else(|| {
            // Wildcards come first in the order of hosts.
            let wild = self.by_host.keys().take_while(|h| h.is_wildcard());
            let wild = wild.filter(|h| h.matches(host.as_str()));
            let mut wild: Vec<&Hostname> = wild.collect();
            wild.sort_by_key(|h| std::cmp::Reverse(h.specificity()));
            wild.into_iter().find_map(|h| self.named(client, h))
        })
    }

    /// As `select`, but only under exactly this name.
    pub fn named(&self, client: &str, host: &Hostname) -> Option<&Arc<Virtual>> {
        let candidates = self
            .by_host
            .get(host)?
            .iter()
            .filter_map(|k| self.by_key.get(k));
        let visible = candidates.filter(|v| v.export_to.reaches(client));
        visible.min_by(|a, b| (rank(a, client), a.meta.age()).cmp(&(rank(b, client), b.meta.age())))
    }

    fn count_labels(&mut self, spec: &VirtualService, by: impl Fn(usize) -> usize) {
        let matches = spec.http.iter().flat_map(|r| &r.matches);
        let keys: BTreeSet<&Str> = matches.flat_map(|m| m.source_labels.keys()).collect();
        for key in keys {
            let count = by(self.source_labels.get(key).copied().unwrap_or(0));
            if count == 0 {
                self.source_labels.remove(key);
            } else {
                self.source_labels.insert(key.clone(), count);
            }
        }
    }
}

fn rank(entry: &Virtual, client: &str) -> u8 {
    match &entry.export_to {
        ExportTo::Namespaces(names) if names.len() == 1 && entry.key.namespace == client => 0,
        ExportTo::Namespaces(_) => 1,
        ExportTo::All => 2,
    }
}
