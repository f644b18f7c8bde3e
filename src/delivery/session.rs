//! One client's stream as a pure state machine. No clock, no I/O: `now` comes in, frames go out.

pub mod due;
pub mod flush;
pub mod gate;
pub mod planned;
pub mod requests;
pub mod secrets;
mod tables;
mod verdict;
pub mod watch;

use std::sync::Arc;
use std::time::Instant;

use self::due::Mark;
use self::gate::Gate;
use self::secrets::Secrets;
pub use self::secrets::{AT_ONCE, Answer, Ask, Credential};
pub use self::watch::Nack;
use self::watch::Watch;
use super::Limits;
use super::frame::Frame;
use super::pool::{Pool, Told, Touched};
use super::roster::{Name, Roster};
use super::wire::Nonce;
use crate::text::Str;
use crate::view::Resources;
use crate::xds::ResourceType;

/// What a client is to be told and knows, from the first request of its stream to its end.
///
/// Every method that may free or need something to send takes a `Turn` and gives what to do, in order.
#[derive(Debug)]
pub struct Session {
    limits: Limits,
    credential: Credential,
    /// Until when routes wait for this stream's first cluster request, if it shows that one is to come.
    clusters_by: Option<Instant>,
    /// Until when a client that was connected before may name its listeners and routes.
    resumes_by: Option<Instant>,
    /// Until when listeners and scopes wait for a table that the client is yet to ask for, if any do.
    tables_by: Option<Instant>,
    watches: [Watch; ResourceType::COUNT],
    /// Clusters of type EDS sent before this stream's first EDS request, which answers them in full.
    fresh: Roster<Name>,
    /// Clusters of type EDS just sent: their endpoints go in the next frame.
    companions: Roster<Name>,
    /// Endpoints that went behind their cluster; the subscribe that Envoy sends for them is no question.
    behind: Roster<Name>,
    gate: Gate,
    secrets: Secrets,
    window: Window,
    nonce: Nonce,
}

/// What a session sees of the rest while it acts.
#[derive(Debug)]
pub struct Turn<'a> {
    pub view: Resources<'a>,
    pub pool: &'a mut Pool,
    pub now: Instant,
}

#[derive(Debug)]
pub enum Output {
    Send(Frame),
    Issue(Ask),
    Event(Event),
    Close(Refusal),
}

/// What a person or a metric may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `since`: when the oldest change happened that the acknowledged frames told of.
    Acked {
        kind: ResourceType,
        since: Option<Instant>,
    },
    Nacked {
        kind: ResourceType,
        names: Vec<Str>,
        message: Arc<str>,
    },
    StaleNonce(ResourceType),
    /// Routes waited for these clusters as long as they may and go now.
    StillWarming(Vec<Str>),
    SecretRefused(Str),
    UnknownType(Str),
}

/// Why a stream is closed by us.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("more than {limit} names of type {}", .kind.short())]
    TooManyNames { kind: ResourceType, limit: usize },
    #[error("a resource name has {len} bytes, more than the {limit} allowed")]
    NameTooLong { len: usize, limit: usize },
    #[error("responses were not read for {0} s; reconnect to resume by versions")]
    Stalled(u64),
}

/// How one type stands, for debug pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub kind: ResourceType,
    pub subscribed: Subscribed,
    pub frame_sent: Nonce,
    pub frame_acked: Nonce,
    /// Resources the client was sent or brought; each is acked, nacked or pending.
    pub sent: usize,
    pub acked: usize,
    pub nacked: usize,
    /// Sent and not answered, or still to be sent.
    pub pending: usize,
    pub refusals: Vec<(Str, Nack)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscribed {
    No,
    Names(usize),
    All,
}

/// Frames handed to the connection and not taken by it yet.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    sent: Volume,
    taken: Volume,
    full_since: Option<Instant>,
}

/// Frames and their bytes, counted from the start of the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    pub frames: u64,
    pub bytes: u64,
}

impl Session {
    pub fn new(limits: Limits, credential: Credential, now: Instant) -> Self {
        Self {
            limits,
            credential,
            clusters_by: Some(now + limits.warm),
            resumes_by: None,
            tables_by: None,
            watches: ResourceType::ALL.map(Watch::new),
            fresh: Roster::EMPTY,
            companions: Roster::EMPTY,
            behind: Roster::EMPTY,
            gate: Gate::default(),
            secrets: Secrets::default(),
            window: Window::default(),
            nonce: Nonce::default(),
        }
    }

    /// Whether a change of these resources may concern the client. `flush` is to follow, once for all.
    pub fn touch(&mut self, told: &Told, at: Instant) -> bool {
        let watch = &mut self.watches[told.kind as usize];
        if !watch.opened {
            return false;
        }
        if !told.touched.is_empty() {
            watch.due.touch(&told.touched, Mark::changed(Some(at)));
        }
        for name in &told.gone {
            if watch.asks_for(name) || watch.held(name).is_some() {
                watch.due.change(name, Some(at));
            }
        }
        !watch.due.is_empty()
    }

    /// The proxy is in another scope: everything may differ.
    pub fn on_moved(&mut self, at: Instant, turn: &mut Turn<'_>) -> Vec<Output> {
        for watch in &mut self.watches {
            if watch.opened && watch.kind != ResourceType::Secret {
                watch.due.touch(&Touched::All, Mark::changed(Some(at)));
                for name in &*turn.pool.absent(watch.kind, &watch.names, turn.view) {
                    watch.due.change(name, Some(at));
                }
            }
        }
        self.flush(turn)
    }

