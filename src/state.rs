//! The state directory: private, locked, written atomically. What its files mean is not here.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::ops::Deref;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

const LOCK: &str = "lock";
const PRIVATE_DIR: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;
/// Begins the name of a file that is being written; a crash may leave one, the next start removes it.
const PARTIAL: &str = ".partial-";

/// An existing directory that belongs to us and that nobody else can enter.
#[derive(Debug)]
pub struct StateDir {
    root: PathBuf,
}

/// The directory while this process alone may write it: until it is dropped, or the process ends.
#[derive(Debug)]
pub struct LockedDir {
    dir: StateDir,
    _lock: File,
}

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("{action} {path}: {reason}")]
    Io {
        action: &'static str,
        path: PathBuf,
        reason: io::Error,
    },
    #[error(
        "state directory {path} may be entered by others (mode {mode:04o}): it holds keys; `chmod 700` it once you know who could"
    )]
    Open { path: PathBuf, mode: u32 },
    #[error("state directory {path} belongs to user {owner}, this process runs as user {user}")]
    Owner {
        path: PathBuf,
        owner: u32,
        user: u32,
    },
    #[error(
        "there is no state directory {0}: name the one of `fairlead discovery`, which makes it at its start"
    )]
    Absent(PathBuf),
    #[error("state directory {0} is in use by another fairlead process")]
    Locked(PathBuf),
    #[error("{path} is larger than {limit} bytes")]
    TooLarge { path: PathBuf, limit: u64 },
}

impl StateDir {
    /// Makes the directory (mode 0700) or checks the one that is there; an empty one is closed to others.
    pub fn prepare(root: &Path) -> Result<Self, StateError> {
        make_dir(root)?;
        let found = fs::metadata(root).map_err(io_error("read", root))?;
        check_owner(root, found.uid())?;
        let mode = found.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            let mut entries = fs::read_dir(root).map_err(io_error("list", root))?;
            if entries.next().is_some() {
                return Err(StateError::Open {
                    path: root.into(),
                    mode,
                });
            }
            let private = fs::Permissions::from_mode(PRIVATE_DIR);
            fs::set_permissions(root, private).map_err(io_error("close to others", root))?;
        }
        Ok(Self { root: root.into() })
    }

    /// The same for a directory that must be there.
    pub fn existing(root: &Path) -> Result<Self, StateError> {
        match fs::metadata(root) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(StateError::Absent(root.into())),
            Ok(_) | Err(_) => Self::prepare(root),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A file's bytes, wiped from memory when dropped; `None` if there is no such file.
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Zeroizing<Vec<u8>>>, StateError> {
        read_file(&self.path(name), limit)
    }

    /// Takes the directory for this process. Never waits.
    pub fn lock(self) -> Result<LockedDir, StateError> {
        let path = self.path(LOCK);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(PRIVATE_FILE)
            .open(&path)
            .map_err(io_error("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateError::Locked(self.root)),
            Err(TryLockError::Error(reason)) => return Err(io_error("lock", &path)(reason)),
        }
        remove_partial(&self.root)?;
        Ok(LockedDir {
            dir: self,
            _lock: lock,
        })
    }
}

impl LockedDir {
    /// Replaces a file as a whole, mode 0600: after a crash it is the old one or the new one.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let path = self.path(name);
        let dir = path.parent().unwrap_or(&self.dir.root);
        if dir != self.dir.root {
            make_dir(dir)?;
            remove_partial(dir)?;
        }
        let mut partial = tempfile::Builder::new()
            .prefix(PARTIAL)
            .permissions(fs::Permissions::from_mode(PRIVATE_FILE))
            .tempfile_in(dir)
            .map_err(io_error("create a file in", dir))?;
        partial
            .write_all(bytes)
            .and_then(|()| partial.as_file().sync_all())
            .map_err(io_error("write", &path))?;
        partial
            .persist(&path)
            .map_err(|e| io_error("write", &path)(e.error))?;
        // The rename itself is safe on disk only once its directory is.
        File::open(dir)
            .and_then(|d| d.sync_all())
            .map_err(io_error("sync", dir))
    }
}

impl LockedDir {
    /// Takes a file away, if it is there.
    pub fn remove(&self, name: &str) -> Result<(), StateError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io_error("remove", &path)(e)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// A file that is there, to write on at its end. The caller syncs.
    pub fn append_to(&self, name: &str) -> Result<File, StateError> {
        let path = self.path(name);
        let open = OpenOptions::new().append(true).open(&path);
        open.map_err(io_error("open", &path))
    }
}

impl Deref for LockedDir {
    type Target = StateDir;

