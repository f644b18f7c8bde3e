//! Gateways: who serves them, what is bound to them, which Secrets they show.

use std::collections::{BTreeMap, BTreeSet};

use super::Mesh;
use crate::config::core::{Service, TargetPort};
use crate::config::gateway::{Gateway, ServedHost, Server, Sort};
use crate::config::meta::{Labels, selects};
use crate::config::virtual_service::VirtualService;
use crate::config::{Key, Kind, Object, Spec};
use crate::diagnostic::{Code, Diagnostic};
use crate::text::{Hostname, Str};

/// A VirtualService that names a Gateway which is not there, or none of whose servers has a host of its own
/// (Istio's IST0101 and IST0132).
pub(super) fn of_virtual_services(mesh: &Mesh<'_>) -> Vec<Diagnostic> {
    let gateways: BTreeMap<(&Str, &Str), &Gateway> = all(mesh)
        .map(|(object, spec)| ((&object.meta.namespace, &object.meta.name), spec))
        .collect();
    let mut out = Vec::new();
    for object in mesh.objects.iter().copied() {
        let Spec::VirtualService(spec) = &object.spec else {
            continue;
        };
        let mut served = Vec::new();
        for (i, text) in spec
            .gateways
            .iter()
            .enumerate()
            .filter(|(_, g)| *g != "mesh")
        {
            let own = object.meta.namespace.as_str();
            let (namespace, name) = text.split_once('/').unwrap_or((own, text));
            let (namespace, name) = (Str::new(namespace), Str::new(name));
            match gateways.get(&(&namespace, &name)) {
                Some(gateway) => served.extend(hosts(gateway, &namespace)),
                None => {
                    let message =
                        format!("no Gateway {namespace}/{name}; nothing is routed there (IST0101)");
                    let field = format!("spec.gateways[{i}]");
                    out.push(mesh.warning(Code::Unresolved, &object.key(), field, message));
                }
            }
        }
        out.extend(unserved(mesh, object, spec, &served));
    }
    out
}

fn unserved(
    mesh: &Mesh<'_>,
    object: &Object,
    spec: &VirtualService,
    served: &[ServedHost],
) -> Vec<Diagnostic> {
    if served.is_empty() || spec.gateways.iter().any(|g| g == "mesh") {
        return Vec::new();
    }
    let namespace = &object.meta.namespace;
    let is_served = |host: &Hostname| {
        let mut from = served.iter().filter(|served| served.takes_from(namespace));
        from.any(|served| overlap(&served.name, host))
    };
    let hosts = spec.hosts.iter().enumerate();
    let hosts = hosts.filter_map(|(i, text)| {
        Hostname::expand(text, namespace, mesh.domain)
            .ok()
            .map(|host| (i, host))
    });
    let unserved = hosts.filter(|(_, host)| !is_served(host));
    unserved
        .map(|(i, host)| {
            let message =
                format!("no server of its gateways has the host {host} for {namespace} (IST0132)");
            let field = format!("spec.hosts[{i}]");
            mesh.warning(Code::Unresolved, &object.key(), field, message)
        })
        .collect()
}

fn overlap(a: &Hostname, b: &Hostname) -> bool {
    let covers = |a: &Hostname, b: &Hostname| a == b || a.is_wildcard() && a.matches(b.as_str());
    covers(a, b) || covers(b, a)
}

fn all<'a>(mesh: &'a Mesh<'_>) -> impl Iterator<Item = (&'a Object, &'a Gateway)> {
    mesh.objects.iter().filter_map(|object| match &object.spec {
        Spec::Gateway(spec) => Some((*object, spec)),
        _ => None,
    })
}

fn hosts(gateway: &Gateway, namespace: &str) -> Vec<ServedHost> {
    let texts = gateway.servers.iter().flat_map(|server| &server.hosts);
    texts
        .filter_map(|text| ServedHost::parse(text, namespace))
        .collect()
}

/// Where the proxies of a selector are, as far as pods are known.
pub(super) fn homes<'a>(mesh: &'a Mesh<'_>, selector: &Labels) -> BTreeSet<&'a Str> {
    let serving = mesh.pods.selected(selector);
    serving.into_iter().map(|pod| &pod.meta.namespace).collect()
}

