//! With what configuration a start begins: the source's first listing or, while an API server is away, a snapshot.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::mpsc;
use tokio::time;
use tracing::warn;

use super::{history, journal};
use crate::acceptance::{Kept, Persisted};
use crate::config::Key;
use crate::controllers::Installed;
use crate::source::kube::answers;
use crate::source::{Batch, Event};
use crate::state::LockedDir;

/// An API server that gives no answer for so long is away.
const AWAY: Duration = Duration::from_secs(5);
/// Between two questions.
const AGAIN: Duration = Duration::from_secs(1);

/// Where everything is kept that was in force, endpoints and pods too, for a start without the API server.
pub struct Snapshot {
    pub dir: Arc<LockedDir>,
    /// What it held at the start.
    held: Option<Persisted>,
}

pub enum Beginning {
    Listed(Vec<Event>),
    /// The objects of the snapshot; the listing comes when the API server does.
    Kept(Persisted),
}

impl Snapshot {
    pub async fn wanted(root: Option<&Path>) -> Result<Option<Self>> {
        match root {
            Some(root) => Ok(Some(Self::open(root).await?)),
            None => Ok(None),
        }
    }

    /// A damaged one is no reason not to start: the API server has everything.
    async fn open(root: &Path) -> Result<Self> {
        let dir = history::lock(root).await.context("the snapshot's folder")?;
        let held = journal::read(&dir).unwrap_or_else(|why| {
            warn!(why = format!("{why:#}"), "the snapshot cannot be read");
            None
        });
        Ok(Self {
            dir: Arc::new(dir),
            held,
        })
    }
}

/// Waits for the first of both. None when the source ends before it told anything.
pub async fn first(
    batches: &mut mpsc::Receiver<Batch>,
    installed: Option<&Installed>,
    snapshot: Option<&mut Snapshot>,
) -> Option<Beginning> {
    let held = snapshot.and_then(|snapshot| snapshot.held.take());
    let (Some(installed), Some(held)) = (installed, held) else {
        let (events, _) = batches.recv().await?;
        return Some(Beginning::Listed(events));
    };
    tokio::select! {
        biased;
        batch = batches.recv() => Some(Beginning::Listed(batch?.0)),
        () = until_away(installed) => {
            warn!(
                objects = held.objects.len(),
                "the API server does not answer: serving from the snapshot until it does"
            );
            Some(Beginning::Kept(held))
        }
    }
}

async fn until_away(installed: &Installed) {
    let mut silent = time::Instant::now();
    loop {
        if answers(&installed.client, AWAY).await {
            silent = time::Instant::now();
        }
        if silent.elapsed() >= AWAY {
            return;
        }
        time::sleep(AGAIN).await;
    }
}

/// The snapshot, with the kinds that are kept at every change as they were kept last.
pub fn newest(snapshot: Persisted, accepted: Option<Persisted>) -> Persisted {
    let Some(accepted) = accepted else {
        return snapshot;
    };
    let late = snapshot.objects.into_iter();
    let late = late.filter(|kept| !kept.object.spec.kind().is_strict());
    let all = late.chain(accepted.objects);
    let all: BTreeMap<Key, Kept> = all.map(|kept| (kept.object.key(), kept)).collect();
    Persisted {
        objects: all.into_values().collect(),
        lost: accepted.lost,
    }
}