    fn deref(&self) -> &StateDir {
        &self.dir
    }
}

/// Reads a whole file of at most `limit` bytes; `None` if there is none.
pub fn read_file(path: &Path, limit: u64) -> Result<Option<Zeroizing<Vec<u8>>>, StateError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io_error("read", path)(e)),
    };
    let size = file.metadata().map_err(io_error("read", path))?.len();
    let too_large = || StateError::TooLarge {
        path: path.into(),
        limit,
    };
    if size > limit {
        return Err(too_large());
    }
    // Room for one byte more than expected: the buffer never moves, so no copy of a key stays behind.
    let capacity = usize::try_from(size).map_err(|_| too_large())? + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    file.take(size + 1)
        .read_to_end(&mut bytes)
        .map_err(io_error("read", path))?;
    if bytes.len() as u64 > size {
        return Err(too_large());
    }
    Ok(Some(bytes))
}

fn make_dir(path: &Path) -> Result<(), StateError> {
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIR)
        .create(path)
        .map_err(io_error("create directory", path))
}

/// A file made now tells which user we are.
fn check_owner(root: &Path, owner: u32) -> Result<(), StateError> {
    let probe = tempfile::Builder::new()
        .prefix(PARTIAL)
        .tempfile_in(root)
        .map_err(io_error("create a file in", root))?;
    let user = probe
        .as_file()
        .metadata()
        .map_err(io_error("read", root))?
        .uid();
    if user == owner {
        return Ok(());
    }
    Err(StateError::Owner {
        path: root.into(),
        owner,
        user,
    })
}

fn remove_partial(dir: &Path) -> Result<(), StateError> {
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let entry = entry.map_err(io_error("list", dir))?;
        if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
            match fs::remove_file(entry.path()) {
                // Another process's probe that is gone by itself.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(io_error("remove", &entry.path()))?,
            }
        }
    }
    Ok(())
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.into();
    move |reason| StateError::Io {
        action,
        path,
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn the_directory_and_its_files_are_private() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("deep/state");
        let dir = StateDir::prepare(&root).unwrap().lock().unwrap();
        dir.write("ca/ca-key.pem", b"secret").unwrap();
        assert_eq!(mode(&root), 0o700);
        assert_eq!(mode(&root.join("ca")), 0o700);
        assert_eq!(mode(&root.join("ca/ca-key.pem")), 0o600);
        let read = dir.read("ca/ca-key.pem", 100).unwrap().unwrap();
        assert_eq!(&read[..], b"secret");
    }

    #[test]
    fn a_second_process_is_turned_away_until_the_first_ends() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("state");
        let first = StateDir::prepare(&root).unwrap().lock().unwrap();
        let second = StateDir::prepare(&root).unwrap().lock();
        assert!(matches!(second, Err(StateError::Locked(_))), "{second:?}");
        drop(first);
        StateDir::prepare(&root).unwrap().lock().unwrap();
    }

    #[test]
    fn an_empty_open_directory_is_closed_and_a_used_one_refused() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("state");
        fs::create_dir(&root).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        StateDir::prepare(&root).unwrap();
        assert_eq!(mode(&root), 0o700);

        fs::write(root.join("x"), "").unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o750)).unwrap();
        let refused = StateDir::prepare(&root).unwrap_err();
        assert!(refused.to_string().contains("0750"), "{refused}");
    }

    #[test]
    fn what_a_crash_left_half_written_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("state");
        StateDir::prepare(&root).unwrap();
        fs::write(root.join(".partial-abc"), "half").unwrap();
        let dir = StateDir::prepare(&root).unwrap().lock().unwrap();
        dir.write("accepted.json", b"{}").unwrap();
        let left: Vec<_> = fs::read_dir(&root)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| n.starts_with('.'))
            .collect();
        assert_eq!(left, Vec::<String>::new());
    }

    #[test]
    fn a_file_over_its_limit_is_not_read() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("big");
        fs::write(&path, [0; 11]).unwrap();
        let refused = read_file(&path, 10);
        assert!(matches!(refused, Err(StateError::TooLarge { .. })));
        assert!(
            read_file(&parent.path().join("none"), 10)
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn a_directory_that_must_be_there_is_not_made() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("staet");
        let refused = StateDir::existing(&root).unwrap_err();
        assert!(
            refused.to_string().contains("no state directory"),
            "{refused}"
        );
        assert!(!root.exists());
        StateDir::prepare(&root).unwrap();
        StateDir::existing(&root).unwrap();
    }

    #[test]
    fn a_path_that_is_a_file_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("file");
        fs::write(&path, "").unwrap();
        assert!(StateDir::prepare(&path).is_err());
    }
}
