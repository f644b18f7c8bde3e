//! Which frame goes next: the order in which nothing refers to what the client lacks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::due::{Mark, older};
use super::verdict::{InForce, Verdict};
use super::watch::{News, Watch};
use super::{Output, Session, Turn, Volume, Window};
use crate::delivery::frame::{Frame, Roll, Sheet};
use crate::delivery::pool::{Held, LAST};
use crate::delivery::roster::{Name, Roster};
use crate::delivery::wire::Nonce;
use crate::text::Str;
use crate::view::{LAYERS, Resources};
use crate::xds::stamp::{Key, key_of};
use crate::xds::{Encoded, ResourceType};

/// One step of a flush. Each frame is taken from the first step that has anything to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Secrets,
    /// Endpoints of the clusters just sent: Envoy drops endpoints that come before their cluster, and
    /// warms a changed cluster until they come after it.
    Companions,
    Clusters,
    Endpoints,
    Listeners,
    /// Before their tables, whose removal Envoy takes for a fault while a scope has them.
    ScopeRemovals,
    Routes,
    /// After the tables that they move to.
    Scopes,
    /// Last, when no route or listener in the client's hands names them.
    ClusterRemovals,
}

const ORDER: [Stage; 9] = [
    Stage::Secrets,
    Stage::Companions,
    Stage::Clusters,
    Stage::Endpoints,
    Stage::Listeners,
    Stage::ScopeRemovals,
    Stage::Routes,
    Stage::Scopes,
    Stage::ClusterRemovals,
];

#[derive(Default)]
struct Batch {
    entries: Vec<Arc<Encoded>>,
    /// The layer of each entry.
    layers: Vec<usize>,
    removed: Vec<Str>,
    /// Keys of those.
    gone: Vec<Key>,
    settled: Vec<Str>,
    bytes: usize,
    /// The oldest change that it tells of.
    since: Option<Instant>,
}

impl Session {
    /// Everything that may go now, in order. What has no room stays due, by name.
    pub fn flush(&mut self, turn: &mut Turn<'_>) -> Vec<Output> {
        let mut out = Vec::new();
        while self.has_room() && self.has_anything_due() {
            let Some(frame) = ORDER.iter().find_map(|stage| self.take(*stage, turn)) else {
                break;
            };
            out.push(Output::Send(frame));
        }
        self.await_tables(turn.view, turn.now);
        if self.has_room() {
            out.extend(self.secrets.asks(turn.now).into_iter().map(Output::Issue));
            self.window.full_since = None;
        } else {
            self.window.full_since.get_or_insert(turn.now);
        }
        out
    }

    fn has_anything_due(&self) -> bool {
        let any = |watch: &Watch| watch.owed || !watch.due.is_empty();
        !self.companions.is_empty() || self.watches.iter().any(any)
    }

    pub fn has_room(&self) -> bool {
        let Volume { frames, bytes } = self.window.in_flight();
        frames < self.limits.window_frames as u64 && bytes < self.limits.window_bytes as u64
    }

    pub(super) fn stalled_at(&self) -> Option<Instant> {
        self.window.full_since.map(|at| at + self.limits.stall)
    }

    /// Until when routes and listeners wait for the stream's cluster request, if any do.
    ///
    /// Envoy holds that request back while a cluster warms for its endpoints, so which clusters it has is
    /// not known yet.
    pub(super) fn routes_wait_until(&self) -> Option<Instant> {
        let waiting = |kind| !self.watch(kind).due.is_empty();
        let any = waiting(ResourceType::Listener) || waiting(ResourceType::Route);
        let warms = self.watch(ResourceType::Endpoint).opened;
        self.clusters_by.filter(|_| any && warms)
    }

    /// Until when no cluster is removed, if any is to be: routes that the client still has may name it.
    pub(super) fn removals_wait_until(&self) -> Option<Instant> {
        let named = |kind| self.watch(kind).opened;
        let known = named(ResourceType::Listener) && named(ResourceType::Route);
        let any = !self.watch(ResourceType::Cluster).due.is_empty();
        self.resumes_by.filter(|_| any && !known)
    }

