//! The one owner of engine and sessions: messages in, frames out. No socket here.

mod link;
pub mod reach;
pub mod report;
mod settling;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::link::{GoesOn, Link};
use self::reach::Refusals;
use self::report::Inspect;
use self::settling::Settling;
use super::Limits;
use super::credentials::{self, Credentials};
use super::frame::Frame;
use super::grpc::Status;
use super::pool::{Pool, Told};
use super::session::{Answer, Ask, Credential, Output, Refusal, Session, Turn, Volume};
use super::wire::Request;
use crate::clock;
use crate::config::Change;
use crate::config::secret::ROOTS;
use crate::model::proxy::Proxy;
use crate::telemetry::metrics::Metrics;
use crate::text::Str;
use crate::view::{Engine, Layer, Names, ProxyId, Resources, ScopeId, Update};

/// Names one stream; two streams of one node are two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// What may happen to the hub.
#[derive(Debug)]
pub enum Message {
    Open(Box<Opened>),
    Request(StreamId, Box<Request>),
    /// The connection took frames after its window was full.
    Taken(StreamId),
    Secret(StreamId, Str, Answer),
    Closed(StreamId),
    /// Differences of the accepted set, and when they were seen.
    Changes(Vec<Change>, Instant),
    /// The CA's signer or roots are others now.
    TrustChanged,
    Inspect(Inspect),
}

/// A stream whose first request named its node.
#[derive(Debug)]
pub struct Opened {
    pub stream: StreamId,
    pub proxy: Proxy,
    pub credential: Credential,
    /// Envoy's own version, as it says.
    pub version: Option<String>,
    /// Holds `orders_capacity`; a stream that lets them fill up is closed. Boxed, as asks are: a channel keeps
    /// room for 32, whatever its bound.
    pub orders: mpsc::Sender<Box<Order>>,
    /// Cancelled when the hub gave the stream up: no more will come.
    pub cut: CancellationToken,
    /// Secrets to get from `ca` and hand back. A session asks for few at a time; see `stream::ASKS`.
    pub asks: mpsc::Sender<Box<Ask>>,
    pub gauge: Arc<Gauge>,
}

/// What a connection is to do, in order.
#[derive(Debug)]
pub enum Order {
    Send(Frame),
    /// End the stream with this reason.
    Close(Refusal),
    /// It ended by itself.
    End(Status),
}

/// How much a connection has taken, without a message for every frame.
#[derive(Debug, Default)]
pub struct Gauge {
    frames: AtomicU64,
    bytes: AtomicU64,
    /// The hub waits for room: the next frame taken is worth a message.
    waiting: AtomicBool,
    wake: Notify,
}