    pub fn on_secret(&mut self, name: &str, answer: Answer, turn: &mut Turn<'_>) -> Vec<Output> {
        let mut out = Vec::new();
        if let Some(encoded) = self.secrets.answer(name, answer) {
            // Never shared and never kept: it holds a key.
            out.push(Output::Send(self.secret_frame(&[encoded], turn)));
        }
        let secrets = &self.secrets;
        self.gate.secrets_changed(|n| secrets.lacks(n));
        out.extend(self.flush(turn));
        out
    }

    /// Secrets of gateways of its namespace changed.
    pub fn on_credentials(
        &mut self,
        changed: &impl Fn(&str) -> bool,
        turn: &mut Turn<'_>,
    ) -> Vec<Output> {
        self.secrets.reconsider_those(changed);
        self.flush(turn)
    }

    /// Signer or roots changed.
    pub fn on_trust_changed(&mut self, turn: &mut Turn<'_>) -> Vec<Output> {
        self.secrets.reconsider();
        self.flush(turn)
    }

    /// The connection took more of what it was handed; counts since the start.
    pub fn took(&mut self, taken: Volume) {
        self.window.taken(taken);
    }

    /// The same, with what there is room for now.
    pub fn on_taken(&mut self, taken: Volume, turn: &mut Turn<'_>) -> Vec<Output> {
        self.took(taken);
        self.flush(turn)
    }

    /// `deadline` has passed.
    pub fn on_tick(&mut self, turn: &mut Turn<'_>) -> Vec<Output> {
        if self.stalled_at().is_some_and(|at| at <= turn.now) {
            let stalled = Refusal::Stalled(self.limits.stall.as_secs());
            return vec![Output::Close(stalled)];
        }
        self.clusters_by = self.clusters_by.filter(|at| *at > turn.now);
        self.resumes_by = self.resumes_by.filter(|at| *at > turn.now);
        let mut out = Vec::new();
        let overdue = self.gate.overdue(turn.now);
        if !overdue.is_empty() {
            out.push(Output::Event(Event::StillWarming(overdue)));
        }
        out.extend(self.flush(turn));
        out
    }

    /// When `on_tick` is to be called next, at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        let waits = [
            self.gate.deadline(),
            self.secrets.deadline().filter(|_| self.has_room()),
            self.stalled_at(),
            self.routes_wait_until(),
            self.removals_wait_until(),
            self.tables_by.filter(|_| self.has_room()),
        ];
        waits.into_iter().flatten().min()
    }

    /// When the oldest change happened that the client has not answered for.
    pub fn owes(&self) -> Option<Instant> {
        self.watches.iter().filter_map(Watch::owes).min()
    }

    /// Whether the client has asked for clusters and listeners, and answered for all that it was sent.
    pub fn is_settled(&self) -> bool {
        let asked = [ResourceType::Cluster, ResourceType::Listener];
        let settled = |w: &Watch| w.outstanding() == 0 && w.due.is_empty();
        asked.iter().all(|kind| self.watch(*kind).opened) && self.watches.iter().all(settled)
    }

    /// What the client rejected, and goes on without. Nothing of a type of which something newer is under way.
    pub fn refusals(&self) -> impl Iterator<Item = (ResourceType, &Str, &Nack)> {
        let settled = |w: &&Watch| w.outstanding() == 0 && w.due.is_empty();
        self.watches.iter().filter(settled).flat_map(|watch| {
            let nacks = watch.nacks.iter();
            nacks.map(|(name, nack)| (watch.kind, name, nack))
        })
    }

    /// Bytes of responses that this session keeps alive for its connection.
    pub fn in_flight(&self) -> u64 {
        self.window.in_flight().bytes
    }

    /// Resources in a form that the client rejected.
    pub fn refused(&self, kind: ResourceType) -> usize {
        self.watches[kind as usize].nacks.len()
    }

    pub fn standing(&self, kind: ResourceType) -> Standing {
        let watch = &self.watches[kind as usize];
        let unanswered = watch.unanswered();
        let stamps = watch.held.iter().flat_map(Roster::iter);
        let answered = stamps.filter(|stamp| !unanswered.contains(&stamp.key()));
        let acked = answered.filter(|stamp| !watch.nacks.contains_key(&stamp.name));
        Standing {
            kind,
            subscribed: match (watch.opened, watch.wildcard) {
                (false, _) => Subscribed::No,
                (true, false) => Subscribed::Names(watch.names.len()),
                (true, true) => Subscribed::All,
            },
            frame_sent: watch.sent,
            frame_acked: watch.acked,
            sent: watch.count(),
            acked: acked.count(),
            nacked: watch.nacks.len(),
            pending: unanswered.len().max(watch.outstanding()) + watch.due.len(),
            refusals: watch
                .nacks
                .iter()
                .map(|(n, k)| (n.clone(), k.clone()))
                .collect(),
        }
    }
}

impl Session {
    fn watch(&self, kind: ResourceType) -> &Watch {
        &self.watches[kind as usize]
    }
}

#[cfg(test)]
mod law_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
