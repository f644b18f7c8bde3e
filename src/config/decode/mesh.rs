//! MeshConfig's three homes: a file of its own, a ConfigMap, a ConfigMap given as that file.

use super::lines;
use super::repeats::Allowance;
use super::sheet::Sheet;
use super::yaml::{self, Document, Node, Twice, Value};
use super::{Decoded, Outcome, Rank, Rejected, bounded, unreadable};
use crate::config::meta::Meta;
use crate::config::{Key, Kind};
use crate::text::Str;

/// The ConfigMap that holds MeshConfig, and MeshConfig's own key.
pub const MESH_NAME: Str = Str::new_static("istio");
pub const MESH_NAMESPACE: Str = Str::new_static("istio-system");

/// Decodes a file that is MeshConfig itself, or the ConfigMap that holds it.
pub fn decode_mesh(text: &str, file: &str) -> Decoded {
    let file = Str::new(file);
    let item = bounded(text).and_then(|documents| match documents[..] {
        [] => Ok(mesh(
            &Node {
                line: 1,
                value: Value::Null,
            },
            &file,
        )),
        [document] => Ok(match yaml::parse(document) {
            Ok(root) if root.get("kind").and_then(Node::text) == Some("ConfigMap") => {
                config_map_mesh(&root, &file)
            }
            Ok(root) => mesh(&root, &file),
            Err(fault) => broken_mesh(&file, fault.line, fault.message),
        }),
        _ => Err("a mesh configuration is one document, this file has more".to_owned()),
    });
    let item = item.unwrap_or_else(|message| broken_mesh(&file, 1, message));
    Decoded {
        file,
        rank: Rank::Named,
        items: vec![item.into()],
    }
}

/// Whether a ConfigMap is the one that holds MeshConfig.
pub(super) fn is_mesh(root: &Node) -> bool {
    let meta = root.get("metadata");
    let text = |key| meta.and_then(|m| m.get(key)).and_then(Node::text);
    text("name") == Some(&MESH_NAME) && text("namespace") == Some(&MESH_NAMESPACE)
}

fn mesh_key() -> Key {
    Key {
        kind: Kind::MeshConfig,
        namespace: MESH_NAMESPACE,
        name: MESH_NAME,
    }
}

/// `root` is MeshConfig itself.
fn mesh(root: &Node, file: &Str) -> Outcome {
    if let Some(twice) = yaml::twice(root) {
        return ambiguous_mesh(file, &twice);
    }
    let key = mesh_key();
    let meta = Meta {
        name: MESH_NAME,
        namespace: MESH_NAMESPACE,
        ..Meta::default()
    };
    match nearest_mode(root) {
        None => Sheet { file, root, key }.fill(meta, Vec::new()),
        Some(root) => {
            let root = &root;
            Sheet { file, root, key }.fill(meta, vec!["outboundTrafficPolicy.mode".to_owned()])
        }
    }
}

/// The tree with ALLOW_ANY for Istio's ALLOW_ANY_DYNAMIC_DNS, which is not in effect yet.
fn nearest_mode(root: &Node) -> Option<Node> {
    let mode = |policy: &Node| policy.get("mode").and_then(Node::text).map(str::to_owned);
    let policy = root.get("outboundTrafficPolicy")?;
    if mode(policy).as_deref() != Some("ALLOW_ANY_DYNAMIC_DNS") {
        return None;
    }
    let mut root = root.clone();
    lines::set_text(&mut root, "outboundTrafficPolicy.mode", "ALLOW_ANY");
    Some(root)
}

fn ambiguous_mesh(file: &Str, twice: &Twice) -> Outcome {
    broken_mesh(file, twice.line, twice.to_string()).map_err(|mut rejected| {
        let found = rejected.diagnostics.iter_mut();
        found.for_each(|d| d.field = Str::new(&twice.path));
        rejected
    })
}

fn broken_mesh(file: &Str, line: u32, message: String) -> Outcome {
    let mut diagnostics = unreadable(file, line, message).diagnostics;
    diagnostics
        .iter_mut()
        .for_each(|d| d.resource = Some(mesh_key().subject()));
    Err(Rejected {
        key: Some(mesh_key()),
        generation: 0,
        diagnostics,
    })
}

/// `data.mesh` is YAML inside YAML; its first line is the one below its key.
pub(super) fn config_map_mesh(root: &Node, file: &Str) -> Outcome {
    if let Some(twice) = yaml::twice(root) {
        return ambiguous_mesh(file, &twice);
    }
    let Some(data) = root.get("data").and_then(|d| d.get("mesh")) else {
        return broken_mesh(
            file,
            root.line,
            "the ConfigMap has no key `mesh`".to_owned(),
        );
    };
    let Some(text) = data.text() else {
        return broken_mesh(
            file,
            data.line,
            format!("`data.mesh` is no text, but {}", data.value),
        );
    };
    let lines_before = if text.contains('\n') {
        data.line
    } else {
        data.line.saturating_sub(1)
    };
    if text.trim().is_empty() {
        return mesh(
            &Node {
                line: data.line,
                value: Value::Null,
            },
            file,
        );
    }
    let document = Document { text, lines_before };
    match yaml::parse_within(document, &mut Allowance::least()) {
        Ok(inner) => mesh(&inner, file),
        Err(fault) => broken_mesh(file, fault.line, fault.message),
    }
}
