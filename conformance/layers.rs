//! Which room may use which, read from the source itself; and what the pure rooms do without.
//!
//! A room is a module of `src`. The table below is the architecture: change it only together with
//! ARCHITECTURE.md. Test code (from the first `#[cfg(test)]` on) is free.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What everything may stand on: names, findings and identities, all plain values.
const BASE: &[&str] = &["text", "diagnostic", "identity"];

/// Room, and the rooms it may use besides `BASE` and itself. `room::part` allows that part only.
const ARROWS: &[(&str, &[&str])] = &[
    ("text", &[]),
    ("clock", &[]),
    ("backoff", &[]),
    ("diagnostic", &[]),
    ("identity", &[]),
    ("schema", &[]),
    ("config", &["schema"]),
    ("acceptance", &["config"]),
    ("analyze", &["config", "acceptance"]),
    ("model", &["config", "schema"]),
    ("ir", &["config", "model"]),
    ("xds", &["config", "schema", "ir"]),
    ("view", &["config", "model", "ir", "xds"]),
    ("source", &["config", "clock", "backoff", "telemetry"]),
    (
        "delivery",
        &[
            "clock",
            "backoff",
            "config",
            "model::proxy",
            "model::registration",
            "xds",
            "view",
            "ca",
            "tls",
            "telemetry",
        ],
    ),
    ("state", &[]),
    ("tls", &[]),
    ("ca", &["clock", "state", "tls", "xds"]),
    ("telemetry", &["config"]),
    (
        "debug",
        &[
            "clock",
            "backoff",
            "config",
            "model",
            "xds",
            "view",
            "delivery",
            "ca",
            "tls",
            "telemetry",
        ],
    ),
    (
        "distribution",
        &["clock", "config", "acceptance", "delivery", "ca", "tls"],
    ),
    ("dump", &["config", "xds"]),
    (
        "offline",
        &[
            "config",
            "source",
            "acceptance",
            "analyze",
            "model",
            "view",
            "xds",
            "dump",
        ],
    ),
    ("bootstrap", &["config", "model::proxy"]),
    ("capture", &[]),
    ("inject", &["config", "bootstrap", "model::proxy"]),
    (
        "admission",
        &["clock", "config", "bootstrap", "inject", "telemetry"],
    ),
    (
        "controllers",
        &[
            "clock",
            "backoff",
            "state",
            "config",
            "acceptance",
            "ca",
            "distribution",
            "inject",
            "telemetry",
        ],
    ),
    ("echo", &[]),
    ("main", &["cli"]),
];

/// The rooms at the top, which may use every room below them.
const TOP: &[&str] = &["app", "cli"];

/// Files (or folders) without I/O, clock, lock or runtime: the same input gives the same output.
const PURE: &[&str] = &[
    "text.rs",
    "diagnostic.rs",
    "identity.rs",
    "schema.rs",
    "schema",
    "config",
    "acceptance",
    "analyze",
    "model",
    "ir",
    "xds",
    "view",
    "delivery/session",
    "bootstrap",
    "capture",
    "inject",
];

const IMPURE_WORDS: &[&str] = &[
    "tokio::",
    "tonic::",
    "hyper::",
    "axum::",
    "kube::",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::io::stdin",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::net::ToSocketAddrs",
    "std::os::unix::net",
    "SystemTime::now",
    "Instant::now",
    "Timestamp::now",
    "crate::clock",
    "Mutex",
    "RwLock",
];

/// Words that belong to a few files; the rest reaches what is behind them through those.
const RESERVED: &[Reserved] = &[
    Reserved {
        word: "envoy_types",
        files: &["xds", "delivery/wire.rs"],
        instead: "make the message in src/xds and hand over its bytes",
    },
    Reserved {
        word: "prost_reflect",
        files: &[
            "model/envoy_filters.rs",
            "schema",
            "schema.rs",
            "xds/json.rs",
            "xds/patch",
            "xds/patch.rs",
        ],
        instead: "show messages by xds::json::to_json, read them by schema::read",
    },
    Reserved {
        word: "tokio::spawn",
        files: &["app"],
        instead: "return a future and let src/app.rs run it",
    },
    Reserved {
        word: "JoinSet",
        files: &["app"],
        instead: "return a future and let src/app.rs run it",
    },
    Reserved {
        word: "TaskTracker",
        files: &["app", "delivery/server.rs", "debug/listen.rs"],
        instead: "return a future and let src/app.rs run it",
    },
    Reserved {
        word: "spawn_blocking",
        files: &["app", "source/file.rs"],
        instead: "read files in src/source or src/app, and hand over what they hold",
    },
    Reserved {
        word: "std::env",
        files: &["cli/settings.rs"],
        instead: "take a parameter; src/cli/settings.rs reads the environment",
    },
];

