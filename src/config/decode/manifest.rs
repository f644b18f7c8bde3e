//! One document of Kubernetes' shape: its kind, its names, its spec, its outcome.

use serde::Deserialize;

use super::kinds::{self, Class};
use super::lines;
use super::mesh::{config_map_mesh, is_mesh};
use super::pod::TemplateManifest;
use super::reader::{self, Fault};
use super::sheet::{Sheet, diagnostic, faults_of};
use super::yaml::{self, Node, Twice, Value};
use super::{Item, NOWHERE, Outcome, PodTemplate, Rejected, unreadable};
use crate::config::api::ApiKind;
use crate::config::ingress::CLASS_ANNOTATION;
use crate::config::meta::{Labels, Meta};
use crate::config::{Key, Kind, check};
use crate::diagnostic::{Code, Diagnostic, Level, Subject};
use crate::text::Str;

pub(super) const DEFAULT_NAMESPACE: Str = Str::new_static("default");

/// One document with its names, before its kind decides the rest.
struct Manifest<'n> {
    root: &'n Node,
    file: &'n Str,
    api_version: &'n str,
    kind: &'n str,
}

/// A document's outcome; a list's items each have their own.
pub(super) fn items(root: &Node, file: &Str) -> Vec<Item> {
    // As templates leave them behind; kubectl passes over them too.
    if root.value == Value::Null {
        return Vec::new();
    }
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
        return vec![Item::Rejected(unreadable(file, root.line, message))];
    };
    if let (true, Some(list)) = (kind.ends_with("List"), root.get("items")) {
        return match &list.value {
            Value::List(nodes) => nodes.iter().flat_map(|n| items(n, file)).collect(),
            Value::Null => Vec::new(),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) | Value::Map(_) => {
                let message = "`items` is no list".to_owned();
                vec![Item::Rejected(unreadable(file, list.line, message))]
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

/// One object of the API server, which does not say its kind where it lists many.
pub(super) fn live(kind: Kind, root: &Node) -> Outcome {
    Manifest {
        root,
        file: &NOWHERE,
        api_version: "",
        kind: kind.name(),
    }
    .object(kind)
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
    fn read(&self) -> Vec<Item> {
        let (api, kind) = (self.api_version, self.kind);
        let class = kinds::classify(api, kind);
        if let Some(twice) = yaml::twice(self.root) {
            return vec![self.ambiguous(class, &twice)];
        }
        let item = match class {
            Class::NotYet => return self.not_yet(),
            Class::Read(kind) => Some(self.object(kind).into()),
            Class::OtherVersion(kind) => {
                let served = kind.versions().join(", ");
                let message = format!("`{api}` is not served; {kind} is read in versions {served}");
                let rejected = self.reject(Some(kind), invalid("apiVersion", message));
                Some(Item::Rejected(rejected))
            }
            Class::ConfigMap => {
                is_mesh(self.root).then(|| config_map_mesh(self.root, self.file).into())
            }
            Class::PodTemplate => self.template(),
            Class::Ignored => None,
            Class::Unknown => Some(self.notice(
                Code::UnknownKind,
                format!("{kind} of {api} is no kind that is read; this object changes nothing"),
            )),
        };
        item.into_iter().collect()
    }

    /// An object of a kind that is not in effect: what is wrong with it, or that it changes nothing.
    fn not_yet(&self) -> Vec<Item> {
        let (api, kind) = (self.api_version, self.kind);
        let (group, version) = api.split_once('/').unwrap_or(("", api));
        let faults = match ApiKind::find(group, kind) {
            None => Vec::new(),
            Some(known) if !known.versions.contains(&version) => {
                let served = known.versions.join(", ");
                let message = format!("`{api}` is not served; {kind} is read in versions {served}");
                vec![invalid("apiVersion", message)]
            }
            Some(known) => faults_of(known, self.root),
        };
        if faults.is_empty() {
            let message =
                format!("{kind} of {api} is not in effect yet; this object changes nothing");
            return vec![self.notice(Code::NotYetInEffect, message)];
        }
        let told = |fault| {
            let found = diagnostic(fault, self.subject(), self.file, self.root);
            Item::Notice(found)
        };
        faults.into_iter().map(told).collect()
    }

    fn object(&self, kind: Kind) -> Outcome {
        let meta = self
            .meta(kind)
            .map_err(|fault| self.reject(Some(kind), fault))?;
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
        sheet.fill(meta, stray)
    }

    /// A key that stands twice may mean either; where it could be the object's name, nobody knows whose it is.
    fn ambiguous(&self, class: Class, twice: &Twice) -> Item {
        let names = ["apiVersion", "kind", "metadata"];
        let kind = match class {
            Class::Read(kind) | Class::OtherVersion(kind) => Some(kind),
            Class::ConfigMap if is_mesh(self.root) => Some(Kind::MeshConfig),
            Class::ConfigMap
            | Class::PodTemplate
            | Class::NotYet
            | Class::Ignored
            | Class::Unknown => None,
        };
        let named = !lines::steps(&twice.path)
            .next()
            .is_some_and(|first| names.contains(&first));
        let fault = Fault::error(Code::Malformed, twice.path.as_str(), twice.to_string());
        let mut rejected = self.reject(kind.filter(|_| named), fault);
        // The path alone would give the first of the two.
        rejected
            .diagnostics
            .iter_mut()
            .for_each(|d| d.line = Some(twice.line));
        match rejected.diagnostics.pop() {
            // Of an object that is not read, only the user's mistake is told.
            Some(one) if kind.is_none() && named => Item::Notice(one),
            last => {
                rejected.diagnostics.extend(last);
                Item::Rejected(rejected)
            }
        }
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
            Kind::Namespace | Kind::Node | Kind::IngressClass => Str::default(),
            Kind::Service
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
            | Kind::EnvoyFilter
            | Kind::Secret
            | Kind::MeshConfig => meta.namespace.unwrap_or(DEFAULT_NAMESPACE),
        };
        if meta.name.is_empty() {
            return Err(invalid("metadata.name", format!("this {kind} has no name")));
        }
        check::object_name(&meta.name).map_err(|message| invalid("metadata.name", message))?;
        if !matches!(kind, Kind::Namespace | Kind::Node | Kind::IngressClass) {
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

    /// 0 where the document does not say, or not in a number.
    fn generation(&self) -> i64 {
        let meta = self.root.get("metadata");
        match meta.and_then(|m| m.get("generation")).map(|g| &g.value) {
            Some(Value::Int(said)) => i64::try_from(*said).unwrap_or_default(),
            _ => 0,
        }
    }

    /// As far as the document names itself; a namespace may be absent.
    fn subject(&self) -> Option<Subject> {
        let meta = self.root.get("metadata")?;
        let name = meta.get("name")?.text()?;
        let namespace = meta.get("namespace").and_then(Node::text);
        let namespace = match kinds::is_namespaced(self.kind) {
            true => namespace.map_or(DEFAULT_NAMESPACE, Str::new),
            false => Str::default(),
        };
        Some(Subject {
            kind: Str::new(self.kind),
            namespace,
            name: Str::new(name),
        })
    }

    fn reject(&self, kind: Option<Kind>, fault: Fault) -> Rejected {
        let subject = self.subject();
        let key = kind.zip(subject.as_ref()).map(|(kind, s)| Key {
            kind,
            namespace: s.namespace.clone(),
            name: s.name.clone(),
        });
        let diagnostic = diagnostic(fault, subject, self.file, self.root);
        Rejected {
            key,
            generation: self.generation(),
            diagnostics: vec![diagnostic],
        }
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

/// Annotations of Istio's, and an Ingress' class; the others are often large and mean nothing here.
fn meaningful(annotations: Labels) -> Labels {
    let istio = |key: &Str| {
        let of_istio = key.split_once('/');
        of_istio.is_some_and(|(domain, _)| domain.ends_with("istio.io")) || key == CLASS_ANNOTATION
    };
    annotations
        .into_iter()
        .filter(|(key, _)| istio(key))
        .collect()
}