/// A Gateway that no pod serves, where pods are known at all (IST0101).
pub(super) fn without_proxy(mesh: &Mesh<'_>) -> Vec<Diagnostic> {
    if mesh.pods.is_empty() {
        return Vec::new();
    }
    let idle = all(mesh).filter(|(_, spec)| homes(mesh, &spec.selector).is_empty());
    idle.map(|(object, _)| {
        let message = "no pod has the labels of this selector; nobody serves the Gateway (IST0101)";
        mesh.warning(
            Code::Unresolved,
            &object.key(),
            "spec.selector".to_owned(),
            message.to_owned(),
        )
    })
    .collect()
}

/// A certificate that is not there, in the namespace of the proxies that are to show it (IST0101).
pub(super) fn without_secret(mesh: &Mesh<'_>) -> Vec<Diagnostic> {
    let mut out = Vec::new();
    for (object, spec) in all(mesh) {
        for home in homes(mesh, &spec.selector) {
            for (i, server) in spec.servers.iter().enumerate() {
                for (field, name) in credentials(server) {
                    if let Some(why) = lacks(mesh, home, name) {
                        let field = format!("spec.servers[{i}].tls.{field}");
                        out.push(mesh.warning(Code::Unresolved, &object.key(), field, why));
                    }
                }
            }
        }
    }
    out
}

fn credentials(server: &Server) -> Vec<(&'static str, &Str)> {
    let Some(tls) = &server.tls else {
        return Vec::new();
    };
    let one = ("credentialName", &tls.credential_name);
    let several = tls
        .credential_names
        .iter()
        .map(|name| ("credentialNames", name));
    let all = std::iter::once(one).chain(several);
    all.filter(|(_, name)| !name.is_empty()).collect()
}

/// Why a namespace has no certificate of this name.
pub(super) fn lacks(mesh: &Mesh<'_>, namespace: &Str, name: &Str) -> Option<String> {
    let key = Key {
        kind: Kind::Secret,
        namespace: namespace.clone(),
        name: name.clone(),
    };
    match mesh.by_key.get(&key).map(|object| &object.spec) {
        Some(Spec::Secret(secret)) if secret.pair.is_some() => None,
        Some(_) => Some(format!(
            "Secret {namespace}/{name} has no certificate and key in PEM; this server stays closed (IST0101)"
        )),
        None => Some(format!(
            "no Secret {namespace}/{name}; this server stays closed (IST0101)"
        )),
    }
}

/// A Gateway in the order that Istio has them in, with what tells its place among those of the same proxies.
struct Standing<'a> {
    object: &'a Object,
    server: &'a Server,
    index: usize,
    serving: Serving<'a>,
}

/// By whom a Gateway is served: the pods, or where none are known by whom its labels select.
#[derive(PartialEq)]
enum Serving<'a> {
    Pods(BTreeSet<Key>),
    Whoever(&'a Labels),
}

impl Serving<'_> {
    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pods(a), Self::Pods(b)) => !a.is_disjoint(b),
            (a, b) => a == b,
        }
    }
}

/// Servers that cannot share a port with those of an older Gateway of the same proxies (IST0145). Ports are those that
/// the proxies listen on, by their Services.
pub(super) fn in_conflict(mesh: &Mesh<'_>) -> Vec<Diagnostic> {
    let mut gateways: Vec<(&Object, &Gateway)> = all(mesh).collect();
    gateways.sort_by(|(a, _), (b, _)| a.meta.age().cmp(&b.meta.age()));
    let services = services(mesh);
    let mut places: BTreeMap<(u16, &str), Vec<Standing<'_>>> = BTreeMap::new();
    for (object, spec) in gateways {
        let targets = targets(mesh, spec, &services);
        for (index, server) in spec.servers.iter().enumerate() {
            let number = server.port.number;
            let bind = match server.bind.as_str() {
                "" => "0.0.0.0",
                own => own,
            };
            let port = targets.get(&number).copied().unwrap_or(number);
            places.entry((port, bind)).or_default().push(Standing {
                object,
                server,
                index,
                serving: serving(mesh, spec),
            });
        }
    }
    let several = places.into_values();
    let mut out: Vec<Diagnostic> = several.flat_map(|all| of_place(mesh, &all)).collect();
    out.sort();
    out
}

