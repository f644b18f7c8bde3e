//! CustomResourceDefinitions, made of the types.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{AGE, ApiKind, Column, KINDS};
use crate::config::Kind;

/// Fields by an older name, which stay beside the one of today: kind, path of what has it, name, schema.
const OLDER_NAMES: &[(&str, &[&str], &str, &str)] = &[
    ("VirtualService", &["http"], "mirror_percent", "integer"),
    ("RequestAuthentication", &["jwtRules"], "jwks_uri", "string"),
];

/// One definition a kind, in the order of [`KINDS`].
pub fn definitions() -> Vec<Value> {
    KINDS.iter().map(definition).collect()
}

fn definition(kind: &ApiKind) -> Value {
    let ApiKind {
        group,
        plural,
        kind: name,
        ..
    } = kind;
    let mut names = json!({
        "kind": name,
        "listKind": format!("{name}List"),
        "plural": plural,
        "singular": name.to_lowercase(),
        "categories": ["istio-io"],
    });
    if let Some(short) = kind.short {
        names["shortNames"] = json!([short]);
    }
    let schema = json!({"openAPIV3Schema": {
        "type": "object",
        "properties": {"spec": spec(kind), "status": status()},
    }});
    let mut columns: Vec<Value> = kind.columns.iter().map(column).collect();
    if Kind::ALL.iter().any(|read| read.name() == kind.kind) {
        if columns.is_empty() {
            columns.push(column(&AGE));
        }
        columns.push(column(&RECONCILED));
    }
    let version = |(i, version): (usize, &&str)| {
        let mut version = json!({
            "name": version,
            "served": true,
            "storage": i == 0,
            "subresources": {"status": {}},
            "schema": schema,
        });
        if !columns.is_empty() {
            version["additionalPrinterColumns"] = json!(columns);
        }
        version
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{group}"),
            // What is removed with its definition are all objects of the kind.
            "annotations": {"helm.sh/resource-policy": "keep"},
            "labels": {"app": "istio-pilot", "istio": "istio"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": names,
            "versions": kind.versions.iter().enumerate().map(version).collect::<Vec<_>>(),
        },
    })
}

/// How far the present form got, where its status says so.
const RECONCILED: Column = (
    "Reconciled",
    ".status.conditions[?(@.type==\"Reconciled\")].reason",
    "string",
);

fn column((name, path, kind): &(&str, &str, &str)) -> Value {
    json!({"name": name, "jsonPath": path, "type": kind})
}

fn spec(kind: &ApiKind) -> Value {
    let settings = SchemaSettings::openapi3().with(|s| {
        s.inline_subschemas = true;
        s.meta_schema = None;
    });
    let mut generator = SchemaGenerator::new(settings);
    let schema = (kind.schema)(&mut generator);
    let mut schema = structural(schema.to_value());
    for (of, path, name, kind_of) in OLDER_NAMES {
        if *of == kind.kind {
            let at = path.iter().fold(
                &mut schema,
                |at, step| &mut at["properties"][*step]["items"],
            );
            at["properties"][*name] = json!({"type": kind_of});
        }
    }
    schema
}

/// What the API server takes: no null (it prunes one, and so it is absent), no words of JSON schema's own.
fn structural(schema: Value) -> Value {
    let Value::Object(fields) = schema else {
        return schema;
    };
    let mut done = Map::new();
    for (key, value) in fields {
        let value = match (key.as_str(), value) {
            ("nullable" | "title" | "$schema" | "description" | "default", _) => continue,
            // Kubernetes knows no unsigned formats; `minimum` says it.
            ("format", Value::String(format)) if format.starts_with('u') => continue,
            ("type", Value::Array(types)) => types
                .into_iter()
                .find(|t| t != "null")
                .unwrap_or(Value::Null),
            ("enum", Value::Array(names)) => names.into_iter().filter(|n| !n.is_null()).collect(),
            ("properties", Value::Object(properties)) => {
                let each = properties
                    .into_iter()
                    .map(|(name, of)| (name, structural(of)));
                Value::Object(each.collect())
            }
            ("items" | "additionalProperties", value) => structural(value),
            ("anyOf", Value::Array(of)) => {
                // An absent value, or one of this type.
                let one = of
                    .into_iter()
                    .find(|s| s["type"] != "null" && s.get("enum") != Some(&json!([null])));
                return structural(one.unwrap_or_default());
            }
            (_, value) => value,
        };
        done.insert(key, value);
    }
    Value::Object(done)
}

/// `IstioStatus`: conditions and which generation they are of.
fn status() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
        "conditions": {"type": "array", "items": {"type": "object", "properties": {
            "type": {"type": "string"},
            "status": {"type": "string"},
            "reason": {"type": "string"},
            "message": {"type": "string"},
            "lastProbeTime": {"type": "string", "format": "date-time"},
            "lastTransitionTime": {"type": "string", "format": "date-time"},
            "observedGeneration": {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": true},
        }}},
        "observedGeneration": {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": true},
        "validationMessages": {"type": "array", "items": {"type": "object", "properties": {
            "documentationUrl": {"type": "string"},
            "level": {"type": "string", "enum": ["UNKNOWN", "ERROR", "WARNING", "INFO"]},
            "type": {"type": "object", "properties": {
                "code": {"type": "string"},
                "name": {"type": "string"},
            }},
        }}},
    }})
}
