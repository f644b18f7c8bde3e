//! What each scope's proxies must hold, kept current change by change. Sessions are not known here.

use std::collections::{BTreeMap, BTreeSet};

use crate::text::Str;
use crate::xds::{Entry, ResourceType};

/// Proxies whose configuration is equal share a scope; the number names it while any of them is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeId(pub u32);

/// The full set of resources of one scope. Secrets are per proxy and never in it.
#[derive(Debug, Default)]
pub struct Resources {
    by_kind: [BTreeMap<Str, Entry>; ResourceType::COUNT],
}

/// Names whose entry may differ from before: changed, new, or gone. Latest content is in `Resources`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    pub names: BTreeSet<(ResourceType, Str)>,
}

impl Resources {
    pub fn get(&self, kind: ResourceType, name: &str) -> Option<&Entry> {
        self.by_kind[kind as usize].get(name)
    }

    pub fn of(&self, kind: ResourceType) -> &BTreeMap<Str, Entry> {
        &self.by_kind[kind as usize]
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
}
