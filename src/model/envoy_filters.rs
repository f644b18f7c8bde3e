//! EnvoyFilters: which patches a proxy gets, in the order in which they act. What a patch does is not here.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost_reflect::DynamicMessage;
use regex::Regex;
use xxhash_rust::xxh3::xxh3_128;

use super::proxy::{Proxy, Role};
use crate::config::envoy_filter::{ConfigPatch, EnvoyFilter, ProxyMatch};
use crate::config::meta::{Labels, Meta, selects};
use crate::config::{Key, Source};
use crate::schema;
use crate::text::Str;

/// The label by which a gateway's proxies name the object that they are made from.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// One patch, made ready once for all proxies.
#[derive(Debug)]
pub struct Patch {
    /// The object, and `spec.configPatches[i]`.
    pub source: Source,
    pub spec: ConfigPatch,
    /// The value as a message of Envoy's API; a removal has none.
    pub value: Option<DynamicMessage>,
    /// Of what it says, wherever it stands.
    pub content: u128,
    version: Option<Regex>,
}

/// Equal patches of one object are one.
impl PartialEq for Patch {
    fn eq(&self, other: &Self) -> bool {
        self.content == other.content && self.source == other.source
    }
}

impl Eq for Patch {}

#[derive(Debug)]
struct Filter {
    meta: Meta,
    spec: EnvoyFilter,
    patches: Vec<Arc<Patch>>,
}

#[derive(Clone, Debug, Default)]
pub struct EnvoyFilters {
    by_namespace: BTreeMap<Str, BTreeMap<Key, Arc<Filter>>>,
}

impl Patch {
    /// None where the value is no message: such a patch was refused before.
    fn new(spec: &ConfigPatch, source: Source) -> Option<Self> {
        let value = match &spec.patch.value {
            None => None,
            Some(json) => {
                let descriptor = schema::message(spec.apply_to.message()?)?;
                Some(schema::read(descriptor, json).ok()?)
            }
        };
        let version = match &spec.matches.proxy {
            Some(proxy) if !proxy.proxy_version.is_empty() => {
                Some(Regex::new(&proxy.proxy_version).ok()?)
            }
            Some(_) | None => None,
        };
        // Plain values have no error, and their maps are ordered.
        let text = serde_json::to_vec(spec).unwrap_or_default();
        Some(Self {
            source,
            spec: spec.clone(),
            value,
            content: xxh3_128(&text),
            version,
        })
    }

    fn is_for(&self, proxy: &Proxy) -> bool {
        let Some(ProxyMatch { metadata, .. }) = &self.spec.matches.proxy else {
            return true;
        };
        let version = proxy.said("ISTIO_VERSION");
        let of_version = self.version.as_ref();
        of_version.is_none_or(|regex| version.is_some_and(|v| regex.is_match(&v)))
            && metadata
                .iter()
                .all(|(key, wanted)| proxy.said(key).is_some_and(|said| said == *wanted))
    }
}

impl Filter {
    fn selects(&self, namespace: &str, labels: &Labels, role: Role) -> bool {
        if !self.spec.target_refs.is_empty() {
            let of_gateway = labels.get(GATEWAY_NAME);
            let own = self.meta.namespace == namespace && role == Role::Router;
            let mut targets = self.spec.target_refs.iter();
            return own && targets.any(|t| t.kind == "Gateway" && of_gateway == Some(&t.name));
        }
        let selector = self.spec.workload_selector.as_ref();
        selector.is_none_or(|s| selects(&s.labels, labels))
    }
}

impl EnvoyFilters {
    pub(super) fn set(&mut self, key: &Key, object: Option<(&Meta, &EnvoyFilter)>) {
        let of_namespace = self.by_namespace.entry(key.namespace.clone()).or_default();
        match object {
            Some((meta, spec)) => {
                let patches = spec.config_patches.iter().enumerate();
                let patches = patches.filter_map(|(i, patch)| {
                    let source = Source {
                        key: key.clone(),
                        field: Str::new(format!("spec.configPatches[{i}]")),
                    };
                    Patch::new(patch, source).map(Arc::new)
                });
                let filter = Filter {
                    meta: meta.clone(),
                    patches: patches.collect(),
                    spec: spec.clone(),
                };
                of_namespace.insert(key.clone(), Arc::new(filter));
            }
            None => drop(of_namespace.remove(key)),
        }
        if of_namespace.is_empty() {
            self.by_namespace.remove(&key.namespace);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.by_namespace.is_empty()
    }

    /// Every patch of every object.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Patch>> {
        let filters = self.by_namespace.values().flat_map(BTreeMap::values);
        filters.flat_map(|filter| &filter.patches)
    }

    /// The patches for a proxy: by priority, those of the root namespace first, then by age and place.
    pub fn select(&self, root: &str, proxy: &Proxy, labels: &Labels) -> Vec<Arc<Patch>> {
        let namespace = proxy.namespace.as_str();
        let mut filters: Vec<(bool, &Filter)> = Vec::new();
        for (own, of) in [(false, root), (true, namespace)] {
            if own && root == namespace {
                continue;
            }
            let there = self.by_namespace.get(of).into_iter().flatten();
            let there = there.map(|(_, filter)| (own, &**filter));
            filters.extend(there.filter(|(_, f)| f.selects(namespace, labels, proxy.role)));
        }
        filters.sort_by(|(a_own, a), (b_own, b)| {
            let order = |own: &bool, f: &Filter| (f.spec.priority, *own);
            order(a_own, a)
                .cmp(&order(b_own, b))
                .then_with(|| a.meta.age().cmp(&b.meta.age()))
        });
        let patches = filters.into_iter().flat_map(|(_, filter)| &filter.patches);
        patches.filter(|p| p.is_for(proxy)).cloned().collect()
    }
}
