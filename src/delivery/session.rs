//! One client's stream as a pure state machine. No clock, no I/O: `now` comes in, frames go out.

pub mod flush;
pub mod gate;
pub mod secrets;
pub mod watch;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use self::gate::Gate;
use self::secrets::Secrets;
pub use self::secrets::{Answer, Ask, Credential};
pub use self::watch::Nack;
use self::watch::{Due, Watch, mark};
use super::Limits;
use super::frame::{Frame, Sheets};
use super::wire::{DeltaRequest, Nonce};
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
    watches: [Watch; ResourceType::COUNT],
    /// Clusters of type EDS sent before this stream's first EDS request, which answers them in full.
    fresh: BTreeSet<Str>,
    /// Clusters of type EDS just sent: their endpoints go in the next frame.
    companions: BTreeSet<Str>,
    /// Endpoints that went behind their cluster; the subscribe that Envoy sends for them is no question.
    behind: BTreeSet<Str>,
    gate: Gate,
    secrets: Secrets,
    window: Window,
    nonce: Nonce,
}

/// What a session sees of the rest while it acts.
#[derive(Debug)]
pub struct Turn<'a> {
    pub view: Resources<'a>,
    pub sheets: &'a mut Sheets,
    pub now: Instant,
}

#[derive(Debug)]
pub enum Output {
    Send(Frame),
    Issue(Ask),
    /// Changes of these names concern this session from now on. `*` is all of the type.
    Watch(ResourceType, Vec<Str>),
    Unwatch(ResourceType, Vec<Str>),
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
    /// Routes waited for this cluster as long as they may and go now.
    StillWarming(Str),
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

const WILDCARD: &str = "*";
/// Envoy's error detail is kept up to this many bytes.
const MESSAGE: usize = 2048;

impl Session {
    pub fn new(limits: Limits, credential: Credential, now: Instant) -> Self {
        Self {
            limits,
            credential,
            clusters_by: Some(now + limits.warm),
            resumes_by: None,
            watches: Default::default(),
            fresh: BTreeSet::new(),
            companions: BTreeSet::new(),
            behind: BTreeSet::new(),
            gate: Gate::default(),
            secrets: Secrets::default(),
            window: Window::default(),
            nonce: Nonce::default(),
        }
    }

    pub fn on_request(&mut self, request: &DeltaRequest, turn: &mut Turn<'_>) -> Vec<Output> {
        let Some(kind) = ResourceType::from_type_url(&request.type_url) else {
            let cut = cut(&request.type_url, 256);
            return vec![Output::Event(Event::UnknownType(Str::new(cut)))];
        };
        if let Err(refusal) = self.check(kind, request) {
            return vec![Output::Close(refusal)];
        }
        let mut out = Vec::new();
        if !request.nonce.is_empty() {
            out.push(Output::Event(self.on_answer(kind, request)));
        }
        if kind == ResourceType::Secret {
            out.extend(self.on_secret_names(request));
        } else if self.watches[kind as usize].opened {
            out.extend(self.on_unsubscribe(kind, &request.unsubscribe));
            out.extend(self.on_subscribe(kind, &request.subscribe, turn.view));
        } else {
            out.extend(self.on_first(kind, request, turn));
        }
        out.extend(self.flush(turn));
        out
    }

    /// Whether a change of this resource concerns the client. `flush` is to follow, once for all touched.
    pub fn touch(&mut self, kind: ResourceType, name: &Str, at: Instant) -> bool {
        let watch = &mut self.watches[kind as usize];
        let concerned = watch.opened && watch.wants(name);
        if concerned {
            watch.change(name, Some(at));
        }
        concerned
    }

    /// The proxy is in another scope: everything may differ.
    pub fn on_moved(&mut self, at: Instant, turn: &mut Turn<'_>) -> Vec<Output> {
        for kind in ResourceType::ALL {
            self.compare_all(kind, Some(at), turn.view);
        }
        self.flush(turn)
    }

    pub fn on_secret(&mut self, name: &str, answer: Answer, turn: &mut Turn<'_>) -> Vec<Output> {
        let mut out = Vec::new();
        if let Some(encoded) = self.secrets.answer(name, answer) {
            // Never shared and never kept: it holds a key.
            out.push(Output::Send(self.secret_frame(&[encoded])));
        }
        let secrets = &self.secrets;
        self.gate.secrets_changed(|n| secrets.lacks(n));
        out.extend(self.flush(turn));
        out
    }

    /// Signer or roots changed.
    pub fn on_trust_changed(&mut self, turn: &mut Turn<'_>) -> Vec<Output> {
        self.secrets.reconsider();
        self.flush(turn)
    }

    /// The connection took more of what it was handed; counts since the start.
    pub fn on_taken(&mut self, taken: Volume, turn: &mut Turn<'_>) -> Vec<Output> {
        self.window.taken(taken);
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
        let overdue = self.gate.overdue(turn.now).into_iter();
        let mut out: Vec<_> = overdue
            .map(|cluster| Output::Event(Event::StillWarming(cluster)))
            .collect();
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
        ];
        waits.into_iter().flatten().min()
    }

