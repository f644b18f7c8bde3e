//! What one client asked for and holds of one type. What is due to it is in `due.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::due::{Due, older};
use crate::delivery::frame::Roll;
use crate::delivery::pool::{Held, LAST, Wanted};
use crate::delivery::roster::{Name, Roster, Shelf};
use crate::delivery::wire::Nonce;
use crate::text::Str;
use crate::view::{LAYERS, Resources};
use crate::xds::stamp::{Key, key_of};
use crate::xds::{Encoded, Ref, ResourceType, Stamp};

/// The subscription to one type, and what is known of the client's side.
///
/// The sets are shared with the sessions that have equal ones: an idle watch is a few pointers.
#[derive(Debug)]
pub struct Watch {
    pub kind: ResourceType,
    /// Its first request came on this stream.
    pub opened: bool,
    pub wildcard: bool,
    /// Its first request found nothing: Envoy starts up only once it has been told so.
    pub owed: bool,
    pub names: Roster<Name>,
    /// As last sent or brought, by the layer it came from; no name stands in two.
    pub held: Held,
    pub due: Due,
    pub nacks: BTreeMap<Str, Nack>,
    pub acked: Nonce,
    pub sent: Nonce,
    unacked: VecDeque<Unacked>,
}

/// A refusal that stands until other content is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nack {
    pub version: Str,
    pub frame: Nonce,
    /// Envoy's own words, cut to a bound.
    pub message: Arc<str>,
    /// The client goes on with an older form.
    pub in_force: bool,
}

#[derive(Clone, Debug)]
struct Unacked {
    nonce: Nonce,
    /// When the change happened that this frame tells of; absent for an answer.
    since: Option<Instant>,
    roll: Arc<Roll>,
    news: News,
}

/// Which resources of a frame the client had accepted in no form when it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    None,
    Some(BTreeSet<Key>),
    All,
}

/// Frames whose acknowledgment is remembered. Envoy may withhold those of clusters for long; an
/// acknowledgment of a forgotten frame counts as stale, and the next one covers it.
const UNACKED: usize = 1024;

/// The longest version kept from a client's claims; ours have 22 characters.
const CLAIM: usize = 128;

impl Watch {
    pub fn new(kind: ResourceType) -> Self {
        Self {
            kind,
            opened: false,
            wildcard: false,
            owed: false,
            names: Roster::EMPTY,
            held: Held::default(),
            due: Due::default(),
            nacks: BTreeMap::new(),
            acked: Nonce::default(),
            sent: Nonce::default(),
            unacked: VecDeque::new(),
        }
    }

    pub fn wants(&self, name: &str) -> bool {
        self.wildcard || (!self.names.is_empty() && self.names.has(key_of(self.kind, name)))
    }

    /// By its name, not as one of all.
    pub fn asks_for(&self, name: &str) -> bool {
        self.names.has(key_of(self.kind, name))
    }

    /// By its name although it asks for all, as Envoy does for a cluster that a request needs. What it is told
    /// stands until it is told otherwise, so it is never told that there is none: it would not ask again.
    pub fn demands(&self, name: &str) -> bool {
        self.wildcard && self.asks_for(name)
    }