fn of_place(mesh: &Mesh<'_>, servers: &[Standing<'_>]) -> Vec<Diagnostic> {
    let mut out = Vec::new();
    for (at, one) in servers.iter().enumerate() {
        let before = servers[..at]
            .iter()
            .filter(|o| o.serving.meets(&one.serving));
        let found = before.filter_map(|other| {
            let why = conflict(other.server, one.server)?;
            Some(format!(
                "{why} stands before this one, in {}; this server is left out (IST0145)",
                other.object.key()
            ))
        });
        if let Some(message) = found.into_iter().next() {
            let field = format!("spec.servers[{}]", one.index);
            out.push(mesh.warning(Code::Conflict, &one.object.key(), field, message));
        }
    }
    out
}

fn serving<'a>(mesh: &Mesh<'_>, gateway: &'a Gateway) -> Serving<'a> {
    match mesh.pods.is_empty() {
        true => Serving::Whoever(&gateway.selector),
        false => {
            let pods = mesh.pods.selected(&gateway.selector);
            Serving::Pods(pods.into_iter().map(Object::key).collect())
        }
    }
}

/// Services with a selector, by their namespace.
type Services<'a> = BTreeMap<&'a Str, Vec<&'a Service>>;

fn services<'a>(mesh: &'a Mesh<'_>) -> Services<'a> {
    let mut services: Services<'a> = BTreeMap::new();
    for object in mesh.objects.iter() {
        if let Spec::Service(spec) = &object.spec
            && !spec.selector.is_empty()
        {
            let of_namespace = services.entry(&object.meta.namespace).or_default();
            of_namespace.push(spec);
        }
    }
    services
}

/// Where the proxies of a Gateway listen for the ports of their Services.
fn targets(mesh: &Mesh<'_>, gateway: &Gateway, services: &Services<'_>) -> BTreeMap<u16, u16> {
    let mut out = BTreeMap::new();
    for pod in mesh.pods.selected(&gateway.selector) {
        let near = services.get(&pod.meta.namespace).into_iter().flatten();
        for service in near.filter(|s| selects(&s.selector, &pod.meta.labels)) {
            for port in &service.ports {
                let target = match &port.target_port {
                    Some(TargetPort::Number(number)) => *number,
                    Some(TargetPort::Name(_)) | None => port.port,
                };
                out.entry(port.port).or_insert(target);
            }
        }
    }
    out
}

/// A port that no Service of the Gateway's proxies has, where they have Services: nobody comes there by one (IST0104).
pub(super) fn without_port(mesh: &Mesh<'_>) -> Vec<Diagnostic> {
    let services = services(mesh);
    let mut out = Vec::new();
    for (object, spec) in all(mesh) {
        let targets = targets(mesh, spec, &services);
        let known = |number: u16| {
            targets.contains_key(&number) || targets.values().any(|target| *target == number)
        };
        for (i, server) in spec.servers.iter().enumerate() {
            let number = server.port.number;
            if targets.is_empty() || known(number) {
                continue;
            }
            let message =
                format!("no Service of the Gateway's proxies has the port {number} (IST0104)");
            let field = format!("spec.servers[{i}].port.number");
            out.push(mesh.warning(Code::Unresolved, &object.key(), field, message));
        }
    }
    out
}

fn conflict(first: &Server, second: &Server) -> Option<String> {
    let (a, b) = (first.sort()?, second.sort()?);
    let number = first.port.number;
    match (a, b) {
        (Sort::Http, Sort::Http) => None,
        (Sort::Http | Sort::Tcp, _) | (_, Sort::Http | Sort::Tcp) => Some(format!(
            "a server of {} on port {number}",
            first.port.protocol
        )),
        (_, _) => {
            let name = |text: &Str| text.rsplit('/').next().unwrap_or_default().to_owned();
            let known: BTreeSet<String> = first.hosts.iter().map(name).collect();
            let twice = second
                .hosts
                .iter()
                .map(name)
                .find(|host| known.contains(host))?;
            Some(format!("a server of {twice} on port {number}"))
        }
    }
}
