//! One document of Kubernetes' shape: its kind, its names, its spec, its outcome.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;

use super::kinds::{self, Class};
use super::known::{self, Standing};
use super::lines::{self, Detail, Lines};
use super::mesh::{config_map_mesh, is_mesh};
use super::pod::{PodManifest, TemplateManifest};
use super::reader::{self, Fault, Reading};
use super::yaml::{Node, Value};
use super::{DecodedObject, Item, Place, PodTemplate, Rejected, unreadable};
use crate::config::meta::{Labels, Meta};
use crate::config::{Key, Kind, Object, Spec, check, core};
use crate::diagnostic::{Code, Diagnostic, Level, Subject};
use crate::text::Str;

const DEFAULT_NAMESPACE: Str = Str::new_static("default");

/// One document with its names, before its kind decides the rest.
struct Manifest<'n> {
    root: &'n Node,
    file: &'n Str,
    api_version: &'n str,
    kind: &'n str,
}

/// A document's outcome; a list's items each have their own.
pub(super) fn items(root: &Node, file: &Str) -> Vec<Item> {
    let text = |key| root.get(key).and_then(Node::text);
    let (Some(api_version), Some(kind)) = (text("apiVersion"), text("kind")) else {
        let missing = if text("kind").is_none() {
            "kind"
        } else {
            "apiVersion"
        };
        let message = match root.value {
            Value::Map(_) => format!("this is no Kubernetes object: `{missing}` is missing"),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::List(_) => format!("this is no Kubernetes object, but {}", root.value),
        };
        return vec![unreadable(file, root.line, message)];
    };
    if let (true, Some(list)) = (kind.ends_with("List"), root.get("items")) {
        return match &list.value {
            Value::List(nodes) => nodes.iter().flat_map(|n| items(n, file)).collect(),
            Value::Null => Vec::new(),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) | Value::Map(_) => {
                vec![unreadable(file, list.line, "`items` is no list".to_owned())]
            }
        };
    }
    Manifest {
        root,
        file,
        api_version,
        kind,
    }
    .read()
    .into_iter()
    .collect()
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ObjectMeta {
    name: Str,
    namespace: Option<Str>,
    labels: Labels,
    annotations: Labels,
    creation_timestamp: Option<Str>,
    generation: i64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    metadata: ObjectMeta,
}

