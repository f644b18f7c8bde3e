//! A directory of YAML as a source: listed once, then watched.
//!
//! A file is read again when its folder changes and parsed only when its bytes did. There is no wait for a
//! quiet moment: a file caught half-written is unreadable, keeps what it had, and is read again when the
//! rest of it is written.

mod listing;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use notify::{EventKind, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use xxhash_rust::xxh3::xxh3_128;

use super::Event;
use crate::clock;
use crate::config::decode;
use crate::text::Str;

/// A batch and the moment when its cause was seen.
pub type Batch = (Vec<Event>, Instant);

#[derive(Debug, thiserror::Error)]
pub enum FileSourceError {
    #[error("watch {}: {source}", path.display())]
    Watch {
        path: PathBuf,
        source: notify::Error,
    },
    #[error("read {}: {source}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
}

/// What a directory holds, as last read.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    /// A file that is MeshConfig, wherever it is (`--mesh-config`).
    mesh: Option<PathBuf>,
    /// Of each file, a digest of its bytes.
    files: BTreeMap<Str, u128>,
}

/// Wakes of the file system; one waiting is enough, for a wake means "look at everything".
const WAKES: usize = 1;

impl Directory {
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            mesh: None,
            files: BTreeMap::new(),
        }
    }

    /// Takes MeshConfig from a file of its own, before any ConfigMap.
    pub fn with_mesh(mut self, file: Option<&Path>) -> Self {
        self.mesh = file.map(Path::to_owned);
        self
    }

    /// The whole listing, between `Init` and `InitDone`.
    pub fn list(&mut self) -> Result<Vec<Event>, FileSourceError> {
        let mut events = vec![Event::Init];
        self.files.clear();
        events.extend(self.refresh()?);
        events.push(Event::InitDone);
        Ok(events)
    }

    /// Looks at every file again; the events are those of files whose bytes differ.
    pub fn refresh(&mut self) -> Result<Vec<Event>, FileSourceError> {
        let found = listing::files(&self.root)?;
        let mut names: BTreeSet<Str> = found.iter().map(|p| self.name(p)).collect();
        let mut events: Vec<Event> = self.refresh_mesh()?.into_iter().collect();
        names.extend(self.mesh_name());
        let gone = self.files.keys().filter(|name| !names.contains(*name));
        for name in gone.cloned().collect::<Vec<_>>() {
            self.files.remove(&name);
            events.push(Event::File(decode::documents("", &name)));
        }
        for path in found {
            let name = self.name(&path);
            if Some(&name) == self.mesh_name().as_ref() {
                continue;
            }
            // A file that vanished since the listing is gone, and the wake for it is on its way.
            let Ok(text) = listing::read(&path) else {
                continue;
            };
            let digest = xxh3_128(text.as_bytes());
            if self.files.insert(name.clone(), digest) != Some(digest) {
                events.push(Event::File(decode::documents(&text, &name)));
            }
        }
        Ok(events)
    }

    /// A mesh file that cannot be read is a fault: nobody said that it may be absent.
    fn refresh_mesh(&mut self) -> Result<Option<Event>, FileSourceError> {
        let (Some(path), Some(name)) = (&self.mesh, self.mesh_name()) else {
            return Ok(None);
        };
        let text = listing::read(path).map_err(|source| FileSourceError::Read {
            path: path.clone(),
            source,
        })?;
        let digest = xxh3_128(text.as_bytes());
        let differs = self.files.insert(name.clone(), digest) != Some(digest);
        Ok(differs.then(|| Event::File(decode::decode_mesh(&text, &name))))
    }

    fn mesh_name(&self) -> Option<Str> {
        self.mesh.as_deref().map(|path| self.name(path))
    }

    fn name(&self, path: &Path) -> Str {
        let below = path.strip_prefix(&self.root).unwrap_or(path);
        Str::new(below.to_string_lossy())
    }
}

/// Lists the directory, then gives a batch for each change until shutdown. `sink` holds few batches; when
/// it is full the file system's changes wait in its one wake, and are read together.
pub async fn run(
    mut directory: Directory,
    sink: mpsc::Sender<Batch>,
    shutdown: CancellationToken,
) -> Result<(), FileSourceError> {
    let (wake, mut woken) = mpsc::channel(WAKES);
    let _watcher = watch(&directory, wake)?;
    let mut seen = clock::mono();
    let mut batch = directory.list()?;
    info!(files = directory.files.len(), "configuration listed");
    loop {
        if !batch.is_empty() {
            tokio::select! {
                sent = sink.send((batch, seen)) => if sent.is_err() { return Ok(()) },
                () = shutdown.cancelled() => return Ok(()),
            }
        }
        tokio::select! {
            wake = woken.recv() => if wake.is_none() { return Ok(()) },
            () = shutdown.cancelled() => return Ok(()),
        }
        seen = clock::mono();
        batch = directory.refresh().unwrap_or_else(|error| {
            warn!(%error, "configuration stays as it was");
            Vec::new()
        });
    }
}

fn watch(
    directory: &Directory,
    wake: mpsc::Sender<()>,
) -> Result<notify::RecommendedWatcher, FileSourceError> {
    let tried = |path: &Path| {
        let path = path.to_owned();
        move |source| FileSourceError::Watch { path, source }
    };
    let on_event = move |event: notify::Result<notify::Event>| {
        let read_only = event.is_ok_and(|e| matches!(e.kind, EventKind::Access(_)));
        if !read_only {
            // Full: a look at everything is already due.
            let _ = wake.try_send(());
        }
    };
    let root = &directory.root;
    let mut watcher = notify::recommended_watcher(on_event).map_err(tried(root))?;
    watcher
        .watch(root, RecursiveMode::Recursive)
        .map_err(tried(root))?;
    // Its folder, not the file: editors and mounted ConfigMaps put another file in its place.
    let beside = directory.mesh.as_deref().and_then(Path::parent);
    let beside = beside.map(|p| {
        if p.as_os_str().is_empty() {
            Path::new(".")
        } else {
            p
        }
    });
    if let Some(folder) = beside.filter(|folder| !folder.starts_with(root)) {
        watcher
            .watch(folder, RecursiveMode::NonRecursive)
            .map_err(tried(folder))?;
    }
    Ok(watcher)
}

#[cfg(test)]
mod tests;
