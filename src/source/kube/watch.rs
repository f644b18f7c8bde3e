//! One kind listed, watched, and taken up again where its watch broke off. Requests only; no decision.

use std::sync::Arc;
use std::time::Duration;

use ::kube::Client;
use ::kube::api::{ListParams, WatchEvent, WatchParams};
use ::kube::core::Request;
use ::kube::core::watch::Bookmark;
use futures_util::{Stream, StreamExt};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time;
use tracing::{debug, info, warn};

use super::fault::{Fault, Listing};
use super::ledger::{Said, Told};
use super::resource::Resource;
use crate::backoff::{Backoff, jittered};
use crate::clock;
use crate::config::decode::{self, json::Tree};
use crate::config::{Key, Kind};
use crate::telemetry::metrics::Metrics;
use crate::text::Str;

/// Objects of a page, where listings come in pages.
const PAGE: u32 = 500;
/// A request that is not answered by then is given up.
const ANSWER: Duration = Duration::from_secs(60);
/// A watch without a word: the server gives a bookmark about every minute, so this one is cut off.
const IDLE: Duration = Duration::from_secs(150);
/// A watch that ends sooner, and without a word, counts as failed.
const SHORT: Duration = Duration::from_secs(1);
/// How often a kind that is not served is looked for.
const LOOK: Duration = Duration::from_secs(3);
/// Waits after failures, each with jitter.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// After so many refusals at one place in history, another place is taken: the server may have lost it.
const REFUSALS: u32 = 5;

/// The server marks the end of a streamed listing by this annotation of a bookmark.
const LISTED: &str = "k8s.io/initial-events-end";

pub(super) struct Watch {
    kind: Kind,
    client: Client,
    tell: mpsc::Sender<Told>,
    metrics: Arc<Metrics>,
    listing: Listing,
    /// Where objects are asked for; None when that must be looked up.
    resource: Option<Resource>,
    /// The place in the server's history up to which all is told; None when a listing must give it.
    version: Option<String>,
    backoff: Backoff,
    /// Failures since the last word.
    failures: u32,
    presence: Presence,
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

enum Interrupted {
    By(Fault),
    Unheard,
}

impl From<Fault> for Interrupted {
    fn from(fault: Fault) -> Self {
        Self::By(fault)
    }
}

impl From<Unheard> for Interrupted {
    fn from(_: Unheard) -> Self {
        Self::Unheard
    }
}

type Step<T> = Result<T, Interrupted>;

impl Watch {
    pub(super) fn new(
        kind: Kind,
        client: Client,
        tell: mpsc::Sender<Told>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            kind,
            client,
            tell,
            metrics,
            listing: Listing::Streamed,
            resource: None,
            version: None,
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            failures: 0,
            presence: Presence::Unknown,
        }
    }

    /// Tells what is and what happens, until nobody listens.
    pub(super) async fn follow(mut self) {
        loop {
            let step = match (&self.resource, &self.version, self.listing) {
                (None, _, _) => self.look().await,
                (Some(_), Some(_), _) | (Some(_), None, Listing::Streamed) => self.watch().await,
                (Some(_), None, Listing::Paged) => self.list().await,
            };
            match step {
                Ok(()) => {}
                Err(Interrupted::Unheard) => return,
                Err(Interrupted::By(fault)) => self.after(fault).await,
            }
        }
    }

    /// Finds where the kind is served. A kind that is not has no objects, and is looked for again.
    async fn look(&mut self) -> Step<()> {
        let found = time::timeout(ANSWER, Resource::find(self.kind, &self.client)).await;
        self.resource = found.map_err(|_| Fault::Silent(ANSWER))??;
        if self.resource.is_some() {
            return Ok(());
        }
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

    /// Lists in pages.
    async fn list(&mut self) -> Step<()> {
        let Some(resource) = self.resource.clone() else {
            return Ok(());
        };
        self.begin().await?;
        let mut params = ListParams {
            limit: Some(PAGE),
            field_selector: resource.fields.clone(),
            ..ListParams::default()
        };
        loop {
            let page = time::timeout(ANSWER, self.page(&resource, &params)).await;
            let Page { metadata, items } = page.map_err(|_| Fault::Silent(ANSWER))??;
            for tree in items {
                self.apply(&tree).await?;
            }
            params.continue_token = metadata.more.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return self.listed(metadata.resource_version).await;
            }
        }
    }

    async fn page(&self, resource: &Resource, params: &ListParams) -> Result<Page, Fault> {
        let request = Request::new(&resource.path).list(params);
        let request = request.map_err(|e| Fault::Broken(e.to_string()))?;
        let text = self.client.request_text(request).await;
        let text = text.map_err(|e| Fault::of(&e, Some(Listing::Paged)))?;
        serde_json::from_str(&text).map_err(|e| Fault::Broken(format!("read a list: {e}")))
    }

