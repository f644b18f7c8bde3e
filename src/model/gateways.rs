//! Gateways: which of them a proxy at the edge serves.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::gateway::{Gateway, ServedHost};
use crate::config::meta::{Labels, Meta, selects};
use crate::config::{Key, Object};

#[derive(Clone, Debug)]
pub struct Served {
    pub key: Key,
    pub meta: Meta,
    pub spec: Gateway,
    /// The hosts of each server.
    pub hosts: Vec<Vec<ServedHost>>,
}

/// What is said beside the spec changes nothing but the order of age.
impl PartialEq for Served {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
            && self.meta.creation_timestamp == other.meta.creation_timestamp
            && self.spec == other.spec
    }
}

impl Eq for Served {}

#[derive(Clone, Debug, Default)]
pub struct Gateways {
    by_key: BTreeMap<Key, Arc<Served>>,
}

impl Gateways {
    pub(super) fn set(&mut self, key: &Key, object: Option<(&Object, &Gateway)>) {
        let Some((object, spec)) = object else {
            self.by_key.remove(key);
            return;
        };
        let hosts = spec.servers.iter().map(|server| {
            let each = server.hosts.iter();
            each.filter_map(|text| ServedHost::parse(text, &key.namespace))
                .collect()
        });
        let served = Served {
            key: key.clone(),
            meta: object.meta.clone(),
            hosts: hosts.collect(),
            spec: spec.clone(),
        };
        self.by_key.insert(key.clone(), Arc::new(served));
    }

    /// Those whose selector the labels meet, of all namespaces; the oldest first.
    pub fn select(&self, labels: &Labels) -> Vec<&Arc<Served>> {
        let served = self.by_key.values();
        let mut served: Vec<_> = served
            .filter(|g| selects(&g.spec.selector, labels))
            .collect();
        served.sort_by(|a, b| a.meta.age().cmp(&b.meta.age()));
        served
    }
}
