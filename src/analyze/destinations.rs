//! Routes to a host that no Service has.

use std::collections::BTreeSet;

use super::Mesh;
use crate::config::Spec;
use crate::diagnostic::{Code, Diagnostic};
use crate::text::Hostname;

pub(super) fn without_service(mesh: &Mesh<'_>) -> Vec<Diagnostic> {
    let services: BTreeSet<Hostname> = mesh
        .objects
        .iter()
        .filter(|o| matches!(o.spec, Spec::Service(_)))
        .filter_map(|o| Hostname::expand(&o.meta.name, &o.meta.namespace, mesh.domain).ok())
        .collect();
    mesh.objects
        .iter()
        .flat_map(|o| of_object(mesh, &services, o))
        .collect()
}

fn of_object(
    mesh: &Mesh<'_>,
    services: &BTreeSet<Hostname>,
    object: &crate::config::Object,
) -> Vec<Diagnostic> {
    let Spec::VirtualService(spec) = &object.spec else {
        return Vec::new();
    };
    let mut out = Vec::new();
    for (i, route) in spec.http.iter().enumerate() {
        for (j, to) in route.route.iter().enumerate() {
            let host = &to.destination.host;
            let Ok(host) = Hostname::expand(host, &object.meta.namespace, mesh.domain) else {
                continue;
            };
            if services.contains(&host) {
                continue;
            }
            let field = format!("spec.http[{i}].route[{j}].destination.host");
            let message = format!("no Service has the host {host}; requests routed there get 503");
            out.push(mesh.warning(Code::Unresolved, &object.key(), field, message));
        }
    }
    out
}
