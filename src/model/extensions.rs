//! TrafficExtensions: which of them are among a proxy's filters, in their order.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::config::meta::{Labels, Meta, selects};
use crate::config::traffic_extension::TrafficExtension;
use crate::config::{Key, Object};
use crate::text::Str;

#[derive(Clone, Debug)]
pub struct Extension {
    pub key: Key,
    meta: Meta,
    pub spec: TrafficExtension,
}

/// What is said beside the spec changes nothing but the order of age.
impl PartialEq for Extension {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
            && self.meta.creation_timestamp == other.meta.creation_timestamp
            && self.spec == other.spec
    }
}

impl Eq for Extension {}

impl Hash for Extension {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

/// Those of one proxy; none, as nearly all have, take no room.
pub type Chosen = Option<Arc<Vec<Arc<Extension>>>>;

#[derive(Clone, Debug, Default)]
pub struct Extensions {
    by_namespace: BTreeMap<Str, BTreeMap<Key, Arc<Extension>>>,
}

impl Extensions {
    pub(super) fn set(&mut self, key: &Key, object: Option<(&Object, &TrafficExtension)>) {
        let of_namespace = self.by_namespace.entry(key.namespace.clone()).or_default();
        match object {
            Some((object, spec)) => {
                let extension = Extension {
                    key: key.clone(),
                    meta: object.meta.clone(),
                    spec: spec.clone(),
                };
                of_namespace.insert(key.clone(), Arc::new(extension));
            }
            None => drop(of_namespace.remove(key)),
        }
        if of_namespace.is_empty() {
            self.by_namespace.remove(&key.namespace);
        }
    }

    /// Those of the root namespace and of its own that select it: by phase, then the highest priority, then the oldest.
    pub fn select(&self, root: &str, namespace: &str, labels: &Labels) -> Chosen {
        let own = Some(namespace).filter(|own| *own != root);
        let namespaces = [Some(root), own].into_iter().flatten();
        let all = namespaces.filter_map(|name| self.by_namespace.get(name));
        let takes = |extension: &&Arc<Extension>| {
            let mut selector = extension.spec.selector.iter();
            let stands = extension.spec.lua.is_some() && extension.spec.target_refs.is_empty();
            stands && selector.all(|s| selects(&s.match_labels, labels))
        };
        let all = all.flat_map(BTreeMap::values).filter(takes);
        let mut all: Vec<Arc<Extension>> = all.cloned().collect();
        all.sort_by(|a, b| {
            let order = |e: &Extension| (e.spec.phase, Reverse(e.spec.priority));
            order(a)
                .cmp(&order(b))
                .then(a.meta.age().cmp(&b.meta.age()))
        });
        (!all.is_empty()).then(|| Arc::new(all))
    }
}
