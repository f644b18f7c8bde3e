//! The CustomResourceDefinitions that the chart brings are those of our types; and they have Istio's fields, each of them.
//!
//! `UPDATE=1` writes the chart's file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fairlead::config::api::definition::definitions;
use serde_json::Value;

const CHARTS: &str = "deploy/charts/fairlead/files/crds.yaml";

#[expect(
    clippy::disallowed_methods,
    reason = "an entry point reads the environment"
)]
fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}

#[test]
fn the_charts_definitions_are_those_of_the_types() {
    let made: Vec<String> = definitions()
        .iter()
        .map(|d| serde_saphyr::to_string(d).unwrap())
        .collect();
    let text = format!(
        "# Made of the types in src/config/api: UPDATE=1 cargo test --test crds\n---\n{}",
        made.join("---\n")
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(CHARTS);
    if variable("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == text,
        "{CHARTS} is not what the types give: UPDATE=1 cargo test --test crds"
    );
}

/// A field's shape, as far as it decides which objects are taken: words for people and bounds are not compared.
fn shapes(schema: &Value, path: &str, found: &mut BTreeMap<String, String>) {
    if schema["x-kubernetes-int-or-string"] == true {
        found.insert(path.to_owned(), "int or string".to_owned());
        return;
    }
    let kind = schema["type"].as_str().unwrap_or("?");
    let names = schema["enum"].as_array().map(|names| {
        let mut names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
        names.sort_unstable();
        names.join(" ")
    });
    let open = if schema["x-kubernetes-preserve-unknown-fields"] == true {
        " open"
    } else {
        ""
    };
    found.insert(
        path.to_owned(),
        format!("{kind}{open} {}", names.unwrap_or_default()),
    );
    for (name, of) in schema["properties"].as_object().into_iter().flatten() {
        shapes(of, &format!("{path}.{name}"), found);
    }
    for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[key].is_object() {
            shapes(&schema[key], &format!("{path}{mark}"), found);
        }
    }
}

type Definition = (String, BTreeMap<String, String>);

fn described(definition: &Value) -> Definition {
    let spec = &definition["spec"];
    let mut found = BTreeMap::new();
    for version in spec["versions"].as_array().into_iter().flatten() {
        let name = version["name"].as_str().unwrap_or_default();
        let stored = format!("served {} stored {}", version["served"], version["storage"]);
        found.insert(name.to_owned(), stored);
        let columns = version["additionalPrinterColumns"]
            .as_array()
            .into_iter()
            .flatten();
        // Where none is named, the API server shows the age.
        found.insert(
            format!("{name} column \"Age\""),
            "\".metadata.creationTimestamp\"".to_owned(),
        );
        for column in columns {
            // Ours alone.
            if column["name"] == "Reconciled" {
                continue;
            }
            found.insert(
                format!("{name} column {}", column["name"]),
                column["jsonPath"].to_string(),
            );
        }
        shapes(
            &version["schema"]["openAPIV3Schema"]["properties"]["spec"],
            name,
            &mut found,
        );
    }
    found.insert(
        "short names".to_owned(),
        spec["names"]["shortNames"].to_string(),
    );
    found.insert("scope".to_owned(), spec["scope"].to_string());
    (
        definition["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        found,
    )
}

/// Against the definitions of Istio's own that FAIRLEAD_CORPUS holds.
#[test]
fn every_field_of_istios_definitions_is_ours_in_the_same_shape() {
    let Some(corpus) = variable("FAIRLEAD_CORPUS").map(PathBuf::from) else {
        eprintln!("not compared: FAIRLEAD_CORPUS names no folder with crds/istio.yaml");
        return;
    };
    let text = std::fs::read_to_string(corpus.join("crds/istio.yaml")).unwrap();
    let theirs: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let theirs = theirs.iter().filter(|d| !d.is_null()).map(described);
    let ours: BTreeMap<String, BTreeMap<String, String>> =
        definitions().iter().map(described).collect();
    let mut differences = Vec::new();
    for (name, fields) in theirs {
        let Some(own) = ours.get(&name) else {
            differences.push(format!("{name}: absent"));
            continue;
        };
        for key in fields
            .keys()
            .chain(own.keys())
            .collect::<std::collections::BTreeSet<_>>()
        {
            let (their, our) = (fields.get(key), own.get(key));
            if their != our {
                differences.push(format!("{name} {key}: Istio {their:?}, ours {our:?}"));
            }
        }
    }
    assert!(
        differences.is_empty(),
        "{} differences\n{}",
        differences.len(),
        differences.join("\n")
    );
}
