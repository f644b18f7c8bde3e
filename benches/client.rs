//! A fleet of simulated proxies: one connection each, all on one thread. What they answer is in `proxy.rs`.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use fairlead::clock;
use fairlead::xds::ResourceType;
use h2::client::Builder;
use http::Request;
use memchr::memmem::Finder;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::mesh::{Manifest, Marker};
use super::proxy::{Known, Proxy};
use super::wire::{Cutter, PREFIX, Response};

const PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// A lost stream is tried again after this, without growth.
const RETRY: Duration = Duration::from_millis(50);
/// So large that window updates do not set the pace.
const STREAM_WINDOW: u32 = 256 << 20;
const CONNECTION_WINDOW: u32 = 1 << 30;
/// A fleet is quiet when nothing came for this long.
const QUIET: Duration = Duration::from_millis(150);

/// Where a fleet connects, and as whom.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

/// One member before it connects.
pub struct Recruit {
    pub proxy: Proxy,
    /// The `authorization` header.
    pub token: Option<String>,
}

/// What the runner waits for on each proxy.
enum Goal {
    /// All that the mesh has for it.
    Whole(Manifest),
    /// Each of these in a response of its type, and nothing warming.
    Markers(Vec<(ResourceType, Finder<'static>)>),
}

/// Counted per proxy since its fleet was made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Volume {
    pub messages: u64,
    pub bytes: [u64; ResourceType::COUNT],
    /// Bytes of the messages that showed a marker.
    pub marked: u64,
}

impl Volume {
    pub fn total(&self) -> u64 {
        self.bytes.iter().sum()
    }
}

#[derive(Default)]
struct Seat {
    volume: Volume,
    streams: u32,
    /// Which markers were seen, as bits.
    seen: u32,
    reached: Option<Instant>,
}

/// What members and runner share; all of it stays on one thread.
struct Shared {
    target: Target,
    goal: RefCell<Goal>,
    seats: RefCell<Vec<Seat>>,
    known: RefCell<Known>,
    /// Every response to the first member, for the null server to repeat.
    recording: RefCell<Option<Vec<Bytes>>>,
    waiting: Cell<usize>,
    last: Cell<Option<Instant>>,
    lost: RefCell<Vec<String>>,
    progress: Notify,
}

pub struct Fleet {
    shared: Rc<Shared>,
    members: Vec<Rc<RefCell<Proxy>>>,
    tasks: JoinSet<()>,
}

impl Fleet {
    /// Starts all members; the goal is that each is whole.
    pub fn connect(target: Target, recruits: Vec<Recruit>, manifest: Manifest) -> Self {
        let seats = recruits.iter().map(|_| Seat::default()).collect();
        let shared = Rc::new(Shared {
            target,
            goal: RefCell::new(Goal::Whole(manifest)),
            seats: RefCell::new(seats),
            known: RefCell::default(),
            recording: RefCell::new(Some(Vec::new())),
            waiting: Cell::new(recruits.len()),
            last: Cell::new(None),
            lost: RefCell::default(),
            progress: Notify::new(),
        });
        let mut tasks = JoinSet::new();
        let mut members = Vec::new();
        for (seat, recruit) in recruits.into_iter().enumerate() {
            let proxy = Rc::new(RefCell::new(recruit.proxy));
            let member = Member {
                shared: shared.clone(),
                seat,
                proxy: proxy.clone(),
                token: recruit.token,
            };
            tasks.spawn_local(member.live());
            members.push(proxy);
        }
        Self {
            shared,
            members,
            tasks,
        }
    }

    /// From now on a member has reached the goal when it has seen all markers.
    pub fn expect(&self, markers: &[Marker]) {
        let finder = |(kind, bytes): &Marker| (*kind, Finder::new(bytes).into_owned());
        self.aim(Goal::Markers(markers.iter().map(finder).collect()));
    }

    fn aim(&self, goal: Goal) {
        *self.shared.goal.borrow_mut() = goal;
        let mut seats = self.shared.seats.borrow_mut();
        self.shared.waiting.set(seats.len());
        for seat in seats.iter_mut() {
            seat.seen = 0;
            seat.reached = None;
        }
    }

    /// When each member reached the goal.
    pub async fn reached(&self, limit: Duration) -> Result<Vec<Instant>> {
        let shared = &self.shared;
        let done = async {
            while shared.waiting.get() > 0 {
                shared.progress.notified().await;
            }
        };
        if tokio::time::timeout(limit, done).await.is_err() {
            let lost = shared.lost.borrow();
            bail!(
                "{} of {} proxies did not get there in {limit:?}; streams lost: {lost:?}",
                shared.waiting.get(),
                self.members.len(),
            );
        }
        Ok(shared
            .seats
            .borrow()
            .iter()
            .filter_map(|s| s.reached)
            .collect())
    }

    /// Waits until every member has sent all requests of another stream than the first `count`.
    pub async fn reopened(&self, count: u32, limit: Duration) -> Result<()> {
        let all = || self.shared.seats.borrow().iter().all(|s| s.streams > count);
        let done = async {
            while !all() {
                self.shared.progress.notified().await;
            }
        };
        let waited = tokio::time::timeout(limit, done).await;
        waited.with_context(|| format!("not all proxies came back in {limit:?}"))
    }

