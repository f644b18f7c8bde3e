//! A directory of YAML as a source: listed once, then watched.
//!
//! A file is read when it is complete (closed after writing, or renamed into place) and parsed only
//! when its bytes differ. There is no wait for a quiet moment, with one exception: a deletion is told
//! when the directory has been quiet for a tenth of a second, because a checkout deletes a file and
//! creates it anew (up to 24 ms apart, measured), and a file that moves is away for the whole of it.

mod desk;
mod directory;
mod listing;
#[cfg(test)]
mod tests;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::desk::{Desk, Work};
use self::directory::Followed;
use self::watch::Watch;
use super::{Batch, Event};
use crate::backoff::Backoff;
use crate::clock;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::retries::Attempt;

pub use self::directory::Directory;

#[derive(Debug, thiserror::Error)]
pub enum FileSourceError {
    // Not `source`: the reason stands in the message, and who prints the chain would say it twice.
    #[error("watch {}: {reason}", path.display())]
    Watch {
        path: PathBuf,
        reason: notify::Error,
    },
    #[error("read {}: {reason}", path.display())]
    Read {
        path: PathBuf,
        reason: std::io::Error,
    },
    #[error("read the configuration directory: {0}")]
    Cut(#[from] tokio::task::JoinError),
}

/// Waits between attempts to list the directory.
const AGAIN: Duration = Duration::from_millis(200);
const LATEST: Duration = Duration::from_secs(30);

/// Lists the directory, then gives a batch for each change until shutdown. `sink` holds few batches;
/// when it is full, what changes meanwhile is read together afterwards. A directory that cannot be
/// listed stays as it was told, and is listed again later.
pub async fn run(
    directory: Directory,
    sink: mpsc::Sender<Batch>,
    shutdown: CancellationToken,
    metrics: Arc<Metrics>,
) -> Result<(), FileSourceError> {
    let watch = Watch::new(directory.root(), directory.mesh())?;
    let eye = Eye { directory, watch };
    let mut desk = Desk::default();
    let mut backoff = Backoff::new(AGAIN, LATEST);
    let mut seen = clock::mono();
    let (mut eye, listed) = off_runtime(eye, Eye::list).await?;
    let mut batch = listed?;
    info!(files = eye.directory.len(), "configuration listed");
    loop {
        if !batch.is_empty() {
            tokio::select! {
                sent = sink.send((batch, seen)) => if sent.is_err() { return Ok(()) },
                () = shutdown.cancelled() => return Ok(()),
            }
        }
        let deadline = [desk.deadline(), eye.directory.deadline()];
        let deadline = deadline.into_iter().flatten().min();
        let signs = tokio::select! {
            signs = eye.watch.next() => signs,
            () = until(deadline) => Vec::new(),
            () = shutdown.cancelled() => return Ok(()),
        };
        seen = clock::mono();
        desk.note(signs, seen);
        let work = desk.due(seen);
        let listing = work.everything;
        let followed;
        (eye, followed) = off_runtime(eye, move |eye| eye.follow(work, seen)).await?;
        if let Some(error) = followed.failed {
            warn!(%error, "configuration stays as it was; it is listed again");
            metrics.retries.of(Attempt::List).inc();
            desk.hold(seen + backoff.after_failure());
        } else if listing {
            backoff.reset();
        }
        batch = followed.events;
    }
}

/// The directory and the watch over it; what reads files blocks, so it goes off the runtime and back.
struct Eye {
    directory: Directory,
    watch: Watch,
}

impl Eye {
    fn list(&mut self) -> Result<Vec<Event>, FileSourceError> {
        let Self { directory, watch } = self;
        directory.list_entering(&mut |folder| watch.add(folder))
    }

    fn follow(&mut self, work: Work, now: Instant) -> Followed {
        let Self { directory, watch } = self;
        directory.follow(work, now, &mut |folder| watch.add(folder))
    }
}

async fn off_runtime<T: Send + 'static>(
    mut eye: Eye,
    read: impl FnOnce(&mut Eye) -> T + Send + 'static,
) -> Result<(Eye, T), FileSourceError> {
    let done = tokio::task::spawn_blocking(move || {
        let read = read(&mut eye);
        (eye, read)
    });
    Ok(done.await?)
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