    /// Bytes of responses that this session keeps alive for its connection.
    pub fn in_flight(&self) -> u64 {
        self.window.in_flight().bytes
    }

    pub fn standing(&self, kind: ResourceType) -> Standing {
        let watch = &self.watches[kind as usize];
        let answered = watch.held.iter().filter(|(_, h)| h.frame <= watch.acked);
        let acked = answered
            .clone()
            .filter(|(n, _)| !watch.nacks.contains_key(*n));
        let unanswered = watch.held.len() - answered.clone().count();
        Standing {
            kind,
            subscribed: match (watch.opened, watch.wildcard) {
                (false, _) => Subscribed::No,
                (true, false) => Subscribed::Names(watch.names.len()),
                (true, true) => Subscribed::All,
            },
            frame_sent: watch.sent,
            frame_acked: watch.acked,
            sent: watch.held.len(),
            acked: acked.count(),
            nacked: watch.nacks.len(),
            pending: unanswered.max(watch.outstanding()) + watch.due.len(),
            refusals: watch
                .nacks
                .iter()
                .map(|(n, k)| (n.clone(), k.clone()))
                .collect(),
        }
    }
}

impl Session {
    fn check(&self, kind: ResourceType, request: &DeltaRequest) -> Result<(), Refusal> {
        let Limits {
            names, name_bytes, ..
        } = self.limits;
        let watch = self.watch(kind);
        let known = |n: &&String| watch.names.contains(n.as_str());
        let new = request.subscribe.iter().filter(|n| !known(n)).count();
        // Of secrets, refused names are kept only until they are answered.
        let kept = match kind {
            ResourceType::Secret => watch.due.len(),
            _ => 0,
        };
        if watch.names.len() + kept + new > names || request.initial_versions.len() > names {
            return Err(Refusal::TooManyNames { kind, limit: names });
        }
        let given = request
            .subscribe
            .iter()
            .chain(request.initial_versions.keys());
        match given.map(String::len).max() {
            Some(len) if len > name_bytes => Err(Refusal::NameTooLong {
                len,
                limit: name_bytes,
            }),
            _ => Ok(()),
        }
    }

    fn on_answer(&mut self, kind: ResourceType, request: &DeltaRequest) -> Event {
        let watch = &mut self.watches[kind as usize];
        let nonce = Nonce::parse(&request.nonce);
        let answered = nonce.and_then(|nonce| Some((nonce, watch.answered(nonce)?)));
        let Some((nonce, since)) = answered else {
            return Event::StaleNonce(kind);
        };
        let event = match &request.error {
            Some(error) => {
                let message: Arc<str> = cut(&error.message, MESSAGE).into();
                Event::Nacked {
                    kind,
                    names: watch.refused(nonce, &message),
                    message,
                }
            }
            None => Event::Acked { kind, since },
        };
        watch.accepted();
        if kind == ResourceType::Cluster {
            self.gate.clusters_answered(nonce);
        }
        if kind == ResourceType::Secret {
            for (name, held) in &watch.held {
                if held.frame <= watch.acked && !watch.nacks.contains_key(name) {
                    self.secrets.acknowledged(name);
                }
            }
            let secrets = &self.secrets;
            self.gate.secrets_changed(|n| secrets.lacks(n));
        }
        event
    }

    /// The first request of a type on this stream: what the client brings is compared, not sent again.
    fn on_first(
        &mut self,
        kind: ResourceType,
        request: &DeltaRequest,
        turn: &Turn<'_>,
    ) -> Vec<Output> {
        // Envoy withholds its cluster request while a cluster warms for want of its endpoints.
        let one_warms = kind == ResourceType::Endpoint && !self.watch(ResourceType::Cluster).opened;
        let legacy = request.subscribe.is_empty() && has_legacy_wildcard(kind);
        let names: Vec<Str> = request
            .subscribe
            .iter()
            .map(|name| shared(kind, name, turn.view))
            .collect();
        let watch = &mut self.watches[kind as usize];
        watch.opened = true;
        watch.wildcard = legacy || names.iter().any(|n| n == WILDCARD);
        let nothing = request.initial_versions.is_empty() && turn.view.count(kind) == 0;
        watch.owed = watch.wildcard && nothing && has_legacy_wildcard(kind);
        let explicit = names.iter().filter(|n| *n != WILDCARD);
        watch.names = explicit.cloned().collect();
        for (name, version) in &request.initial_versions {
            if watch.wants(name) {
                let current = turn.view.get(kind, name).map(|e| &*e.encoded);
                watch.claim(name, version, current);
            }
        }
        for name in &watch.names {
            let unsure = one_warms || (kind == ResourceType::Endpoint && self.fresh.contains(name));
            if unsure || !watch.held.contains_key(name) {
                mark(&mut watch.due, name, Due::ASKED);
            }
        }
        self.compare_all(kind, None, turn.view);
        match kind {
            ResourceType::Cluster => {
                self.clusters_by = None;
                let resumes = !request.initial_versions.is_empty();
                self.resumes_by = resumes.then(|| turn.now + self.limits.resume);
            }
            ResourceType::Endpoint => self.fresh.clear(),
            ResourceType::Listener | ResourceType::Route | ResourceType::Secret => {}
        }
        let watched = if legacy {
            vec![Str::new_static(WILDCARD)]
        } else {
            names
        };
        vec![Output::Watch(kind, watched)]
    }

