//! Pod templates whose Service has no endpoints: files have no Kubernetes that would make the pods.

use super::Mesh;
use crate::config::core::{Phase, Service, ServiceType};
use crate::config::decode::PodTemplate;
use crate::config::meta::{Labels, selects};
use crate::config::{Object, Spec};
use crate::diagnostic::{Code, Diagnostic, Level};
use crate::text::Str;

/// By which label an EndpointSlice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

pub(super) fn of_templates(mesh: &Mesh<'_>) -> Vec<Diagnostic> {
    let services = mesh.objects.iter().filter_map(|o| match &o.spec {
        Spec::Service(spec) if spec.kind != ServiceType::ExternalName => Some((*o, spec)),
        _ => None,
    });
    let mut out = Vec::new();
    for (object, spec) in services.filter(|(_, spec)| !spec.selector.is_empty()) {
        let makes = |t: &&&PodTemplate| {
            t.subject.namespace == object.meta.namespace && selects(&spec.selector, &t.labels)
        };
        let mut templates = mesh.templates.iter().filter(makes).peekable();
        if templates.peek().is_some() && !has_endpoints(mesh, object, spec) {
            out.extend(templates.map(|template| report(template, object)));
        }
    }
    out
}

fn has_endpoints(mesh: &Mesh<'_>, service: &Object, spec: &Service) -> bool {
    let beside = |o: &&&Object| o.meta.namespace == service.meta.namespace;
    let selected = |labels: &Labels| selects(&spec.selector, labels);
    mesh.objects.iter().filter(beside).any(|o| match &o.spec {
        Spec::Pod(pod) => {
            let ended = matches!(pod.phase, Phase::Succeeded | Phase::Failed);
            !ended && !pod.ips.is_empty() && selected(&o.meta.labels)
        }
        Spec::EndpointSlice(slice) => {
            let named = o.meta.labels.get(SERVICE_NAME) == Some(&service.meta.name);
            named && slice.endpoints.iter().any(|e| !e.addresses.is_empty())
        }
        Spec::WorkloadEntry(entry) => selected(&entry.labels) || selected(&o.meta.labels),
        Spec::Namespace(_)
        | Spec::Node(_)
        | Spec::Service(_)
        | Spec::ServiceEntry(_)
        | Spec::VirtualService(_)
        | Spec::DestinationRule(_)
        | Spec::PeerAuthentication(_)
        | Spec::Sidecar(_)
        | Spec::Gateway(_)
        | Spec::WorkloadGroup(_)
        | Spec::ProxyConfig(_)
        | Spec::TrafficExtension(_)
        | Spec::Ingress(_)
        | Spec::IngressClass(_)
        | Spec::EnvoyFilter(_)
        | Spec::Secret(_)
        | Spec::MeshConfig(_) => false,
    })
}

fn report(template: &PodTemplate, service: &Object) -> Diagnostic {
    let service = service.key();
    Diagnostic {
        level: Level::Warning,
        code: Code::NoEndpoints,
        resource: Some(template.subject.clone()),
        field: Str::default(),
        file: Some(template.file.clone()),
        line: Some(template.line),
        message: format!(
            "{service} has no endpoints: only Kubernetes makes pods of this; add an EndpointSlice, \
             Pod or WorkloadEntry"
        ),
    }
}
