//! Routes to a host that no Service has, and rules handed on to a delegate that is not there.

use std::collections::BTreeSet;

use super::Mesh;
use crate::config::virtual_service::{Destination, VirtualService};
use crate::config::{Key, Kind, Object, Spec};
use crate::diagnostic::{Code, Diagnostic};
use crate::text::Hostname;

pub(super) fn without_service(mesh: &Mesh<'_>) -> Vec<Diagnostic> {
    let hosts: BTreeSet<Hostname> = mesh.objects.iter().flat_map(|o| hosts(mesh, o)).collect();
    let of_object = |o: &&Object| match &o.spec {
        Spec::VirtualService(spec) => unresolved(mesh, &hosts, o, spec),
        _ => Vec::new(),
    };
    mesh.objects.iter().flat_map(of_object).collect()
}

fn hosts(mesh: &Mesh<'_>, object: &Object) -> Vec<Hostname> {
    match &object.spec {
        Spec::Service(_) => {
            let Object { meta, .. } = object;
            let host = Hostname::expand(&meta.name, &meta.namespace, mesh.domain);
            host.into_iter().collect()
        }
        Spec::ServiceEntry(spec) => {
            let hosts = spec.hosts.iter();
            hosts
                .filter_map(|host| Hostname::parse(host).ok())
                .collect()
        }
        _ => Vec::new(),
    }
}

fn unresolved(
    mesh: &Mesh<'_>,
    hosts: &BTreeSet<Hostname>,
    object: &Object,
    spec: &VirtualService,
) -> Vec<Diagnostic> {
    let warning = |field, message| mesh.warning(Code::Unresolved, &object.key(), field, message);
    let mut out = Vec::new();
    for (field, to) in destinations(spec) {
        let host = Hostname::expand(&to.host, &object.meta.namespace, mesh.domain);
        if let Ok(host) = host
            && !hosts.contains(&host)
        {
            let message =
                format!("no Service has the host {host}; requests routed there get 503 (IST0101)");
            out.push(warning(format!("{field}.host"), message));
        }
    }
    for (i, rule) in spec.http.iter().enumerate() {
        let Some(delegate) = &rule.delegate else {
            continue;
        };
        let key = Key {
            kind: Kind::VirtualService,
            namespace: match delegate.namespace.as_str() {
                "" => object.meta.namespace.clone(),
                _ => delegate.namespace.clone(),
            },
            name: delegate.name.clone(),
        };
        let found = mesh.by_key.get(&key).map(|o| &o.spec);
        if !matches!(found, Some(Spec::VirtualService(vs)) if vs.hosts.is_empty()) {
            let message = format!(
                "no delegate {key} without hosts is there; this rule takes no request (IST0101)"
            );
            out.push(warning(format!("spec.http[{i}].delegate"), message));
        }
    }
    out
}

/// Each with its field.
fn destinations(spec: &VirtualService) -> Vec<(String, &Destination)> {
    let mut out = Vec::new();
    for (i, rule) in spec.http.iter().enumerate() {
        for (j, to) in rule.route.iter().enumerate() {
            out.push((
                format!("spec.http[{i}].route[{j}].destination"),
                &to.destination,
            ));
        }
        let mirror = rule.mirror.iter();
        out.extend(mirror.map(|to| (format!("spec.http[{i}].mirror"), to)));
        for (j, mirror) in rule.mirrors.iter().enumerate() {
            out.push((
                format!("spec.http[{i}].mirrors[{j}].destination"),
                &mirror.destination,
            ));
        }
    }
    let tls = spec.tls.iter().enumerate();
    let tls = tls.map(|(i, rule)| (format!("spec.tls[{i}]"), &rule.route));
    let tcp = spec.tcp.iter().enumerate();
    let tcp = tcp.map(|(i, rule)| (format!("spec.tcp[{i}]"), &rule.route));
    for (path, route) in tls.chain(tcp) {
        for (j, to) in route.iter().enumerate() {
            out.push((format!("{path}.route[{j}].destination"), &to.destination));
        }
    }
    out
}
