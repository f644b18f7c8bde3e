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
use std::time::Instant;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::desk::Desk;
use self::watch::Watch;
use super::{Batch, Event};
use crate::clock;

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
}

/// Lists the directory, then gives a batch for each change until shutdown. `sink` holds few batches;
/// when it is full, what changes meanwhile is read together afterwards.
pub async fn run(
    mut directory: Directory,
    sink: mpsc::Sender<Batch>,
    shutdown: CancellationToken,
) -> Result<(), FileSourceError> {
    let mut watch = Watch::new(directory.root(), directory.mesh())?;
    let mut desk = Desk::default();
    let mut seen = clock::mono();
    let mut batch = directory.list_entering(&mut |folder| watch.add(folder))?;
    info!(files = directory.len(), "configuration listed");
    loop {
        if !batch.is_empty() {
            tokio::select! {
                sent = sink.send((batch, seen)) => if sent.is_err() { return Ok(()) },
                () = shutdown.cancelled() => return Ok(()),
            }
        }
        let deadline = [desk.deadline(), directory.deadline()]
            .into_iter()
            .flatten()
            .min();
        let signs = tokio::select! {
            signs = watch.next() => signs,
            () = until(deadline) => Vec::new(),
            () = shutdown.cancelled() => return Ok(()),
        };
        seen = clock::mono();
        desk.note(signs, seen);
        let work = desk.due(seen);
        batch = directory
            .follow(work, seen, &mut |folder| watch.add(folder))
            .unwrap_or_else(|error| {
                warn!(%error, "configuration stays as it was");
                Vec::new()
            });
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
