//! What EnvoyFilters make of one client's resources, and add to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Common, Dirty, Outbound};
use crate::config::envoy_filter::ApplyTo;
use crate::ir::patches::{Inline, Patch, Patches};
use crate::text::Str;
use crate::xds::{Encoded, ResourceType, patch};

impl Outbound {
    /// Puts what the patches make of a resource, or takes it away.
    pub(super) fn put_patched(
        &mut self,
        encoded: Arc<Encoded>,
        common: &mut Common<'_>,
        dirty: &mut Dirty,
    ) {
        let patches = &self.client.patches;
        if patches.is_empty() {
            return self.put(encoded, dirty);
        }
        let meeting = meeting(patches, &encoded);
        match patch::resource(&mut common.hosts.cache, &encoded, &meeting) {
            Some(patched) => self.put(patched, dirty),
            None => self.take(encoded.kind, &encoded.name, dirty),
        }
    }

    /// What was patched otherwise, for a client whose patches were `before`; and what they added.
    pub(super) fn patch_again(
        &mut self,
        before: &Patches,
        common: &mut Common<'_>,
        dirty: &mut Dirty,
    ) {
        let now = self.client.patches.clone();
        self.fix_clusters(common, dirty);
        let hosts = self.hosts.clone();
        for (_, joined) in &hosts {
            for cluster in &joined.clusters {
                if meeting(before, cluster) != meeting(&now, cluster) {
                    self.put_patched(cluster.clone(), common, dirty);
                }
            }
        }
        let differs = |name: &str| {
            before.of_listener(name, Inline::Nothing) != now.of_listener(name, Inline::Nothing)
        };
        let places = self.all_places();
        let places = places.filter(|(address, port)| differs(&format!("{address}_{port}")));
        dirty.places.extend(places);
        let front = self.client.front.as_deref();
        let tables = self.tables.keys();
        let tables = tables.filter(|t| before.of_table(t, front) != now.of_table(t, front));
        dirty.tables.extend(tables.cloned());
        self.add(common, dirty);
    }

    /// Keeps what the patches add. Of two with one name the first counts; what the mesh makes counts before both.
    pub(super) fn add(&mut self, common: &mut Common<'_>, dirty: &mut Dirty) {
        let mut added: BTreeMap<(ResourceType, Str), Arc<Encoded>> = BTreeMap::new();
        for patch in self.client.patches.added() {
            let new = kind_of(patch);
            let new = new.and_then(|kind| patch::added(&mut common.hosts.cache, kind, patch));
            if let Some(encoded) = new {
                let place = (encoded.kind, encoded.name.clone());
                added.entry(place).or_insert(encoded);
            }
        }
        let before = std::mem::replace(&mut self.added, added);
        for ((kind, name), old) in before {
            let stands = self.layer.get(kind, &name);
            if stands.is_some_and(|stands| Arc::ptr_eq(stands, &old)) {
                self.take(kind, &name, dirty);
            }
        }
        let names: Vec<_> = self.added.keys().cloned().collect();
        for (kind, name) in names {
            self.reveal(kind, &name, dirty);
        }
    }

    /// What is added shows where nothing else stands.
    pub(super) fn reveal(&mut self, kind: ResourceType, name: &Str, dirty: &mut Dirty) {
        let key = (kind, name.clone());
        let Some(added) = self.added.get(&key).cloned() else {
            return;
        };
        let stands = |layer: &crate::view::Layer| layer.get(kind, name).is_some();
        if stands(&self.layer) || stands(&self.on_demand.layer) {
            return;
        }
        if kind == ResourceType::Listener {
            self.pin(Some(&added), name, dirty);
        }
        if self.layer.insert(added) {
            dirty.names.push(key);
        }
    }
}

fn meeting(patches: &Patches, encoded: &Encoded) -> Vec<Arc<Patch>> {
    match encoded.kind {
        ResourceType::Cluster => patches.of_cluster(&encoded.name, ""),
        ResourceType::Listener => patches.of_listener(&encoded.name, Inline::Nothing),
        ResourceType::Endpoint
        | ResourceType::Route
        | ResourceType::ScopedRoute
        | ResourceType::Secret => Vec::new(),
    }
}

fn kind_of(patch: &Patch) -> Option<ResourceType> {
    match patch.spec.apply_to {
        ApplyTo::Cluster => Some(ResourceType::Cluster),
        ApplyTo::Listener => Some(ResourceType::Listener),
        ApplyTo::Invalid
        | ApplyTo::FilterChain
        | ApplyTo::NetworkFilter
        | ApplyTo::HttpFilter
        | ApplyTo::RouteConfiguration
        | ApplyTo::VirtualHost
        | ApplyTo::HttpRoute
        | ApplyTo::ExtensionConfig
        | ApplyTo::Bootstrap
        | ApplyTo::ListenerFilter => None,
    }
}
