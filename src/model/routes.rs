//! VirtualServices: which of them a client's calls to a host obey.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::delegates::{Delegates, Rule};
use crate::config::meta::{ExportTo, Meta};
use crate::config::virtual_service::{Destination, VirtualService};
use crate::config::{Key, Object};
use crate::text::{Hostname, Str};

/// A VirtualService with hosts.
#[derive(Clone, Debug, PartialEq)]
pub struct Virtual {
    pub key: Key,
    pub meta: Meta,
    pub hosts: Vec<Hostname>,
    pub export_to: ExportTo,
    /// Who obeys it.
    pub places: Vec<Place>,
    pub spec: Arc<VirtualService>,
    /// The HTTP rules in effect: its own, with those of its delegates in the place of what they are named by.
    pub rules: Vec<Rule>,
}

/// Where a VirtualService, or one of its matches, holds (`gateways`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At sidecars: `mesh`, which is also what no name at all says.
    Mesh,
    /// At the proxies of this Gateway.
    Gateway { namespace: Str, name: Str },
}

impl Place {
    /// `own` is the VirtualService's namespace.
    pub fn all(gateways: &[Str], own: &str) -> Vec<Self> {
        if gateways.is_empty() {
            return vec![Self::Mesh];
        }
        gateways.iter().map(|text| Self::of(text, own)).collect()
    }

    fn of(text: &str, own: &str) -> Self {
        if text == "mesh" {
            return Self::Mesh;
        }
        let (namespace, name) = text.split_once('/').unwrap_or((own, text));
        Self::Gateway {
            namespace: Str::new(namespace),
            name: Str::new(name),
        }
    }

    pub fn of_gateway(key: &Key) -> Self {
        Self::Gateway {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
        }
    }
}

impl Virtual {
    fn is_of_mesh(&self) -> bool {
        self.places.contains(&Place::Mesh)
    }

    fn is_of_gateways(&self) -> bool {
        self.places.iter().any(|place| *place != Place::Mesh)
    }

    /// The hosts that its rules lead to, copies too, in their order.
    pub fn destinations(&self, domain: &str) -> Vec<Hostname> {
        let of_http = self.rules.iter().flat_map(|rule| {
            let namespace = &self.origin(rule).namespace;
            let routes = rule.route.route.iter().map(|d| &d.destination);
            let copies = rule.route.copies().into_iter().map(|(to, _)| to);
            let all = routes.chain(copies);
            all.map(|to| (to, namespace)).collect::<Vec<_>>()
        });
        let tls = self.spec.tls.iter().flat_map(|rule| &rule.route);
        let tcp = self.spec.tcp.iter().flat_map(|rule| &rule.route);
        let of_bytes = tls.chain(tcp);
        let of_bytes = of_bytes.map(|d| (&d.destination, &self.key.namespace));
        let host = |(to, namespace): (&Destination, &Str)| {
            Hostname::expand(&to.host, namespace, domain).ok()
        };
        of_http.chain(of_bytes).filter_map(host).collect()
    }

    /// The object that a rule was written in.
    pub fn origin<'v>(&'v self, rule: &'v Rule) -> &'v Key {
        rule.origin.as_deref().unwrap_or(&self.key)
    }
}

