//! Which frame goes next: the order in which nothing refers to what the client lacks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use prost::encoding::encode_varint;

use super::gate::is_newly_named;
use super::watch::{ABSENT, Due, Watch, Why};
use super::{Output, Session, Turn, Volume, Window};
use crate::delivery::frame::{Frame, Sheet};
use crate::delivery::wire::Nonce;
use crate::text::Str;
use crate::view::Resources;
use crate::xds::encode::encode_with_version;
use crate::xds::{Encoded, Entry, Ref, ResourceType};

/// One step of a flush. Each frame is taken from the first step that has anything to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Secrets,
    /// Endpoints of the clusters just sent: Envoy drops endpoints that come before their cluster, and
    /// warms a changed cluster until they come after it.
    Companions,
    Clusters,
    Endpoints,
    Listeners,
    Routes,
    /// Last, when no route or listener in the client's hands names them.
    ClusterRemovals,
}

const ORDER: [Stage; 7] = [
    Stage::Secrets,
    Stage::Companions,
    Stage::Clusters,
    Stage::Endpoints,
    Stage::Listeners,
    Stage::Routes,
    Stage::ClusterRemovals,
];

enum Verdict {
    Send(Arc<Encoded>),
    Remove,
    /// The client has it, or never knew of it.
    Nothing,
    /// A later stage or flush decides.
    Wait,
}

#[derive(Default)]
struct Batch {
    entries: Vec<Arc<Encoded>>,
    removed: Vec<Str>,
    settled: Vec<Str>,
    bytes: usize,
    /// The oldest change that it tells of.
    since: Option<Instant>,
}

