//! Every renderer on hand-made inputs: Envoy takes what comes out, and that moves only with its epoch.
//!
//! `UPDATE=1 cargo test --test render` writes `conformance/render/digests.txt` anew. It refuses to where
//! an output moved and its renderer's `EPOCH` did not: versions of equal inputs would stay equal, and
//! connected proxies would keep the old bytes.

mod harness;

#[path = "render/assignments.rs"]
mod assignments;
#[path = "render/clusters.rs"]
mod clusters;
#[path = "render/listeners.rs"]
mod listeners;
#[path = "render/routes.rs"]
mod routes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use fairlead::ir::{Cluster, Listener, LoadAssignment, Reached, RouteTable};
use fairlead::text::Str;
use fairlead::xds::encode::{Cache, Part};
use fairlead::xds::json;
use fairlead::xds::route::{self, TABLE_EPOCH, VIRTUAL_HOST_EPOCH};
use fairlead::xds::{Encoded, Render};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use self::harness::isolation;
use self::harness::validate::{Dangling, Wrapped, validate};

/// What it is, in words that name it in a failure, and the input.
pub type Case<T> = (&'static str, T);

fn rendered<R: Render>(cases: &[Case<R>]) -> Vec<(&'static str, Arc<Encoded>)> {
    let mut cache = Cache::default();
    cases
        .iter()
        .map(|(label, input)| (*label, cache.get(input)))
        .collect()
}

/// Each virtual host in a table of its own, and one table with all of them.
fn tables() -> Vec<(&'static str, Arc<Encoded>)> {
    let mut cache = Cache::default();
    let parts: Vec<_> = routes::virtual_hosts()
        .iter()
        .map(|(label, host)| (*label, route::part(&mut cache, host)))
        .collect();
    let mut table = |name: &'static str, parts: &[Arc<Part>]| {
        let head = RouteTable {
            name: Str::new(name),
            reached: Reached::ByListener,
        };
        (name, route::table(&mut cache, &head, parts))
    };
    let mut tables: Vec<_> = parts
        .iter()
        .map(|(label, part)| table(label, std::slice::from_ref(part)))
        .collect();
    let all: Vec<_> = parts.into_iter().map(|(_, part)| part).collect();
    tables.push(table("80", &all));
    tables.push(table("empty", &[]));
    tables
}

fn shown(encoded: &Encoded) -> Value {
    json::resource(encoded).unwrap_or_else(|e| panic!("{}: {e}", encoded.name))
}

#[test]
fn envoy_takes_every_output() {
    let tables = tables();
    let names: Vec<Str> = tables.iter().map(|(_, table)| table.name.clone()).collect();
    let mut all = tables;
    all.extend(rendered(&clusters::clusters()));
    all.extend(rendered(&assignments::assignments()));
    all.extend(rendered(&listeners::listeners()));
    let of_tables: Vec<_> = listeners::of_tables(&names)
        .into_iter()
        .map(|l| ("", l))
        .collect();
    all.extend(rendered(&of_tables));

    let mut dump: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for (_, encoded) in &all {
        let entry = json!({"name": encoded.name, "resource": shown(encoded)});
        dump.entry(encoded.kind.type_url()).or_default().push(entry);
    }
    let dump = json!(dump);
    let wrapped = Wrapped {
        dump: &dump,
        dangling: Dangling::Allowed,
    };
    let envoy = isolation::envoy().unwrap();
    if let Err(refusal) = validate(&envoy, &wrapped) {
        panic!("{refusal:#}");
    }
}

#[test]
fn a_refusal_of_envoy_is_seen() {
    let cluster = |timeout: &str| {
        let resource = json!({"name": "c", "type": "STATIC", "connectTimeout": timeout});
        json!({"x.Cluster": [{"name": "c", "resource": resource}]})
    };
    let envoy = isolation::envoy().unwrap();
    let verdict = |dump: &Value| {
        let dangling = Dangling::Refused;
        validate(&envoy, &Wrapped { dump, dangling })
    };
    verdict(&cluster("1s")).unwrap();
    let refusal = verdict(&cluster("-1s")).unwrap_err();
    assert!(
        format!("{refusal:#}").contains("Expected positive duration"),
        "{refusal:#}"
    );
}

#[test]
fn different_inputs_have_different_versions() {
    let mut seen = BTreeMap::new();
    let all = [
        rendered(&clusters::clusters()),
        rendered(&assignments::assignments()),
        rendered(&listeners::listeners()),
        tables(),
    ];
    for (label, encoded) in all.concat() {
        if let Some(other) = seen.insert(encoded.version.clone(), label) {
            panic!(
                "`{label}` and `{other}` have the version {}",
                encoded.version
            );
        }
    }
}

/// By renderer and case: epoch and digest of the canonical JSON.
type Digests = BTreeMap<(String, String), (u32, String)>;

fn digests() -> Digests {
    let mut all = Digests::new();
    let mut add = |renderer: &str, label: &str, epoch: u32, output: &Value| {
        let digest = format!("{:016x}", xxh3_64(output.to_string().as_bytes()));
        all.insert((renderer.to_owned(), label.to_owned()), (epoch, digest));
    };
    for (label, encoded) in rendered(&clusters::clusters()) {
        add("cluster", label, Cluster::EPOCH, &shown(&encoded));
    }
    for (label, encoded) in rendered(&assignments::assignments()) {
        add("endpoint", label, LoadAssignment::EPOCH, &shown(&encoded));
    }
    for (label, encoded) in rendered(&listeners::listeners()) {
        add("listener", label, Listener::EPOCH, &shown(&encoded));
    }
    for (label, encoded) in tables() {
        let mut table = shown(&encoded);
        match table["virtualHosts"].take() {
            Value::Array(hosts) if hosts.len() == 1 => {
                add("virtual host", label, VIRTUAL_HOST_EPOCH, &hosts[0]);
            }
            _ => add("route table", label, TABLE_EPOCH, &table),
        }
    }
    all
}

#[test]
fn output_moves_only_with_its_renderers_epoch() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/render/digests.txt");
    let known = std::fs::read_to_string(&file).unwrap_or_default();
    let (known, now) = (parse(&known), digests());
    let moved: BTreeSet<&str> = now
        .iter()
        .filter(|(case, (epoch, digest))| {
            known
                .get(case)
                .is_some_and(|(e, d)| e == epoch && d != digest)
        })
        .map(|((renderer, _), _)| renderer.as_str())
        .collect();
    assert!(
        moved.is_empty(),
        "raise EPOCH of: {moved:?}; its output moved for an equal input"
    );
    #[expect(
        clippy::disallowed_methods,
        reason = "how a person asks for the file anew"
    )]
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, text(&now)).expect("write the digests");
        return;
    }
    assert_eq!(
        now, known,
        "cases came, went or have a new epoch: UPDATE=1 cargo test --test render"
    );
}

fn text(digests: &Digests) -> String {
    let line = |((renderer, label), (epoch, digest)): (&(String, String), &(u32, String))| {
        format!("{renderer}\t{epoch}\t{label}\t{digest}\n")
    };
    digests.iter().map(line).collect()
}

fn parse(text: &str) -> Digests {
    let line = |line: &str| {
        let parts: Vec<&str> = line.split('\t').collect();
        let [renderer, epoch, label, digest] = parts[..] else {
            panic!("no line of digests: {line}");
        };
        let epoch = epoch.parse().expect("an epoch is a number");
        (
            (renderer.to_owned(), label.to_owned()),
            (epoch, digest.to_owned()),
        )
    };
    text.lines().map(line).collect()
}
