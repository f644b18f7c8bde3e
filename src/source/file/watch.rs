//! The operating system's notifications, as signs. Folders are watched one by one, hidden ones not.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RemoveKind, RenameMode};
use notify::{EventKind, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::FileSourceError;
use super::desk::Sign;
use super::listing::is_configuration;

/// Signs that may wait; when they are more, they are dropped and the whole directory is looked at.
const SIGNS: usize = 4096;

/// Whether the system tells when a writer closes its file; else each change counts as complete.
const TELLS_CLOSE: bool = cfg!(target_os = "linux");

pub(super) struct Watch {
    watcher: notify::RecommendedWatcher,
    signs: mpsc::Receiver<Sign>,
    /// Signs were dropped, and one of `Everything` was not sent for them.
    lost: Arc<AtomicBool>,
}

impl Watch {
    /// Watches `root`'s own place and `mesh`; folders below are added as they are listed.
    pub(super) fn new(root: Option<&Path>, mesh: Option<&Path>) -> Result<Self, FileSourceError> {
        let (sender, signs) = mpsc::channel(SIGNS);
        let lost = Arc::new(AtomicBool::new(false));
        let translator = Translator {
            root: root.map(Path::to_owned),
            pivots: root
                .into_iter()
                .flat_map(pivots)
                .chain(mesh.map(Path::to_owned))
                .collect(),
            mesh: mesh.map(Path::to_owned),
        };
        let folders: BTreeSet<PathBuf> = translator
            .pivots
            .iter()
            .filter_map(|p| p.parent())
            .map(Path::to_owned)
            .collect();
        let dropped = Arc::clone(&lost);
        let on_event = move |event: notify::Result<notify::Event>| {
            for sign in translator.signs(&event) {
                if sender.try_send(sign).is_err() {
                    dropped.store(true, Ordering::Release);
                }
            }
        };
        let watcher = notify::recommended_watcher(on_event).map_err(|reason| {
            let path = root.or(mesh).unwrap_or(Path::new("")).to_owned();
            FileSourceError::Watch { path, reason }
        })?;
        let mut watch = Self {
            watcher,
            signs,
            lost,
        };
        for folder in folders {
            watch.add(&folder)?;
        }
        Ok(watch)
    }

    pub(super) fn add(&mut self, folder: &Path) -> Result<(), FileSourceError> {
        let watched = self.watcher.watch(folder, RecursiveMode::NonRecursive);
        watched.map_err(|reason| FileSourceError::Watch {
            path: folder.to_owned(),
            reason,
        })
    }

    /// All signs that are there, at least one.
    pub(super) async fn next(&mut self) -> Vec<Sign> {
        let mut signs = Vec::new();
        // None cannot be: the watcher holds the sender as long as we hold the watcher.
        self.signs.recv_many(&mut signs, SIGNS).await;
        if self.lost.swap(false, Ordering::AcqRel) {
            signs.push(Sign::Everything);
        }
        signs
    }
}

/// The root and the links on the way to it: when one is replaced, all below is another.
fn pivots(root: &Path) -> impl Iterator<Item = PathBuf> {
    let links = root.ancestors().skip(1).filter(|a| a.is_symlink());
    std::iter::once(root).chain(links).map(Path::to_owned)
}

struct Translator {
    root: Option<PathBuf>,
    /// Paths outside the listing whose replacement counts.
    pivots: BTreeSet<PathBuf>,
    mesh: Option<PathBuf>,
}

impl Translator {
    fn signs(&self, event: &notify::Result<notify::Event>) -> Vec<Sign> {
        match event {
            Err(_) => vec![Sign::Everything],
            Ok(event) if event.need_rescan() => vec![Sign::Everything],
            Ok(event) => event
                .paths
                .iter()
                .filter_map(|p| self.sign(event.kind, p))
                .collect(),
        }
    }

    fn sign(&self, kind: EventKind, path: &Path) -> Option<Sign> {
        let is_mesh = self.mesh.as_deref() == Some(path);
        if self.pivots.contains(path) && !is_mesh {
            return replaces(kind).then_some(Sign::Everything);
        }
        let folder = path.parent();
        let name = path.file_name()?.to_string_lossy();
        // A mounted ConfigMap is replaced by a rename of `..data`.
        if name.starts_with("..") {
            let of_mesh = self.mesh.as_deref().and_then(Path::parent) == folder;
            return ((self.is_below(path) || of_mesh) && replaces(kind))
                .then_some(Sign::Everything);
        }
        if !is_mesh && (name.starts_with('.') || !self.is_below(path)) {
            return None;
        }
        if is_mesh || is_configuration(path) {
            return of_file(kind, path);
        }
        of_other(kind, path)
    }

    fn is_below(&self, path: &Path) -> bool {
        let root = self.root.as_deref();
        root.is_some_and(|root| path.starts_with(root))
    }
}

/// Whether something else is at the path than before.
fn replaces(kind: EventKind) -> bool {
    match kind {
        EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => {
            true
        }
        EventKind::Any | EventKind::Other | EventKind::Access(_) | EventKind::Modify(_) => false,
    }
}

fn of_file(kind: EventKind, path: &Path) -> Option<Sign> {
    let path = || path.to_owned();
    match kind {
        EventKind::Create(CreateKind::Folder) | EventKind::Remove(RemoveKind::Folder) => {
            Some(Sign::Everything)
        }
        EventKind::Create(_) if TELLS_CLOSE && !is_link(&path()) => Some(Sign::Writing(path())),
        EventKind::Modify(ModifyKind::Data(_)) if TELLS_CLOSE => Some(Sign::Writing(path())),
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Sign::Written(path())),
        EventKind::Access(_) => None,
        EventKind::Modify(ModifyKind::Metadata(_)) => Some(Sign::Touched(path())),
        EventKind::Any
        | EventKind::Other
        | EventKind::Create(_)
        | EventKind::Remove(_)
        | EventKind::Modify(_) => Some(Sign::Moved(path())),
    }
}

/// A link is complete as soon as it is there, and no writer will close it.
fn is_link(path: &Path) -> bool {
    #[cfg(unix)]
    let several = |meta: &fs::Metadata| std::os::unix::fs::MetadataExt::nlink(meta) > 1;
    #[cfg(not(unix))]
    let several = |_: &fs::Metadata| false;
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink() || several(&meta))
}

/// Of a path that is no configuration file: it counts if it is, or may have been, a folder.
fn of_other(kind: EventKind, path: &Path) -> Option<Sign> {
    let folder = match kind {
        EventKind::Create(CreateKind::Folder) | EventKind::Remove(RemoveKind::Folder) => true,
        EventKind::Create(_) | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => path.is_dir(),
        EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(RemoveKind::Any) => true,
        EventKind::Any
        | EventKind::Other
        | EventKind::Access(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_) => false,
    };
    folder.then_some(Sign::Everything)
}