    /// Watches from where it stands; without such a place, from a listing that the stream begins with.
    async fn watch(&mut self) -> Step<()> {
        let Some(resource) = self.resource.clone() else {
            return Ok(());
        };
        let listing = self.version.is_none().then_some(Listing::Streamed);
        let opened = time::timeout(ANSWER, self.open(&resource, listing)).await;
        let mut events = std::pin::pin!(opened.map_err(|_| Fault::Silent(ANSWER))??);
        if listing.is_some() {
            self.begin().await?;
        }
        let since = clock::mono();
        let mut heard = false;
        loop {
            let event = time::timeout(IDLE, events.next()).await;
            match event.map_err(|_| Fault::Silent(IDLE))? {
                Some(Ok(event)) => self.on_event(event).await?,
                Some(Err(error)) => return Err(Fault::of(&error, listing).into()),
                None if self.version.is_none() => return Err(Fault::Short.into()),
                // Servers end watches after some minutes.
                None if heard || clock::mono() - since >= SHORT => return Ok(()),
                None => return Err(Fault::Short.into()),
            }
            heard = true;
        }
    }

    async fn open(
        &self,
        resource: &Resource,
        listing: Option<Listing>,
    ) -> Result<impl Stream<Item = ::kube::Result<WatchEvent<Tree>>> + use<>, Fault> {
        let params = WatchParams {
            field_selector: resource.fields.clone(),
            send_initial_events: listing.is_some(),
            ..WatchParams::default()
        };
        // No version asks for the newest that there is.
        let version = self.version.as_deref().unwrap_or_default();
        let request = Request::new(&resource.path).watch(&params, version);
        let request = request.map_err(|e| Fault::Broken(e.to_string()))?;
        let opened = self.client.request_events(request).await;
        opened.map_err(|e| Fault::of(&e, listing))
    }

    async fn on_event(&mut self, event: WatchEvent<Tree>) -> Step<()> {
        match event {
            WatchEvent::Added(tree) | WatchEvent::Modified(tree) => {
                self.apply(&tree).await?;
                self.came_to(tree.meta("resourceVersion"));
            }
            WatchEvent::Deleted(tree) => {
                self.tell(Said::Delete(self.key(&tree))).await?;
                self.came_to(tree.meta("resourceVersion"));
            }
            WatchEvent::Bookmark(Bookmark { metadata, .. }) => {
                if self.version.is_some() {
                    self.came_to(&metadata.resource_version);
                } else if metadata.annotations.contains_key(LISTED) {
                    self.listed(metadata.resource_version).await?;
                }
            }
            WatchEvent::Error(status) => {
                let listing = self.version.is_none().then_some(Listing::Streamed);
                return Err(Fault::of_status(&status, listing).into());
            }
        }
        Ok(())
    }

    async fn begin(&self) -> Result<(), Unheard> {
        if self.presence != Presence::Unknown && self.presence != Presence::Absent {
            self.metrics.relists.of(self.kind).inc();
        }
        self.tell(Said::Init).await
    }

    async fn listed(&mut self, version: String) -> Step<()> {
        self.version = Some(version);
        self.presence = Presence::Served;
        self.well();
        Ok(self.tell(Said::InitDone).await?)
    }

    /// Within a listing no place in history is reached before its end.
    fn came_to(&mut self, version: &str) {
        if let Some(place) = &mut self.version
            && !version.is_empty()
        {
            version.clone_into(place);
            self.well();
        }
    }

    fn well(&mut self) {
        if self.failures > 0 {
            info!(kind = %self.kind, failures = self.failures, "watching again");
            self.failures = 0;
            self.backoff.reset();
        }
    }

    async fn apply(&self, tree: &Tree) -> Result<(), Unheard> {
        let outcome = Box::new(decode::live(self.kind, &tree.0));
        self.tell(Said::Apply(self.key(tree), outcome)).await
    }

    fn key(&self, tree: &Tree) -> Key {
        Key {
            kind: self.kind,
            namespace: Str::new(tree.meta("namespace")),
            name: Str::new(tree.meta("name")),
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

    /// Makes ready for the next try, and waits for its time.
    async fn after(&mut self, fault: Fault) {
        match &fault {
            Fault::NotStreamed(why) => {
                debug!(kind = %self.kind, %why, "listing in pages");
                self.listing = Listing::Paged;
                return;
            }
            Fault::Gone(_) => self.version = None,
            Fault::NotServed(_) => (self.resource, self.version) = (None, None),
            Fault::Refused(_) if self.failures >= REFUSALS => self.version = None,
            Fault::Refused(_) | Fault::Broken(_) | Fault::Short | Fault::Silent(_) => {}
        }
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

#[derive(Deserialize)]
struct Page {
    metadata: ListMeta,
    #[serde(default)]
    items: Vec<Tree>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    more: Option<String>,
}
