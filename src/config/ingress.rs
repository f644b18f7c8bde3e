//! Kubernetes' Ingress and IngressClass: what the edge serves, and whose Ingresses those are.
//!
//! Field meaning: <https://kubernetes.io/docs/concepts/services-networking/ingress/>.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::mesh::MeshConfig;
use super::meta::{Labels, Meta};
use super::{Object, Spec};
use crate::text::Str;

/// An Ingress' class, where the field is not used.
pub const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// What an IngressClass says whose Ingresses are the mesh's.
pub const CONTROLLER: &str = "istio.io/ingress-controller";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ingress {
    pub ingress_class_name: Option<Str>,
    pub default_backend: Option<Backend>,
    pub tls: Vec<IngressTls>,
    pub rules: Vec<IngressRule>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressTls {
    /// None is every host.
    pub hosts: Vec<Str>,
    pub secret_name: Str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngressRule {
    /// Empty is every host.
    pub host: Str,
    pub http: Option<IngressPaths>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngressPaths {
    pub paths: Vec<IngressPath>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressPath {
    pub path: Str,
    pub path_type: PathType,
    pub backend: Backend,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathType {
    Exact,
    Prefix,
    #[default]
    ImplementationSpecific,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Backend {
    pub service: Option<BackendService>,
    /// Another kind of object; no such is known.
    pub resource: Option<BackendResource>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackendService {
    pub name: Str,
    pub port: BackendPort,
}

/// A number counts before a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackendPort {
    pub number: u16,
    pub name: Str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackendResource {
    pub kind: Str,
    pub name: Str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngressClass {
    pub controller: Str,
}

/// Which Ingresses without an IngressClass of the mesh's own are its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum IngressMode {
    /// As `STRICT`.
    Unspecified,
    /// None at all, whatever their class.
    Off,
    /// Those that say so, and those that say nothing.
    Default,
    /// Those that say so.
    Strict,
}

/// Why an Ingress is none of the mesh's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// None is, in this mode.
    Off,
    /// It says so.
    Named,
    /// It names an IngressClass that is not there.
    Absent(Str),
    /// It says nothing.
    Silent,
}

impl Ingress {
    /// Whether it is the mesh's. `controller` tells what the IngressClass of a name says.
    pub fn is_ours<'c>(
        &self,
        meta: &Meta,
        mesh: &MeshConfig,
        controller: impl Fn(&str) -> Option<&'c Str>,
    ) -> Result<(), Foreign> {
        let mode = mesh.ingress_controller_mode;
        if mode == IngressMode::Off {
            return Err(Foreign::Off);
        }
        if let Some(class) = meta.annotations.get(CLASS_ANNOTATION) {
            let own = *class == mesh.ingress_class;
            return own.then_some(()).ok_or(Foreign::Named);
        }
        let named = self.ingress_class_name.as_ref();
        match named.map(|name| (name, controller(name))) {
            Some((_, Some(controller))) if controller == CONTROLLER => Ok(()),
            Some((_, Some(_))) => Err(Foreign::Named),
            _ if mode == IngressMode::Default => Ok(()),
            Some((name, None)) => Err(Foreign::Absent(name.clone())),
            None => Err(Foreign::Silent),
        }
    }

    /// Every backend, with its field.
    pub fn backends(&self) -> impl Iterator<Item = (String, &Backend)> {
        let default = self.default_backend.iter();
        let default = default.map(|backend| ("spec.defaultBackend".to_owned(), backend));
        let rules = self.rules.iter().enumerate();
        let paths = rules.flat_map(|(r, rule)| {
            let paths = rule.http.iter().flat_map(|http| &http.paths).enumerate();
            paths.map(move |(p, path)| {
                let field = format!("spec.rules[{r}].http.paths[{p}].backend");
                (field, &path.backend)
            })
        });
        default.chain(paths)
    }
}

/// An Ingress of the mesh's own. One that is made anew under its name is another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Own {
    pub namespace: Str,
    pub name: Str,
    created: i64,
}

/// The mesh's own Ingresses, and the Service before the proxies that serve them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fronted {
    /// Empty where the mesh names none.
    pub service: Str,
    pub ingresses: BTreeSet<Own>,
}

impl Fronted {
    pub fn of<'o>(objects: impl Iterator<Item = &'o Object> + Clone) -> Self {
        let mut mesh = MeshConfig::default();
        let mut classes: BTreeMap<&str, &Str> = BTreeMap::new();
        for object in objects.clone() {
            match &object.spec {
                Spec::MeshConfig(of_mesh) => mesh = MeshConfig::clone(of_mesh),
                Spec::IngressClass(class) => {
                    classes.insert(&object.meta.name, &class.controller);
                }
                _ => {}
            }
        }
        let own = objects.filter_map(|object| {
            let Spec::Ingress(spec) = &object.spec else {
                return None;
            };
            let controller = |name: &str| classes.get(name).copied();
            spec.is_ours(&object.meta, &mesh, controller).ok()?;
            Some(Own {
                namespace: object.meta.namespace.clone(),
                name: object.meta.name.clone(),
                created: object.meta.creation_timestamp,
            })
        });
        Self {
            ingresses: own.collect(),
            service: mesh.ingress_service.clone(),
        }
    }
}

/// Labels of the proxies that serve Ingresses.
pub fn selector(mesh: &MeshConfig) -> Labels {
    // The Service that Istio's own chart makes has another name than its pods' label.
    let label = match (
        mesh.ingress_selector.as_str(),
        mesh.ingress_service.as_str(),
    ) {
        ("", "" | "istio-ingressgateway") => Str::new_static("ingressgateway"),
        ("", service) => Str::new(service),
        (selector, _) => Str::new(selector),
    };
    Labels::from([(Str::new_static("istio"), label)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(class: Option<&str>, annotation: Option<&str>, mode: IngressMode) -> Option<Foreign> {
        let ingress = Ingress {
            ingress_class_name: class.map(Str::new),
            ..Ingress::default()
        };
        let annotation = annotation.map(|class| (Str::new(CLASS_ANNOTATION), Str::new(class)));
        let meta = Meta {
            annotations: annotation.into_iter().collect(),
            ..Meta::default()
        };
        let mesh = MeshConfig {
            ingress_controller_mode: mode,
            ..MeshConfig::default()
        };
        let (own, other) = (Str::new(CONTROLLER), Str::from("example.com/other"));
        let controller = |name: &str| match name {
            "own" => Some(&own),
            "other" => Some(&other),
            _ => None,
        };
        ingress.is_ours(&meta, &mesh, controller).err()
    }

    #[test]
    fn an_annotation_goes_before_the_class_and_the_class_before_the_mode() {
        use IngressMode::{Default, Off, Strict};
        assert_eq!(ours(Some("other"), Some("istio"), Strict), None);
        assert_eq!(
            ours(Some("own"), Some("nginx"), Default),
            Some(Foreign::Named)
        );
        assert_eq!(ours(Some("own"), None, Strict), None);
        assert_eq!(ours(Some("other"), None, Default), Some(Foreign::Named));
        assert_eq!(ours(None, None, Default), None);
        assert_eq!(ours(None, None, Strict), Some(Foreign::Silent));
        assert_eq!(ours(Some("gone"), None, Default), None);
        let absent = Foreign::Absent("gone".into());
        assert_eq!(ours(Some("gone"), None, Strict), Some(absent));
        assert_eq!(ours(Some("own"), Some("istio"), Off), Some(Foreign::Off));
    }

    #[test]
    fn the_proxies_are_those_of_the_selector_else_of_the_service() {
        let label = |selector: &str, service: &str| {
            let mesh = MeshConfig {
                ingress_selector: selector.into(),
                ingress_service: service.into(),
                ..MeshConfig::default()
            };
            self::selector(&mesh).get("istio").cloned().unwrap()
        };
        assert_eq!(label("", "istio-ingressgateway"), "ingressgateway");
        assert_eq!(label("", "front"), "front");
        assert_eq!(label("edge", "front"), "edge");
    }
}
