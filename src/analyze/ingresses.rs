//! Ingresses: whose they are, what they lead to, and which of two says something first.

use std::collections::BTreeMap;

use super::Mesh;
use super::gateways::{homes, lacks};
use crate::config::core::Service;
use crate::config::ingress::{self, Backend, Foreign, Ingress, PathType};
use crate::config::mesh::MeshConfig;
use crate::config::{Key, Object, Spec};
use crate::diagnostic::{Code, Diagnostic, Level};
use crate::text::Str;

/// The mesh's configuration, and what each IngressClass says.
struct Rules<'a> {
    mesh: MeshConfig,
    classes: BTreeMap<&'a Str, &'a Str>,
}

impl<'a> Rules<'a> {
    fn of(mesh: &'a Mesh<'_>) -> Self {
        let mut rules = Self {
            mesh: MeshConfig::default(),
            classes: BTreeMap::new(),
        };
        for object in &mesh.objects {
            match &object.spec {
                Spec::MeshConfig(mesh) => rules.mesh = MeshConfig::clone(mesh),
                Spec::IngressClass(class) => {
                    rules.classes.insert(&object.meta.name, &class.controller);
                }
                _ => {}
            }
        }
        rules
    }

    fn judge(&self, object: &Object, spec: &Ingress) -> Result<(), Foreign> {
        let controller = |name: &str| self.classes.get(&Str::new(name)).copied();
        spec.is_ours(&object.meta, &self.mesh, controller)
    }
}

fn all<'a>(mesh: &'a Mesh<'_>) -> impl Iterator<Item = (&'a Object, &'a Ingress)> {
    mesh.objects.iter().filter_map(|object| match &object.spec {
        Spec::Ingress(spec) => Some((*object, &**spec)),
        _ => None,
    })
}

/// The mesh's own, the oldest first.
fn ours<'a>(mesh: &'a Mesh<'_>) -> Vec<(&'a Object, &'a Ingress)> {
    let rules = Rules::of(mesh);
    let own = all(mesh).filter(|(object, spec)| rules.judge(object, spec).is_ok());
    let mut own: Vec<_> = own.collect();
    own.sort_by(|(a, _), (b, _)| a.meta.age().cmp(&b.meta.age()));
    own
}

/// Those that nobody may have meant to leave out; what names another controller's class is that one's.
pub(super) fn of_no_class(mesh: &Mesh<'_>) -> Vec<Diagnostic> {
    let rules = Rules::of(mesh);
    let mut out = Vec::new();
    for (object, spec) in all(mesh) {
        let (field, message) = match rules.judge(object, spec) {
            Ok(()) | Err(Foreign::Off | Foreign::Named) => continue,
            Err(Foreign::Absent(name)) => (
                "spec.ingressClassName",
                format!("no IngressClass {name}; the Ingress changes nothing"),
            ),
            Err(Foreign::Silent) => (
                "spec",
                "the Ingress names no class, and `ingressControllerMode` STRICT takes none without; it changes \
                 nothing"
                    .to_owned(),
            ),
        };
        let told = mesh.warning(Code::Unresolved, &object.key(), field.to_owned(), message);
        let level = match field {
            "spec" => Level::Info,
            _ => told.level,
        };
        out.push(Diagnostic { level, ..told });
    }
    out
}

/// A backend that is not there, or not on that port.
pub(super) fn without_service(mesh: &Mesh<'_>) -> Vec<Diagnostic> {
    let services = mesh.objects.iter().filter_map(|o| match &o.spec {
        Spec::Service(spec) => Some(((&o.meta.namespace, &o.meta.name), spec)),
        _ => None,
    });
    let services: BTreeMap<(&Str, &Str), &Service> = services.collect();
    let mut out = Vec::new();
    for (object, spec) in ours(mesh) {
        for (field, backend) in spec.backends() {
            if let Some((below, message)) = lacking(&object.meta.namespace, backend, &services) {
                let field = format!("{field}.service.{below}");
                out.push(mesh.warning(Code::Unresolved, &object.key(), field, message));
            }
        }
    }
    out
}

fn lacking(
    namespace: &Str,
    backend: &Backend,
    services: &BTreeMap<(&Str, &Str), &Service>,
) -> Option<(&'static str, String)> {
    let named = backend.service.as_ref()?;
    let name = &named.name;
    let Some(service) = services.get(&(namespace, name)) else {
        let message = format!("no Service {namespace}/{name}; requests get 503");
        return Some(("name", message));
    };
    let port = &named.port;
    let mut ports = service.ports.iter();
    let (field, said) = match port.number {
        0 if ports.any(|p| p.name == port.name) => return None,
        0 => ("port.name", format!("named {}", port.name)),
        number if ports.any(|p| p.port == number) => return None,
        number => ("port.number", number.to_string()),
    };
    let message = format!("Service {namespace}/{name} has no port {said}; requests get 503");
    Some((field, message))
}

