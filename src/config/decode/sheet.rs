//! One object's outcome: its spec read and checked, with all the faults that can be told at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;

use super::known::{self, Standing};
use super::lines::{self, Detail, Lines};
use super::pod::PodManifest;
use super::reader::{self, Fault, Reading};
use super::secret::SecretManifest;
use super::yaml::{Node, Value};
use super::{DecodedObject, NOWHERE, Outcome, Place, Rejected, spot};
use crate::config::api::ApiKind;
use crate::config::meta::Meta;
use crate::config::{Key, Kind, Object, Spec, check, core};
use crate::diagnostic::{Code, Diagnostic, Level, Subject};
use crate::text::Str;

/// Values of wrong type that are told of one object; the next ones after these are mended.
const MAX_FAULTS: usize = 10;

pub(super) struct Sheet<'f> {
    pub(super) file: &'f Str,
    /// What the paths of its faults start at.
    pub(super) root: &'f Node,
    pub(super) key: Key,
}

impl Sheet<'_> {
    /// `stray` are paths outside the spec that no object of the kind has.
    pub(super) fn fill(self, meta: Meta, stray: Vec<String>) -> Outcome {
        let Readout {
            spec,
            mistyped,
            unknown,
            idle,
        } = read(self.key.kind, self.root);
        let Unread {
            mut faults,
            mut not_yet,
        } = unread(self.key.kind, stray.into_iter().chain(unknown));
        let (retired, idle): (Vec<_>, Vec<_>) = idle
            .into_iter()
            .partition(|path| known::is_retired(self.key.kind, path));
        faults.extend(retired.into_iter().map(known_without_effect));
        not_yet.extend(idle);
        // The API server prunes what it does not know, and a newer one knows more than we do.
        if *self.file == NOWHERE {
            faults.retain(|f| f.code != Code::UnknownField || f.level == Level::Error);
        }
        faults.extend(mistyped);
        if let Some(spec) = &spec {
            let follows = |f: &Fault| faults.iter().any(|cause| touches(&cause.path, &f.path));
            let found = check::faults(spec, &meta, &not_yet);
            let own: Vec<Fault> = found.into_iter().filter(|f| !follows(f)).collect();
            faults.extend(own);
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
        match spec.filter(|_| sound) {
            Some(spec) => Ok(DecodedObject {
                object: Arc::new(Object { meta, spec }),
                place: self.place(),
                warnings: diagnostics,
            }),
            None => Err(Rejected {
                key: Some(self.key),
                generation: meta.generation,
                diagnostics,
            }),
        }
    }

    fn place(&self) -> Place {
        if *self.file == NOWHERE {
            return Place {
                file: NOWHERE,
                lines: Lines::unknown(),
            };
        }
        let strict = self.key.kind.is_strict();
        let detail = if strict {
            Detail::Full
        } else {
            Detail::Shallow
        };
        let lines = Arc::new(Lines::of(self.root, detail));
        Place {
            file: self.file.clone(),
            lines,
        }
    }
}

