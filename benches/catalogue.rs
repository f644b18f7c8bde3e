//! Every resource version that came, looked into once; all proxies share it.

use std::collections::HashMap;

use fairlead::xds::ResourceType;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::facts;
use super::wire::Packed;

/// A name of one resource type, as an index: dense, so that proxies hold arrays and not maps.
pub type Name = u32;
/// One version of one resource, as an index.
pub type Item = u32;
/// What a resource leads to.
pub type Lead = (ResourceType, Name);

pub struct Resource {
    pub kind: ResourceType,
    pub name: Name,
    pub version: Box<str>,
    pub leads: Box<[Lead]>,
    pub facts: Vec<String>,
    /// Their sum.
    pub sum: u64,
}

#[derive(Default)]
struct Names {
    index: HashMap<u64, Name>,
    texts: Vec<Box<str>>,
}

#[derive(Default)]
pub struct Catalogue {
    names: [Names; ResourceType::COUNT],
    items: HashMap<u64, Item>,
    resources: Vec<Resource>,
}

impl Catalogue {
    pub fn name(&mut self, kind: ResourceType, text: &str) -> Name {
        let names = &mut self.names[kind as usize];
        let texts = &mut names.texts;
        let fresh = || {
            texts.push(text.into());
            u32::try_from(texts.len() - 1).unwrap_or(u32::MAX)
        };
        *names
            .index
            .entry(xxh3_64(text.as_bytes()))
            .or_insert_with(fresh)
    }

    pub fn text(&self, kind: ResourceType, name: Name) -> &str {
        &self.names[kind as usize].texts[name as usize]
    }

    /// A server that gives no versions is judged by its bytes.
    pub fn item(&mut self, packed: &Packed<'_>) -> Item {
        let seed = xxh3_64(packed.name.as_bytes()) ^ packed.kind as u64;
        let version = match packed.version {
            "" => packed.body,
            version => version.as_bytes(),
        };
        let key = xxh3_64_with_seed(version, seed);
        if let Some(item) = self.items.get(&key) {
            return *item;
        }
        let item = u32::try_from(self.resources.len()).unwrap_or(u32::MAX);
        let resource = self.look(packed);
        self.resources.push(resource);
        self.items.insert(key, item);
        item
    }

    fn look(&mut self, packed: &Packed<'_>) -> Resource {
        let kind = packed.kind;
        let leads = facts::leads(packed).into_iter();
        let leads = leads.map(|(next, name)| (next, self.name(next, &name)));
        let leads = leads.collect();
        let facts = facts::of(packed);
        let sum = facts
            .iter()
            .fold(0, |sum: u64, f| sum.wrapping_add(facts::weight(kind, f)));
        Resource {
            kind,
            name: self.name(kind, packed.name),
            version: packed.version.into(),
            leads,
            facts,
            sum,
        }
    }

    pub fn resource(&self, item: Item) -> &Resource {
        &self.resources[item as usize]
    }
}