impl Session {
    /// Everything that may go now, in order. What has no room stays due, by name.
    pub fn flush(&mut self, turn: &mut Turn<'_>) -> Vec<Output> {
        let mut out = Vec::new();
        while self.has_room() {
            let Some(frame) = ORDER.iter().find_map(|stage| self.take(*stage, turn)) else {
                break;
            };
            out.push(Output::Send(frame));
        }
        if self.has_room() {
            out.extend(self.secrets.asks(turn.now).into_iter().map(Output::Issue));
            self.window.full_since = None;
        } else {
            self.window.full_since.get_or_insert(turn.now);
        }
        out
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

    fn take(&mut self, stage: Stage, turn: &mut Turn<'_>) -> Option<Frame> {
        let batch = self.batch(stage, turn.view, turn.now);
        let kind = stage.kind();
        for name in &batch.settled {
            self.watches[kind as usize].due.remove(name);
        }
        let owed = matches!(stage, Stage::Clusters | Stage::Listeners) && self.watch(kind).owed;
        if batch.entries.is_empty() && batch.removed.is_empty() && !owed {
            return None;
        }
        let nonce = self.next_nonce();
        if kind == ResourceType::Cluster {
            self.clusters_sent(&batch.entries, nonce, turn.now);
        }
        if stage == Stage::Companions {
            self.companions_sent(&batch.entries);
        }
        for name in &batch.removed {
            self.watches[kind as usize].forget(name);
            self.gone(kind, name);
        }
        let watch = &mut self.watches[kind as usize];
        watch.sent(nonce, &batch.entries, batch.since);
        let sheet = turn.sheets.get(kind, &batch.entries, &batch.removed);
        Some(self.handed(Frame::new(sheet, nonce)))
    }

    /// A frame for this session alone.
    pub(super) fn secret_frame(&mut self, entries: &[Arc<Encoded>]) -> Frame {
        let nonce = self.next_nonce();
        self.watches[ResourceType::Secret as usize].sent(nonce, entries, None);
        let sheet = Sheet::new(ResourceType::Secret, entries, &[]);
        self.handed(Frame::new(Arc::new(sheet), nonce))
    }

    fn next_nonce(&mut self) -> Nonce {
        // A stream lives for minutes: it ends long before this wraps.
        self.nonce = Nonce(self.nonce.0.wrapping_add(1));
        self.nonce
    }

    fn handed(&mut self, frame: Frame) -> Frame {
        self.window.sent.frames += 1;
        self.window.sent.bytes += frame.sheet().len as u64;
        frame
    }

    fn batch(&self, stage: Stage, view: Resources<'_>, now: Instant) -> Batch {
        let mut batch = Batch::default();
        let watch = self.watch(stage.kind());
        let in_force = InForce::of(self, stage);
        let companions = self.companions.iter().map(|name| (name, Due::ASKED));
        let companions = companions.filter(|_| stage == Stage::Companions);
        let due = watch.due.iter().map(|(name, due)| (name, *due));
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
                    batch.since = batch.since.into_iter().chain(due.since).min();
                }
                Verdict::Send(encoded) => {
                    batch.bytes += encoded.len;
                    batch.entries.push(encoded);
                    batch.since = batch.since.into_iter().chain(due.since).min();
                }
            }
            batch.settled.push(name.clone());
        }
        batch
    }

    fn verdict(
        &self,
        stage: Stage,
        name: &str,
        why: Why,
        (view, now, in_force): (Resources<'_>, Instant, &InForce<'_>),
    ) -> Verdict {
        let kind = stage.kind();
        let watch = self.watch(kind);
        let current = view.get(kind, name);
        match (stage, current) {
            (Stage::Secrets, _) => Verdict::Remove,
            (Stage::Companions, current) => Verdict::Send(or_empty(current, kind, name)),
            (Stage::Clusters | Stage::Endpoints, Some(entry)) => send(watch, entry, why),
            (Stage::Clusters, None) if watch.held.contains_key(name) => Verdict::Wait,
            (Stage::Clusters | Stage::Listeners, None) => removal(watch, name, why),
            (Stage::Endpoints, None) => self.no_endpoints(name, why, view),
            (Stage::Listeners | Stage::Routes, Some(entry)) => {
                let waits = self.must_wait(watch, entry, now);
                if waits {
                    Verdict::Wait
                } else {
                    send(watch, entry, why)
                }
            }
            (Stage::Routes, None) => no_route(watch, name, why),
            (Stage::ClusterRemovals, Some(_)) => Verdict::Wait,
            (Stage::ClusterRemovals, None) => {
                let unknown = self.removals_wait_until().is_some_and(|until| now < until);
                let waits = unknown || in_force.names(name);
                if waits {
                    Verdict::Wait
                } else {
                    removal(watch, name, why)
                }
            }
        }
    }

    /// An existing cluster is never left without an answer; one on its way out keeps what it has till then.
    fn no_endpoints(&self, name: &str, why: Why, view: Resources<'_>) -> Verdict {
        let held = self.watch(ResourceType::Endpoint).held.get(name);
        let cluster = view.get(ResourceType::Cluster, name);
        let leaving =
            cluster.is_none() && self.watch(ResourceType::Cluster).held.contains_key(name);
        let needs_answer = why == Why::Asked || cluster.is_some_and(|c| c.encoded.eds);
        match held {
            Some(_) if leaving => Verdict::Wait,
            Some(held) if held.version == ABSENT && why == Why::Changed => Verdict::Nothing,
            Some(_) | None if needs_answer => Verdict::Send(empty(ResourceType::Endpoint, name)),
            Some(_) => Verdict::Remove,
            None => Verdict::Nothing,
        }
    }

    fn must_wait(&self, watch: &Watch, entry: &Entry, now: Instant) -> bool {
        let refs = &entry.encoded.refs;
        let held = watch.held.get(&entry.encoded.name);
        let in_force = held.and_then(|h| h.refs.as_deref());
        let awaited = self.routes_wait_until().is_some_and(|until| now < until);
        self.gate.holds(refs, in_force)
            || (awaited && refs.iter().any(|r| is_newly_named(r, in_force)))
    }

    fn clusters_sent(&mut self, entries: &[Arc<Encoded>], nonce: Nonce, now: Instant) {
        let clusters = &self.watches[ResourceType::Cluster as usize];
        let until = now + self.limits.warm;
        for entry in entries {
            let name = &entry.name;
            let endpoints_asked = self.watches[ResourceType::Endpoint as usize].opened;
            if clusters.is_in_force(name) {
                self.gate.sent_again(name, nonce);
            } else {
                if entry.eds && !endpoints_asked {
                    self.gate.awaits_endpoints(name, until);
                }
                let secrets = &self.secrets;
                let lacks = |secret: &str| secrets.lacks(secret);
                self.gate
                    .new_cluster(name, &entry.warming, (nonce, until), lacks);
            }
            self.behind.remove(name);
            if !entry.eds {
                continue;
            }
            if endpoints_asked {
                self.companions.insert(name.clone());
            } else {
                self.fresh.insert(name.clone());
            }
        }
    }

    fn companions_sent(&mut self, entries: &[Arc<Encoded>]) {
        let endpoints = &mut self.watches[ResourceType::Endpoint as usize];
        for entry in entries {
            self.companions.remove(&entry.name);
            endpoints.due.remove(&entry.name);
            if !endpoints.names.contains(&entry.name) {
                self.behind.insert(entry.name.clone());
            }
        }
    }

    fn gone(&mut self, kind: ResourceType, name: &str) {
        if kind == ResourceType::Cluster {
            self.gate.forget(name);
            self.companions.remove(name);
            self.fresh.remove(name);
            self.behind.remove(name);
        }
    }
}

