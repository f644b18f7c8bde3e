//! A client process: a crowd of seats on one thread, and the runner's orders. What a seat does is in `seat.rs`.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use memchr::memmem::Finder;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustls::crypto::aws_lc_rs::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::channel::Drain;
use super::order::{Arrivals, Goal, Marker, Order, Report, Target};
use super::seat::{Aim, Seat, Shared, Tape, Trail};
use super::stamp::Stamp;

/// A lost stream is tried again after this, without growth.
const RETRY: Duration = Duration::from_millis(50);
/// One for all seats: what is read is used up at once.
const BUFFER: usize = 256 << 10;
/// Seats that the poll names at once, and that read in one round.
const EVENTS: usize = 1024;
/// Bytes of one seat before the others have their turn.
const TURN: usize = 1 << 20;
/// Bytes of all seats before the poll is asked again: a seat that connects must not wait for thousands that read.
const ROUND: usize = 32 << 20;
/// Reasons of lost streams that are kept.
const REASONS: usize = 8;
const RUNNER: Token = Token(usize::MAX);

/// What the runner waits for.
enum Wait {
    Reached { until: Stamp },
    Quiet { silence: Duration },
}

pub struct Crew {
    poll: Poll,
    runner: TcpStream,
    /// Of the runner's line under way. Orders are as long as a list of recruits.
    line: Vec<u8>,
    target: Option<Target>,
    tls: Option<Arc<ClientConfig>>,
    seats: Vec<Seat>,
    /// Seats that have something to read, each once, in order of their turns.
    ready: VecDeque<usize>,
    /// Seats to connect, and when; in order, for all wait equally long.
    lost: VecDeque<(Stamp, usize)>,
    reasons: Vec<String>,
    shared: Shared,
    wait: Option<Wait>,
    last: Stamp,
}

/// Serves the runner at this address until it goes.
pub fn serve(runner: SocketAddr) -> Result<()> {
    let poll = Poll::new()?;
    // A blocking connect, for there is nothing to do before.
    let stream = std::net::TcpStream::connect(runner).context("reach the runner")?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    let mut runner = TcpStream::from_std(stream);
    poll.registry()
        .register(&mut runner, RUNNER, Interest::READABLE)?;
    let crew = Crew {
        poll,
        runner,
        line: Vec::new(),
        target: None,
        tls: None,
        seats: Vec::new(),
        ready: VecDeque::new(),
        lost: VecDeque::new(),
        reasons: Vec::new(),
        shared: Shared::default(),
        wait: None,
        last: Stamp::now(),
    };
    crew.run()
}

