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
use crate::cli::settings::{Home, Settings, Source};
use crate::config::Key;
use crate::controllers::{Installed, keys};
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
    /// Of a cluster alone: with files there is nothing to be away. A start does not depend on it.
    pub async fn wanted(settings: &Settings, home: &Home) -> Option<Self> {
        let (Source::Kubernetes(_), Some(root)) = (&home.source, &settings.snapshot_dir) else {
            return None;
        };
        match Self::open(root).await {
            Ok(snapshot) => Some(snapshot),
            Err(why) => {
                let why = format!("{why:#}");
                warn!(
                    why,
                    "no snapshot is kept: a start without the API server will wait for it"
                );
                None
            }
        }
    }

    async fn open(root: &Path) -> Result<Self> {
        let dir = history::lock(root).await.context("the snapshot's folder")?;
        let held = journal::read(&dir).unwrap_or_else(|why| {
            warn!(why = format!("{why:#}"), "the snapshot cannot be read");
            None
        });
        let held = held.filter(|held| is_whole(held) && is_young(&dir));
        Ok(Self {
            dir: Arc::new(dir),
            held,
        })
    }
}

/// What this build cannot read may be a policy: the API server has it.
fn is_whole(held: &Persisted) -> bool {
    let lost = held.lost.len();
    if lost > 0 {
        warn!(
            lost,
            "parts of the snapshot cannot be read, so it is not used"
        );
    }
    lost == 0
}

/// The cluster was seen not too long ago; where its keys are not followed, nobody knows when.
fn is_young(dir: &LockedDir) -> bool {
    let seen = keys::last_seen(dir);
    let young = seen.is_none_or(keys::is_fresh);
    if !young {
        warn!("the snapshot is older than a day, so it is not used");
    }
    young
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

/// The snapshot, with the kinds that are kept at every change as they were kept last, if all of them can be read.
pub fn newest(snapshot: Persisted, accepted: Option<Persisted>) -> Persisted {
    let Some(accepted) = accepted.filter(|accepted| accepted.lost.is_empty()) else {
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
