//! What a directory held when it was last read, and which files that changed since.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_128;

use super::desk::Work;
use super::listing::{self, Found};
use super::{Event, FileSourceError};
use crate::config::decode::repeats::Repeats;
use crate::config::decode::{self, Decoded};
use crate::text::Str;

/// Called with each folder before it is listed, so that nothing is missed between the two.
pub(super) type Enter<'w> = &'w mut dyn FnMut(&Path) -> Result<(), FileSourceError>;

/// How long the directory must be quiet before a missing file is taken for deleted, and how long at
/// most that is waited for; with a checkout at work (git's index is locked), how long at most.
const QUIET: Duration = Duration::from_millis(100);
const UNQUIET: Duration = Duration::from_secs(2);
const CHECKOUT: Duration = Duration::from_secs(30);

/// What came of reading what was due.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) events: Vec<Event>,
    /// Everything was to be listed and could not be; whatever else was due is among the events.
    pub(super) failed: Option<FileSourceError>,
}

#[derive(Debug, Default)]
pub struct Directory {
    /// None when there is the mesh file alone.
    root: Option<PathBuf>,
    /// The file of `--mesh-config`.
    mesh: Option<PathBuf>,
    /// Of each file, a digest of its bytes.
    files: BTreeMap<Str, u128>,
    /// Files that were there, with the time since when they are not.
    missing: BTreeMap<Str, Instant>,
    last_sign: Option<Instant>,
    recheck: Option<Instant>,
    /// What exists while a checkout is at work.
    git_lock: Option<PathBuf>,
}

impl Directory {
    pub fn new(root: &Path) -> Self {
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        let git = root
            .ancestors()
            .map(|a| a.join(".git"))
            .find(|g| g.is_dir());
        Self {
            git_lock: git.map(|g| g.join("index.lock")),
            root: Some(root),
            ..Self::default()
        }
    }

    /// The file of MeshConfig without a directory.
    pub fn alone(mesh: &Path) -> Self {
        Self::default().with_mesh(Some(mesh))
    }

    /// Takes MeshConfig from a file of its own, before any ConfigMap.
    pub fn with_mesh(mut self, file: Option<&Path>) -> Self {
        self.mesh = file.map(|f| std::path::absolute(f).unwrap_or_else(|_| f.to_owned()));
        self
    }

    pub(super) fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    pub(super) fn mesh(&self) -> Option<&Path> {
        self.mesh.as_deref()
    }

    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// The whole listing, between `Init` and `InitDone`, for a reader that does not watch.
    pub fn list(&mut self) -> Result<Vec<Event>, FileSourceError> {
        self.list_entering(&mut |_| Ok(()))
    }

    pub(super) fn list_entering(
        &mut self,
        enter: Enter<'_>,
    ) -> Result<Vec<Event>, FileSourceError> {
        let mut events = vec![Event::Init];
        self.files.clear();
        self.missing.clear();
        let found = self.walk(enter)?;
        // At the start a mesh file must be there: nobody said that it may be absent.
        if let Some(path) = &self.mesh {
            let readable = listing::read(path).map(drop);
            readable.map_err(|reason| FileSourceError::Read {
                path: path.clone(),
                reason,
            })?;
        }
        let mut repeats = Repeats::default();
        for file in &found {
            events.extend(self.read_file(file, &mut repeats));
        }
        events.extend(self.read_mesh());
        events.push(Event::InitDone);
        Ok(events)
    }

