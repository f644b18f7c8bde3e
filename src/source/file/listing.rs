//! Which files of a directory are configuration, and their bytes.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::FileSourceError;
use crate::config::decode::MAX_FILE;

/// Files and folders below a checkout; more are not looked at.
const MAX_ENTRIES: usize = 100_000;
const MAX_DEPTH: usize = 16;

/// YAML and JSON files below `root`, ordered by path. Hidden names are skipped (`.git`, and the folders that
/// a mounted ConfigMap swaps); symlinks to files and folders are followed.
pub(super) fn files(root: &Path) -> Result<Vec<PathBuf>, FileSourceError> {
    let mut found = BTreeSet::new();
    let mut folders = vec![(root.to_owned(), 0)];
    let mut entries = 0;
    while let Some((folder, depth)) = folders.pop() {
        let tried = |source| FileSourceError::Read {
            path: folder.clone(),
            source,
        };
        let listed = match fs::read_dir(&folder) {
            Ok(listed) => listed,
            // A folder below may go while we look; the root may not.
            Err(error) if depth > 0 && error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(tried(error)),
        };
        for entry in listed {
            let path = entry.map_err(tried)?.path();
            entries += 1;
            if entries > MAX_ENTRIES {
                let message = format!("more than {MAX_ENTRIES} files and folders");
                return Err(tried(io::Error::new(io::ErrorKind::InvalidData, message)));
            }
            if is_hidden(&path) {
                continue;
            }
            match fs::metadata(&path) {
                Ok(meta) if meta.is_dir() && depth < MAX_DEPTH => folders.push((path, depth + 1)),
                Ok(meta) if meta.is_file() && is_configuration(&path) => {
                    found.insert(path);
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// One byte more than is decoded, so that the decoder sees that it is too much.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(MAX_FILE as u64 + 1)
        .read_to_end(&mut bytes)?;
    // Other encodings become replacement characters, which the decoder reports where they stand.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|n| n.to_string_lossy().starts_with('.'))
}

fn is_configuration(path: &Path) -> bool {
    path.extension()
        .is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
}
