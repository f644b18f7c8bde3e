//! README.md and ARCHITECTURE.md name only what exists, and stay short enough to be read.

use std::collections::BTreeSet;
use std::path::Path;

const PAGES: &[Page] = &[
    Page {
        file: "README.md",
        longest: 300,
    },
    Page {
        file: "ARCHITECTURE.md",
        longest: 250,
    },
];

struct Page {
    file: &'static str,
    longest: usize,
}

#[test]
fn every_path_they_name_exists() {
    let mut missing = Vec::new();
    for page in PAGES {
        let text = read(page.file);
        let paths = quoted(&text).into_iter().filter(|word| is_path(word));
        let paths: Vec<&str> = paths.collect();
        assert!(
            !paths.is_empty(),
            "{} names no path: is it still read as it should be?",
            page.file
        );
        missing.extend(
            paths
                .into_iter()
                .filter(|p| !exists(p))
                .map(|p| format!("{}: `{p}`", page.file)),
        );
    }
    assert!(
        missing.is_empty(),
        "these paths do not exist:\n{}",
        missing.join("\n")
    );
}

#[test]
fn every_make_target_they_name_is_one() {
    let makefile = read("Makefile");
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter(|line| !line.starts_with(['\t', '#', '.']))
        .filter_map(|line| line.split_once(':').map(|(target, _)| target))
        .collect();
    for page in PAGES {
        let text = read(page.file);
        for named in quoted(&text)
            .into_iter()
            .filter_map(|word| word.strip_prefix("make "))
        {
            assert!(
                targets.contains(named),
                "{}: `make {named}` is no target",
                page.file
            );
        }
    }
}

#[test]
fn they_are_short_enough_to_be_read() {
    for page in PAGES {
        let lines = read(page.file).lines().count();
        assert!(
            lines <= page.longest,
            "{}: {lines} lines, {} at most",
            page.file,
            page.longest
        );
    }
}

/// A path of this repository: it has a slash or a known ending, and no blank, brace or placeholder.
fn is_path(word: &str) -> bool {
    let ours = [
        "src/",
        "conformance/",
        "examples/",
        "benches/",
        "proto/",
        ".ci/",
    ];
    let plain = !word.contains([' ', '<', '{', '*', '$', '…']);
    let file = [".rs", ".toml", ".md"]
        .iter()
        .any(|end| word.ends_with(end));
    plain && (ours.iter().any(|start| word.starts_with(start)) || file)
}

/// A path stands from the root; the code map may leave `src/` away.
fn exists(path: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join(path).exists() || root.join("src").join(path).exists()
}

/// What stands between backticks on one line; fenced blocks are examples and not read.
fn quoted(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let mut words = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            words.extend(line.split('`').skip(1).step_by(2));
        }
    }
    words
}

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
}

/// Annotations and debug pages as a reader looks for them, by name.
#[test]
fn what_is_honoured_of_istios_annotations_stands_where_users_look() {
    let text = read("deploy/README.md");
    let section = |title: &str| {
        let start = text.find(&format!("\n## {title}\n"));
        let rest = &text[start.unwrap_or_else(|| panic!("no section {title}")) + 1..];
        let end = rest[1..].find("\n## ").map_or(rest.len(), |at| at + 1);
        rest[..end].to_owned()
    };
    let (honoured, not) = (section("Annotations"), section("Not honoured"));
    for (name, standing) in fairlead::inject::ANNOTATIONS {
        let whole = not.contains(&format!("`{name}`"));
        match standing {
            fairlead::inject::Standing::Honoured => {
                let (prefix, short) = name.split_once('/').unwrap();
                let row = honoured
                    .lines()
                    .find(|line| line.starts_with(&format!("| `{prefix}/`")));
                let row = row.unwrap_or_else(|| panic!("no row of {prefix}"));
                assert!(row.contains(&format!("`{short}`")), "{name}");
            }
            fairlead::inject::Standing::NoEffect(_) | fairlead::inject::Standing::Refused(_) => {
                assert!(whole, "{name} is not under `Not honoured`");
            }
        }
    }
    let pages = section("Debug pages");
    for page in fairlead::debug::shelf::PAGES {
        assert!(pages.contains(&format!("`{}", page.name)), "{}", page.name);
    }
}
