//! The one owner of engine and sessions: messages in, frames out. No socket here.

pub mod report;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::report::Inspect;
use super::Limits;
use super::frame::Frame;
use super::grpc::Status;
use super::pool::{Pool, Told};
use super::session::{Answer, Ask, Credential, Event, Output, Refusal, Session, Turn, Volume};
use super::wire::Request;
use crate::clock;
use crate::config::Change;
use crate::model::proxy::Proxy;
use crate::telemetry::metrics::Metrics;
use crate::text::Str;
use crate::view::{Engine, Layer, ProxyId, Resources, ScopeId, Update};

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
    /// Holds `orders_capacity`; a stream that lets them fill up is closed.
    pub orders: mpsc::Sender<Order>,
    /// Cancelled when the hub gave the stream up: no more will come.
    pub cut: CancellationToken,
    /// Secrets to get from `ca` and hand back. A session asks for few at a time; see `stream::ASKS`.
    pub asks: mpsc::Sender<Ask>,
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

#[derive(Debug)]
struct Link {
    session: Session,
    scope: ScopeId,
    orders: mpsc::Sender<Order>,
    asks: mpsc::Sender<Ask>,
    cut: CancellationToken,
    gauge: Arc<Gauge>,
    deadline: Option<Instant>,
    version: Option<String>,
    opened: Instant,
}

impl Link {
    /// Orders a stream can have waiting: its window of frames, and its secrets beside them.
    pub(super) const SPARE: usize = 16;
}

/// How long a stream's channel of orders must be.
pub fn orders_capacity(limits: &Limits) -> usize {
    limits.window_frames + Link::SPARE
}

pub struct Hub {
    engine: Engine,
    limits: Limits,
    links: BTreeMap<StreamId, Link>,
    /// The inverted index, by scope: whoever is in a scope watches (part of) its resources.
    members: HashMap<ScopeId, BTreeSet<StreamId>>,
    pool: Pool,
    deadlines: BTreeSet<(Instant, StreamId)>,
    metrics: Arc<Metrics>,
    nothing: Layer,
}

/// How much is handled before the queue is looked at again. Changes among it become one batch.
const GULP: usize = 512;

impl Hub {
    pub fn new(engine: Engine, limits: Limits) -> Self {
        Self {
            engine,
            limits,
            links: BTreeMap::new(),
            members: HashMap::new(),
            pool: Pool::default(),
            deadlines: BTreeSet::new(),
            metrics: Arc::default(),
            nothing: Layer::default(),
        }
    }

