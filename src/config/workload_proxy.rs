//! The kind ProxyConfig: what the proxies of a mesh, of a namespace or of chosen workloads are started with.
//!
//! Field meaning: <https://istio.io/latest/docs/reference/config/networking/proxy-config/>. MeshConfig's `defaultConfig`
//! is another message of the same name (`proxy_config`); what is said here is laid over it when a pod is injected.

use serde::{Deserialize, Deserializer, Serialize};

use super::destination_rule::WorkloadSelector;
use super::mesh::PrometheusMerge;
use super::meta::{Labels, Meta, selects};
use super::proxy_config::{ProxyConfig, ProxyImage};
use super::{Object, Spec};
use crate::text::Str;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadProxy {
    /// One without labels selects no workload, as in Istio.
    pub selector: Option<WorkloadSelector>,
    pub concurrency: Option<u32>,
    #[serde(deserialize_with = "present")]
    pub environment_variables: Labels,
    pub image: Option<ProxyImage>,
}

fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Labels, D::Error> {
    Option::<Labels>::deserialize(from).map(Option::unwrap_or_default)
}

impl WorkloadProxy {
    fn as_config(&self) -> ProxyConfig {
        ProxyConfig {
            concurrency: self.concurrency,
            proxy_metadata: self.environment_variables.clone(),
            image: self.image.clone(),
            ..ProxyConfig::default()
        }
    }
}

/// All that decides how a pod's proxy is started, besides the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// MeshConfig's `defaultConfig`, and its root namespace.
    pub mesh: ProxyConfig,
    /// MeshConfig's `enablePrometheusMerge`.
    pub metrics: PrometheusMerge,
    root: Str,
    /// The oldest first.
    objects: Vec<(Meta, WorkloadProxy)>,
}

impl Proxies {
    pub fn of<'o>(all: impl Iterator<Item = &'o Object>) -> Self {
        let mesh = super::mesh::MeshConfig::default();
        let mut found = Self {
            metrics: mesh.prometheus_merge(),
            mesh: mesh.default_config,
            root: mesh.root_namespace,
            objects: Vec::new(),
        };
        for object in all {
            match &object.spec {
                Spec::MeshConfig(mesh) => {
                    found.metrics = mesh.prometheus_merge();
                    found.mesh = mesh.default_config.clone();
                    found.root = mesh.root_namespace.clone();
                }
                Spec::ProxyConfig(spec) => found.objects.push((object.meta.clone(), spec.clone())),
                _ => {}
            }
        }
        found
            .objects
            .sort_by(|(a, _), (b, _)| a.age().cmp(&b.age()));
        found
    }

    /// What holds for a pod, whose annotation says `own`: the mesh's, beneath that of the root namespace, of the pod's
    /// namespace, of the annotation and of the object that selects the pod. Of each level the oldest counts.
    pub fn effective(&self, namespace: &str, labels: &Labels, own: ProxyConfig) -> ProxyConfig {
        let wide = |of: &str| {
            let mut all = self.objects.iter();
            let found = all.find(|(meta, spec)| meta.namespace == of && spec.selector.is_none());
            found.map(|(_, spec)| spec.as_config())
        };
        let mut all = self.objects.iter();
        let chosen = all.find(|(meta, spec)| {
            let mut selector = spec.selector.iter().map(|s| &s.match_labels);
            meta.namespace == namespace
                && selector.any(|wanted| !wanted.is_empty() && selects(wanted, labels))
        });
        let levels = [
            wide(&self.root),
            wide(namespace).filter(|_| namespace != self.root),
            Some(own),
            chosen.map(|(_, spec)| spec.as_config()),
        ];
        let levels = levels.into_iter().flatten();
        levels.fold(self.mesh.clone(), |base, over| over.over(&base))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::decode::{self, Item};

    fn proxies(yaml: &str) -> Proxies {
        let decoded = decode::documents(yaml, "f.yaml");
        let objects: Vec<_> = decoded
            .items
            .into_iter()
            .map(|item| match item {
                Item::Object(decoded) => decoded.object,
                other => panic!("{other:?}"),
            })
            .collect();
        Proxies::of(objects.iter().map(|o| &**o))
    }

    fn object(name: &str, namespace: &str, spec: &str) -> String {
        format!(
            "---\napiVersion: networking.istio.io/v1beta1\nkind: ProxyConfig\nmetadata: {{name: {name}, namespace: \
             {namespace}}}\nspec: {{{spec}}}\n"
        )
    }

    fn said(config: &ProxyConfig) -> (Option<u32>, String) {
        let all = config.proxy_metadata.iter();
        let all: Vec<String> = all.map(|(k, v)| format!("{k}={v}")).collect();
        (config.concurrency, all.join(","))
    }

    #[test]
    fn each_level_lies_over_the_wider_one() {
        let all = [
            object(
                "a",
                "istio-system",
                "concurrency: 1, environmentVariables: {A: root, B: root}",
            ),
            object(
                "b",
                "shop",
                "concurrency: 2, environmentVariables: {B: shop}",
            ),
            object("c", "shop", "concurrency: 9"),
            object(
                "d",
                "shop",
                "selector: {matchLabels: {app: web}}, concurrency: 3",
            ),
            object(
                "e",
                "shop",
                "selector: {matchLabels: {app: web}}, concurrency: 9",
            ),
            object("f", "shop", "selector: {}, concurrency: 9"),
        ];
        let proxies = proxies(&all.concat());
        let web = Labels::from([(Str::from("app"), Str::from("web"))]);
        let of = |namespace: &str, labels: &Labels, own: ProxyConfig| {
            said(&proxies.effective(namespace, labels, own))
        };
        let none = ProxyConfig::default;
        assert_eq!(
            of("other", &web, none()),
            (Some(1), "A=root,B=root".to_owned())
        );
        let in_shop = "A=root,B=shop".to_owned();
        assert_eq!(
            of("shop", &Labels::new(), none()),
            (Some(2), in_shop.clone())
        );
        assert_eq!(of("shop", &web, none()), (Some(3), in_shop));
        let annotated = ProxyConfig {
            concurrency: Some(4),
            proxy_metadata: Labels::from([(Str::from("B"), Str::from("pod"))]),
            ..none()
        };
        let by_pod = "A=root,B=pod".to_owned();
        assert_eq!(
            of("shop", &Labels::new(), annotated.clone()),
            (Some(4), by_pod.clone())
        );
        // What selects the workload goes before its annotation, as in Istio.
        assert_eq!(of("shop", &web, annotated), (Some(3), by_pod));
    }
}
