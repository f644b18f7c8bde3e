//! Foreign YAML in bulk: what Istio accepts must decode here without an error.
//!
//! `FAIRLEAD_CORPUS` names a folder of such files; without it the test says so and proves nothing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use fairlead::config::decode::{self, Decoded, Item};
use fairlead::diagnostic::{Diagnostic, Level};

/// Parts of the folder that hold Istio's own valid objects.
const PARTS: &[&str] = &["configs/valid", "configs/mesh", "samples", "crds"];

/// Files that Istio itself would refuse, or that hold no Kubernetes objects, with the reason.
const EXCUSED: &[(&str, &str)] = &[];

#[test]
fn what_istio_accepts_decodes_without_an_error() {
    let Some(root) = setting("FAIRLEAD_CORPUS").map(PathBuf::from) else {
        eprintln!("corpus absent: set FAIRLEAD_CORPUS to a folder of Istio's YAML");
        return;
    };
    let mut files = Vec::new();
    for part in PARTS {
        collect(&root.join(part), &mut files);
    }
    assert!(!files.is_empty(), "no YAML under {}", root.display());
    let mut objects = 0;
    let mut warnings = 0;
    let mut errors = Vec::new();
    for path in &files {
        let name = path
            .strip_prefix(&root)
            .unwrap_or(path)
            .display()
            .to_string();
        let text = std::fs::read_to_string(path).expect("a file of the corpus is text");
        let decoded = decode::documents(&text, &name);
        objects += decoded
            .items
            .iter()
            .filter(|i| matches!(i, Item::Object(_)))
            .count();
        let found = diagnostics(&decoded);
        warnings += found.iter().filter(|d| d.level == Level::Warning).count();
        if EXCUSED.iter().all(|(excused, _)| *excused != name) {
            errors.extend(found.into_iter().filter(|d| d.level == Level::Error));
        }
        if setting("FAIRLEAD_CORPUS_VERBOSE").is_some() {
            diagnostics(&decoded).iter().for_each(|d| eprintln!("{d}"));
        }
    }
    eprintln!(
        "corpus: {} files, {objects} objects, {warnings} warnings",
        files.len()
    );
    let listed: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert!(
        errors.is_empty(),
        "{} errors:\n{}",
        errors.len(),
        listed.join("\n")
    );
}

#[expect(
    clippy::disallowed_methods,
    reason = "the corpus is no part of the project, so only the environment can name it"
)]
fn setting(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, files);
        } else if path
            .extension()
            .is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
        {
            files.push(path);
        }
    }
}

fn diagnostics(decoded: &Decoded) -> Vec<Diagnostic> {
    let of = |item: &Item| match item {
        Item::Object(object) => object.warnings.clone(),
        Item::Rejected(rejected) => rejected.diagnostics.clone(),
        Item::Notice(notice) => vec![notice.clone()],
        Item::Template(_) => Vec::new(),
    };
    decoded.items.iter().flat_map(of).collect()
}
