//! Which files of a directory are configuration, and their bytes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::FileSourceError;
use super::directory::Enter;
use crate::config::decode::MAX_FILE;

/// Files and folders below a checkout; more are not looked at.
const MAX_ENTRIES: usize = 100_000;
const MAX_DEPTH: usize = 16;

const OUTSIDE: &str =
    "it is a link to a file outside the configuration directory; put the file itself here";
const DANGLING: &str =
    "it is a link to a file that is not there; put the file there, or remove the link";
const SPECIAL: &str =
    "it is neither a file nor a folder, and is not read; remove it, or name it otherwise";

/// A path that has, or had, the name of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    File(PathBuf),
    /// It is there and is not to be read.
    Refused(PathBuf, &'static str),
    Absent(PathBuf),
}

impl Found {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Refused(path, _) | Self::Absent(path) => path,
        }
    }
}

/// YAML and JSON files below `root`, ordered by path. Hidden names are skipped (`.git`, and the folders
/// that a mounted ConfigMap swaps); links are followed as long as they stay inside.
pub(super) fn walk(root: &Path, enter: Enter<'_>) -> Result<Vec<Found>, FileSourceError> {
    let tried = |path: &Path, reason| FileSourceError::Read {
        path: path.to_owned(),
        reason,
    };
    let real = root.canonicalize().map_err(|e| tried(root, e))?;
    let mut found = BTreeMap::new();
    let mut folders = vec![(root.to_owned(), 0)];
    let mut entries = 0;
    while let Some((folder, depth)) = folders.pop() {
        let listed = enter(&folder).and_then(|()| {
            let listed = fs::read_dir(&folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            listed.map_err(|e| tried(&folder, e))
        });
        let listed = match listed {
            Ok(listed) => listed,
            // A folder below may go while we look; the root may not.
            Err(_) if depth > 0 && !folder.exists() => continue,
            Err(error) => return Err(error),
        };
        entries += listed.len();
        if entries > MAX_ENTRIES {
            let message = format!("more than {MAX_ENTRIES} files and folders");
            return Err(tried(
                root,
                io::Error::new(io::ErrorKind::InvalidData, message),
            ));
        }
        for path in listed
            .into_iter()
            .map(|e| e.path())
            .filter(|p| !is_hidden(p))
        {
            match classify(&real, &path) {
                Place::Folder if depth < MAX_DEPTH => folders.push((path, depth + 1)),
                Place::File(file) => drop(found.insert(path, file)),
                Place::Folder | Place::Nothing => {}
            }
        }
    }
    Ok(found.into_values().collect())
}

/// What is at one path, if its name is that of a configuration file in no hidden folder.
pub(super) fn look(root: &Path, path: PathBuf) -> Option<Found> {
    let below = path.strip_prefix(root).ok()?;
    let hidden = below
        .iter()
        .any(|part| part.to_string_lossy().starts_with('.'));
    if hidden || !is_configuration(&path) {
        return None;
    }
    match classify(&root.canonicalize().ok()?, &path) {
        Place::File(found) => Some(found),
        Place::Folder => None,
        Place::Nothing => Some(Found::Absent(path)),
    }
}

enum Place {
    Folder,
    File(Found),
    Nothing,
}

/// `real` is the root without links.
fn classify(real: &Path, path: &Path) -> Place {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return Place::Nothing;
    };
    let mut kind = meta.file_type();
    if kind.is_symlink() {
        let Ok(target) = path.canonicalize() else {
            return match is_mounted(path) {
                true => Place::Nothing,
                false => refused(path, DANGLING),
            };
        };
        if !target.starts_with(real) {
            return refused(path, OUTSIDE);
        }
        match fs::metadata(&target) {
            Ok(meta) => kind = meta.file_type(),
            Err(_) => return Place::Nothing,
        }
    }
    if kind.is_dir() {
        Place::Folder
    } else if !kind.is_file() {
        refused(path, SPECIAL)
    } else if is_configuration(path) {
        Place::File(Found::File(path.to_owned()))
    } else {
        Place::Nothing
    }
}

/// What has another name than configuration is nobody's mistake.
fn refused(path: &Path, why: &'static str) -> Place {
    if is_configuration(path) {
        Place::File(Found::Refused(path.to_owned(), why))
    } else {
        Place::Nothing
    }
}

/// Whether a link leads through `..data`, as a mounted ConfigMap's do: a key that goes leaves its link
/// for a moment, and then that is a deletion.
fn is_mounted(link: &Path) -> bool {
    fs::read_link(link).is_ok_and(|to| to.iter().any(|part| part == "..data"))
}

/// The text of a file, or why it is none. One byte more than is decoded, so that the decoder sees that
/// it is too much.
pub(super) fn read(path: &Path) -> io::Result<Result<String, String>> {
    let mut bytes = Vec::new();
    let bound = MAX_FILE as u64 + 1;
    fs::File::open(path)?.take(bound).read_to_end(&mut bytes)?;
    Ok(String::from_utf8(bytes).map_err(|e| {
        let good = e.utf8_error().valid_up_to();
        let line = 1 + e.as_bytes()[..good].iter().filter(|b| **b == b'\n').count();
        format!("line {line} is no UTF-8 text")
    }))
}

fn is_hidden(path: &Path) -> bool {
    let name = path.file_name();
    name.is_some_and(|n| n.to_string_lossy().starts_with('.'))
}

pub(super) fn is_configuration(path: &Path) -> bool {
    let ending = path.extension();
    ending.is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
}