impl Crew {
    fn run(mut self) -> Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        let mut buffer = vec![0; BUFFER];
        loop {
            let timeout = if self.ready.is_empty() {
                self.patience()
            } else {
                Some(Duration::ZERO)
            };
            match self.poll.poll(&mut events, timeout) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            let mut called = false;
            for event in &events {
                match event.token() {
                    RUNNER => called = true,
                    Token(seat) => self.queue(seat),
                }
            }
            // Only when all have read, so that an answer delays no reading.
            for seat in self.read_round(&mut buffer) {
                let flushed = self.seats[seat].flush();
                self.check(seat, flushed);
            }
            self.reconnect();
            if called && !self.on_runner()? {
                return Ok(());
            }
            self.end_wait()?;
        }
    }

    /// Those that are still connecting come first: a server gives a newcomer little time.
    fn queue(&mut self, seat: usize) {
        let Some(place) = self.seats.get_mut(seat) else {
            return;
        };
        if std::mem::replace(&mut place.queued, true) {
            return;
        }
        if place.heard() {
            self.ready.push_back(seat);
        } else {
            self.ready.push_front(seat);
        }
    }

    /// Turns of the seats that are ready, as many as one round has; who had one.
    fn read_round(&mut self, buffer: &mut [u8]) -> Vec<usize> {
        let mut had = Vec::new();
        let mut left = ROUND / BUFFER;
        while left > 0
            && had.len() < EVENTS
            && let Some(seat) = self.ready.pop_front()
        {
            self.seats[seat].queued = false;
            let turn = TURN / BUFFER;
            let (reads, more) = self.read(seat, buffer, turn.min(left));
            // A turn that found less than a buffer costs nothing of it.
            left -= reads;
            had.push(seat);
            if more {
                self.seats[seat].queued = true;
                self.ready.push_back(seat);
            }
        }
        had
    }

    /// Reads at most so many full buffers: how many it were, and whether there may be more.
    fn read(&mut self, seat: usize, buffer: &mut [u8], turn: usize) -> (usize, bool) {
        let mut reads = 0;
        while reads < turn && !self.seats[seat].stalled {
            self.last = Stamp::now();
            match self.seats[seat].read(buffer, &mut self.shared) {
                Ok(Drain::Empty) => return (reads, false),
                Ok(Drain::More) => reads += 1,
                Err(error) => {
                    self.lose(seat, &error);
                    return (reads, false);
                }
            }
        }
        (reads, reads == turn)
    }

    fn check(&mut self, seat: usize, done: io::Result<()>) {
        if let Err(error) = done {
            self.lose(seat, &error);
        }
    }

    fn lose(&mut self, seat: usize, error: &io::Error) {
        if self.reasons.len() < REASONS {
            self.reasons.push(format!("{error}"));
        }
        self.seats[seat].disconnect();
        self.lost.push_back((Stamp::now().after(RETRY), seat));
    }

    fn reconnect(&mut self) {
        let now = Stamp::now();
        while let Some((due, seat)) = self.lost.front().copied()
            && due <= now
        {
            self.lost.pop_front();
            self.connect(seat);
        }
    }

    fn connect(&mut self, seat: usize) {
        let Some(target) = &self.target else { return };
        let registry = self.poll.registry();
        let made = self.seats[seat]
            .connect(target, home(seat), self.tls.as_ref(), &mut self.shared)
            .and_then(|channel| {
                let interest = Interest::READABLE | Interest::WRITABLE;
                registry.register(channel.tcp(), Token(seat), interest)
            });
        self.check(seat, made);
    }

    /// How long nothing needs to be done.
    fn patience(&self) -> Option<Duration> {
        let now = Stamp::now();
        let retry = self.lost.front().map(|(due, _)| due.since(now));
        let wait = self.wait.as_ref().map(|wait| match wait {
            Wait::Reached { until } => until.since(now),
            Wait::Quiet { silence } => silence.saturating_sub(now.since(self.last)),
        });
        let first = retry.into_iter().chain(wait).min();
        // Rounded up: mio counts milliseconds.
        first.map(|d| d + Duration::from_micros(999))
    }

    /// False once the runner is gone.
    fn on_runner(&mut self) -> Result<bool> {
        let mut chunk = vec![0; 64 << 10];
        loop {
            match self.runner.read(&mut chunk) {
                Ok(0) => return Ok(false),
                Ok(count) => self.line.extend_from_slice(&chunk[..count]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e.into()),
            }
        }
        while let Some(end) = self.line.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            let order = serde_json::from_slice(&line).context("read an order")?;
            match self.obey(order) {
                Ok(Some(report)) => self.report(&report)?,
                Ok(None) => {}
                Err(error) => self.report(&Report::Failed(format!("{error:#}")))?,
            }
        }
        Ok(true)
    }

    fn report(&mut self, report: &Report) -> Result<()> {
        let mut line = serde_json::to_vec(report)?;
        line.push(b'\n');
        let mut rest = &line[..];
        while !rest.is_empty() {
            match self.runner.write(rest) {
                Ok(count) => rest = &rest[count..],
                // The runner reads nothing else meanwhile.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// None where the answer comes when it is time for it.
    fn obey(&mut self, order: Order) -> Result<Option<Report>> {
        match order {
            Order::Enlist(target, recruits) => self.enlist(target, recruits)?,
            Order::Aim(goal) => self.aim(goal),
            Order::Await { limit_ms } => {
                let until = Stamp::now().after(Duration::from_millis(limit_ms));
                self.wait = Some(Wait::Reached { until });
                return Ok(None);
            }
            Order::Quiet { silence_ms } => {
                let silence = Duration::from_millis(silence_ms);
                self.wait = Some(Wait::Quiet { silence });
                return Ok(None);
            }
            Order::Stall { seats } => self.stall(&seats),
            Order::Estrange { kind } => {
                for seat in &mut self.seats {
                    seat.proxy.foreign = kind;
                }
            }
            Order::Trail { prefix, events } => {
                self.seats.iter_mut().for_each(Seat::forget_events);
                self.shared.trail = Some(Trail {
                    finder: Finder::new(&prefix).into_owned(),
                    arrivals: Arrivals {
                        last: vec![None; events],
                        seats: vec![0; events],
                    },
                });
            }
            Order::Record { seat } => {
                self.seats.iter_mut().for_each(|seat| seat.tape = None);
                self.seats[seat].tape = Some(Tape::default());
            }
            Order::Keep { file } => {
                let tapes = self.seats.iter_mut().filter_map(|seat| seat.tape.take());
                let messages: Vec<u8> = tapes.flat_map(|tape| tape.messages).collect();
                std::fs::write(&file, messages)
                    .with_context(|| format!("write {}", file.display()))?;
            }
            Order::Leave => self.leave(),
            Order::Count
            | Order::Census
            | Order::Facts { .. }
            | Order::Versions { .. }
            | Order::Arrivals => return Ok(Some(self.tell(&order))),
        }
        Ok(Some(Report::Done))
    }

    fn tell(&self, order: &Order) -> Report {
        let catalogue = &self.shared.catalogue;
        match order {
            Order::Count => Report::Volume(self.shared.volume),
            Order::Census => {
                let seats = self.seats.iter();
                Report::Census(seats.map(|s| s.proxy.sums(catalogue)).collect())
            }
            Order::Facts { seat } => {
                let facts = self.seats[*seat].proxy.facts(catalogue).into_iter();
                let words = facts.map(|(kind, fact)| format!("{} {fact}", kind.short()));
                Report::Words(words.collect())
            }
            Order::Versions { seat } => Report::Words(self.seats[*seat].proxy.versions(catalogue)),
            _ => {
                let trail = self.shared.trail.as_ref();
                Report::Arrivals(trail.map(|t| t.arrivals.clone()).unwrap_or_default())
            }
        }
    }

    fn enlist(&mut self, target: Target, recruits: Vec<super::order::Recruit>) -> Result<()> {
        self.tls = target.roots.as_deref().map(trusting).transpose()?;
        self.target = Some(target);
        self.last = Stamp::now();
        let first = self.seats.len();
        self.seats.extend(recruits.into_iter().map(Seat::new));
        // The storm is recorded from its first byte.
        if let [seat, ..] = &mut self.seats[..]
            && first == 0
        {
            seat.tape = Some(Tape::default());
        }
        for seat in first..self.seats.len() {
            self.connect(seat);
        }
        Ok(())
    }

    fn aim(&mut self, goal: Goal) {
        let finder = |m: Marker| (m.kind, Finder::new(&m.bytes).into_owned());
        let of = |markers: Vec<Marker>| Aim::Markers(markers.into_iter().map(finder).collect());
        let (aim, only) = match goal {
            Goal::Whole(least) => (Aim::Whole(least), None),
            Goal::Markers(markers, only) => (of(markers), only),
        };
        self.shared.aim = aim;
        for (at, seat) in self.seats.iter_mut().enumerate() {
            seat.aim(only.as_ref().is_none_or(|only| only.contains(&at)));
        }
    }

    fn stall(&mut self, seats: &[usize]) {
        let mut buffer = vec![0; BUFFER];
        for at in 0..self.seats.len() {
            let was = std::mem::replace(&mut self.seats[at].stalled, seats.contains(&at));
            if was && !self.seats[at].stalled {
                // The poll said long ago that there is something.
                while self.read(at, &mut buffer, 1).1 {}
                let flushed = self.seats[at].flush();
                self.check(at, flushed);
            }
        }
    }

    fn leave(&mut self) {
        self.seats.clear();
        self.ready.clear();
        self.lost.clear();
        self.reasons.clear();
        self.shared = Shared::default();
    }

    fn end_wait(&mut self) -> Result<()> {
        let Some(wait) = &self.wait else {
            return Ok(());
        };
        let now = Stamp::now();
        let report = match wait {
            Wait::Reached { until } => {
                let waiting = |s: &Seat| s.aimed && s.reached.is_none();
                (*until <= now || !self.seats.iter().any(waiting)).then(|| self.reached())
            }
            Wait::Quiet { silence } => (now.since(self.last) >= *silence).then_some(Report::Done),
        };
        if let Some(report) = report {
            self.wait = None;
            self.report(&report)?;
        }
        Ok(())
    }

    fn reached(&mut self) -> Report {
        let aimed = self.seats.iter().filter(|s| s.aimed);
        Report::Reached {
            aimed: aimed.clone().count(),
            times: aimed.filter_map(|s| s.reached).collect(),
            lost: std::mem::take(&mut self.reasons),
        }
    }
}

/// A seat's own address on the loopback.
fn home(seat: usize) -> Ipv4Addr {
    let [.., b, c] = (seat as u32).to_be_bytes();
    Ipv4Addr::new(127, 1, b, c)
}

/// Trust in these certificates alone; each connection is a stranger, as each proxy's first one is.
fn trusting(roots: &std::path::Path) -> Result<Arc<ClientConfig>> {
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(roots)? {
        store.add(root?)?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(as_envoy()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// Offers what Envoy does, in its order: BoringSSL puts AES-128 first where the processor has instructions for it.
fn as_envoy() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![
        TLS13_AES_128_GCM_SHA256,
        TLS13_AES_256_GCM_SHA384,
        TLS13_CHACHA20_POLY1305_SHA256,
    ];
    provider
}