impl Manifest<'_> {
    fn read(&self) -> Option<Item> {
        let (api, kind) = (self.api_version, self.kind);
        match kinds::classify(api, kind) {
            Class::Read(kind) => Some(self.object(kind)),
            Class::OtherVersion(kind) => {
                let served = kind.versions().join(", ");
                let message = format!("`{api}` is not served; {kind} is read in versions {served}");
                Some(self.reject(Some(kind), invalid("apiVersion", message)))
            }
            Class::ConfigMap => is_mesh(self.root).then(|| config_map_mesh(self.root, self.file)),
            Class::PodTemplate => self.template(),
            Class::NotYet => Some(self.notice(
                Code::NotYetInEffect,
                format!("{kind} of {api} is not in effect yet; this object changes nothing"),
            )),
            Class::Ignored => None,
            Class::Unknown => Some(self.notice(
                Code::UnknownKind,
                format!("{kind} of {api} is no kind that is read; this object changes nothing"),
            )),
        }
    }

    fn object(&self, kind: Kind) -> Item {
        let meta = match self.meta(kind) {
            Ok(meta) => meta,
            Err(fault) => return self.reject(Some(kind), fault),
        };
        let Reading { value, unknown } = spec(kind, self.root);
        let sheet = Sheet {
            file: self.file,
            root: self.root,
            key: Key {
                kind,
                namespace: meta.namespace.clone(),
                name: meta.name.clone(),
            },
        };
        let stray = if kind.is_strict() {
            self.stray()
        } else {
            Vec::new()
        };
        sheet.finish(meta, value, stray.into_iter().chain(unknown).collect())
    }

    /// Top-level fields that no object of Istio's has.
    fn stray(&self) -> Vec<String> {
        let Value::Map(entries) = &self.root.value else {
            return Vec::new();
        };
        let known = ["apiVersion", "kind", "metadata", "spec", "status"];
        entries
            .iter()
            .map(|(k, _)| k.to_string())
            .filter(|k| !known.contains(&k.as_str()))
            .collect()
    }

    fn meta(&self, kind: Kind) -> Result<Meta, Fault> {
        let meta = reader::read::<Named>(self.root, "").value?.metadata;
        let namespace = match kind {
            Kind::Namespace => Str::default(),
            Kind::Service
            | Kind::EndpointSlice
            | Kind::Pod
            | Kind::WorkloadEntry
            | Kind::VirtualService
            | Kind::DestinationRule
            | Kind::PeerAuthentication
            | Kind::Sidecar
            | Kind::MeshConfig => meta.namespace.unwrap_or(DEFAULT_NAMESPACE),
        };
        check::object_name(&meta.name).map_err(|message| invalid("metadata.name", message))?;
        if kind != Kind::Namespace {
            check::namespace(&namespace)
                .map_err(|message| invalid("metadata.namespace", message))?;
        }
        let created = match &meta.creation_timestamp {
            None => 0,
            Some(text) => text
                .parse::<jiff::Timestamp>()
                .map_err(|e| invalid("metadata.creationTimestamp", e.to_string()))?
                .as_second(),
        };
        Ok(Meta {
            name: meta.name,
            namespace,
            labels: meta.labels,
            annotations: meaningful(meta.annotations),
            creation_timestamp: created,
            generation: meta.generation,
        })
    }

    fn template(&self) -> Option<Item> {
        let subject = self.subject()?;
        // A template that cannot be read makes no endpoints here either way.
        let labels = reader::read::<TemplateManifest>(self.root, "")
            .value
            .ok()?
            .labels()?;
        let (file, line) = (self.file.clone(), self.root.line);
        Some(Item::Template(PodTemplate {
            subject,
            labels,
            file,
            line,
        }))
    }

    /// As far as the document names itself; a namespace may be absent.
    fn subject(&self) -> Option<Subject> {
        let meta = self.root.get("metadata")?;
        let name = meta.get("name")?.text()?;
        let namespace = meta.get("namespace").and_then(Node::text);
        Some(Subject {
            kind: Str::new(self.kind),
            namespace: namespace.map_or(DEFAULT_NAMESPACE, Str::new),
            name: Str::new(name),
        })
    }

    fn reject(&self, kind: Option<Kind>, fault: Fault) -> Item {
        let subject = self.subject();
        let key = kind.zip(subject.as_ref()).map(|(kind, s)| Key {
            kind,
            namespace: if kind == Kind::Namespace {
                Str::default()
            } else {
                s.namespace.clone()
            },
            name: s.name.clone(),
        });
        let diagnostic = diagnostic(fault, subject, self.file, self.root);
        Item::Rejected(Rejected {
            key,
            diagnostics: vec![diagnostic],
        })
    }

    fn notice(&self, code: Code, message: String) -> Item {
        Item::Notice(Diagnostic {
            level: Level::Warning,
            code,
            resource: self.subject(),
            field: Str::default(),
            file: Some(self.file.clone()),
            line: Some(self.root.line),
            message,
        })
    }
}

fn invalid(path: &str, message: String) -> Fault {
    Fault::error(Code::InvalidValue, path, message)
}

/// Annotations of Istio's; the others are often large and mean nothing here.
fn meaningful(annotations: Labels) -> Labels {
    let istio = |key: &Str| {
        key.split_once('/')
            .is_some_and(|(domain, _)| domain.ends_with("istio.io"))
    };
    annotations
        .into_iter()
        .filter(|(key, _)| istio(key))
        .collect()
}