    /// The short way if all that is due can be planned; else name by name.
    fn take(&mut self, stage: Stage, turn: &mut Turn<'_>) -> Option<Frame> {
        if let Some(frame) = self.planned(stage, turn) {
            return Some(frame);
        }
        let batch = self.batch(stage, turn.view, turn.now);
        let kind = stage.kind();
        for name in &batch.settled {
            self.watches[kind as usize].due.named.remove(name);
        }
        let all = matches!(stage, Stage::Clusters | Stage::Listeners | Stage::Scopes);
        let owed = all && self.watch(kind).owed;
        if batch.entries.is_empty() && batch.removed.is_empty() && !owed {
            return None;
        }
        let nonce = self.next_nonce();
        let sheet = turn.pool.sheet(kind, &batch.entries, &batch.removed);
        let watch = &mut self.watches[kind as usize];
        let before = watch.count();
        let held = batch.after(&watch.held, turn);
        let after = held.iter().map(Roster::len).sum::<usize>() + batch.removed.len();
        let news = match kind {
            // What is removed in the same frame was held, or was never known: none is counted as new.
            ResourceType::Cluster => watch.news(&sheet.roll, after.saturating_sub(before)),
            _ => News::None,
        };
        for name in &batch.removed {
            self.watches[kind as usize].settle(name);
            self.gone(kind, name, turn);
        }
        if kind == ResourceType::Cluster {
            self.clusters_sent(&sheet.roll, &news, nonce, turn);
        }
        if stage == Stage::Companions {
            let names = sheet.roll.stamps.iter();
            let names = names.map(|stamp| Name::new(kind, stamp.name.clone()));
            let names = turn.pool.names.edit(&Roster::EMPTY, names, []);
            self.companions_sent(&names, turn);
        }
        let watch = &mut self.watches[kind as usize];
        watch.sent(nonce, (sheet.roll.clone(), news), held, batch.since);
        Some(self.handed(Frame::new(sheet, nonce)))
    }

    /// A frame for this session alone.
    pub(super) fn secret_frame(&mut self, entries: &[Arc<Encoded>], turn: &mut Turn<'_>) -> Frame {
        let nonce = self.next_nonce();
        let sheet = Sheet::new(ResourceType::Secret, entries, &[], &mut turn.pool.names);
        let watch = &mut self.watches[ResourceType::Secret as usize];
        let mut held = watch.held.clone();
        let stamps = entries.iter().map(|e| e.stamp.clone());
        held[LAST] = turn.pool.stamps.edit(&held[LAST], stamps, []);
        watch.sent(nonce, (sheet.roll.clone(), News::None), held, None);
        self.handed(Frame::new(Arc::new(sheet), nonce))
    }

    pub(super) fn next_nonce(&mut self) -> Nonce {
        // A stream lives for minutes: it ends long before this wraps.
        self.nonce = Nonce(self.nonce.0.wrapping_add(1));
        self.nonce
    }

    pub(super) fn handed(&mut self, frame: Frame) -> Frame {
        self.window.sent.frames += 1;
        self.window.sent.bytes += frame.bytes() as u64;
        frame
    }

    fn batch(&self, stage: Stage, view: Resources<'_>, now: Instant) -> Batch {
        let mut batch = Batch::default();
        let watch = self.watch(stage.kind());
        let in_force = InForce::of(self, stage);
        let companions: BTreeSet<&Str> = match stage {
            Stage::Companions => self.companions.iter().map(|name| &name.text).collect(),
            _ => BTreeSet::new(),
        };
        let companions = companions.into_iter().map(|name| (name, Mark::ASKED));
        let due = watch.due.named.iter().map(|(name, due)| (name, *due));
        let due = due.filter(|_| stage != Stage::Companions);
        for (name, due) in companions.chain(due) {
            if batch.bytes >= self.limits.frame_bytes {
                break;
            }
            match self.verdict(stage, name, due.why, (view, now, &in_force)) {
                Verdict::Wait => continue,
                Verdict::Nothing => {}
                Verdict::Remove => {
                    batch.bytes += name.len();
                    batch.removed.push(name.clone());
                    batch.gone.push(key_of(watch.kind, name));
                    batch.since = older(batch.since, due.since);
                }
                Verdict::Send(encoded) => {
                    let layer = view
                        .find(stage.kind(), name)
                        .map_or(LAST, |(layer, _)| layer);
                    batch.bytes += encoded.len;
                    batch.layers.push(layer);
                    batch.entries.push(encoded);
                    batch.since = older(batch.since, due.since);
                }
            }
            batch.settled.push(name.clone());
        }
        batch
    }

