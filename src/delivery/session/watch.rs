//! What one client asked for and holds of one type. Which frame goes next is `flush.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::delivery::wire::Nonce;
use crate::text::Str;
use crate::xds::{Encoded, Ref};

/// The subscription to one type, and what is known of the client's side.
#[derive(Debug, Default)]
pub struct Watch {
    /// Its first request came on this stream.
    pub opened: bool,
    pub wildcard: bool,
    /// Its first request found nothing: Envoy starts up only once it has been told so.
    pub owed: bool,
    pub names: BTreeSet<Str>,
    pub held: BTreeMap<Str, Held>,
    pub due: BTreeMap<Str, Due>,
    pub nacks: BTreeMap<Str, Nack>,
    /// Names sent and not acknowledged are those whose frame is later than this.
    pub acked: Nonce,
    pub sent: Nonce,
    unacked: VecDeque<Unacked>,
}

/// A resource as the client has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub version: Str,
    /// The frame that brought it; zero if it came on an earlier stream.
    pub frame: Nonce,
    /// What the form in force there refers to. Absent if that is not known: an earlier stream brought
    /// another version, or the client refused this one and goes on with an older.
    pub refs: Option<Arc<[Ref]>>,
    /// Some form of it is in force there: the client accepted one, or brought it.
    pub in_force: bool,
}

/// A name to be looked at in the next flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    pub why: Why,
    /// When the change happened; absent for a question of the client's.
    pub since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Sent only if its version differs from the one held.
    Changed,
    /// Answered whatever its version.
    Asked,
}

/// A refusal that stands until other content is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nack {
    pub version: Str,
    pub frame: Nonce,
    /// Envoy's own words, cut to a bound.
    pub message: Arc<str>,
}

#[derive(Clone, Copy, Debug)]
struct Unacked {
    nonce: Nonce,
    /// When the change happened that this frame tells of; absent for an answer.
    since: Option<Instant>,
}

/// Frames whose acknowledgment is remembered. Envoy may withhold those of clusters for long; an
/// acknowledgment of a forgotten frame counts as stale, and the next one covers it.
const UNACKED: usize = 1024;

/// Version of the empty resource that answers a name nothing stands behind.
pub const ABSENT: Str = Str::new_static("absent");

/// The longest version kept from a client's claims; ours have 32 characters.
const CLAIM: usize = 128;

impl Watch {
    pub fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    pub fn ask(&mut self, name: &Str) {
        mark(&mut self.due, name, Due::ASKED);
    }

    pub fn change(&mut self, name: &Str, since: Option<Instant>) {
        let why = Why::Changed;
        mark(&mut self.due, name, Due { why, since });
    }

    /// Whether the client holds exactly this.
    pub fn has(&self, encoded: &Encoded) -> bool {
        self.held
            .get(&encoded.name)
            .is_some_and(|h| h.version == encoded.version)
    }

    /// Takes down what the client says it holds; `current` is what stands under that name now.
    pub fn claim(&mut self, name: &str, version: &str, current: Option<&Encoded>) {
        let equal = current.filter(|c| c.version == version);
        let held = Held {
            version: match equal {
                Some(current) => current.version.clone(),
                None if version.len() <= CLAIM => Str::new(version),
                None => Str::default(),
            },
            frame: Nonce::default(),
            refs: equal.map(|c| c.refs.clone()),
            in_force: true,
        };
        let name = current.map_or_else(|| Str::new(name), |c| c.name.clone());
        self.held.insert(name, held);
    }

    pub fn sent(&mut self, nonce: Nonce, entries: &[Arc<Encoded>], since: Option<Instant>) {
        for entry in entries {
            let held = Held {
                version: entry.version.clone(),
                frame: nonce,
                refs: Some(entry.refs.clone()),
                in_force: self.is_in_force(&entry.name),
            };
            self.held.insert(entry.name.clone(), held);
        }
        self.sent = nonce;
        self.owed = false;
        if self.unacked.len() == UNACKED {
            self.unacked.pop_front();
        }
        self.unacked.push_back(Unacked { nonce, since });
    }

    /// Whether the client is known to go on with some form of it, whatever becomes of a new one.
    pub fn is_in_force(&self, name: &str) -> bool {
        let accepted = |h: &Held| h.frame <= self.acked && !self.nacks.contains_key(name);
        let held = self.held.get(name);
        held.is_some_and(|h| h.in_force || accepted(h))
    }

    pub fn forget(&mut self, name: &str) {
        self.held.remove(name);
        self.due.remove(name);
        self.nacks.remove(name);
    }

    /// Takes an answer to a frame, and to those before it. None if no such frame is outstanding.
    ///
    /// Gives the time of the oldest change that the answered frames told of.
    pub fn answered(&mut self, nonce: Nonce) -> Option<Option<Instant>> {
        let at = self.unacked.iter().position(|u| u.nonce == nonce)?;
        self.acked = nonce;
        Some(self.unacked.drain(..=at).filter_map(|u| u.since).min())
    }

    /// Newer content of a refused name was accepted: the refusal is over.
    pub fn accepted(&mut self) {
        let acked = self.acked;
        let held = &self.held;
        self.nacks.retain(|name, nack| {
            held.get(name)
                .is_some_and(|h| h.frame == nack.frame || h.frame > acked)
        });
    }

    /// The names of the refused frame, unless something newer was sent since.
    pub fn refused(&mut self, nonce: Nonce, message: &Arc<str>) -> Vec<Str> {
        let mut names = Vec::new();
        for (name, held) in self.held.iter_mut().filter(|(_, h)| h.frame == nonce) {
            held.refs = None;
            let nack = Nack {
                version: held.version.clone(),
                frame: nonce,
                message: message.clone(),
            };
            self.nacks.insert(name.clone(), nack);
            names.push(name.clone());
        }
        names
    }

    pub fn outstanding(&self) -> usize {
        self.unacked.len()
    }
}

impl Due {
    pub const ASKED: Self = Self {
        why: Why::Asked,
        since: None,
    };
}

/// The stronger reason stays, and the older time.
pub fn mark(list: &mut BTreeMap<Str, Due>, name: &Str, due: Due) {
    let slot = list.entry(name.clone()).or_insert(due);
    slot.why = slot.why.max(due.why);
    slot.since = match (slot.since, due.since) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
}