#[derive(Clone, Debug, Default)]
pub struct Virtuals {
    by_key: BTreeMap<Key, Arc<Virtual>>,
    /// Those that sidecars obey.
    by_host: BTreeMap<Hostname, BTreeSet<Key>>,
    /// Those that gateways obey.
    bound: BTreeMap<Hostname, BTreeSet<Key>>,
    delegates: Delegates,
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
        let mut touched = self.withdraw(key);
        self.delegates.forget(key);
        let Some((object, spec)) = object else {
            touched.extend(self.renew_roots(key, domain));
            return touched;
        };
        let export = if spec.export_to.is_empty() {
            default_export
        } else {
            &spec.export_to
        };
        let export_to = ExportTo::of(export, &key.namespace);
        if spec.hosts.is_empty() {
            self.delegates.put(key, export_to, Arc::new(spec.clone()));
            touched.extend(self.renew_roots(key, domain));
            return touched;
        }
        touched.extend(self.renew_roots(key, domain));
        let mut hosts: Vec<Hostname> = Vec::new();
        for host in &spec.hosts {
            if let Ok(host) = Hostname::expand(host, &key.namespace, domain)
                && !hosts.contains(&host)
            {
                hosts.push(host);
            }
        }
        touched.extend(hosts.iter().cloned());
        self.delegates.follow(key, spec);
        self.enter(Virtual {
            key: key.clone(),
            meta: object.meta.clone(),
            hosts,
            export_to,
            places: Place::all(&spec.gateways, &key.namespace),
            rules: self.delegates.flatten(key, spec, domain),
            spec: Arc::new(spec.clone()),
        });
        touched
    }

    /// One that other objects say together. The hosts whose calls change.
    pub(super) fn set_made(&mut self, key: &Key, made: Option<Virtual>) -> BTreeSet<Hostname> {
        if self.by_key.get(key).map(|there| &**there) == made.as_ref() {
            return BTreeSet::new();
        }
        let mut touched = self.withdraw(key);
        if let Some(made) = made {
            touched.extend(made.hosts.iter().cloned());
            self.enter(made);
        }
        touched
    }

    fn enter(&mut self, entry: Virtual) {
        for (of_place, belongs) in self.by_place(&entry) {
            for host in entry.hosts.iter().filter(|_| belongs) {
                let keys = of_place.entry(host.clone()).or_default();
                keys.insert(entry.key.clone());
            }
        }
        self.count_labels(&entry, |n| n + 1);
        self.by_key.insert(entry.key.clone(), Arc::new(entry));
    }

    fn by_place(&mut self, entry: &Virtual) -> [(&mut BTreeMap<Hostname, BTreeSet<Key>>, bool); 2] {
        [
            (&mut self.by_host, entry.is_of_mesh()),
            (&mut self.bound, entry.is_of_gateways()),
        ]
    }

    fn withdraw(&mut self, key: &Key) -> BTreeSet<Hostname> {
        let Some(old) = self.by_key.remove(key) else {
            return BTreeSet::new();
        };
        for (of_place, _) in self.by_place(&old) {
            for host in &old.hosts {
                if let Some(keys) = of_place.get_mut(host) {
                    keys.remove(key);
                    if keys.is_empty() {
                        of_place.remove(host);
                    }
                }
            }
        }
        self.count_labels(&old, |n| n - 1);
        old.hosts.iter().cloned().collect()
    }

    /// The rules of those that delegate to this one are others now.
    fn renew_roots(&mut self, delegate: &Key, domain: &str) -> BTreeSet<Hostname> {
        let mut touched = BTreeSet::new();
        for root in self.delegates.roots_of(delegate) {
            let Some(entry) = self.by_key.get(&root).cloned() else {
                continue;
            };
            let rules = self.delegates.flatten(&root, &entry.spec, domain);
            if rules == entry.rules {
                continue;
            }
            touched.extend(self.withdraw(&root));
            self.enter(Virtual {
                rules,
                ..Virtual::clone(&entry)
            });
        }
        touched
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// All hosts of VirtualServices that gateways obey, wildcards included.
    pub fn bound_hosts(&self) -> impl Iterator<Item = &Hostname> {
        self.bound.keys()
    }

    /// The VirtualServices that gateways obey with a host that is, or covers, this one.
    pub fn bound_at(&self, host: &Hostname) -> Vec<&Arc<Virtual>> {
        // Wildcards come first in the order of hosts.
        let wild = self.bound.iter().take_while(|(h, _)| h.is_wildcard());
        let wild = wild.filter(|(h, _)| *h != host && h.matches(host.as_str()));
        let keys = wild.chain(self.bound.get_key_value(host));
        let keys: BTreeSet<&Key> = keys.flat_map(|(_, keys)| keys).collect();
        let mut found: Vec<_> = keys.iter().filter_map(|k| self.by_key.get(k)).collect();
        found.sort_by(|a, b| a.meta.age().cmp(&b.meta.age()));
        found
    }

    /// All hosts that some VirtualService of sidecars names, wildcards included.
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

    fn count_labels(&mut self, entry: &Virtual, by: impl Fn(usize) -> usize) {
        let matches = entry.rules.iter().flat_map(|rule| &rule.route.matches);
        let http = matches.map(|m| &m.source_labels);
        let tls = entry.spec.tls.iter().flat_map(|rule| &rule.matches);
        let tcp = entry.spec.tcp.iter().flat_map(|rule| &rule.matches);
        let labels = http.chain(tls.chain(tcp).map(|m| &m.source_labels));
        let keys: BTreeSet<&Str> = labels.flat_map(|labels| labels.keys()).collect();
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
