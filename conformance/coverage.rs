//! Which fields of Istio's kinds are in effect, told by the program itself: each field is given to it, with each of
//! its named values, and what it answers is written down in `COVERAGE.md`.
//!
//! `UPDATE=1 cargo test --test coverage` writes the table. A field that is not in effect needs a reason below.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use fairlead::config::api::definition::definitions;
use fairlead::config::decode::{self, Item};
use fairlead::diagnostic::{Code, Diagnostic};
use serde_json::{Value, json};

const TABLE: &str = "conformance/COVERAGE.md";

/// Istio has the field, and does nothing with it.
const NOWHERE: &str = "no effect in Istio either";

/// Why what begins so is not in effect. The longest beginning counts.
const REASONS: &[(&str, &str)] = &[
    ("AuthorizationPolicy", "the kind comes with policies"),
    ("RequestAuthentication", "the kind comes with policies"),
    ("Telemetry", "the kind comes with telemetry"),
    ("WasmPlugin", "the kind comes with extensions"),
    (
        "TrafficExtension spec.targetRefs",
        "what it is attached to comes with Gateway API",
    ),
    (
        "TrafficExtension spec.wasm",
        "modules come with extensions of Wasm; Lua is in effect",
    ),
    (
        "EnvoyFilter spec.configPatches[].match.listener.portName",
        NOWHERE,
    ),
    (
        "EnvoyFilter spec.configPatches[].applyTo",
        "a bootstrap is made in the pod, before it knows the control plane",
    ),
    ("EnvoyFilter", "there are no waypoints"),
    (
        "WorkloadGroup spec.probe",
        "nobody beside a stock Envoy probes the workload of a machine and tells the control plane",
    ),
    ("WorkloadGroup", "not yet"),
    ("DestinationRule", "not yet"),
    ("Gateway", "not yet"),
    ("PeerAuthentication", "not yet"),
    ("ServiceEntry", "not yet"),
    ("Sidecar", "not yet"),
    ("VirtualService spec.http[].fault.abort.http2Error", NOWHERE),
    (
        "VirtualService spec.http[].fault.delay.exponentialDelay",
        NOWHERE,
    ),
    ("VirtualService spec.tcp[].match[].sourceSubnet", NOWHERE),
    ("Gateway spec.servers[].defaultEndpoint", NOWHERE),
    ("Gateway spec.servers[].port.targetPort", NOWHERE),
    ("Sidecar spec.egress[].port.targetPort", NOWHERE),
    ("Sidecar spec.ingress[].port.targetPort", NOWHERE),
    (
        "DestinationRule spec.trafficPolicy.outlierDetection.consecutiveErrors",
        NOWHERE,
    ),
    (
        "DestinationRule spec.trafficPolicy.portLevelSettings[].outlierDetection.consecutiveErrors",
        NOWHERE,
    ),
    (
        "DestinationRule spec.subsets[].trafficPolicy.outlierDetection.consecutiveErrors",
        NOWHERE,
    ),
    (
        "DestinationRule spec.subsets[].trafficPolicy.portLevelSettings[].outlierDetection.consecutiveErrors",
        NOWHERE,
    ),
    ("VirtualService", "not yet"),
    ("WorkloadEntry", "not yet"),
];

/// How a field stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    InEffect,
    /// Some of its values are.
    InPart,
    NotYet,
}

/// A field, with the values to try.
struct Leaf {
    path: String,
    values: Vec<Value>,
}

fn leaves(schema: &Value, path: &str, out: &mut Vec<Leaf>) {
    let properties = schema["properties"].as_object();
    if let Some(properties) = properties.filter(|p| !p.is_empty()) {
        for (name, of) in properties {
            leaves(of, &format!("{path}.{name}"), out);
        }
        return;
    }
    if schema["items"].is_object() {
        leaves(&schema["items"], &format!("{path}[]"), out);
        return;
    }
    if schema["additionalProperties"].is_object() {
        leaves(&schema["additionalProperties"], &format!("{path}{{}}"), out);
        return;
    }
    out.push(Leaf {
        path: path.to_owned(),
        values: values(schema, path),
    });
}

fn values(schema: &Value, path: &str) -> Vec<Value> {
    if let Some(names) = schema["enum"].as_array() {
        return names.clone();
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return vec![json!(1)];
    }
    match schema["type"].as_str() {
        Some("boolean") => vec![json!(true)],
        Some("integer" | "number") => vec![json!(1)],
        Some("object") => vec![json!({})],
        _ => {
            let last = path
                .rsplit(['.', ']'])
                .next()
                .unwrap_or_default()
                .to_lowercase();
            let timely = [
                "timeout", "delay", "duration", "interval", "time", "ttl", "backoff", "maxage",
            ];
            let span = timely.iter().any(|word| last.ends_with(word));
            vec![json!(if span { "1s" } else { "x" })]
        }
    }
}

/// The object in which this field alone is set.
fn tree(path: &str, value: Value) -> Value {
    let Some((first, rest)) = split(path) else {
        return value;
    };
    match first {
        "[]" => json!([tree(rest, value)]),
        "{}" => json!({"k": tree(rest, value)}),
        name => json!({name: tree(rest, value)}),
    }
}

