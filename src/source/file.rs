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
use crate::config::Key;
use crate::config::decode::{self, Decoded, Item, PodTemplate};
use crate::diagnostic::{Code, Diagnostic, Level};
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
    files: BTreeMap<Str, Known>,
    /// The files that name a key, in path order; the first one's version counts.
    holders: BTreeMap<Key, BTreeSet<Str>>,
}

#[derive(Debug, Default)]
struct Known {
    digest: u128,
    decoded: Decoded,
    keys: BTreeSet<Key>,
}

/// What is to be said of a file besides its objects.
type Said = (Vec<Diagnostic>, Vec<PodTemplate>);

/// Wakes of the file system; one waiting is enough, for a wake means "look at everything".
const WAKES: usize = 1;

impl Directory {
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            files: BTreeMap::new(),
            holders: BTreeMap::new(),
        }
    }

    /// The whole listing, between `Init` and `InitDone`.
    pub fn list(&mut self) -> Result<Vec<Event>, FileSourceError> {
        let mut events = vec![Event::Init];
        events.extend(self.refresh()?);
        events.push(Event::InitDone);
        Ok(events)
    }

    /// Looks at every file again; the events are those of files whose bytes differ.
    pub fn refresh(&mut self) -> Result<Vec<Event>, FileSourceError> {
        let found = listing::files(&self.root)?;
        let names: BTreeSet<Str> = found.iter().map(|p| self.name(p)).collect();
        let gone: Vec<Str> = self
            .files
            .keys()
            .filter(|n| !names.contains(*n))
            .cloned()
            .collect();
        let mut touched = BTreeSet::new();
        let mut events = Vec::new();
        for name in gone {
            touched.extend(self.forget(&name));
            events.push(notices(&name, Said::default()));
        }
        for path in found {
            let name = self.name(&path);
            // A file that vanished since the listing is gone, and the wake for it is on its way.
            let Ok(text) = listing::read(&path) else {
                continue;
            };
            let digest = xxh3_128(text.as_bytes());
            if self.files.get(&name).is_some_and(|k| k.digest == digest) {
                continue;
            }
            let decoded = decode::documents(&text, &name);
            events.push(notices(&name, said(&decoded, &name)));
            touched.extend(self.replace(&name, digest, decoded));
        }
        events.extend(touched.iter().flat_map(|key| self.current(key)));
        Ok(events)
    }

    fn name(&self, path: &Path) -> Str {
        Str::new(
            path.strip_prefix(&self.root)
                .unwrap_or(path)
                .to_string_lossy(),
        )
    }

    fn forget(&mut self, name: &Str) -> BTreeSet<Key> {
        let keys = self.files.remove(name).unwrap_or_default().keys;
        for key in &keys {
            self.release(key, name);
        }
        keys
    }

    /// Puts a file's new content in place of its old one. Gives the keys whose version may differ.
    fn replace(&mut self, name: &Str, digest: u128, decoded: Decoded) -> BTreeSet<Key> {
        let old = self.files.remove(name).unwrap_or_default();
        let mut keys: BTreeSet<Key> = decoded.items.iter().filter_map(key_of).collect();
        let mut touched = keys.clone();
        // A document that cannot be read may be any of those that are missing now.
        if decoded.items.iter().any(is_unreadable) {
            keys.extend(old.keys.iter().cloned());
        }
        for gone in old.keys.difference(&keys) {
            self.release(gone, name);
            touched.insert(gone.clone());
        }
        for key in &keys {
            self.holders
                .entry(key.clone())
                .or_default()
                .insert(name.clone());
        }
        let known = Known {
            digest,
            decoded,
            keys,
        };
        self.files.insert(name.clone(), known);
        touched
    }

    fn release(&mut self, key: &Key, file: &Str) {
        if let Some(files) = self.holders.get_mut(key) {
            files.remove(file);
            if files.is_empty() {
                self.holders.remove(key);
            }
        }
    }

    /// What the first file that names the key says of it, and an error for each later one.
    fn current(&self, key: &Key) -> Vec<Event> {
        let Some(files) = self.holders.get(key) else {
            return vec![Event::Delete(key.clone())];
        };
        let mut events = Vec::new();
        let first = files.first();
        for file in files.iter().skip(1) {
            let Some(known) = self.files.get(file) else {
                continue;
            };
            let mut said = said(&known.decoded, file);
            said.0.push(duplicate(key, file, first));
            events.push(notices(file, said));
        }
        let known = first.and_then(|f| self.files.get(f));
        let items = known.into_iter().flat_map(|k| &k.decoded.items);
        let mut own = items.filter(|i| key_of(i).as_ref() == Some(key));
        // None: kept from before its file became unreadable.
        events.extend(own.find_map(|item| match item {
            Item::Object(object) => Some(Event::Apply(object.clone())),
            Item::Rejected(rejected) => Some(Event::Reject(rejected.clone())),
            Item::Notice(_) | Item::Template(_) => None,
        }));
        events
    }
}

fn key_of(item: &Item) -> Option<Key> {
    match item {
        Item::Object(object) => Some(object.object.key()),
        Item::Rejected(rejected) => rejected.key.clone(),
        Item::Notice(_) | Item::Template(_) => None,
    }
}

fn is_unreadable(item: &Item) -> bool {
    matches!(item, Item::Rejected(rejected) if rejected.key.is_none())
}

fn said(decoded: &Decoded, file: &Str) -> Said {
    let mut out = Said::default();
    let mut seen = BTreeSet::new();
    for item in &decoded.items {
        match item {
            Item::Notice(notice) => out.0.push(notice.clone()),
            Item::Template(template) => out.1.push(template.clone()),
            Item::Rejected(rejected) if rejected.key.is_none() => {
                out.0.extend(rejected.diagnostics.iter().cloned());
            }
            Item::Object(_) | Item::Rejected(_) => {}
        }
        if let Some(key) = key_of(item)
            && !seen.insert(key.clone())
        {
            out.0.push(duplicate(&key, file, Some(file)));
        }
    }
    out
}

fn notices(file: &Str, (notices, templates): Said) -> Event {
    Event::Notices {
        file: file.clone(),
        notices,
        templates,
    }
}

fn duplicate(key: &Key, file: &Str, first: Option<&Str>) -> Diagnostic {
    let first = first.map(Str::as_str).unwrap_or_default();
    Diagnostic {
        level: Level::Error,
        code: Code::Duplicate,
        resource: Some(key.subject()),
        field: Str::default(),
        file: Some(file.clone()),
        line: None,
        message: format!("already defined in {first}, which counts; this one has no effect"),
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
    let _watcher = watch(&directory.root, wake)?;
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
    root: &Path,
    wake: mpsc::Sender<()>,
) -> Result<notify::RecommendedWatcher, FileSourceError> {
    let tried = |source| FileSourceError::Watch {
        path: root.to_owned(),
        source,
    };
    let on_event = move |event: notify::Result<notify::Event>| {
        let read_only = event.is_ok_and(|e| matches!(e.kind, EventKind::Access(_)));
        if !read_only {
            // Full: a look at everything is already due.
            let _ = wake.try_send(());
        }
    };
    let mut watcher = notify::recommended_watcher(on_event).map_err(tried)?;
    watcher
        .watch(root, RecursiveMode::Recursive)
        .map_err(tried)?;
    Ok(watcher)
}

#[cfg(test)]
mod tests;
