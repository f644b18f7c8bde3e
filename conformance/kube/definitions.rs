//! CustomResourceDefinitions of Istio's kinds that take any object: what is faulty is for Fairlead to say.

use serde_json::{Value, json};

const NETWORKING: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const SECURITY: &[&str] = &["v1", "v1beta1"];

/// Kind, plural, group, and the versions in which Istio serves it.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
);

const ROWS: &[Row] = &[
    (
        "VirtualService",
        "virtualservices",
        "networking.istio.io",
        NETWORKING,
    ),
    (
        "DestinationRule",
        "destinationrules",
        "networking.istio.io",
        NETWORKING,
    ),
    ("Sidecar", "sidecars", "networking.istio.io", NETWORKING),
    (
        "WorkloadEntry",
        "workloadentries",
        "networking.istio.io",
        NETWORKING,
    ),
    (
        "PeerAuthentication",
        "peerauthentications",
        "security.istio.io",
        SECURITY,
    ),
];

/// All of them, in all versions.
pub fn all() -> Vec<Value> {
    let whole = |(kind, plural, group, versions): &Row| definition(kind, plural, group, versions);
    ROWS.iter().map(whole).collect()
}

/// One kind's, in one version alone.
pub fn only(kind: &str, version: &str) -> Value {
    let row = ROWS.iter().find(|(name, ..)| *name == kind);
    let (kind, plural, group, _) = row.unwrap_or_else(|| panic!("no row for {kind}"));
    definition(kind, plural, group, &[version])
}

fn definition(kind: &str, plural: &str, group: &str, versions: &[&str]) -> Value {
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let version = |(i, name): (usize, &&str)| {
        let schema = json!({"openAPIV3Schema": any});
        json!({"name": name, "served": true, "storage": i == 0, "schema": schema})
    };
    let versions: Vec<Value> = versions.iter().enumerate().map(version).collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "plural": plural,
                "singular": kind.to_lowercase(),
                "listKind": format!("{kind}List"),
            },
            "versions": versions,
        },
    })
}

/// In paths of the API.
pub fn plural(kind: &str) -> String {
    let row = ROWS.iter().find(|(name, ..)| *name == kind);
    row.map_or_else(
        || format!("{}s", kind.to_lowercase()),
        |(_, plural, ..)| (*plural).to_owned(),
    )
}
