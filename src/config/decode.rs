//! Text in, objects and diagnostics out: one document, one outcome, whatever the others are.
//!
//! `yaml` and `json` parse, `reader` types, `known` and `check` judge. Which version of an object is in force
//! is decided in `acceptance`.

mod guess;
pub mod json;
pub mod kinds;
mod known;
mod kubernetes;
pub mod lines;
mod manifest;
mod mesh;
mod pod;
pub mod reader;
pub mod repeats;
mod secret;
mod sheet;
pub mod yaml;

use std::sync::Arc;

use self::lines::Lines;
use self::repeats::Repeats;
use self::yaml::{Document, Node, YamlFault};
use super::meta::Labels;
use super::{Key, Kind, Object};
use crate::diagnostic::{Code, Diagnostic, Level, Subject};
use crate::text::Str;

pub use self::mesh::{MESH_NAME, MESH_NAMESPACE, decode_mesh};

/// What the documents of one file are, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    pub file: Str,
    pub rank: Rank,
    pub items: Vec<Item>,
}

/// Whose version counts when two files hold an object: first this order, then that of names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Named by a flag, as `--mesh-config` is.
    Named,
    #[default]
    Folder,
    /// A file that is not there, perhaps for a moment only.
    Leaving,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// An object without a fault inside itself.
    Object(DecodedObject),
    /// A document with a fault; `key` is absent when it does not say which object it is.
    Rejected(Rejected),
    /// A document that has no effect, and why the user should know.
    Notice(Diagnostic),
    /// What makes pods where Kubernetes runs.
    Template(PodTemplate),
}

#[derive(Clone, Debug, PartialEq)]
pub struct DecodedObject {
    pub object: Arc<Object>,
    pub place: Place,
    pub warnings: Vec<Diagnostic>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Rejected {
    pub key: Option<Key>,
    /// `metadata.generation` of the form that has the fault; 0 where it says none.
    pub generation: i64,
    /// At least one of level Error.
    pub diagnostics: Vec<Diagnostic>,
}

/// What one object came to.
pub type Outcome = Result<DecodedObject, Rejected>;

impl From<Outcome> for Item {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Ok(object) => Self::Object(object),
            Err(rejected) => Self::Rejected(rejected),
        }
    }
}

/// Where an object was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// Empty for an object of the API server.
    pub file: Str,
    pub lines: Arc<Lines>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PodTemplate {
    pub subject: Subject,
    pub labels: Labels,
    pub file: Str,
    pub line: u32,
}

/// Bounds of one file; a checkout stays far below them.
pub const MAX_FILE: usize = 16 << 20;
const MAX_DOCUMENTS: usize = 20_000;

/// Decodes all documents of a file of Kubernetes-style YAML or JSON.
pub fn documents(text: &str, file: &str) -> Decoded {
    documents_within(text, file, &mut Repeats::default())
}

/// The same for a file that is read together with others.
pub fn documents_within(text: &str, file: &str, repeats: &mut Repeats) -> Decoded {
    let file = Str::new(file);
    let mut items = Vec::new();
    match bounded(text) {
        Err(message) => items.push(Item::Rejected(unreadable(&file, 1, message))),
        Ok(documents) => {
            let mut allowance = repeats.file();
            for document in documents {
                match yaml::parse_within(document, &mut allowance) {
                    Ok(root) => items.extend(manifest::items(&root, &file)),
                    Err(fault) => items.push(broken(&file, document, fault)),
                }
            }
            repeats.close(&allowance);
        }
    }
    Decoded {
        file,
        rank: Rank::Folder,
        items,
    }
}

/// The file of what comes from the API server.
const NOWHERE: Str = Str::new_static("");

/// Decodes one object of the API server, which is asked for objects of one kind. It is judged as a
/// document of a file is; its findings have no file and no line.
pub fn live(kind: Kind, root: &Node) -> Outcome {
    match kind {
        Kind::MeshConfig => mesh::config_map_mesh(root, &NOWHERE),
        Kind::Namespace
        | Kind::Node
        | Kind::Service
        | Kind::EndpointSlice
        | Kind::Pod
        | Kind::WorkloadEntry
        | Kind::WorkloadGroup
        | Kind::ServiceEntry
        | Kind::VirtualService
        | Kind::DestinationRule
        | Kind::PeerAuthentication
        | Kind::Sidecar
        | Kind::Gateway
        | Kind::ProxyConfig
        | Kind::TrafficExtension
        | Kind::Ingress
        | Kind::IngressClass
        | Kind::EnvoyFilter
        | Kind::Secret => manifest::live(kind, root),
    }
}

/// A document that is no YAML. What it was meant to be is only said: it may be any of the file's objects.
fn broken(file: &Str, document: Document<'_>, fault: YamlFault) -> Item {
    let mut rejected = unreadable(file, fault.line, fault.message);
    let meant = guess::subject(document.text);
    rejected
        .diagnostics
        .iter_mut()
        .for_each(|d| d.resource.clone_from(&meant));
    Item::Rejected(rejected)
}

/// A file that cannot be had as text; what came from it before stays.
pub fn unreadable_file(file: &str, message: String) -> Decoded {
    let file = Str::new(file);
    let items = vec![Item::Rejected(unreadable(&file, 1, message))];
    Decoded {
        file,
        rank: Rank::Folder,
        items,
    }
}

fn bounded(text: &str) -> Result<Vec<Document<'_>>, String> {
    if text.len() > MAX_FILE {
        return Err(format!(
            "the file is larger than the {MAX_FILE} bytes that are read of one; split it"
        ));
    }
    let documents = yaml::documents(text);
    if documents.len() > MAX_DOCUMENTS {
        let found = documents.len();
        return Err(format!(
            "the file has {found} documents; at most {MAX_DOCUMENTS} are read"
        ));
    }
    Ok(documents)
}

fn unreadable(file: &Str, line: u32, message: String) -> Rejected {
    let (file, line) = spot(file, line);
    let diagnostic = Diagnostic {
        level: Level::Error,
        code: Code::Malformed,
        resource: None,
        field: Str::default(),
        file,
        line,
        message,
    };
    Rejected {
        key: None,
        generation: 0,
        diagnostics: vec![diagnostic],
    }
}

/// A place as findings name it.
fn spot(file: &Str, line: u32) -> (Option<Str>, Option<u32>) {
    (*file != NOWHERE).then(|| (file.clone(), line)).unzip()
}

#[cfg(test)]
mod tests;