/// Whether one path is, or is above, the other: then a fault there is likely the same mistake.
fn touches(a: &str, b: &str) -> bool {
    let above = |a: &str, b: &str| {
        b.strip_prefix(a)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    above(a, b) || above(b, a)
}

/// What a tree gave. The spec is there also when values had to be left out for their type.
struct Readout {
    spec: Option<Spec>,
    mistyped: Vec<Fault>,
    /// Fields that the kind's type does not have.
    unknown: Vec<String>,
    /// Fields of Istio's that are not in effect.
    idle: Vec<String>,
}

/// Reads the spec; at a value of wrong type it is read again without it, so that one mistake does not
/// hide the others.
fn read(kind: Kind, root: &Node) -> Readout {
    let mut mended: Option<Node> = None;
    let mut mistyped = Vec::new();
    let api = ApiKind::find(kind.group(), kind.name());
    loop {
        let tree = mended.as_ref().unwrap_or(root);
        let Reading { value, unknown } = spec(kind, tree);
        // Istio's whole type first: what it does not know, nobody does; what only it knows, is not in effect.
        let whole = api.map(|api| api.read(tree));
        let (typed, unknown, idle) = match whole {
            None => (Ok(()), unknown, Vec::new()),
            Some(whole) => {
                let idle = unknown
                    .into_iter()
                    .filter(|path| !whole.unknown.contains(path));
                let idle = idle.collect();
                (whole.value, whole.unknown, idle)
            }
        };
        let fault = match typed.and(value) {
            Ok(spec) => {
                return Readout {
                    spec: Some(spec),
                    mistyped,
                    unknown,
                    idle,
                };
            }
            Err(fault) => fault,
        };
        let tree = mended.get_or_insert_with(|| root.clone());
        let again = mistyped.len() < MAX_FAULTS && lines::clear(tree, &fault.path);
        mistyped.push(fault);
        if !again {
            return Readout {
                spec: None,
                mistyped,
                unknown,
                idle,
            };
        }
    }
}

fn spec(kind: Kind, root: &Node) -> Reading<Spec> {
    match kind {
        Kind::Node => Reading {
            value: Ok(Spec::Node(core::Node {})),
            unknown: Vec::new(),
        },
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
        Kind::WorkloadGroup => section(root).map(Spec::WorkloadGroup),
        Kind::ServiceEntry => section(root).map(Spec::ServiceEntry),
        Kind::VirtualService => section(root).map(Spec::VirtualService),
        Kind::DestinationRule => section(root).map(Spec::DestinationRule),
        Kind::PeerAuthentication => section(root).map(Spec::PeerAuthentication),
        Kind::Sidecar => section(root).map(Spec::Sidecar),
        Kind::Gateway => section(root).map(Spec::Gateway),
        Kind::TrafficExtension => section(root).map(Spec::TrafficExtension),
        Kind::ProxyConfig => section(root).map(Spec::ProxyConfig),
        Kind::Ingress => section(root).map(Spec::Ingress),
        Kind::IngressClass => section(root).map(Spec::IngressClass),
        Kind::EnvoyFilter => section(root).map(Spec::EnvoyFilter),
        Kind::Secret => {
            // What is wrong in one is not repeated: it may be a secret.
            let manifest = reader::read::<SecretManifest>(root, "").value;
            let secret = manifest.map(SecretManifest::prune).unwrap_or_default();
            Reading {
                value: Ok(Spec::Secret(Box::new(secret))),
                unknown: Vec::new(),
            }
        }
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

/// What the fields come to that the spec's type does not have.
struct Unread {
    faults: Vec<Fault>,
    not_yet: BTreeSet<String>,
}

/// All that is wrong with an object of a kind that is not in effect yet: wrong values, and unknown fields.
pub(super) fn faults_of(api: &ApiKind, root: &Node) -> Vec<Fault> {
    let mut mended: Option<Node> = None;
    let mut faults = Vec::new();
    loop {
        let Reading { value, unknown } = api.read(mended.as_ref().unwrap_or(root));
        let fault = value.err();
        let tree = mended.get_or_insert_with(|| root.clone());
        let again = fault
            .as_ref()
            .is_some_and(|fault| faults.len() < MAX_FAULTS && lines::clear(tree, &fault.path));
        faults.extend(fault);
        if !again {
            let stray = |path: String| {
                let message = format!("{} has no such field", api.kind);
                Fault::error(Code::UnknownField, path, message)
            };
            faults.extend(unknown.into_iter().map(stray));
            return faults;
        }
    }
}

fn unread(kind: Kind, paths: impl Iterator<Item = String>) -> Unread {
    let mut faults = Vec::new();
    let mut not_yet = BTreeSet::new();
    for path in paths {
        match known::standing(kind, &path) {
            Standing::Dropped => {}
            Standing::Foreign => {
                let message = format!("Kubernetes' {kind} has no such field; it changes nothing");
                faults.push(Fault::warning(Code::UnknownField, path, message));
            }
            Standing::NotYet => drop(not_yet.insert(path)),
            Standing::Retired => {
                faults.push(known_without_effect(path));
            }
            Standing::Unknown => {
                let message = format!("{kind} has no such field");
                faults.push(Fault::error(Code::UnknownField, path, message));
            }
        }
    }
    Unread { faults, not_yet }
}

fn known_without_effect(path: String) -> Fault {
    let message = "this field has no effect in Istio either";
    Fault::warning(Code::NotYetInEffect, path, message)
}

pub(super) fn diagnostic(
    fault: Fault,
    subject: Option<Subject>,
    file: &Str,
    root: &Node,
) -> Diagnostic {
    let Fault {
        level,
        code,
        path,
        message,
    } = fault;
    let (file, line) = spot(file, lines::line_in(root, &path));
    Diagnostic {
        level,
        code,
        resource: subject,
        field: Str::from(path),
        file,
        line,
        message,
    }
}
