//! Gateways: which of them a proxy at the edge serves.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::gateway::{Gateway, ServedHost};
use crate::config::meta::{Labels, Meta, selects};
use crate::config::{Key, Object, Source};
use crate::text::Str;

#[derive(Clone, Debug)]
pub struct Served {
    pub key: Key,
    pub meta: Meta,
    pub spec: Gateway,
    /// The hosts of each server.
    pub hosts: Vec<Vec<ServedHost>>,
    /// Where each server was written, if not in the Gateway itself.
    pub origins: Vec<Source>,
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

impl Served {
    pub(super) fn of(key: &Key, meta: Meta, spec: Gateway, origins: Vec<Source>) -> Self {
        let hosts = spec.servers.iter().map(|server| {
            let each = server.hosts.iter();
            each.filter_map(|text| ServedHost::parse(text, &key.namespace))
                .collect()
        });
        Self {
            key: key.clone(),
            meta,
            hosts: hosts.collect(),
            spec,
            origins,
        }
    }

    /// What says the server at this place.
    pub fn source(&self, index: usize) -> Source {
        let own = || Source {
            key: self.key.clone(),
            field: Str::new(format!("spec.servers[{index}]")),
        };
        self.origins.get(index).cloned().unwrap_or_else(own)
    }
}

#[derive(Clone, Debug, Default)]
pub struct Gateways {
    by_key: BTreeMap<Key, Arc<Served>>,
}

impl Gateways {
    pub(super) fn set(&mut self, key: &Key, object: Option<(&Object, &Gateway)>) {
        match object {
            None => drop(self.by_key.remove(key)),
            Some((object, spec)) => {
                let served = Served::of(key, object.meta.clone(), spec.clone(), Vec::new());
                self.by_key.insert(key.clone(), Arc::new(served));
            }
        }
    }

    /// One that other objects say together. Whether it differs from what was there.
    pub(super) fn set_made(&mut self, key: &Key, served: Option<Served>) -> bool {
        let same = self.by_key.get(key).map(|there| &**there) == served.as_ref();
        match served {
            None => drop(self.by_key.remove(key)),
            Some(served) => drop(self.by_key.insert(key.clone(), Arc::new(served))),
        }
        !same
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