    /// A name asked for again is answered, except where its endpoints went behind its cluster unasked.
    fn on_subscribe(
        &mut self,
        kind: ResourceType,
        names: &[String],
        view: Resources<'_>,
    ) -> Option<Output> {
        let watch = &mut self.watches[kind as usize];
        let names: Vec<Str> = names.iter().map(|n| shared(kind, n, view)).collect();
        for name in &names {
            if name == WILDCARD {
                watch.wildcard = true;
                for entry in view.of(kind) {
                    watch.ask(&entry.encoded.name);
                }
                continue;
            }
            watch.names.insert(name.clone());
            let told = kind == ResourceType::Endpoint && self.behind.remove(name);
            if told {
                watch.change(name, None);
            } else {
                watch.ask(name);
            }
        }
        (!names.is_empty()).then_some(Output::Watch(kind, names))
    }

    fn on_unsubscribe(&mut self, kind: ResourceType, names: &[String]) -> Option<Output> {
        let watch = &mut self.watches[kind as usize];
        for name in names {
            if name == WILDCARD {
                watch.wildcard = false;
                let Watch {
                    names,
                    held,
                    due,
                    nacks,
                    ..
                } = watch;
                held.retain(|n, _| names.contains(n));
                due.retain(|n, _| names.contains(n));
                nacks.retain(|n, _| names.contains(n));
            } else if watch.names.remove(name.as_str()) && watch.wildcard {
                // Envoy no longer knows whether it may keep it: the answer is the resource, or its removal.
                watch.ask(&Str::new(name));
            } else if !watch.wildcard {
                watch.forget(name);
                if kind == ResourceType::Endpoint {
                    self.behind.remove(name.as_str());
                }
            }
        }
        let names: Vec<Str> = names.iter().map(Str::new).collect();
        (!names.is_empty()).then_some(Output::Unwatch(kind, names))
    }

    /// Marks whatever the client wants and holds in another version, lacks, or holds and should not.
    fn compare_all(&mut self, kind: ResourceType, since: Option<Instant>, view: Resources<'_>) {
        if kind == ResourceType::Secret {
            return;
        }
        let watch = &mut self.watches[kind as usize];
        let all = view.of(kind).filter(|_| watch.wildcard);
        let all = all.map(|entry| &entry.encoded.name);
        let known = watch.held.keys().chain(&watch.names);
        let current = |name: &str| {
            let entry = view.get(kind, name);
            entry.is_some_and(|e| watch.has(&e.encoded))
        };
        let differ: Vec<Str> = all.chain(known).filter(|n| !current(n)).cloned().collect();
        for name in differ {
            watch.change(&name, since);
        }
    }

    /// Names that are served become wishes, asked of `ca` when there is room; the others are refused.
    fn on_secret_names(&mut self, request: &DeltaRequest) -> Vec<Output> {
        if self.credential == Credential::Absent {
            return Vec::new();
        }
        let watch = &mut self.watches[ResourceType::Secret as usize];
        let first = !std::mem::replace(&mut watch.opened, true);
        for name in &request.unsubscribe {
            watch.names.remove(name.as_str());
            watch.forget(name);
            self.secrets.drop_interest(name);
        }
        let mut refused = Vec::new();
        for name in &request.subscribe {
            let name = Str::new(name);
            if !Secrets::is_served(&name) {
                watch.ask(&name);
                refused.push(Output::Event(Event::SecretRefused(name)));
                continue;
            }
            let offer = request.initial_versions.get(name.as_str());
            let offer = offer.filter(|_| first).map(Str::new);
            if let Some(version) = &offer {
                watch.claim(&name, version, None);
            }
            self.secrets.want(&name, offer);
            watch.names.insert(name);
        }
        refused
    }

    fn watch(&self, kind: ResourceType) -> &Watch {
        &self.watches[kind as usize]
    }
}

/// Types whose first request without names means all (xDS: legacy wildcard).
fn has_legacy_wildcard(kind: ResourceType) -> bool {
    match kind {
        ResourceType::Cluster | ResourceType::Listener => true,
        ResourceType::Endpoint | ResourceType::Route | ResourceType::Secret => false,
    }
}

/// The name as the resource itself holds it, so that sessions share one copy.
fn shared(kind: ResourceType, name: &str, view: Resources<'_>) -> Str {
    view.get(kind, name)
        .map_or_else(|| Str::new(name), |e| e.encoded.name.clone())
}

fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod law;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;
