//! What one simulated proxy holds, and how it answers, as Envoy 1.40 does. No sockets here.

use std::collections::HashMap;
use std::ops::AddAssign as _;

use bytes::Bytes;
use fairlead::xds::ResourceType;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::catalogue::{Catalogue, Item, Lead, Name};
use super::facts::Sums;
use super::wire::Request;

/// Whether a proxy asks for its certificate; only an authenticated stream gets one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Secrets {
    Unasked,
    Asked,
}

/// How a proxy opens its first stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Opening {
    /// As Envoy does: all clusters, all listeners, and what they lead to.
    Clusters,
    /// Its certificate and the roots, and nothing else.
    Certificate,
    /// So many small messages, of the null server.
    Blast(u32),
}

/// What a proxy must hold at least to be whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Least {
    pub clusters: usize,
    pub listeners: usize,
    pub scopes: usize,
    pub tables: usize,
}

/// A whole response, its resources already catalogued.
pub struct Delivery<'a> {
    pub kind: ResourceType,
    pub nonce: &'a [u8],
    pub items: &'a [Item],
    pub removed: &'a [Name],
}

/// Types in the order in which a proxy comes to ask for them.
const ORDER: [ResourceType; ResourceType::COUNT] = [
    ResourceType::Cluster,
    ResourceType::Endpoint,
    ResourceType::Listener,
    ResourceType::ScopedRoute,
    ResourceType::Route,
    ResourceType::Secret,
];
const SECRETS: [&str; 2] = ["default", "ROOTCA"];
pub const BLAST: &str = "bench/blast";

/// A set of names.
#[derive(Default)]
struct Set {
    words: Vec<u64>,
    size: usize,
}

impl Set {
    fn insert(&mut self, name: Name) -> bool {
        let (word, bit) = (name as usize / 64, 1 << (name % 64));
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let fresh = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.size += usize::from(fresh);
        fresh
    }

    fn remove(&mut self, name: Name) {
        let (word, bit) = (name as usize / 64, 1 << (name % 64));
        if let Some(word) = self.words.get_mut(word).filter(|w| **w & bit != 0) {
            *word &= !bit;
            self.size -= 1;
        }
    }

    fn clear(&mut self) {
        self.words.clear();
        self.size = 0;
    }
}

/// Entries by name; absent beyond the end.
#[derive(Default)]
struct Column(Vec<u32>);

impl Column {
    fn get(&self, name: Name) -> u32 {
        self.0.get(name as usize).copied().unwrap_or(0)
    }

    fn at(&mut self, name: Name) -> &mut u32 {
        let name = name as usize;
        if self.0.len() <= name {
            self.0.resize(name + 1, 0);
        }
        &mut self.0[name]
    }

    fn present(&self) -> impl Iterator<Item = (Name, u32)> {
        (0..).zip(self.0.iter().copied()).filter(|(_, v)| *v != 0)
    }
}

#[derive(Default)]
struct Share {
    /// Item + 1 by name.
    held: Column,
    count: usize,
    /// How many held resources lead to a name: it is subscribed while that is not 0 (EDS, RDS, SDS; of scopes all
    /// or none).
    wanted: Column,
    /// Wanted and not held.
    missing: Set,
    /// Requested on this stream.
    asked: bool,
}

/// Requests that many proxies send alike, encoded once.
#[derive(Default)]
pub struct Phrases(HashMap<u64, Bytes>);

/// What a proxy needs of its fleet to answer.
pub struct Ground<'a> {
    pub catalogue: &'a mut Catalogue,
    pub phrases: &'a mut Phrases,
}

pub struct Proxy {
    node: Bytes,
    secrets: Secrets,
    opening: Opening,
    shares: [Share; ResourceType::COUNT],
    /// Assignments that changed clusters wait for.
    warming: Set,
    /// Nonces of cluster responses whose ACK waits until nothing warms.
    withheld: Vec<Vec<u8>>,
    /// On reconnect, this type's versions are said to be of another build.
    pub foreign: Option<ResourceType>,
}

impl Proxy {
    pub fn new(node: Bytes, secrets: Secrets, opening: Opening) -> Self {
        Self {
            node,
            secrets,
            opening,
            shares: Default::default(),
            warming: Set::default(),
            withheld: Vec::new(),
            foreign: None,
        }
    }

    fn share(&mut self, kind: ResourceType) -> &mut Share {
        &mut self.shares[kind as usize]
    }

    /// What a new stream begins with: clusters alone, or all that is held after a lost one.
    pub fn open(&mut self, ground: &mut Ground<'_>) -> Vec<Bytes> {
        self.withheld.clear();
        self.warming.clear();
        for share in &mut self.shares {
            share.asked = false;
        }
        let fresh = self.shares.iter().all(|share| share.count == 0);
        match &self.opening {
            Opening::Blast(count) => {
                let count = count.to_string();
                let request = Request {
                    type_url: BLAST,
                    subscribe: vec![&count],
                    ..Request::of(ResourceType::Endpoint)
                };
                vec![request.encode()]
            }
            Opening::Certificate if fresh => self.ask_secrets(ground).into_iter().collect(),
            Opening::Clusters if fresh => self
                .resume(ResourceType::Cluster, ground)
                .into_iter()
                .collect(),
            Opening::Certificate | Opening::Clusters => {
                let kinds = ORDER.into_iter();
                kinds.filter_map(|kind| self.resume(kind, ground)).collect()
            }
        }
    }