impl Gauge {
    /// Counts a frame that the transport took, and wakes `room` if the hub waits for it.
    pub fn took(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        self.frames.fetch_add(1, Ordering::AcqRel);
        if self.waiting.swap(false, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }

    /// Done when there is room that the hub is to be told of.
    pub async fn room(&self) {
        self.wake.notified().await;
    }

    fn volume(&self) -> Volume {
        let frames = self.frames.load(Ordering::Acquire);
        Volume {
            frames,
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// Orders a stream can have waiting: its window of frames, and its secrets beside them.
const SPARE: usize = 16;

/// How long a stream's channel of orders must be.
pub fn orders_capacity(limits: &Limits) -> usize {
    limits.window_frames + SPARE
}

pub struct Hub {
    engine: Engine,
    limits: Limits,
    /// Boxed: half of a map's room is empty when it grows at its end.
    links: BTreeMap<StreamId, Box<Link>>,
    /// The inverted index, by scope: whoever is in a scope watches (part of) its resources.
    members: HashMap<ScopeId, BTreeSet<StreamId>>,
    pool: Pool,
    deadlines: BTreeSet<(Instant, StreamId)>,
    settling: Settling,
    refusals: Refusals,
    /// When frames that nobody may ask for again are let go.
    plans_until: Option<Instant>,
    metrics: Arc<Metrics>,
    credentials: Arc<Credentials>,
    nothing: Layer,
}

/// How much is handled before the queue is looked at again. Changes among it become one batch.
const GULP: usize = 512;

/// For how long frames are kept for sessions that may come to the same state.
const PLANS: Duration = Duration::from_secs(2);

impl Hub {
    pub fn new(engine: Engine, limits: Limits) -> Self {
        Self {
            engine,
            limits,
            links: BTreeMap::new(),
            members: HashMap::new(),
            pool: Pool::default(),
            deadlines: BTreeSet::new(),
            settling: Settling::default(),
            refusals: Refusals::default(),
            plans_until: None,
            metrics: Arc::default(),
            credentials: Arc::default(),
            nothing: Layer::default(),
        }
    }

    /// Counts where others count as well.
    pub fn counting(mut self, metrics: Arc<Metrics>) -> Self {
        self.metrics = metrics;
        self
    }

    /// Keeps the Secrets of gateways where streams find them.
    pub fn keeping(mut self, credentials: Arc<Credentials>) -> Self {
        self.credentials = credentials;
        self
    }

    /// What it counts, for whoever shows it.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// Runs until shutdown, or until nobody can send any more. A full queue makes senders wait.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Message>, shutdown: CancellationToken) {
        let mut gulp = Vec::with_capacity(GULP);
        loop {
            let first = self.deadlines.first().map(|(at, _)| *at);
            let wake = first.into_iter().chain(self.plans_until).min();
            let tick = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                count = inbox.recv_many(&mut gulp, GULP) => if count == 0 { return },
                () = tick => {}
            }
            self.metrics.queue.set((gulp.len() + inbox.len()) as u64);
            self.on_gulp(gulp.drain(..), clock::mono());
            self.on_tick(clock::mono());
        }
    }

    /// Changes first and together: what came meanwhile merges, whatever stands between them in the queue.
    pub fn on_gulp(&mut self, messages: impl Iterator<Item = Message>, now: Instant) {
        let mut changes = Vec::new();
        let mut since = now;
        let mut rest = Vec::new();
        for message in messages {
            match message {
                Message::Changes(more, at) => {
                    if !changes.is_empty() {
                        self.metrics.coalesced.add(more.len() as u64);
                    }
                    changes.extend(more);
                    since = since.min(at);
                }
                other => rest.push(other),
            }
        }
        if !changes.is_empty() {
            self.on_changes(&changes, since, now);
        }
        for message in rest {
            self.on(message, now);
        }
    }

    /// Lets every session act whose time has come, once.
    pub fn on_tick(&mut self, now: Instant) {
        self.plans_until = match self.plans_until {
            Some(at) if at <= now => {
                self.pool.forget_plans();
                None
            }
            None if self.pool.has_plans() => Some(now + PLANS),
            waiting => waiting,
        };
        let due = self.deadlines.iter().take_while(|(at, _)| *at <= now);
        for (at, stream) in due.copied().collect::<Vec<_>>() {
            self.deadlines.remove(&(at, stream));
            self.with(stream, now, |session, turn| session.on_tick(turn));
        }
    }

    fn on(&mut self, message: Message, now: Instant) {
        match message {
            Message::Open(opened) => self.on_open(*opened, now),
            Message::Request(stream, request) => {
                self.with(stream, now, |session, turn| {
                    session.on_request(&request, turn)
                });
            }
            Message::Taken(stream) => {
                self.with(stream, now, |session, turn| session.flush(turn));
            }
            Message::Secret(stream, name, answer) => {
                self.with(stream, now, |session, turn| {
                    session.on_secret(&name, answer, turn)
                });
            }
            Message::Closed(stream) => self.on_closed(stream),
            Message::Changes(changes, at) => self.on_changes(&changes, at, now),
            Message::TrustChanged => {
                for stream in self.links.keys().copied().collect::<Vec<_>>() {
                    self.with(stream, now, |session, turn| session.on_trust_changed(turn));
                }
            }
            Message::Inspect(inspect) => self.on_inspect(inspect, now),
        }
    }

    fn on_open(&mut self, opened: Opened, now: Instant) {
        let Opened {
            stream,
            proxy,
            credential,
            version,
            orders,
            asks,
            cut,
            gauge,
        } = opened;
        self.on_closed(stream);
        self.greet(stream, &proxy);
        let scope = self.engine.attach(ProxyId(stream.0), proxy);
        self.members.entry(scope).or_default().insert(stream);
        self.metrics.opened.inc();
        let session = Session::new(self.limits, credential, now);
        let link = Link {
            stream,
            session,
            scope,
            orders,
            asks,
            cut,
            gauge,
            deadline: None,
            owes: None,
            whole: false,
            version,
            opened: now,
        };
        self.links.insert(stream, Box::new(link));
    }

    fn on_closed(&mut self, stream: StreamId) {
        let Some(mut link) = self.links.remove(&stream) else {
            return;
        };
        link.unschedule(&mut self.deadlines, &mut self.settling);
        link.cut.cancel();
        self.leave(link.scope, stream);
        if let Some(proxy) = self.engine.proxy(ProxyId(stream.0)) {
            info!(proxy = %proxy.id, stream = stream.0, "proxy disconnected");
        }
        self.engine.detach(ProxyId(stream.0));
    }

    fn leave(&mut self, scope: ScopeId, stream: StreamId) {
        if let Some(members) = self.members.get_mut(&scope) {
            members.remove(&stream);
            if members.is_empty() {
                self.members.remove(&scope);
            }
        }
    }

    fn on_changes(&mut self, changes: &[Change], since: Instant, now: Instant) {
        let began = clock::mono();
        self.metrics.batches.inc();
        self.metrics.changes.add(changes.len() as u64);
        let secrets = self.credentials.apply(changes);
        let Update { scopes, moved } = self.engine.apply(changes);
        self.pool.forget_plans();
        self.settling.begin(since);
        for id in &moved {
            self.on_moved(StreamId(id.0), since, now);
        }
        for (scope, touched) in &scopes {
            self.on_touched(*scope, &touched.names, &moved, (since, now));
        }
        self.on_secrets(&secrets, now);
        self.settled(now);
        let spent = clock::mono().saturating_duration_since(began);
        self.metrics.push_time.observe(spent);
    }

    /// Whoever is of the namespace of one looks at it again.
    fn on_secrets(&mut self, changed: &BTreeSet<(Str, Str)>, now: Instant) {
        let namespaces: BTreeSet<&Str> = changed.iter().map(|(namespace, _)| namespace).collect();
        for namespace in namespaces {
            let of = |name: &str| (namespace.clone(), Str::new(name));
            let is_changed = |name: &str| {
                let named = credentials::named(name).unwrap_or_default();
                let beside = named.strip_suffix(ROOTS).map(of);
                let both = [Some(of(named)), beside];
                both.into_iter()
                    .flatten()
                    .any(|place| changed.contains(&place))
            };
            for id in self.engine.of_namespace(namespace) {
                self.with(StreamId(id.0), now, |session, turn| {
                    session.on_credentials(&is_changed, turn)
                });
            }
        }
    }

    /// Every member of the scope but those that moved, which compare everything anyway.
    fn on_touched(
        &mut self,
        scope: ScopeId,
        names: &Names,
        moved: &BTreeSet<ProxyId>,
        (since, now): (Instant, Instant),
    ) {
        let Some(view) = self.engine.resources(scope) else {
            return;
        };
        let told = Told::of(names, view);
        let mut ended = Vec::new();
        for stream in self.members.get(&scope).into_iter().flatten() {
            if moved.contains(&ProxyId(stream.0)) {
                continue;
            }
            let Some(link) = self.links.get_mut(stream) else {
                continue;
            };
            if !link.touch(&told, since) {
                continue;
            }
            let turn = Turn {
                view,
                pool: &mut self.pool,
                now,
            };
            let goes_on = link.act(turn, &self.metrics, |session, turn| session.flush(turn));
            link.reschedule(&mut self.deadlines, &mut self.settling);
            if goes_on == GoesOn::No {
                ended.push(*stream);
            }
        }
        for stream in ended {
            self.give_up(stream);
        }
    }

    fn on_moved(&mut self, stream: StreamId, since: Instant, now: Instant) {
        let Some(scope) = self.engine.scope_of(ProxyId(stream.0)) else {
            return;
        };
        let Some(link) = self.links.get_mut(&stream) else {
            return;
        };
        let before = std::mem::replace(&mut link.scope, scope);
        self.leave(before, stream);
        self.members.entry(scope).or_default().insert(stream);
        self.with(stream, now, |session, turn| session.on_moved(since, turn));
    }

    fn with(
        &mut self,
        stream: StreamId,
        now: Instant,
        act: impl FnOnce(&mut Session, &mut Turn<'_>) -> Vec<Output>,
    ) {
        let Some(link) = self.links.get_mut(&stream) else {
            return;
        };
        let view = self
            .engine
            .resources(link.scope)
            .unwrap_or_else(|| Resources::new(&self.nothing, &self.nothing, &self.nothing));
        let turn = Turn {
            view,
            pool: &mut self.pool,
            now,
        };
        let goes_on = link.act(turn, &self.metrics, act);
        link.reschedule(&mut self.deadlines, &mut self.settling);
        self.settled(now);
        if goes_on == GoesOn::No {
            self.give_up(stream);
        }
    }

    fn give_up(&mut self, stream: StreamId) {
        self.metrics.closed.inc();
        self.on_closed(stream);
    }

    /// Batches of changes that nobody owes an answer for any more.
    fn settled(&mut self, now: Instant) {
        for since in self.settling.take() {
            let time = now.saturating_duration_since(since);
            self.metrics.settled.observe(time);
        }
    }
}