struct Reserved {
    word: &'static str,
    files: &'static [&'static str],
    instead: &'static str,
}

/// Logic stays below this; a file that is one flat table may be longer and is listed.
const LONGEST: usize = 500;
const TABLES: &[&str] = &[];

#[test]
fn every_arrow_between_rooms_is_allowed() {
    report(sources().iter().flat_map(wrong_arrows));
}

#[test]
fn pure_rooms_have_no_io_clock_lock_or_runtime() {
    let pure = sources().into_iter().filter(|s| s.is_in(PURE));
    report(pure.flat_map(|s| impure_words(&s)));
}

#[test]
fn reserved_words_stay_in_their_files() {
    report(sources().iter().flat_map(misplaced_words));
}

#[test]
fn every_file_says_its_subject_and_fits_its_length() {
    report(sources().iter().flat_map(misshapen));
}

#[test]
fn the_check_itself_sees_what_it_must() {
    let planted = |path: &str, text: &str| Source::new(path, text);
    let arrow = planted(
        "ir/host.rs",
        "use crate::{\n    config::Key,\n    delivery::hub,\n    text::{Hostname, Str},\n};\n",
    );
    assert_eq!(wrong_arrows(&arrow).len(), 1);
    let part = planted(
        "delivery.rs",
        "use crate::model::proxy::Proxy;\nuse crate::model::Snapshot;\n",
    );
    assert_eq!(wrong_arrows(&part).len(), 1);
    let inline = planted("xds/route.rs", "fn f() -> crate::model::Snapshot {}\n");
    assert_eq!(wrong_arrows(&inline).len(), 1);
    let hidden = planted("xds/route.rs", "use super::super::model::Snapshot;\n");
    assert_eq!(wrong_arrows(&hidden).len(), 1);
    let in_test = planted(
        "ir.rs",
        "//! x\n#[cfg(test)]\nmod tests { use crate::delivery::hub; }\n",
    );
    assert_eq!(wrong_arrows(&in_test), Vec::<String>::new());
    let in_comment = planted("ir.rs", "//! not crate::delivery\n// nor tokio::fs\n");
    assert_eq!(wrong_arrows(&in_comment), Vec::<String>::new());
    assert_eq!(
        impure_words(&planted("model.rs", "let now = Instant::now();\n")).len(),
        1
    );
    assert_eq!(
        misplaced_words(&planted("view.rs", "tokio::spawn(x);\n")).len(),
        1
    );
    assert_eq!(
        misshapen(&planted("view.rs", &"x\n".repeat(LONGEST + 1))).len(),
        2
    );
}

/// One file of `src`: its path there, and its text without comments and tests.
struct Source {
    path: String,
    documented: bool,
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let logic = text.split("#[cfg(test)]\nmod ").next().unwrap_or("");
        let code = logic
            .lines()
            .map(without_comment)
            .collect::<Vec<_>>()
            .join("\n");
        Self {
            path: path.to_owned(),
            documented: text.starts_with("//! "),
            code,
        }
    }

    fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or("");
        first.strip_suffix(".rs").unwrap_or(first)
    }

    fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| {
            let rest = self.path.strip_prefix(place);
            rest.is_some_and(|r| r.is_empty() || r == ".rs" || r.starts_with('/'))
        })
    }
}

fn without_comment(line: &str) -> &str {
    let line = line.trim_start();
    if line.starts_with("//") {
        ""
    } else {
        line.split(" // ").next().unwrap_or("")
    }
}