    pub(super) fn clusters_sent(
        &mut self,
        roll: &Roll,
        news: &News,
        nonce: Nonce,
        turn: &mut Turn<'_>,
    ) {
        let until = turn.now + self.limits.warm;
        let names = &mut turn.pool.names;
        let asked = self.watch(ResourceType::Endpoint).opened;
        if !asked && !roll.eds.is_empty() {
            self.fresh = names.union(&self.fresh, &roll.eds);
            let new = match news {
                News::None => Roster::EMPTY,
                News::All => roll.eds.clone(),
                News::Some(keys) => {
                    let key = |name: &Name| key_of(ResourceType::Cluster, &name.text);
                    let new = roll.eds.iter().filter(|name| keys.contains(&key(name)));
                    names.edit(&Roster::EMPTY, new.cloned(), [])
                }
            };
            if !new.is_empty() {
                self.gate.awaits_endpoints(&new, until, names);
            }
        }
        let secrets = &self.secrets;
        let lacks = |secret: &str| secrets.lacks(secret);
        self.gate
            .clusters_sent((roll, news), (nonce, until), lacks, names);
        if !self.behind.is_empty() {
            self.behind = names.rest(&self.behind, &roll.eds);
        }
        if !self.behind.is_empty() && roll.eds.len() < roll.stamps.len() {
            let sent = roll.stamps.iter();
            let sent = sent.map(|stamp| key_of(ResourceType::Endpoint, &stamp.name));
            self.behind = names.edit(&self.behind, [], sent);
        }
        if asked {
            self.companions = names.union(&self.companions, &roll.eds);
        }
    }

    /// `behind` are those among them that the client has not asked for: its subscribe is on its way.
    pub(super) fn companions_sent(&mut self, sent: &Roster<Name>, turn: &mut Turn<'_>) {
        let names = &mut turn.pool.names;
        self.companions = names.rest(&self.companions, sent);
        let endpoints = &mut self.watches[ResourceType::Endpoint as usize];
        if !endpoints.due.named.is_empty() {
            for name in sent.iter() {
                endpoints.due.named.remove(&name.text);
            }
        }
        let unasked = names.rest(sent, &endpoints.names);
        self.behind = names.union(&self.behind, &unasked);
    }

    fn gone(&mut self, kind: ResourceType, name: &str, turn: &mut Turn<'_>) {
        if kind == ResourceType::Cluster {
            let names = &mut turn.pool.names;
            self.gate.forget(name, names);
            let endpoints = key_of(ResourceType::Endpoint, name);
            for set in [&mut self.companions, &mut self.fresh, &mut self.behind] {
                if !set.is_empty() {
                    *set = names.edit(set, [], [endpoints]);
                }
            }
        }
    }
}

impl Batch {
    /// What a client holds once it was sent this.
    fn after(&self, held: &Held, turn: &mut Turn<'_>) -> Held {
        let stamps = &mut turn.pool.stamps;
        let edit = |layer: usize| {
            let placed = || self.entries.iter().zip(&self.layers);
            let here = placed().filter(|(_, at)| **at == layer);
            let puts = here.map(|(entry, _)| entry.stamp.clone());
            let moved = placed().filter(|(_, at)| **at != layer);
            let drops = moved.map(|(entry, _)| entry.key());
            stamps.edit(&held[layer], puts, drops.chain(self.gone.iter().copied()))
        };
        std::array::from_fn::<_, LAYERS, _>(edit)
    }
}

impl Stage {
    pub(super) fn kind(self) -> ResourceType {
        match self {
            Self::Secrets => ResourceType::Secret,
            Self::Companions | Self::Endpoints => ResourceType::Endpoint,
            Self::Clusters | Self::ClusterRemovals => ResourceType::Cluster,
            Self::Listeners => ResourceType::Listener,
            Self::Routes => ResourceType::Route,
            Self::Scopes | Self::ScopeRemovals => ResourceType::ScopedRoute,
        }
    }
}

impl Window {
    pub(super) fn in_flight(&self) -> Volume {
        Volume {
            frames: self.sent.frames.saturating_sub(self.taken.frames),
            bytes: self.sent.bytes.saturating_sub(self.taken.bytes),
        }
    }

    pub(super) fn taken(&mut self, taken: Volume) {
        if taken != self.taken {
            self.taken = taken;
            self.full_since = None;
        }
    }
}
