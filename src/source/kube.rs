//! The Kubernetes API server as a source: every kind listed once, then watched.
//!
//! One watch a kind, each with its own place in the server's history, so that a lost connection is
//! taken up where it broke. What a listing says anew is compared with what was known: nothing goes
//! before a listing is complete, and an object that did not change is no change. What is there is
//! told at once; nothing is waited for.

mod access;
mod fault;
mod ledger;
mod objects;
mod observed;
mod resource;
mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::kube::Client;
use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::ledger::{Ledger, Told};
use self::watch::Watch;
use super::Batch;
use crate::config::Kind;
use crate::telemetry::metrics::Metrics;
use crate::text::Str;

pub use self::access::{Access, AccessError, Clients, answers, connect};
pub use self::objects::{Objects, Uncreated};

/// What the watches tell waits here; when it is full they read no further, and the server waits.
const TOLD: usize = 1024;
/// How long a start goes on without a word of what it waits for.
const SILENCE: Duration = Duration::from_secs(10);

/// Where in its cluster this control plane is installed.
#[derive(Clone, Debug)]
pub struct Home {
    pub namespace: Str,
    /// Objects with another `istio.io/rev` are another control plane's.
    pub revision: Str,
}

/// Its ConfigMap is `istio`, that of another `istio-<revision>`.
pub const DEFAULT_REVISION: &str = "default";

/// An API server, and what comes from elsewhere.
pub struct Cluster {
    pub client: Client,
    pub home: Home,
    /// The file of `--mesh-config`, followed by a source of its own; without it, the ConfigMap counts.
    pub mesh: Option<mpsc::Receiver<Batch>>,
    /// Whether Secrets are read.
    pub secrets: bool,
    pub metrics: Arc<Metrics>,
}

/// Gives all there is as one batch once every kind was listed, then a batch for what changed, until
/// shutdown. `sink` holds few batches; when it is full, what changes meanwhile comes together.
pub async fn run(cluster: Cluster, sink: mpsc::Sender<Batch>, shutdown: CancellationToken) {
    let Cluster {
        client,
        home,
        mesh,
        secrets,
        metrics,
    } = cluster;
    let kinds: Vec<Kind> = Kind::ALL
        .iter()
        .copied()
        .filter(|kind| match kind {
            Kind::MeshConfig => mesh.is_none(),
            Kind::Secret => secrets,
            _ => true,
        })
        .collect();
    let (tell, told) = mpsc::channel(TOLD);
    let watches = join_all(kinds.iter().map(|kind| {
        let at = (client.clone(), home.clone());
        let watch = Watch::new(*kind, at, tell.clone(), metrics.clone());
        watch.follow()
    }));
    drop(tell);
    let desk = Desk {
        ledger: Ledger::new(&kinds, mesh.is_some(), metrics),
        told,
        mesh,
        sink,
    };
    tokio::select! {
        _ = watches => {}
        () = desk.run() => {}
        () = shutdown.cancelled() => {}
    }
}

/// Turns what the watches tell into batches.
struct Desk {
    ledger: Ledger,
    told: mpsc::Receiver<Told>,
    mesh: Option<mpsc::Receiver<Batch>>,
    sink: mpsc::Sender<Batch>,
}

impl Desk {
    /// Until nobody takes batches, or nobody tells any more.
    async fn run(mut self) {
        let mut heap = Vec::with_capacity(TOLD);
        loop {
            let batch = tokio::select! {
                count = self.told.recv_many(&mut heap, TOLD) => match count {
                    0 => return,
                    _ => self.on_told(&mut heap),
                },
                batch = next(&mut self.mesh) => match batch {
                    None => return,
                    Some((events, seen)) => self.ledger.on_file(events).map(|events| (events, seen)),
                },
                () = tokio::time::sleep(SILENCE), if !self.ledger.is_complete() => {
                    self.on_silence();
                    None
                }
            };
            if let Some(batch) = batch
                && self.sink.send(batch).await.is_err()
            {
                return;
            }
        }
    }

    fn on_told(&mut self, heap: &mut Vec<Told>) -> Option<Batch> {
        let seen: Option<Instant> = heap.iter().map(|told| told.seen).min();
        let was_complete = self.ledger.is_complete();
        let mut events = Vec::new();
        for told in heap.drain(..) {
            events.extend(self.ledger.on(told.kind, told.said));
        }
        if !was_complete && self.ledger.is_complete() {
            info!(objects = self.ledger.len(), "configuration listed");
        }
        seen.filter(|_| !events.is_empty())
            .map(|seen| (events, seen))
    }

    fn on_silence(&self) {
        let missing = self.ledger.incomplete().join(", ");
        warn!(%missing, "not serving yet: not every kind is listed");
    }
}

/// Never, where there is nobody to tell.
async fn next(mesh: &mut Option<mpsc::Receiver<Batch>>) -> Option<Batch> {
    match mesh {
        Some(mesh) => mesh.recv().await,
        None => std::future::pending().await,
    }
}