    /// Counts where others count as well.
    pub fn counting(mut self, metrics: Arc<Metrics>) -> Self {
        self.metrics = metrics;
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
            let wake = self
                .deadlines
                .first()
                .map(|(at, _)| tokio::time::Instant::from_std(*at));
            let tick = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                count = inbox.recv_many(&mut gulp, GULP) => if count == 0 { return },
                () = tick => {}
            }
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
            Message::Taken(stream) => self.with(stream, now, |_, _| Vec::new()),
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
            session,
            scope,
            orders,
            asks,
            cut,
            gauge,
            deadline: None,
            version,
            opened: now,
        };
        self.links.insert(stream, link);
    }

    fn on_closed(&mut self, stream: StreamId) {
        let Some(link) = self.links.remove(&stream) else {
            return;
        };
        if let Some(at) = link.deadline {
            self.deadlines.remove(&(at, stream));
        }
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
        let Update { scopes, moved } = self.engine.apply(changes);
        self.pool.forget_plans();
        for id in &moved {
            self.on_moved(StreamId(id.0), since, now);
        }
        for (scope, touched) in scopes {
            let members = self.members.get(&scope).cloned().unwrap_or_default();
            let Some(view) = self.engine.resources(scope) else {
                continue;
            };
            let told = Told::of(&touched.names, view);
            for stream in members {
                if !moved.contains(&ProxyId(stream.0)) {
                    self.on_touched(stream, &told, since, now);
                }
            }
        }
        let spent = clock::mono().saturating_duration_since(began);
        self.metrics.push_time.observe(spent);
    }

    fn on_touched(&mut self, stream: StreamId, told: &[Told], since: Instant, now: Instant) {
        let Some(link) = self.links.get_mut(&stream) else {
            return;
        };
        let mut concerned = false;
        for told in told {
            concerned |= link.session.touch(told, since);
        }
        if concerned {
            self.with(stream, now, |session, turn| session.flush(turn));
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

    /// Lets one session act, and does what it says. The window is read before and, where it is full, after:
    /// room that came meanwhile would else be noticed by nobody.
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
            .unwrap_or_else(|| Resources::new(&self.nothing, &self.nothing));
        let mut turn = Turn {
            view,
            pool: &mut self.pool,
            now,
        };
        let mut outputs = link.session.on_taken(link.gauge.volume(), &mut turn);
        outputs.extend(act(&mut link.session, &mut turn));
        let mut alive = true;
        loop {
            for output in outputs.drain(..) {
                alive &= obey(link, output, &self.metrics, (stream, now));
            }
            if link.session.has_room() || !alive {
                break;
            }
            let seen = link.gauge.volume();
            link.gauge.waiting.store(true, Ordering::Release);
            if link.gauge.volume() == seen {
                break;
            }
            outputs = link.session.on_taken(link.gauge.volume(), &mut turn);
        }
        let deadline = link.session.deadline();
        if deadline != link.deadline
            && let Some(old) = std::mem::replace(&mut link.deadline, deadline)
        {
            self.deadlines.remove(&(old, stream));
        }
        if let Some(at) = deadline {
            self.deadlines.insert((at, stream));
        }
        if !alive {
            self.metrics.closed.inc();
            self.on_closed(stream);
        }
    }
}

/// Whether the stream goes on.
fn obey(
    link: &Link,
    output: Output,
    metrics: &Metrics,
    (stream, now): (StreamId, Instant),
) -> bool {
    match output {
        Output::Send(frame) => {
            let sheet = frame.sheet();
            let kind = sheet.roll.kind as usize;
            metrics.pushes.of(kind).inc();
            metrics
                .resources
                .of(kind)
                .add(sheet.roll.stamps.len() as u64);
            metrics
                .removed
                .of(kind)
                .add(sheet.roll.removed.len() as u64);
            metrics.bytes.of(kind).add(sheet.len as u64);
            link.orders.try_send(Order::Send(frame)).is_ok()
        }
        Output::Issue(ask) => link.asks.try_send(ask).is_ok(),
        Output::Event(event) => {
            note(event, metrics, stream, now);
            true
        }
        Output::Close(refusal) => {
            warn!(stream = stream.0, reason = %refusal, "closing a stream");
            // With no room even for this, the stream is cut without a word.
            drop(link.orders.try_send(Order::Close(refusal)));
            false
        }
    }
}

fn note(event: Event, metrics: &Metrics, stream: StreamId, now: Instant) {
    match event {
        Event::Acked {
            since: Some(since), ..
        } => metrics
            .convergence
            .observe(now.saturating_duration_since(since)),
        Event::Acked { since: None, .. } => {}
        Event::Nacked {
            kind,
            names,
            message,
        } => {
            metrics.rejects.of(kind as usize).inc();
            let first = names.first().map(Str::as_str).unwrap_or_default();
            warn!(
                stream = stream.0,
                r#type = kind.short(),
                nacked = names.len(),
                first,
                %message,
                "client rejected config"
            );
        }
        Event::StaleNonce(kind) => metrics.stale.of(kind as usize).inc(),
        // One line for all: after a storm on a slow machine there may be thousands.
        Event::StillWarming(clusters) => {
            metrics.warming.add(clusters.len() as u64);
            let first = clusters.first().map(Str::as_str).unwrap_or_default();
            warn!(
                stream = stream.0,
                clusters = clusters.len(),
                first,
                "clusters still warming; their routes go all the same"
            );
        }
        Event::SecretRefused(name) => {
            metrics.secrets_refused.inc();
            warn!(stream = stream.0, %name, "secret refused");
        }
        Event::UnknownType(url) => info!(stream = stream.0, %url, "type not served"),
    }
}
