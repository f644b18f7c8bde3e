//! What the state directory says of earlier runs, and when that forbids a start.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time;
use tracing::{info, warn};

use super::journal::ACCEPTED;
use crate::acceptance::Acceptance;
use crate::state::{LockedDir, StateDir, StateError};

/// A process that was just killed may hold the lock a little longer.
const PATIENCE: Duration = Duration::from_secs(3);
const AGAIN: Duration = Duration::from_millis(50);

/// Takes the directory, if need be after a short wait.
pub async fn lock(root: &Path) -> Result<LockedDir> {
    lock_within(root, PATIENCE).await
}

async fn lock_within(root: &Path, patience: Duration) -> Result<LockedDir> {
    let tried = async {
        let mut told = false;
        loop {
            match StateDir::prepare(root)?.lock() {
                Err(StateError::Locked(path)) => {
                    if !told {
                        let path = path.display();
                        info!(%path, "state directory is in use; waiting for it");
                        told = true;
                    }
                }
                other => return other,
            }
            // Always the same: nobody else waits for it.
            time::sleep(AGAIN).await;
        }
    };
    match time::timeout(patience, tried).await {
        Ok(locked) => Ok(locked?),
        Err(_) => Err(StateError::Locked(root.into()).into()),
    }
}

/// Once the first listing is known: what was lost must not be in force any less than it was.
pub fn refuse_loss(acceptance: &Acceptance, dir: &LockedDir) -> Result<()> {
    let path = dir.path(ACCEPTED);
    let path = path.display();
    if let Some(lost) = acceptance.missed().next() {
        let object = match &lost.key {
            Some(key) => key.to_string(),
            None => "an object".to_owned(),
        };
        let (file, why) = (&lost.file, &lost.why);
        bail!(
            "{path} is damaged: {object} of {file} cannot be read from it ({why}), and {file} has no sound \
             form of it, so it would not be in force any more: mend {file} (`fairlead analyze` says what \
             is wrong), restore {path} from a backup, or move it away to go by the files alone"
        );
    }
    let lost = acceptance.lost();
    if lost > 0 {
        warn!(%path, lost, "entries could not be read; the files' present forms are in force");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::journal;
    use super::*;

    #[tokio::test]
    async fn a_directory_that_becomes_free_in_time_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let first = lock(root.path()).await.unwrap();
        let refused = lock_within(root.path(), Duration::ZERO).await.unwrap_err();
        assert!(refused.to_string().contains("in use"), "{refused}");
        // The first try comes before it is free, a later one after.
        let (second, ()) = tokio::join!(lock(root.path()), async { drop(first) });
        second.unwrap();
    }

    #[tokio::test]
    async fn a_damaged_accepted_set_is_no_start_and_stays_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        let dir = lock(root.path()).await.unwrap();
        dir.write(ACCEPTED, b"{\"objects\":[").unwrap();
        let why = journal::read(&dir).unwrap_err().to_string();
        assert!(why.contains("accepted.json is damaged"), "{why}");
        assert!(why.contains("move accepted.json away"), "{why}");
        let left = dir.read(ACCEPTED, 1 << 10).unwrap().unwrap();
        assert_eq!(&left[..], b"{\"objects\":[");
    }
}
