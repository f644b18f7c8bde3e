//! What each scope's proxies must hold, kept current change by change. Sessions are not known here.

pub mod engine;
mod hosts;
mod joined;
mod outbound;
mod places;
mod provenance;
mod sorted;
mod table;
#[cfg(test)]
mod tests;
mod unmet;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use self::sorted::Sorted;
use crate::text::Str;
use crate::xds::stamp::{Key, Mark};
use crate::xds::{Encoded, ResourceType, Stamp};

pub use self::engine::Engine;
/// What engines are fed by, for who asks what the mesh is.
pub use crate::model::Snapshot;

/// Resources by type and name.
pub type Names = BTreeSet<(ResourceType, Str)>;

/// Proxies whose configuration is equal share a scope; the number names it while any of them is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeId(pub u32);

/// Names an attached proxy; the owner of the engine chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProxyId(pub u64);

/// A set of resources by type and name. Secrets are per proxy and never in it. A copy shares all that does not differ.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    by_kind: [Sorted<Str, Arc<Encoded>>; ResourceType::COUNT],
    digests: [Digest; ResourceType::COUNT],
}

/// What a set of resources is, in two numbers: equal sets have equal ones, others other ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Digest {
    /// Sum of the marks: names and versions.
    pub content: Mark,
    /// Sum of the keys: names alone.
    pub names: Key,
}

/// How many layers make up a scope's set.
pub const LAYERS: usize = 2;

/// The full set of one scope: what is its own (inbound) over what it shares (outbound), and what a client is
/// told of only when it asks for it by name.
///
/// No name stands in two of them.
#[derive(Clone, Copy, Debug)]
pub struct Resources<'a> {
    layers: [&'a Layer; LAYERS],
    on_demand: &'a Layer,
}

/// Names whose entry may differ from before: changed, new, or gone. Latest content is in `Resources`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Shared by the scopes that see the same.
    pub names: Arc<Names>,
}

/// What one batch of changes did to the attached proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    pub scopes: BTreeMap<ScopeId, Touched>,
    /// Proxies that are in another scope now; compare everything they hold.
    pub moved: BTreeSet<ProxyId>,
}

impl Layer {
    pub fn get(&self, kind: ResourceType, name: &str) -> Option<&Arc<Encoded>> {
        self.by_kind[kind as usize].get(name)
    }

    /// Whether the version differs from what stood there.
    pub fn insert(&mut self, encoded: Arc<Encoded>) -> bool {
        let stamp = encoded.stamp.clone();
        let digest = &mut self.digests[stamp.kind as usize];
        digest.add(&stamp);
        let before = self.by_kind[stamp.kind as usize].insert_cow(stamp.name.clone(), encoded);
        if let Some(before) = &before {
            digest.take(before);
        }
        before.is_none_or(|before| before.version != stamp.version)
    }

    pub fn remove(&mut self, kind: ResourceType, name: &Str) -> bool {
        self.take(kind, name).is_some()
    }

    pub fn take(&mut self, kind: ResourceType, name: &Str) -> Option<Arc<Encoded>> {
        let entries = &mut self.by_kind[kind as usize];
        // What is not there must not be looked for by a removal: that copies the way to it.
        entries.get(name)?;
        let before = entries.remove_cow(name)?;
        self.digests[kind as usize].take(&before);
        Some(before)
    }

    pub fn digest(&self, kind: ResourceType) -> Digest {
        self.digests[kind as usize]
    }

    pub fn count(&self, kind: ResourceType) -> usize {
        self.by_kind[kind as usize].len()
    }

    /// All of a type, ordered by name.
    pub fn of(&self, kind: ResourceType) -> impl Iterator<Item = &Arc<Encoded>> {
        self.behind(kind, None)
    }

    /// Those of a type that come after a name.
    pub fn behind<'a>(
        &'a self,
        kind: ResourceType,
        name: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Arc<Encoded>> {
        let from = name.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.by_kind[kind as usize].range::<str, _>((from, Bound::Unbounded));
        behind.map(|(_, encoded)| encoded)
    }
}

impl<'a> Resources<'a> {
    pub fn new(own: &'a Layer, shared: &'a Layer, on_demand: &'a Layer) -> Self {
        Self {
            layers: [own, shared],
            on_demand,
        }
    }

    pub fn get(&self, kind: ResourceType, name: &str) -> Option<&'a Arc<Encoded>> {
        let on_demand = || self.on_demand.get(kind, name);
        self.unasked(kind, name).or_else(on_demand)
    }

    /// What a client is told of that asks for all.
    pub fn unasked(&self, kind: ResourceType, name: &str) -> Option<&'a Arc<Encoded>> {
        self.find(kind, name).map(|(_, encoded)| encoded)
    }

    /// With the number of its layer, if it is in one.
    pub fn find(&self, kind: ResourceType, name: &str) -> Option<(usize, &'a Arc<Encoded>)> {
        let found = |(at, layer): (usize, &'a Layer)| Some((at, layer.get(kind, name)?));
        self.layers.into_iter().enumerate().find_map(found)
    }

    /// All of a type, ordered by name within each layer, on demand or not.
    pub fn of(&self, kind: ResourceType) -> impl Iterator<Item = &'a Arc<Encoded>> + use<'a> {
        let all = self.layers.into_iter().chain([self.on_demand]);
        all.flat_map(move |layer| layer.of(kind))
    }

    /// How many a client is told of that asks for all.
    pub fn count(&self, kind: ResourceType) -> usize {
        self.layers.iter().map(|l| l.count(kind)).sum()
    }

    /// Most particular first; their order does not change.
    pub fn layers(&self) -> [&'a Layer; LAYERS] {
        self.layers
    }

    /// What is there for those who ask.
    pub fn on_demand(&self) -> &'a Layer {
        self.on_demand
    }

    /// Of what a client is told that asks for all.
    pub fn digest(&self, kind: ResourceType) -> Digest {
        let mut sum = Digest::default();
        for layer in self.layers {
            let Digest { content, names } = layer.digest(kind);
            sum.content = sum.content.wrapping_add(content);
            sum.names = sum.names.wrapping_add(names);
        }
        sum
    }
}

impl Digest {
    fn add(&mut self, stamp: &Stamp) {
        self.content = self.content.wrapping_add(stamp.mark());
        self.names = self.names.wrapping_add(stamp.key());
    }

    fn take(&mut self, stamp: &Stamp) {
        self.content = self.content.wrapping_sub(stamp.mark());
        self.names = self.names.wrapping_sub(stamp.key());
    }
}