pub(super) fn spec(kind: Kind, root: &Node) -> Reading<Spec> {
    match kind {
        Kind::Namespace => Reading {
            value: Ok(Spec::Namespace(core::Namespace {})),
            unknown: Vec::new(),
        },
        Kind::EndpointSlice => reader::read(root, "").map(Spec::EndpointSlice),
        Kind::Pod => {
            let Reading { value, unknown } = reader::read::<PodManifest>(root, "");
            Reading {
                value: value.and_then(PodManifest::flatten).map(Spec::Pod),
                unknown,
            }
        }
        Kind::Service => section(root).map(Spec::Service),
        Kind::WorkloadEntry => section(root).map(Spec::WorkloadEntry),
        Kind::VirtualService => section(root).map(Spec::VirtualService),
        Kind::DestinationRule => section(root).map(Spec::DestinationRule),
        Kind::PeerAuthentication => section(root).map(Spec::PeerAuthentication),
        Kind::Sidecar => section(root).map(Spec::Sidecar),
        Kind::MeshConfig => reader::read(root, "").map(Spec::MeshConfig),
    }
}

/// `spec`, empty when absent.
fn section<'n, T: Deserialize<'n>>(root: &'n Node) -> Reading<T> {
    const ABSENT: &Node = &Node {
        line: 0,
        value: Value::Null,
    };
    reader::read(root.get("spec").unwrap_or(ABSENT), "spec")
}

/// Turns what was read about one object into its outcome.
pub(super) struct Sheet<'f> {
    pub(super) file: &'f Str,
    /// What the paths of its faults start at.
    pub(super) root: &'f Node,
    pub(super) key: Key,
}

impl Sheet<'_> {
    pub(super) fn finish(
        self,
        meta: Meta,
        value: Result<Spec, Fault>,
        unknown: Vec<String>,
    ) -> Item {
        let Unread {
            mut faults,
            not_yet,
        } = unread(self.key.kind, unknown);
        let spec = value.map_err(|fault| faults.push(fault)).ok();
        if let Some(spec) = &spec {
            faults.extend(check::faults(spec, &meta, &not_yet));
        }
        faults.extend(not_yet.into_iter().map(|path| {
            Fault::warning(
                Code::NotYetInEffect,
                path,
                "this field is not in effect yet",
            )
        }));
        let sound = faults.iter().all(|f| f.level != Level::Error);
        let subject = self.key.subject();
        let diagnostics: Vec<Diagnostic> = faults
            .into_iter()
            .map(|f| diagnostic(f, Some(subject.clone()), self.file, self.root))
            .collect();
        let detail = if self.key.kind.is_strict() {
            Detail::Full
        } else {
            Detail::Shallow
        };
        match spec.filter(|_| sound) {
            Some(spec) => Item::Object(DecodedObject {
                object: Arc::new(Object { meta, spec }),
                place: Place {
                    file: self.file.clone(),
                    lines: Arc::new(Lines::of(self.root, detail)),
                },
                warnings: diagnostics,
            }),
            None => Item::Rejected(Rejected {
                key: Some(self.key),
                diagnostics,
            }),
        }
    }
}

/// What the fields come to that the spec's type does not have.
struct Unread {
    faults: Vec<Fault>,
    not_yet: BTreeSet<String>,
}

fn unread(kind: Kind, paths: Vec<String>) -> Unread {
    let mut faults = Vec::new();
    let mut not_yet = BTreeSet::new();
    for path in paths {
        match known::standing(kind, &path) {
            Standing::Dropped => {}
            Standing::NotYet => drop(not_yet.insert(path)),
            Standing::Retired => {
                let message = "Istio has retired this field; it has no effect";
                faults.push(Fault::warning(Code::NotYetInEffect, path, message));
            }
            Standing::Unknown => {
                let message = format!("{kind} has no such field");
                faults.push(Fault::error(Code::UnknownField, path, message));
            }
        }
    }
    Unread { faults, not_yet }
}

fn diagnostic(fault: Fault, subject: Option<Subject>, file: &Str, root: &Node) -> Diagnostic {
    let Fault {
        level,
        code,
        path,
        message,
    } = fault;
    Diagnostic {
        level,
        code,
        resource: subject,
        line: Some(lines::line_in(root, &path)),
        field: Str::from(path),
        file: Some(file.clone()),
        message,
    }
}