    /// What the client is to hold under a name. What it holds it keeps while it is there: its routes may use it.
    pub fn sees<'a>(&self, view: Resources<'a>, name: &str) -> Option<&'a Arc<Encoded>> {
        let known = |_: &&Arc<Encoded>| self.asks_for(name) || self.held(name).is_some();
        let on_demand = || view.get(self.kind, name).filter(known);
        view.unasked(self.kind, name).or_else(on_demand)
    }

    pub fn wanted(&self) -> Wanted<'_> {
        if self.wildcard {
            Wanted::All
        } else {
            Wanted::Names(&self.names)
        }
    }

    pub fn held(&self, name: &str) -> Option<&Arc<Stamp>> {
        self.holds(key_of(self.kind, name))
    }

    fn holds(&self, key: Key) -> Option<&Arc<Stamp>> {
        self.held.iter().find_map(|layer| layer.get(key))
    }

    pub fn count(&self) -> usize {
        self.held.iter().map(Roster::len).sum()
    }

    /// Whether the client holds exactly this.
    pub fn has(&self, encoded: &Encoded) -> bool {
        self.holds(encoded.key())
            .is_some_and(|stamp| stamp.version == encoded.version)
    }

    /// What the form in force at the client refers to. Absent if that is not known: an earlier stream
    /// brought another version, or the client refused this one and goes on with an older.
    pub fn refs(&self, stamp: &Stamp) -> Option<Arc<[Ref]>> {
        let refused = self.nacks.get(&stamp.name);
        if refused.is_some_and(|nack| nack.version == stamp.version) {
            return None;
        }
        stamp.refs.clone()
    }

    /// Takes down a frame: what it brings is held from now on, what it removes is not.
    pub fn sent(
        &mut self,
        nonce: Nonce,
        (roll, news): (Arc<Roll>, News),
        held: Held,
        since: Option<Instant>,
    ) {
        self.held = held;
        self.sent = nonce;
        self.owed = false;
        if self.unacked.len() == UNACKED {
            self.forget_oldest();
        }
        self.unacked.push_back(Unacked {
            nonce,
            since,
            roll,
            news,
        });
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.unacked.pop_front() else {
            return;
        };
        let news = oldest.news.keys(&oldest.roll);
        if let Some(next) = self.unacked.front_mut().filter(|_| !news.is_empty()) {
            let mut all = next.news.keys(&next.roll);
            all.extend(news);
            next.news = News::Some(all);
        }
    }

    /// What a frame with these would be news of. `added` says how many of them are not held.
    pub fn news(&self, roll: &Roll, added: usize) -> News {
        let unsettled = self.unacked.iter().any(|u| u.news != News::None);
        if added == roll.stamps.len() {
            return News::All;
        }
        if added == 0 && !unsettled && self.nacks.values().all(|n| n.in_force) {
            return News::None;
        }
        let new = roll.stamps.iter().filter(|s| !self.is_in_force(s));
        let new: BTreeSet<Key> = new.map(|s| s.key()).collect();
        if new.is_empty() {
            News::None
        } else {
            News::Some(new)
        }
    }

    /// Whether the client is known to go on with some form of it, whatever becomes of a new one.
    fn is_in_force(&self, stamp: &Stamp) -> bool {
        let key = stamp.key();
        let pending = |u: &Unacked| u.news.has(key, &u.roll);
        let refused = self.nacks.get(&stamp.name);
        self.holds(key).is_some()
            && !self.unacked.iter().any(pending)
            && refused.is_none_or(|nack| nack.in_force)
    }

    pub fn forget(&mut self, name: &str, shelf: &mut Shelf<Arc<Stamp>>) {
        let key = key_of(self.kind, name);
        self.held = without(&self.held, &[key], shelf);
        self.settle(name);
    }

    /// Nothing is due or known of it beyond what is held.
    pub fn settle(&mut self, name: &str) {
        self.due.named.remove(name);
        self.nacks.remove(name);
    }

    /// Takes an answer to a frame, and to those before it. None if no such frame is outstanding.
    pub fn answered(&mut self, nonce: Nonce, error: Option<&Arc<str>>) -> Option<Answered> {
        // A frame made of several sheets stands here once for each.
        let at = self.unacked.iter().rposition(|u| u.nonce == nonce)?;
        self.acked = nonce;
        let answered: Vec<Unacked> = self.unacked.drain(..=at).collect();
        if self.unacked.is_empty() {
            // An idle stream keeps no buffer.
            self.unacked = VecDeque::new();
        }
        let since = answered.iter().filter_map(|u| u.since).min();
        let mut refused = Vec::new();
        let mut brought = Vec::new();
        for frame in answered {
            match error.filter(|_| frame.nonce == nonce) {
                Some(message) => refused = self.refused(&frame, message),
                None => {
                    // Newer content of a refused name was accepted: the refusal is over.
                    let kind = self.kind;
                    let over = |n: &Str| frame.roll.has(key_of(kind, n));
                    self.nacks.retain(|name, _| !over(name));
                    brought.push(frame.roll);
                }
            }
        }
        Some(Answered {
            since,
            refused,
            brought,
        })
    }

    /// The names of the refused frame, unless something newer was sent since.
    fn refused(&mut self, frame: &Unacked, message: &Arc<str>) -> Vec<Str> {
        let mut names = Vec::new();
        for stamp in &frame.roll.stamps {
            let newer = self.unacked.iter().any(|u| u.roll.has(stamp.key()));
            if newer || self.holds(stamp.key()).is_none() {
                continue;
            }
            let nack = Nack {
                version: stamp.version.clone(),
                frame: frame.nonce,
                message: message.clone(),
                in_force: !frame.news.has(stamp.key(), &frame.roll),
            };
            self.nacks.insert(stamp.name.clone(), nack);
            names.push(stamp.name.clone());
        }
        names
    }

    /// When the oldest change happened that is due or unanswered.
    pub fn owes(&self) -> Option<Instant> {
        let sent = self.unacked.iter().filter_map(|u| u.since).min();
        older(sent, self.due.since())
    }

    pub fn outstanding(&self) -> usize {
        self.unacked.len()
    }

    /// Keys of what was sent and not answered.
    pub fn unanswered(&self) -> BTreeSet<Key> {
        let stamps = self.unacked.iter().flat_map(|u| &u.roll.stamps);
        let held = stamps.map(|s| s.key()).filter(|k| self.holds(*k).is_some());
        held.collect()
    }
}