/// A path or a host of TLS that an older Ingress has already.
pub(super) fn in_conflict(mesh: &Mesh<'_>) -> Vec<Diagnostic> {
    let mut paths: BTreeMap<(&str, &str, PathRank), Key> = BTreeMap::new();
    let mut names: BTreeMap<&str, (Key, &Str)> = BTreeMap::new();
    let mut out = Vec::new();
    for (object, spec) in ours(mesh) {
        let key = object.key();
        for (r, rule) in spec.rules.iter().enumerate() {
            let own = rule.http.iter().flat_map(|http| &http.paths).enumerate();
            for (p, path) in own {
                let rank = PathRank::of(path.path_type);
                let said = (rule.host.as_str(), path.path.trim_end_matches('/'), rank);
                let Some(first) = paths.get(&said) else {
                    paths.insert(said, key.clone());
                    continue;
                };
                let message = format!("{first} says where this path leads; this counts nowhere");
                let field = format!("spec.rules[{r}].http.paths[{p}]");
                out.push(mesh.warning(Code::Conflict, &key, field, message));
            }
        }
        for (i, tls) in spec.tls.iter().enumerate() {
            for (j, host) in tls.hosts.iter().enumerate() {
                let Some((first, secret)) = names.get(host.as_str()) else {
                    names.insert(host, (key.clone(), &tls.secret_name));
                    continue;
                };
                if **secret == tls.secret_name {
                    continue;
                }
                let message = format!(
                    "{first} has TLS for this host, with Secret {secret}; that one is shown"
                );
                let field = format!("spec.tls[{i}].hosts[{j}]");
                out.push(mesh.warning(Code::Conflict, &key, field, message));
            }
        }
    }
    out
}

/// Paths of different ranks never meet.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum PathRank {
    Exact,
    Prefix,
    Other,
}

impl PathRank {
    fn of(path_type: PathType) -> Self {
        match path_type {
            PathType::Exact => Self::Exact,
            PathType::Prefix => Self::Prefix,
            PathType::ImplementationSpecific => Self::Other,
        }
    }
}

/// Ingresses that no pod serves, where pods are known at all; and Secrets that those who serve them do not have.
pub(super) fn without_proxy(mesh: &Mesh<'_>) -> Vec<Diagnostic> {
    if !mesh.objects.iter().any(|o| matches!(o.spec, Spec::Pod(_))) {
        return Vec::new();
    }
    let selector = ingress::selector(&Rules::of(mesh).mesh);
    let homes = homes(mesh, &selector);
    let mut out = Vec::new();
    for (object, spec) in ours(mesh) {
        if homes.is_empty() {
            let labels: Vec<String> = selector.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let message = format!(
                "no pod has the label {}; nobody serves Ingresses",
                labels.join(",")
            );
            out.push(mesh.warning(Code::Unresolved, &object.key(), "spec".to_owned(), message));
        }
        for (i, tls) in spec.tls.iter().enumerate() {
            for home in homes.iter().filter(|_| !tls.secret_name.is_empty()) {
                if let Some(why) = lacks(mesh, home, &tls.secret_name) {
                    let field = format!("spec.tls[{i}].secretName");
                    out.push(mesh.warning(Code::Unresolved, &object.key(), field, why));
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::found;
    use super::*;

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: i, namespace: edge, labels: {istio: \
                       ingressgateway}}\nstatus: {podIP: 10.0.0.1}\n";
    const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{name: http, \
                           port: 80}]}\n";

    fn ingress(name: &str, class: &str, spec: &str) -> String {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}, annotations: \
             {{kubernetes.io/ingress.class: {class}}}}}\nspec: {{{spec}}}\n"
        )
    }

    fn rule(path: &str, port: &str) -> String {
        format!(
            "rules: [{{host: a.example, http: {{paths: [{{path: {path}, pathType: Prefix, backend: {{service: \
             {{name: web, port: {{{port}}}}}}}}}]}}}}]"
        )
    }

    fn codes(documents: &[&str]) -> Vec<(Code, String)> {
        let found = found(documents).into_iter();
        found.map(|(code, subject, _)| (code, subject)).collect()
    }

    #[test]
    fn a_backend_that_is_not_there_is_told() {
        let sound = ingress("a", "istio", &rule("/", "name: http"));
        assert_eq!(codes(&[SERVICE, POD, &sound]), []);
        let elsewhere = ingress("a", "nginx", &rule("/", "name: nope"));
        assert_eq!(codes(&[SERVICE, POD, &elsewhere]), []);
        for port in ["name: nope", "number: 81"] {
            let lost = ingress("a", "istio", &rule("/", port));
            let told = (Code::Unresolved, "Ingress default/a".to_owned());
            assert_eq!(codes(&[SERVICE, POD, &lost]), [told], "{port}");
        }
    }

    #[test]
    fn of_two_that_say_the_same_path_the_younger_is_told() {
        let (a, b) = (rule("/x", "number: 80"), rule("/x/", "name: http"));
        let (a, b) = (ingress("a", "istio", &a), ingress("b", "istio", &b));
        let told = (Code::Conflict, "Ingress default/b".to_owned());
        assert_eq!(codes(&[SERVICE, POD, &a, &b]), [told]);
    }

    #[test]
    fn one_without_class_is_told_and_so_is_a_class_that_is_not_there() {
        let silent = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: a}\nspec: {CLASSdefaultBackend: \
                      {service: {name: web, port: {number: 80}}}}\n";
        for class in ["", "ingressClassName: gone, "] {
            let told = (Code::Unresolved, "Ingress default/a".to_owned());
            let ingress = silent.replace("CLASS", class);
            assert_eq!(codes(&[SERVICE, POD, &ingress]), [told], "{class}");
        }
    }

    #[test]
    fn without_a_proxy_or_its_secret_nothing_is_served() {
        let spec = format!("tls: [{{secretName: s}}], {}", rule("/", "number: 80"));
        let own = ingress("a", "istio", &spec);
        let told = || (Code::Unresolved, "Ingress default/a".to_owned());
        assert_eq!(codes(&[SERVICE, POD, &own]), [told()]);
        let elsewhere = POD.replace("ingressgateway", "other");
        assert_eq!(codes(&[SERVICE, &elsewhere, &own]), [told()]);
    }
}