    /// Waits until nothing came for a while.
    pub async fn quiet(&self) {
        loop {
            let silent = |last: Instant| clock::mono() - last;
            let since = self.shared.last.get().map_or(QUIET, silent);
            let Some(rest) = QUIET.checked_sub(since).filter(|r| !r.is_zero()) else {
                return;
            };
            tokio::time::sleep(rest).await;
        }
    }

    pub fn volume(&self) -> Volume {
        let mut sum = Volume::default();
        for seat in self.shared.seats.borrow().iter() {
            let Volume {
                messages,
                bytes,
                marked,
            } = seat.volume;
            sum.messages += messages;
            sum.marked += marked;
            for (total, add) in sum.bytes.iter_mut().zip(bytes) {
                *total += add;
            }
        }
        sum
    }

    pub fn member(&self, seat: usize) -> &RefCell<Proxy> {
        &self.members[seat]
    }

    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// Why streams ended so far; none should, unless the server was stopped.
    pub fn lost(&self) -> Vec<String> {
        self.shared.lost.take()
    }

    /// The responses to the first member so far; no more are kept from here on.
    pub fn recording(&self) -> Vec<Bytes> {
        self.shared.recording.take().unwrap_or_default()
    }

    /// Ends all streams.
    pub async fn leave(mut self) {
        self.tasks.shutdown().await;
    }
}

struct Member {
    shared: Rc<Shared>,
    seat: usize,
    proxy: Rc<RefCell<Proxy>>,
    token: Option<String>,
}

impl Member {
    async fn live(self) {
        loop {
            if let Err(error) = self.connect().await {
                let mut lost = self.shared.lost.borrow_mut();
                if lost.len() < 8 {
                    lost.push(format!("{error:#}"));
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn connect(&self) -> Result<()> {
        let Target { address, tls } = &self.shared.target;
        let tcp = TcpStream::connect(address).await.context("connect")?;
        tcp.set_nodelay(true)?;
        match tls {
            None => self.converse(tcp).await,
            Some(config) => {
                let name = ServerName::try_from("localhost")?;
                let connector = TlsConnector::from(config.clone());
                let tls = connector.connect(name, tcp).await.context("handshake")?;
                self.converse(tls).await
            }
        }
    }

    async fn converse(&self, io: impl AsyncRead + AsyncWrite + Unpin) -> Result<()> {
        let (sender, connection) = Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(16_384)
            .enable_push(false)
            .handshake::<_, Bytes>(io)
            .await?;
        tokio::select! {
            ended = connection => Ok(ended?),
            ended = self.stream(sender) => ended,
        }
    }

    async fn stream(&self, sender: h2::client::SendRequest<Bytes>) -> Result<()> {
        let mut request = Request::post(format!("http://{}{PATH}", self.shared.target.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(token) = &self.token {
            request = request.header("authorization", token);
        }
        let mut sender = sender.ready().await?;
        let (response, mut send) = sender.send_request(request.body(())?, false)?;
        let opening = self.proxy.borrow_mut().open();
        for message in opening {
            send.send_data(message, false)?;
        }
        self.opened();
        let response = response.await?;
        if response.headers().contains_key("grpc-status") {
            bail!("refused: {:?}", response.headers());
        }
        let mut body = response.into_body();
        let mut cutter = Cutter::default();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            let mut replies = Vec::new();
            cutter.push(&chunk, |message| replies.extend(self.on_message(message)));
            for reply in replies {
                send.send_data(reply, false)?;
            }
        }
        bail!("ended: {:?}", body.trailers().await?);
    }

    fn opened(&self) {
        self.shared.seats.borrow_mut()[self.seat].streams += 1;
        self.shared.progress.notify_waiters();
    }

    fn on_message(&self, message: &[u8]) -> Vec<Bytes> {
        let shared = &self.shared;
        let now = clock::mono();
        shared.last.set(Some(now));
        let Some(response) = Response::scan(message) else {
            shared
                .lost
                .borrow_mut()
                .push("a response cannot be read".into());
            return Vec::new();
        };
        if self.seat == 0
            && let Some(recording) = shared.recording.borrow_mut().as_mut()
        {
            recording.push(Bytes::copy_from_slice(message));
        }
        let mut proxy = self.proxy.borrow_mut();
        let replies = proxy.on_response(&response, &mut shared.known.borrow_mut());
        self.note(&proxy, response.kind, message, now);
        replies
    }

    fn note(&self, proxy: &Proxy, kind: ResourceType, message: &[u8], now: Instant) {
        let shared = &self.shared;
        let seat = &mut shared.seats.borrow_mut()[self.seat];
        let len = (message.len() + PREFIX) as u64;
        seat.volume.messages += 1;
        seat.volume.bytes[kind as usize] += len;
        let there = match &*shared.goal.borrow() {
            Goal::Whole(manifest) => seat.reached.is_none() && proxy.is_whole(manifest),
            Goal::Markers(markers) => {
                let mut found = 0;
                for (bit, (of, finder)) in markers.iter().enumerate() {
                    if *of == kind && finder.find(message).is_some() {
                        found |= 1 << bit;
                    }
                }
                if found != 0 {
                    seat.volume.marked += len;
                }
                seat.seen |= found;
                let all = (1 << markers.len()) - 1;
                seat.reached.is_none() && seat.seen == all && proxy.is_warm()
            }
        };
        if there {
            seat.reached = Some(now);
            shared.waiting.set(shared.waiting.get() - 1);
            if shared.waiting.get() == 0 {
                shared.progress.notify_waiters();
            }
        }
    }
}