    /// A type's first request of a stream, with the versions held. The stream's first one names the node.
    fn resume(&mut self, kind: ResourceType, ground: &Ground<'_>) -> Option<Bytes> {
        let always = matches!(kind, ResourceType::Cluster | ResourceType::Listener);
        let first = !self.shares.iter().any(|share| share.asked);
        let foreign = self.foreign == Some(kind);
        let node = first.then(|| self.node.clone());
        let share = self.share(kind);
        let catalogue = &*ground.catalogue;
        let mut subscribe: Vec<&str> = share
            .wanted
            .present()
            .map(|(name, _)| catalogue.text(kind, name))
            .collect();
        if !always && subscribe.is_empty() {
            return None;
        }
        if kind == ResourceType::ScopedRoute {
            // A first request without names means all.
            subscribe.clear();
        }
        share.asked = true;
        let initial = share.held.present().map(|(name, item)| {
            let version = match foreign {
                true => "0123456789abcdef0123456789abcdef",
                false => &catalogue.resource(item - 1).version,
            };
            (catalogue.text(kind, name), version)
        });
        let request = Request {
            node: node.as_deref(),
            subscribe,
            initial: initial.collect(),
            ..Request::of(kind)
        };
        Some(request.encode())
    }

    /// Takes a response in, and says what the proxy sends because of it.
    pub fn on_delivery(&mut self, delivery: &Delivery<'_>, ground: &mut Ground<'_>) -> Vec<Bytes> {
        let kind = delivery.kind;
        let (mut news, mut gone) = (Vec::new(), Vec::new());
        for item in delivery.items {
            self.take(*item, ground.catalogue, &mut news, &mut gone);
        }
        for name in delivery.removed {
            self.drop(kind, *name, ground.catalogue, &mut gone);
        }
        let mut replies = Vec::new();
        // What one response lets go and takes again stays subscribed.
        let wanted = |(kind, name): &Lead| self.shares[*kind as usize].wanted.get(*name) != 0;
        gone.retain(|lead| !wanted(lead));
        news.retain(wanted);
        for next in ORDER {
            let of = |leads: &[Lead]| -> Vec<Name> {
                let leads = leads.iter().filter(|(kind, _)| *kind == next);
                leads.map(|(_, name)| *name).collect()
            };
            replies.extend(self.subscribe(next, &of(&news), &of(&gone), ground));
        }
        if kind == ResourceType::ScopedRoute {
            self.share(kind).missing.clear();
        }
        if kind == ResourceType::Cluster {
            self.withheld.push(delivery.nonce.to_vec());
            replies.extend(self.ask_secrets(ground));
        } else {
            replies.push(Request::ack(kind, delivery.nonce).encode());
        }
        self.settle(&mut replies, ground);
        replies
    }

    fn take(
        &mut self,
        item: Item,
        catalogue: &Catalogue,
        news: &mut Vec<Lead>,
        gone: &mut Vec<Lead>,
    ) {
        let resource = catalogue.resource(item);
        let (kind, name) = (resource.kind, resource.name);
        if kind == ResourceType::Endpoint {
            self.warming.remove(name);
        }
        let share = self.share(kind);
        share.missing.remove(name);
        let before = std::mem::replace(share.held.at(name), item + 1);
        share.count += usize::from(before == 0);
        if before == item + 1 {
            return;
        }
        for (next, lead) in &resource.leads {
            if *next == ResourceType::Endpoint {
                self.warming.insert(*lead);
            }
            let share = self.share(*next);
            share.wanted.at(*lead).add_assign(1);
            if share.wanted.get(*lead) == 1 {
                if share.held.get(*lead) == 0 {
                    share.missing.insert(*lead);
                }
                news.push((*next, *lead));
            }
        }
        if before != 0 {
            self.release(&catalogue.resource(before - 1).leads, gone);
        }
    }

    /// Forgets a removed resource, and what only it led to.
    fn drop(
        &mut self,
        kind: ResourceType,
        name: Name,
        catalogue: &Catalogue,
        gone: &mut Vec<Lead>,
    ) {
        let share = self.share(kind);
        if share.held.get(name) == 0 {
            return;
        }
        let item = std::mem::take(share.held.at(name));
        share.count -= 1;
        self.release(&catalogue.resource(item - 1).leads, gone);
    }

