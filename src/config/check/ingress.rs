//! Ingress: what Kubernetes refuses of one, and what of it changes nothing.

use super::{fault, host};
use crate::config::decode::reader::Fault;
use crate::config::ingress::{Backend, Ingress, IngressPath, IngressTls, PathType};
use crate::diagnostic::Code;
use crate::text::Str;

pub(super) fn faults(spec: &Ingress) -> Vec<Fault> {
    let mut out = Vec::new();
    for (field, own) in spec.backends() {
        out.extend(backend(&field, own));
    }
    for (i, tls) in spec.tls.iter().enumerate() {
        out.extend(of_tls(&format!("spec.tls[{i}]"), tls));
    }
    for (i, rule) in spec.rules.iter().enumerate() {
        let at = format!("spec.rules[{i}]");
        if !rule.host.is_empty() {
            out.extend(host_name(&format!("{at}.host"), &rule.host));
        }
        let paths = rule.http.iter().flat_map(|http| &http.paths);
        if paths.clone().next().is_none() {
            out.push(idle(&at, "the rule has no path; it changes nothing"));
        }
        for (j, own) in paths.enumerate() {
            out.extend(path(&format!("{at}.http.paths[{j}].path"), own));
        }
    }
    out
}

fn idle(at: &str, message: &str) -> Fault {
    Fault::warning(Code::NotYetInEffect, at, message)
}

/// Names in Kubernetes' sense: no address, and a star for the first label alone.
fn host_name(at: &str, name: &Str) -> Option<Fault> {
    let star = name.strip_prefix("*.").unwrap_or(name).contains('*');
    if star || name.parse::<std::net::IpAddr>().is_ok() {
        return Some(fault(
            at,
            format!("`{name}` is no DNS name, nor `*.` and one"),
        ));
    }
    host(at, name)
}

fn of_tls(at: &str, tls: &IngressTls) -> Vec<Fault> {
    let mut out = Vec::new();
    for (j, name) in tls.hosts.iter().enumerate() {
        out.extend(host_name(&format!("{at}.hosts[{j}]"), name));
    }
    if tls.secret_name.is_empty() {
        let message = "no Secret is named: TLS is served for none of these hosts";
        out.push(idle(at, message));
    }
    out
}

fn backend(at: &str, own: &Backend) -> Option<Fault> {
    match (&own.service, &own.resource) {
        (Some(_), Some(_)) => Some(fault(at, "a backend is a Service or a resource, not both")),
        (None, Some(resource)) => {
            let message = format!(
                "{} is no backend that a proxy can call; only Services are: requests get 503",
                resource.kind
            );
            Some(idle(&format!("{at}.resource"), &message))
        }
        (None, None) => Some(fault(at, "a backend names a Service")),
        (Some(service), None) if service.name.is_empty() => Some(fault(
            format!("{at}.service.name"),
            "the Service has no name",
        )),
        (Some(service), None) => match (service.port.number, service.port.name.is_empty()) {
            (0, true) => Some(fault(
                format!("{at}.service.port"),
                "the port has neither a name nor a number",
            )),
            (0, false) | (_, true) => None,
            (_, false) => Some(fault(
                format!("{at}.service.port"),
                "a port has a name or a number, not both",
            )),
        },
    }
}

/// What Envoy would refuse as a prefix of whole segments is refused here.
fn path(at: &str, own: &IngressPath) -> Option<Fault> {
    let text = own.path.as_str();
    let must_be_absolute = match own.path_type {
        PathType::Exact | PathType::Prefix => true,
        PathType::ImplementationSpecific => !text.is_empty() && text != "*" && text != ".*",
    };
    if must_be_absolute && !text.starts_with('/') {
        return Some(fault(at, format!("`{text}` does not begin with `/`")));
    }
    let sound = !text.contains(['?', '#']) && !text.chars().any(char::is_control);
    (!sound).then(|| {
        fault(
            at,
            "a path has no query, no fragment and no control character",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ingress::{BackendPort, BackendService, IngressPaths, IngressRule};

    fn fields(spec: &Ingress) -> Vec<String> {
        faults(spec).into_iter().map(|f| f.path).collect()
    }

    fn to(name: &str, number: u16) -> Backend {
        Backend {
            service: Some(BackendService {
                name: name.into(),
                port: BackendPort {
                    number,
                    name: Str::default(),
                },
            }),
            resource: None,
        }
    }

    #[test]
    fn paths_are_absolute_and_backends_are_services_with_a_port() {
        let rule = |path: &str, path_type, backend| IngressRule {
            host: "a.example".into(),
            http: Some(IngressPaths {
                paths: vec![IngressPath {
                    path: path.into(),
                    path_type,
                    backend,
                }],
            }),
        };
        let spec = Ingress {
            rules: vec![
                rule("/a", PathType::Prefix, to("web", 80)),
                rule("a", PathType::Exact, to("web", 80)),
                rule("", PathType::ImplementationSpecific, to("web", 0)),
                rule("/?x", PathType::Prefix, Backend::default()),
            ],
            ..Ingress::default()
        };
        let expected = [
            "spec.rules[2].http.paths[0].backend.service.port",
            "spec.rules[3].http.paths[0].backend",
            "spec.rules[1].http.paths[0].path",
            "spec.rules[3].http.paths[0].path",
        ];
        assert_eq!(fields(&spec), expected);
    }

    #[test]
    fn hosts_are_names_with_a_star_for_the_first_label_alone() {
        for bad in ["10.0.0.1", "*a.example", "a.*.example", "*"] {
            let spec = Ingress {
                tls: vec![IngressTls {
                    hosts: vec!["*.a.example".into(), bad.into()],
                    secret_name: "s".into(),
                }],
                ..Ingress::default()
            };
            assert_eq!(fields(&spec), ["spec.tls[0].hosts[1]"], "{bad}");
        }
    }
}