/// What an answer of the client's meant.
#[derive(Debug, Default)]
pub struct Answered {
    /// When the oldest change happened that the answered frames told of.
    pub since: Option<Instant>,
    pub refused: Vec<Str>,
    /// Frames that were accepted.
    pub brought: Vec<Arc<Roll>>,
}

impl News {
    pub fn has(&self, key: Key, roll: &Roll) -> bool {
        match self {
            Self::None => false,
            Self::Some(keys) => keys.contains(&key),
            Self::All => roll.has(key),
        }
    }

    fn keys(&self, roll: &Roll) -> BTreeSet<Key> {
        match self {
            Self::None => BTreeSet::new(),
            Self::Some(keys) => keys.clone(),
            Self::All => roll.stamps.iter().map(|s| s.key()).collect(),
        }
    }
}

/// What a client holds that says so itself: each name as the view has it, if the version is equal.
pub fn claimed<'a>(
    kind: ResourceType,
    claims: impl Iterator<Item = (&'a str, &'a str)>,
    view: Resources<'_>,
    shelf: &mut Shelf<Arc<Stamp>>,
) -> Held {
    let mut puts: [Vec<Arc<Stamp>>; LAYERS] = Default::default();
    let mut seen = BTreeMap::new();
    for (name, version) in claims {
        seen.insert(name, version);
    }
    for (name, version) in seen {
        let on_demand = || view.get(kind, name).map(|entry| (LAST, entry));
        let current = view.find(kind, name).or_else(on_demand);
        let equal = current.filter(|(_, entry)| entry.version == version);
        let (layer, stamp) = match equal {
            Some((layer, entry)) => (layer, entry.stamp.clone()),
            None => (LAST, Arc::new(unknown(kind, name, version))),
        };
        puts[layer].push(stamp);
    }
    puts.map(|stamps| shelf.edit(&Roster::EMPTY, stamps, []))
}

fn unknown(kind: ResourceType, name: &str, version: &str) -> Stamp {
    let version = if version.len() <= CLAIM {
        Str::new(version)
    } else {
        Str::default()
    };
    Stamp::new(kind, Str::new(name), version, None)
}

/// Everything that is held but these.
pub fn without(held: &Held, keys: &[Key], shelf: &mut Shelf<Arc<Stamp>>) -> Held {
    let edit = |layer: &Roster<_>| {
        if layer.is_empty() {
            return Roster::EMPTY;
        }
        shelf.edit(layer, [], keys.iter().copied())
    };
    held.each_ref().map(edit)
}
