//! What each scope's proxies must hold, kept current change by change. Sessions are not known here.

pub mod engine;
mod hosts;
mod joined;
mod outbound;
mod places;
mod provenance;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::text::Str;
use crate::xds::{Entry, ResourceType};

pub use self::engine::Engine;

/// Resources by type and name.
pub type Names = BTreeSet<(ResourceType, Str)>;

/// Proxies whose configuration is equal share a scope; the number names it while any of them is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeId(pub u32);

/// Names an attached proxy; the owner of the engine chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProxyId(pub u64);

/// A set of resources by type and name. Secrets are per proxy and never in it.
#[derive(Debug, Default)]
pub struct Layer {
    by_kind: [BTreeMap<Str, Entry>; ResourceType::COUNT],
}

/// The full set of one scope: what is its own (inbound) over what it shares (outbound).
///
/// No name stands in both layers.
#[derive(Clone, Copy, Debug)]
pub struct Resources<'a> {
    layers: [&'a Layer; 2],
}

/// Names whose entry may differ from before: changed, new, or gone. Latest content is in `Resources`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    pub names: Names,
}

/// What one batch of changes did to the attached proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    pub scopes: BTreeMap<ScopeId, Touched>,
    /// Proxies that are in another scope now; compare everything they hold.
    pub moved: BTreeSet<ProxyId>,
}

impl Layer {
    pub fn get(&self, kind: ResourceType, name: &str) -> Option<&Entry> {
        self.by_kind[kind as usize].get(name)
    }

    /// Whether the version differs from what stood there (provenance alone does not count).
    pub fn insert(&mut self, entry: Entry) -> bool {
        let kind = entry.encoded.kind;
        let version = entry.encoded.version.clone();
        let before = self.by_kind[kind as usize].insert(entry.encoded.name.clone(), entry);
        before.is_none_or(|b| b.encoded.version != version)
    }

    pub fn remove(&mut self, kind: ResourceType, name: &str) -> bool {
        self.by_kind[kind as usize].remove(name).is_some()
    }

    /// All of a type, ordered by name.
    pub fn of(&self, kind: ResourceType) -> impl Iterator<Item = &Entry> {
        self.by_kind[kind as usize].values()
    }
}

impl<'a> Resources<'a> {
    pub fn new(own: &'a Layer, shared: &'a Layer) -> Self {
        Self {
            layers: [own, shared],
        }
    }

    pub fn get(&self, kind: ResourceType, name: &str) -> Option<&'a Entry> {
        self.layers.iter().find_map(|l| l.get(kind, name))
    }

    /// All of a type, ordered by name within each layer.
    pub fn of(&self, kind: ResourceType) -> impl Iterator<Item = &'a Entry> + use<'a> {
        self.layers
            .into_iter()
            .flat_map(move |l| l.by_kind[kind as usize].values())
    }

    pub fn count(&self, kind: ResourceType) -> usize {
        self.layers
            .iter()
            .map(|l| l.by_kind[kind as usize].len())
            .sum()
    }
}