    fn release(&mut self, leads: &[Lead], gone: &mut Vec<Lead>) {
        for (kind, lead) in leads {
            let share = self.share(*kind);
            let wanted = share.wanted.at(*lead);
            *wanted = wanted.saturating_sub(1);
            if *wanted != 0 {
                continue;
            }
            share.missing.remove(*lead);
            let held = std::mem::take(share.held.at(*lead));
            share.count -= usize::from(held != 0);
            if *kind == ResourceType::Endpoint {
                self.warming.remove(*lead);
            }
            gone.push((*kind, *lead));
        }
    }

    fn subscribe(
        &mut self,
        kind: ResourceType,
        news: &[Name],
        gone: &[Name],
        ground: &mut Ground<'_>,
    ) -> Option<Bytes> {
        if news.is_empty() && gone.is_empty() {
            return None;
        }
        if kind == ResourceType::ScopedRoute {
            return self.ask_scopes(ground);
        }
        self.share(kind).asked = true;
        let words: Vec<u8> = [news, &[u32::MAX, kind as u32], gone]
            .concat()
            .iter()
            .flat_map(|name| name.to_le_bytes())
            .collect();
        let catalogue = &*ground.catalogue;
        let text = |name: &Name| catalogue.text(kind, *name);
        let make = || {
            Request {
                subscribe: news.iter().map(text).collect(),
                unsubscribe: gone.iter().map(text).collect(),
                ..Request::of(kind)
            }
            .encode()
        };
        let phrase = ground.phrases.0.entry(xxh3_64(&words)).or_insert_with(make);
        Some(phrase.clone())
    }

    /// For all of them, once a stream. A proxy without a listener that looks for them stays subscribed.
    fn ask_scopes(&mut self, ground: &Ground<'_>) -> Option<Bytes> {
        let share = self.share(ResourceType::ScopedRoute);
        if share.asked {
            share.missing.clear();
            return None;
        }
        self.resume(ResourceType::ScopedRoute, ground)
    }

    fn ask_secrets(&mut self, ground: &mut Ground<'_>) -> Option<Bytes> {
        let asked = self.shares[ResourceType::Secret as usize].asked;
        if asked || self.secrets == Secrets::Unasked {
            return None;
        }
        for name in SECRETS {
            let name = ground.catalogue.name(ResourceType::Secret, name);
            let share = self.share(ResourceType::Secret);
            *share.wanted.at(name) = 1;
            if share.held.get(name) == 0 {
                share.missing.insert(name);
            }
        }
        self.resume(ResourceType::Secret, ground)
    }

    /// Once no cluster warms: the ACKs that waited for it, and the first request for listeners.
    fn settle(&mut self, replies: &mut Vec<Bytes>, ground: &Ground<'_>) {
        if self.warming.size > 0 {
            return;
        }
        let acks = self.withheld.drain(..);
        replies.extend(acks.map(|n| Request::ack(ResourceType::Cluster, &n).encode()));
        let clusters = &self.shares[ResourceType::Cluster as usize];
        let listeners = &self.shares[ResourceType::Listener as usize];
        if clusters.asked && !listeners.asked {
            replies.extend(self.resume(ResourceType::Listener, ground));
        }
    }

    /// Nothing that it was told of still waits for a part.
    pub fn is_warm(&self) -> bool {
        self.warming.size == 0 && self.shares.iter().all(|s| s.missing.size == 0)
    }

    pub fn is_whole(&self, least: Least) -> bool {
        let count = |kind: ResourceType| self.shares[kind as usize].count;
        self.is_warm()
            && count(ResourceType::Cluster) >= least.clusters
            && count(ResourceType::Listener) >= least.listeners
            && count(ResourceType::ScopedRoute) >= least.scopes
            && count(ResourceType::Route) >= least.tables
            && (self.secrets == Secrets::Unasked || count(ResourceType::Secret) == SECRETS.len())
    }

    fn items(&self) -> impl Iterator<Item = Item> {
        let shares = self.shares.iter();
        shares.flat_map(|share| share.held.present().map(|(_, item)| item - 1))
    }

    /// What it holds, for comparison with what it must hold.
    pub fn sums(&self, catalogue: &Catalogue) -> Sums {
        let mut sums = Sums::default();
        for item in self.items() {
            let resource = catalogue.resource(item);
            let sum = &mut sums[resource.kind as usize];
            *sum = sum.wrapping_add(resource.sum);
        }
        sums
    }

    pub fn facts(&self, catalogue: &Catalogue) -> Vec<(ResourceType, String)> {
        let resources = self.items().map(|item| catalogue.resource(item));
        resources
            .flat_map(|r| r.facts.iter().map(|fact| (r.kind, fact.clone())))
            .collect()
    }

    /// Names and versions of everything but secrets, which are no two times the same.
    pub fn versions(&self, catalogue: &Catalogue) -> Vec<String> {
        let resources = self.items().map(|item| catalogue.resource(item));
        let mut out: Vec<String> = resources
            .filter(|r| r.kind != ResourceType::Secret)
            .map(|r| {
                let name = catalogue.text(r.kind, r.name);
                format!("{} {name} {}", r.kind.short(), r.version)
            })
            .collect();
        out.sort();
        out
    }
}