    /// Reads what is due. Files whose bytes are as before give no event.
    pub(super) fn follow(&mut self, work: Work, now: Instant, enter: Enter<'_>) -> Followed {
        let Work {
            look,
            everything,
            writing,
        } = work;
        if everything || !look.is_empty() || !writing.is_empty() {
            self.last_sign = Some(now);
        }
        let mut events = Vec::new();
        let mesh_due = self
            .mesh
            .as_ref()
            .is_some_and(|m| everything || look.contains(m));
        if mesh_due {
            events.extend(self.read_mesh());
        }
        let (listed, failed) = match everything.then(|| self.walk(enter)) {
            Some(Ok(found)) => (Some(found), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        let found = match listed {
            Some(found) => {
                for name in self.unlisted(&found) {
                    events.extend(self.miss(name, now));
                }
                found
            }
            None => {
                let look = look.into_iter();
                let found = |path: PathBuf| listing::look(self.root.as_deref()?, path);
                look.filter_map(found).collect()
            }
        };
        let mut repeats = Repeats::default();
        for file in found.iter().filter(|f| !writing.contains(f.path())) {
            match file {
                Found::Absent(path) => events.extend(self.miss(self.name(path), now)),
                Found::File(_) | Found::Refused(..) => {
                    events.extend(self.read_file(file, &mut repeats));
                }
            }
        }
        events.extend(self.settle(now));
        self.recheck = (!self.missing.is_empty()).then(|| now + QUIET);
        Followed { events, failed }
    }

    /// Files that were there and are not among `found`.
    fn unlisted(&self, found: &[Found]) -> Vec<Str> {
        let there: BTreeSet<Str> = found.iter().map(|f| self.name(f.path())).collect();
        let gone = self.files.keys().filter(|name| !there.contains(*name));
        gone.cloned().collect()
    }

    /// When the missing files are to be looked at again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.recheck
    }

    fn walk(&self, enter: Enter<'_>) -> Result<Vec<Found>, FileSourceError> {
        match &self.root {
            Some(root) => listing::walk(root, enter),
            None => Ok(Vec::new()),
        }
    }

    fn name(&self, path: &Path) -> Str {
        let root = self.root.as_deref();
        let below = root.and_then(|root| path.strip_prefix(root).ok());
        Str::new(below.unwrap_or(path).to_string_lossy())
    }

    fn read_file(&mut self, file: &Found, repeats: &mut Repeats) -> Option<Event> {
        if self.mesh.as_deref() == Some(file.path()) {
            return None;
        }
        let name = self.name(file.path());
        let text = match file {
            Found::File(path) => listing::read(path),
            Found::Refused(_, why) => Ok(Err((*why).to_owned())),
            Found::Absent(_) => return None,
        };
        let decode = |text: &str| decode::documents_within(text, &name, repeats);
        match text {
            Ok(text) => self.tell(&name, text, decode),
            // Gone since it was listed; the sign of that is on its way.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => self.tell(&name, Err(error.to_string()), decode),
        }
    }

    fn read_mesh(&mut self) -> Option<Event> {
        let path = self.mesh.clone()?;
        let name = self.name(&path);
        let text = listing::read(&path).unwrap_or_else(|error| Err(error.to_string()));
        self.tell(&name, text, |text| decode::decode_mesh(text, &name))
    }

    /// The event of a file's text, or of why it has none, unless that was told before.
    fn tell(
        &mut self,
        name: &Str,
        text: Result<String, String>,
        decode: impl FnOnce(&str) -> Decoded,
    ) -> Option<Event> {
        self.missing.remove(name);
        let (Ok(told) | Err(told)) = &text;
        let digest = xxh3_128(told.as_bytes());
        if self.files.insert(name.clone(), digest) == Some(digest) {
            return None;
        }
        Some(Event::File(match text {
            Ok(text) => decode(&text),
            Err(why) => decode::unreadable_file(name, why),
        }))
    }

    /// The mesh's own file is never missed: it is read by itself, and its absence is a fault of it.
    fn miss(&mut self, name: Str, now: Instant) -> Option<Event> {
        if self.mesh().is_some_and(|mesh| self.name(mesh) == name) {
            return None;
        }
        // Forgotten, so that it is told again when it comes back.
        self.files.remove(&name)?;
        self.missing.insert(name.clone(), now);
        Some(Event::Leaving(name))
    }

    /// Tells the deletion of files that stayed away.
    fn settle(&mut self, now: Instant) -> Vec<Event> {
        let quiet = self
            .last_sign
            .is_none_or(|last| now.saturating_duration_since(last) >= QUIET);
        let locked = self.git_lock.as_ref().is_some_and(|l| l.exists());
        let gone = |since: &Instant| {
            let away = now.saturating_duration_since(*since);
            away >= CHECKOUT || (!locked && (quiet || away >= UNQUIET))
        };
        let settled: Vec<Str> = self
            .missing
            .iter()
            .filter(|(_, since)| gone(since))
            .map(|(name, _)| name.clone())
            .collect();
        for name in &settled {
            self.missing.remove(name);
        }
        settled
            .iter()
            .map(|name| Event::File(decode::documents("", name)))
            .collect()
    }
}