fn split(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix('.').unwrap_or(path);
    if path.is_empty() {
        return None;
    }
    if path.starts_with("[]") || path.starts_with("{}") {
        return Some(path.split_at(2));
    }
    let end = path.find(['.', '[', '{']).unwrap_or(path.len());
    Some(path.split_at(end))
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn told(definition: &Value, spec: &Value) -> Vec<Diagnostic> {
    let (group, names) = (&definition["spec"]["group"], &definition["spec"]["names"]);
    let version = &definition["spec"]["versions"][0]["name"];
    let object = json!({
        "apiVersion": format!("{}/{}", word(group), word(version)),
        "kind": names["kind"],
        "metadata": {"name": "x", "namespace": "y"},
        "spec": spec,
    });
    let decoded = decode::documents(&object.to_string(), "x.yaml");
    let found = decoded.items.into_iter().flat_map(|item| match item {
        Item::Object(object) => object.warnings,
        Item::Rejected(rejected) => rejected.diagnostics,
        Item::Notice(diagnostic) => vec![diagnostic],
        Item::Template(_) => Vec::new(),
    });
    found.collect()
}

fn standing(definition: &Value, leaf: &Leaf) -> Standing {
    let plain = |field: &str| {
        let mut out = String::new();
        let mut inside = false;
        for c in field.chars() {
            inside = (inside || c == '[') && c != ']';
            if !inside && c != ']' {
                out.push(c);
            }
        }
        out
    };
    let own = leaf.path.replace("[]", "").replace("{}", "");
    let idle = |value: &Value| {
        let spec = tree(leaf.path.trim_start_matches("spec"), value.clone());
        told(definition, &spec).iter().any(|d| {
            let field = plain(&d.field);
            d.code == Code::NotYetInEffect && own.starts_with(&field)
        })
    };
    let idle = leaf.values.iter().filter(|value| idle(value)).count();
    match idle {
        0 => Standing::InEffect,
        all if all == leaf.values.len() => Standing::NotYet,
        _ => Standing::InPart,
    }
}

fn reason(kind: &str, path: &str) -> Option<&'static str> {
    let own = format!("{kind} {path}");
    let fitting = REASONS.iter().filter(|(begins, _)| own.starts_with(begins));
    fitting
        .max_by_key(|(begins, _)| begins.len())
        .map(|(_, why)| *why)
}

/// A policy's fields stand at four levels of a rule, and are in effect at all of them or at none.
fn at_any_level(path: &str) -> String {
    let path = path
        .trim_start_matches("spec.")
        .trim_start_matches("subsets[].");
    path.replace("portLevelSettings[].", "")
}

#[derive(Default)]
struct Kind {
    fields: usize,
    left: Vec<(String, Standing, &'static str)>,
}

fn table() -> String {
    let mut kinds: BTreeMap<String, Kind> = BTreeMap::new();
    for definition in &definitions() {
        let name = word(&definition["spec"]["names"]["kind"]).to_owned();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut all = Vec::new();
        leaves(&schema["properties"]["spec"], "spec", &mut all);
        let kind = kinds.entry(name.clone()).or_default();
        kind.fields = all.len();
        for leaf in all {
            let standing = standing(definition, &leaf);
            if standing != Standing::InEffect {
                let why = reason(&name, &leaf.path);
                let why = why.unwrap_or_else(|| panic!("{name} {}: no reason", leaf.path));
                kind.left.push((leaf.path, standing, why));
            }
        }
    }
    written(&kinds)
}

fn written(kinds: &BTreeMap<String, Kind>) -> String {
    let mut out = "# Fields of Istio's kinds\n\nMade by `UPDATE=1 cargo test --test coverage`: every field is given to the program, with each of its named values,\nand what it says of it stands here. A field that is not in effect is told of in a warning, never dropped in silence.\n\n| kind | fields | in effect | in part | not yet |\n|---|---|---|---|---|\n".to_owned();
    for (name, kind) in kinds {
        let count = |wanted| kind.left.iter().filter(|(_, s, _)| *s == wanted).count();
        let (part, none) = (count(Standing::InPart), count(Standing::NotYet));
        let full = kind.fields - part - none;
        let _ = writeln!(
            out,
            "| {name} | {} | {full} | {part} | {none} |",
            kind.fields
        );
    }
    for (name, kind) in kinds {
        if kind.left.is_empty() {
            continue;
        }
        let _ = write!(out, "\n## {name}\n\n");
        let mut whys: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (path, standing, why) in &kind.left {
            let part = if *standing == Standing::InPart {
                " (in part)"
            } else {
                ""
            };
            let path = format!("`{}`{part}", at_any_level(path));
            let paths = whys.entry(why).or_default();
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        for (why, paths) in whys {
            if kind.left.len() == kind.fields {
                let _ = writeln!(out, "- All of it: {why}.");
            } else {
                let _ = writeln!(out, "- {}: {why}.", paths.join(", "));
            }
        }
    }
    out
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "an entry point reads the environment"
)]
fn every_field_is_in_effect_or_has_a_reason() {
    let made = table();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(TABLE);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == made,
        "{TABLE} is not what the program does: UPDATE=1 cargo test --test coverage"
    );
}