/// Clusters named by routes and listeners that the client holds in a form about to be replaced.
enum InForce<'a> {
    Named(BTreeMap<&'a str, ()>),
    /// Some form came on an earlier stream and is not the current one: it may name any.
    Any,
}

impl<'a> InForce<'a> {
    fn of(session: &'a Session, stage: Stage) -> Self {
        let mut named = BTreeMap::new();
        if stage != Stage::ClusterRemovals {
            return Self::Named(named);
        }
        for kind in [ResourceType::Listener, ResourceType::Route] {
            let watch = session.watch(kind);
            let replaced = watch.due.keys().filter_map(|name| watch.held.get(name));
            for held in replaced {
                let Some(refs) = &held.refs else {
                    return Self::Any;
                };
                let clusters = refs
                    .iter()
                    .filter(|r: &&Ref| r.kind == ResourceType::Cluster);
                named.extend(clusters.map(|r| (r.name.as_str(), ())));
            }
        }
        Self::Named(named)
    }

    fn names(&self, cluster: &str) -> bool {
        match self {
            Self::Named(named) => named.contains_key(cluster),
            Self::Any => true,
        }
    }
}

impl Stage {
    fn kind(self) -> ResourceType {
        match self {
            Self::Secrets => ResourceType::Secret,
            Self::Companions | Self::Endpoints => ResourceType::Endpoint,
            Self::Clusters | Self::ClusterRemovals => ResourceType::Cluster,
            Self::Listeners => ResourceType::Listener,
            Self::Routes => ResourceType::Route,
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

fn send(watch: &Watch, entry: &Entry, why: Why) -> Verdict {
    if why == Why::Changed && watch.has(&entry.encoded) {
        return Verdict::Nothing;
    }
    Verdict::Send(entry.encoded.clone())
}

fn removal(watch: &Watch, name: &str, why: Why) -> Verdict {
    if why == Why::Asked || watch.held.contains_key(name) {
        Verdict::Remove
    } else {
        Verdict::Nothing
    }
}

/// Envoy ignores the removal of a route table, which suits one whose listener drains; a table asked for
/// anew is answered with an empty one, or its listener would warm until a timeout.
fn no_route(watch: &Watch, name: &str, why: Why) -> Verdict {
    match watch.held.get(name) {
        Some(held) if held.version == ABSENT && why == Why::Changed => Verdict::Nothing,
        Some(held) if held.version != ABSENT => Verdict::Remove,
        Some(_) | None if why == Why::Asked => Verdict::Send(empty(ResourceType::Route, name)),
        Some(_) | None => Verdict::Nothing,
    }
}

fn or_empty(entry: Option<&Entry>, kind: ResourceType, name: &str) -> Arc<Encoded> {
    entry.map_or_else(|| empty(kind, name), |e| e.encoded.clone())
}

/// A resource with nothing but its name: field 1 of ClusterLoadAssignment and of RouteConfiguration.
fn empty(kind: ResourceType, name: &str) -> Arc<Encoded> {
    let mut body = vec![0x0a];
    encode_varint(name.len() as u64, &mut body);
    body.extend_from_slice(name.as_bytes());
    Arc::new(encode_with_version(kind, &Str::new(name), ABSENT, &body))
}