fn wrong_arrows(source: &Source) -> Vec<String> {
    let room = source.room();
    if TOP.contains(&room) || room == "lib" {
        return Vec::new();
    }
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == room) else {
        return vec![format!(
            "src/{}: room `{room}` is not in ARROWS of conformance/layers.rs: say there what it may use",
            source.path
        )];
    };
    let mut faults: Vec<String> = used_paths(&source.code)
        .into_iter()
        .filter(|path| !may_use(room, allowed, path))
        .map(|path| {
            format!(
                "src/{}: `{room}` must not use `{path}`; it may use {:?} and {BASE:?}. \
                 Move the code to the lowest room that may use both, or pass in a plain value",
                source.path, allowed
            )
        })
        .collect();
    if source.code.contains("super::super::") {
        faults.push(format!(
            "src/{}: `super::super::` hides an arrow: write `crate::…`",
            source.path
        ));
    }
    faults
}

fn may_use(room: &str, allowed: &[&str], path: &str) -> bool {
    let target = path.split("::").next().unwrap_or(path);
    target == room
        || BASE.contains(&target)
        || allowed
            .iter()
            .any(|a| path == *a || path.starts_with(&format!("{a}::")))
}

/// Every `crate::a::b` of the text as `a::b`, groups in braces opened.
fn used_paths(code: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            open_group("", &code[at + "crate::".len()..], &mut paths);
        }
    }
    paths
}

/// Reads one path, or a `{group}` of them, and returns what follows it.
fn open_group<'a>(prefix: &str, text: &'a str, paths: &mut BTreeSet<String>) -> &'a str {
    let Some(mut rest) = text.strip_prefix('{') else {
        let end = text
            .find(|c: char| !(c.is_alphanumeric() || "_:*".contains(c)))
            .unwrap_or(text.len());
        let path = format!("{prefix}{}", &text[..end]);
        if path.ends_with("::") {
            return open_group(&path, &text[end..], paths);
        }
        paths.insert(path);
        return &text[end..];
    };
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        if rest.is_empty() {
            return rest;
        }
        if let Some(after) = rest.strip_prefix('}') {
            return after;
        }
        let before = rest.len();
        rest = open_group(prefix, rest, paths);
        rest = rest.find([',', '}']).map_or("", |at| &rest[at..]);
        assert!(rest.len() < before, "no path in a use group at `{rest}`");
    }
}

fn impure_words(source: &Source) -> Vec<String> {
    let found = IMPURE_WORDS
        .iter()
        .filter(|word| source.code.contains(**word));
    found
        .map(|word| {
            format!(
                "src/{}: `{word}` in a pure room: take the value as a parameter and let \
                 source, delivery or app do the I/O",
                source.path
            )
        })
        .collect()
}

fn misplaced_words(source: &Source) -> Vec<String> {
    let used = RESERVED
        .iter()
        .filter(|r| source.code.contains(r.word) && !source.is_in(r.files));
    used.map(|r| {
        format!(
            "src/{}: `{}` belongs to {:?}: {}",
            source.path, r.word, r.files, r.instead
        )
    })
    .collect()
}

fn misshapen(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = source.code.lines().count();
    if lines > LONGEST && !source.is_in(TABLES) {
        faults.push(format!(
            "src/{}: {lines} lines without tests, {LONGEST} at most: find its second subject",
            source.path
        ));
    }
    if !source.documented {
        faults.push(format!(
            "src/{}: its first line must be `//!` and say its subject",
            source.path
        ));
    }
    faults
}

fn report(faults: impl Iterator<Item = String>) {
    let faults: Vec<String> = faults.collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(
        files.len() > 10,
        "read {} files under {}",
        files.len(),
        root.display()
    );
    files
        .iter()
        .map(|file| {
            let text = std::fs::read_to_string(file)
                .unwrap_or_else(|e| panic!("read {}: {e}", file.display()));
            let path = file.strip_prefix(&root).unwrap_or(file);
            Source::new(&path.to_string_lossy(), &text)
        })
        .filter(|source| !source.path.ends_with("tests.rs") && !source.path.ends_with("testing.rs"))
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries =
        std::fs::read_dir(folder).unwrap_or_else(|e| panic!("read {}: {e}", folder.display()));
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
}
