//! One kind followed: looked for, listed and watched, and told of. What a failure means is in `fault`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::kube::Client;
use ::kube::runtime::watcher::{Event, watcher};
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::time;
use tracing::{debug, info, warn};

use super::Home;
use super::fault::{Fault, Listing};
use super::ledger::{Said, Told};
use super::observed::Observed;
use super::resource::Resource;
use crate::backoff::{Backoff, jittered};
use crate::clock;
use crate::config::Kind;
use crate::config::api::ApiKind;
use crate::config::decode;
use crate::telemetry::metrics::Metrics;

/// How often a kind that is not served is looked for.
const LOOK: Duration = Duration::from_secs(3);
/// Waits after failures, each with jitter.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// A watch that does not fail for so long is well again, with or without a word.
const CALM: Duration = Duration::from_secs(15);
/// After so many refusals at one place in history, another place is taken: the server may have lost it.
const REFUSALS: u32 = 5;

pub(super) struct Watch {
    kind: Kind,
    client: Client,
    home: Home,
    tell: mpsc::Sender<Told>,
    metrics: Arc<Metrics>,
    listing: Listing,
    backoff: Backoff,
    /// Failures since it was well.
    failures: u32,
    presence: Presence,
    /// Whether this watcher's listing is complete: till then silence says nothing.
    listed: bool,
}

/// What was told of a kind that may not be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Unknown,
    /// Listed at least once.
    Served,
    /// Looked for in vain since then, but one look may be mistaken.
    Missed,
    /// Told to have no objects.
    Absent,
}

/// Nobody listens any more.
struct Unheard;

impl Watch {
    pub(super) fn new(
        kind: Kind,
        (client, home): (Client, Home),
        tell: mpsc::Sender<Told>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            kind,
            client,
            home,
            tell,
            metrics,
            listing: Listing::Streamed,
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            failures: 0,
            presence: Presence::Unknown,
            listed: false,
        }
    }

    /// Tells what is and what happens, until nobody listens.
    pub(super) async fn follow(mut self) {
        loop {
            let told = match Resource::find(self.kind, &self.client, &self.home).await {
                Ok(Some(resource)) => self.watch(resource).await,
                Ok(None) => self.miss().await,
                Err(fault) => {
                    self.after(&fault).await;
                    Ok(())
                }
            };
            if told.is_err() {
                return;
            }
        }
    }

    /// A kind that is not served has no objects, and is looked for again.
    async fn miss(&mut self) -> Result<(), Unheard> {
        match self.presence {
            Presence::Served => self.presence = Presence::Missed,
            Presence::Unknown | Presence::Missed => {
                info!(kind = %self.kind, "the API server does not know this kind; it is looked for again");
                self.tell(Said::Init).await?;
                self.tell(Said::InitDone).await?;
                self.presence = Presence::Absent;
            }
            Presence::Absent => {}
        }
        time::sleep(jittered(LOOK)).await;
        Ok(())
    }

    /// Lists and watches, till the kind must be looked for anew.
    async fn watch(&mut self, resource: Resource) -> Result<(), Unheard> {
        self.listed = false;
        let config = match self.listing {
            Listing::Streamed => resource.watched.streaming_lists(),
            Listing::Paged => resource.watched,
        };
        let mut events = std::pin::pin!(watcher(resource.api, config));
        while let Some(event) = self.next(events.as_mut()).await {
            match event {
                Ok(event) => self.on_event(event).await?,
                Err(error) => {
                    let fault = Fault::of_watch(&error, self.listing);
                    if let Fault::NotStreamed(why) = fault {
                        debug!(kind = %self.kind, %why, "listing in pages");
                        self.listing = Listing::Paged;
                        break;
                    }
                    self.after(&fault).await;
                    if self.must_look_again(&fault) {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn must_look_again(&self, fault: &Fault) -> bool {
        match fault {
            Fault::NotServed(_) => true,
            Fault::Refused(_) => self.failures >= REFUSALS,
            Fault::Broken(_) | Fault::NotStreamed(_) => false,
        }
    }

    async fn next<S: Stream>(&mut self, mut events: Pin<&mut S>) -> Option<S::Item> {
        if self.failures > 0 && self.listed {
            match time::timeout(CALM, events.next()).await {
                Ok(event) => return event,
                Err(_) => self.well(),
            }
        }
        events.next().await
    }

    async fn on_event(&mut self, event: Event<Observed>) -> Result<(), Unheard> {
        match event {
            Event::Init => {
                self.listed = false;
                match self.presence {
                    Presence::Unknown | Presence::Absent => {}
                    Presence::Served | Presence::Missed => {
                        self.metrics.relists.of(self.kind).inc();
                    }
                }
                return self.tell(Said::Init).await;
            }
            // A listing that breaks off again and again is not well by what it begins with.
            Event::InitApply(object) if self.is_anothers(&object) => return Ok(()),
            Event::InitApply(object) => return self.apply(&object).await,
            // It may have been ours until now.
            Event::Apply(object) if self.is_anothers(&object) => {
                self.tell(Said::Delete(object.key(self.kind))).await?;
            }
            Event::Apply(object) => self.apply(&object).await?,
            Event::Delete(object) => self.tell(Said::Delete(object.key(self.kind))).await?,
            Event::InitDone => {
                self.presence = Presence::Served;
                self.listed = true;
                self.tell(Said::InitDone).await?;
            }
        }
        self.well();
        Ok(())
    }

    /// Whether an object of Istio's says that it is for another control plane.
    fn is_anothers(&self, object: &Observed) -> bool {
        let istios = ApiKind::find(self.kind.group(), self.kind.name()).is_some();
        istios
            && object
                .revision()
                .is_some_and(|rev| rev != self.home.revision)
    }

    async fn apply(&self, object: &Observed) -> Result<(), Unheard> {
        let outcome = decode::live(self.kind, &object.tree.0);
        let key = object.key(self.kind);
        self.tell(Said::Apply(key, Box::new(outcome))).await
    }

    fn well(&mut self) {
        if self.failures > 0 {
            info!(kind = %self.kind, failures = self.failures, "watching again");
            self.failures = 0;
            self.backoff.reset();
        }
    }

    async fn tell(&self, said: Said) -> Result<(), Unheard> {
        let told = Told {
            kind: self.kind,
            said,
            seen: clock::mono(),
        };
        self.tell.send(told).await.map_err(|_| Unheard)
    }

    /// Counts it, and waits for the time of the next try.
    async fn after(&mut self, fault: &Fault) {
        self.failures += 1;
        self.metrics.watch_failures.of(self.kind).inc();
        let wait = self.backoff.after_failure();
        // The first one is news; the others are counted.
        if self.failures == 1 {
            warn!(kind = %self.kind, why = %fault, "watch interrupted; what is known stays");
        } else {
            debug!(kind = %self.kind, why = %fault, failures = self.failures, ?wait, "watch interrupted");
        }
        time::sleep(wait).await;
    }
}
