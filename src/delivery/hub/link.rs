//! One session and its connection: lets it act, and does what it says.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::settling::Settling;
use super::{Gauge, Order, StreamId};
use crate::delivery::frame::Frame;
use crate::delivery::pool::Told;
use crate::delivery::session::{Ask, Event, Output, Session, Turn};
use crate::telemetry::metrics::Metrics;
use crate::text::Str;
use crate::view::ScopeId;

#[derive(Debug)]
pub struct Link {
    pub stream: StreamId,
    pub session: Session,
    pub scope: ScopeId,
    pub orders: mpsc::Sender<Box<Order>>,
    pub asks: mpsc::Sender<Box<Ask>>,
    pub cut: CancellationToken,
    pub gauge: Arc<Gauge>,
    pub deadline: Option<Instant>,
    /// The oldest change that the client has not answered for.
    pub owes: Option<Instant>,
    /// Whether it once had all that it is to have, and said so.
    pub whole: bool,
    pub version: Option<String>,
    pub opened: Instant,
}

/// Whether a stream does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoesOn {
    Yes,
    No,
}

impl Link {
    /// Whether any of it may concern the client.
    pub fn touch(&mut self, told: &[Told], since: Instant) -> bool {
        let mut concerned = false;
        for told in told {
            concerned |= self.session.touch(told, since);
        }
        concerned
    }

    /// Lets the session act. The window is read before and, where it is full, after: room that came
    /// meanwhile would else be noticed by nobody.
    pub fn act(
        &mut self,
        mut turn: Turn<'_>,
        metrics: &Metrics,
        act: impl FnOnce(&mut Session, &mut Turn<'_>) -> Vec<Output>,
    ) -> GoesOn {
        self.session.took(self.gauge.volume());
        let mut outputs = act(&mut self.session, &mut turn);
        let mut goes_on = GoesOn::Yes;
        loop {
            for output in outputs.drain(..) {
                if self.obey(output, metrics, turn.now) == GoesOn::No {
                    goes_on = GoesOn::No;
                }
            }
            if self.session.has_room() || goes_on == GoesOn::No {
                return goes_on;
            }
            let seen = self.gauge.volume();
            self.gauge.waiting.store(true, Ordering::Release);
            if self.gauge.volume() == seen {
                return goes_on;
            }
            outputs = self.session.on_taken(self.gauge.volume(), &mut turn);
        }
    }

    /// Keeps the hub's two clocks in step with the session.
    pub fn reschedule(
        &mut self,
        deadlines: &mut BTreeSet<(Instant, StreamId)>,
        settling: &mut Settling,
    ) {
        let deadline = self.session.deadline();
        if deadline != self.deadline {
            let old = std::mem::replace(&mut self.deadline, deadline);
            old.map(|at| deadlines.remove(&(at, self.stream)));
            deadline.map(|at| deadlines.insert((at, self.stream)));
        }
        self.whole = self.whole || self.session.is_settled();
        let owes = self.session.owes();
        settling.owes(std::mem::replace(&mut self.owes, owes), owes);
    }

    pub fn unschedule(
        &mut self,
        deadlines: &mut BTreeSet<(Instant, StreamId)>,
        settling: &mut Settling,
    ) {
        let deadline = self.deadline.take();
        deadline.map(|at| deadlines.remove(&(at, self.stream)));
        settling.owes(self.owes.take(), None);
    }

    fn obey(&self, output: Output, metrics: &Metrics, now: Instant) -> GoesOn {
        let sent = match output {
            Output::Send(frame) => {
                count(&frame, metrics);
                self.orders.try_send(Box::new(Order::Send(frame))).is_ok()
            }
            Output::Issue(ask) => self.asks.try_send(Box::new(ask)).is_ok(),
            Output::Event(event) => {
                note(event, metrics, self.stream, now);
                true
            }
            Output::Close(refusal) => {
                warn!(stream = self.stream.0, reason = %refusal, "closing a stream");
                // With no room even for this, the stream is cut without a word.
                drop(self.orders.try_send(Box::new(Order::Close(refusal))));
                false
            }
        };
        if sent { GoesOn::Yes } else { GoesOn::No }
    }
}

fn count(frame: &Frame, metrics: &Metrics) {
    for (at, sheet) in frame.sheets().enumerate() {
        let kind = sheet.roll.kind as usize;
        if at == 0 {
            metrics.pushes.of(kind).inc();
            metrics.bytes.of(kind).add(frame.bytes() as u64);
        }
        metrics
            .resources
            .of(kind)
            .add(sheet.roll.stamps.len() as u64);
        metrics
            .removed
            .of(kind)
            .add(sheet.roll.removed.len() as u64);
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
