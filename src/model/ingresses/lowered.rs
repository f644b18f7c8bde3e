//! One Ingress in the words of Istio's objects: servers of a Gateway, and rules by host.
//!
//! Whose Ingress it is, and how those of several Ingresses meet, is decided in the file above.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::gateway::{Server, ServerPort, ServerTls, TlsMode};
use crate::config::http_action::HttpDirectResponse;
use crate::config::ingress::{Backend, BackendService, Ingress, IngressPath, IngressTls, PathType};
use crate::config::meta::Meta;
use crate::config::value::StringMatch;
use crate::config::virtual_service::{
    Destination, HttpMatchRequest, HttpRoute, HttpRouteDestination, PortSelector,
};
use crate::config::{Key, Kind};
use crate::model::delegates::{Rule, Written};
use crate::text::{Hostname, Str};

const HTTP: u16 = 80;
const HTTPS: u16 = 443;

/// The number of a Service's port, by host and name.
pub type Ports<'a> = dyn Fn(&Hostname, &str) -> Option<u16> + 'a;

#[derive(Clone, Debug, PartialEq)]
pub struct Lowered {
    /// A server for each host of TLS, so that one which is taken leaves the others; and the field that says it.
    pub servers: Vec<(Server, Str)>,
    pub rules: BTreeMap<Hostname, Vec<Rule>>,
    /// Services that a port is looked up in by its name.
    pub asked: BTreeSet<Hostname>,
}

pub fn lower(meta: &Meta, spec: &Ingress, domain: &str, ports: &Ports<'_>) -> Lowered {
    let origin = Arc::new(Key {
        kind: Kind::Ingress,
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
    });
    let ways = Ways {
        namespace: &meta.namespace,
        domain,
        ports,
    };
    let asked = spec.backends().filter_map(|(_, backend)| {
        let service = backend.service.as_ref()?;
        let named = service.port.number == 0;
        named.then(|| ways.host(service)).flatten()
    });
    Lowered {
        servers: servers(meta, spec),
        asked: asked.collect(),
        rules: rules(spec, &origin, &ways),
    }
}

/// What every Ingress shares: plaintext for all hosts.
pub fn plain() -> Server {
    Server {
        port: ServerPort {
            number: HTTP,
            protocol: Str::new_static("HTTP"),
            name: Str::new(format!("http-{HTTP}-ingress")),
        },
        hosts: vec![Str::new_static("*")],
        ..Server::default()
    }
}

fn servers(meta: &Meta, spec: &Ingress) -> Vec<(Server, Str)> {
    let Meta {
        name, namespace, ..
    } = meta;
    let tls = spec.tls.iter().enumerate();
    let tls = tls.filter(|(_, tls)| !tls.secret_name.is_empty());
    let each = tls.flat_map(|(i, tls)| {
        let hosts = match tls.hosts.as_slice() {
            [] => vec![Str::new_static("*")],
            hosts => hosts.to_vec(),
        };
        hosts.into_iter().enumerate().map(move |(j, host)| {
            // A namespace has no dot and both numbers are always there: no two servers have one name.
            let port = format!("https-{HTTPS}-ingress-{namespace}.{name}-{i}-{j}");
            (https(host, port, tls), Str::new(format!("spec.tls[{i}]")))
        })
    });
    each.collect()
}

fn https(host: Str, port: String, tls: &IngressTls) -> Server {
    Server {
        port: ServerPort {
            number: HTTPS,
            protocol: Str::new_static("HTTPS"),
            name: Str::new(port),
        },
        hosts: vec![host],
        tls: Some(Box::new(ServerTls {
            mode: TlsMode::Simple,
            credential_name: tls.secret_name.clone(),
            ..ServerTls::default()
        })),
        ..Server::default()
    }
}

struct Ways<'a> {
    namespace: &'a str,
    domain: &'a str,
    ports: &'a Ports<'a>,
}

/// Of all its rules for a host, and last what its default backend gets.
fn rules(spec: &Ingress, origin: &Arc<Key>, ways: &Ways<'_>) -> BTreeMap<Hostname, Vec<Rule>> {
    let mut out: BTreeMap<Hostname, Vec<Rule>> = BTreeMap::new();
    let any = || Hostname::parse("*").ok();
    let rule = |place, uri, backend: &Backend| Rule {
        route: Arc::new(ways.route(uri, backend)),
        place,
        origin: Some(origin.clone()),
    };
    for (r, own) in spec.rules.iter().enumerate() {
        let paths = own.http.iter().flat_map(|http| &http.paths).enumerate();
        let host = match own.host.as_str() {
            "" => any(),
            named => Hostname::parse(named).ok(),
        };
        let Some(host) = host else { continue };
        let rules =
            paths.map(|(p, path)| rule(Written::Path(r, p), Some(uri(path)), &path.backend));
        out.entry(host).or_default().extend(rules);
    }
    if let Some(backend) = &spec.default_backend {
        out.extend(
            any()
                .filter(|any| !out.contains_key(any))
                .map(|any| (any, Vec::new())),
        );
        for rules in out.values_mut() {
            rules.push(rule(Written::DefaultBackend, None, backend));
        }
    }
    out.retain(|_, rules| !rules.is_empty());
    out
}

/// Longer paths go first, and of equal ones exact ones; default backends go last.
pub fn precedence(rule: &Rule) -> (bool, Reverse<usize>, bool) {
    let mut uris = rule.route.matches.iter().map(|m| m.uri.as_ref());
    let (length, exact) = match uris.next().flatten() {
        Some(StringMatch::Exact(path)) => (path.len(), true),
        Some(StringMatch::Prefix(path) | StringMatch::Segments(path)) => (path.len(), false),
        Some(StringMatch::Regex(_)) | None => (0, false),
    };
    (
        rule.place == Written::DefaultBackend,
        Reverse(length),
        !exact,
    )
}

fn uri(path: &IngressPath) -> StringMatch {
    let text = path.path.as_str();
    match path.path_type {
        PathType::Exact => StringMatch::Exact(path.path.clone()),
        PathType::Prefix => below(text),
        PathType::ImplementationSpecific => match text {
            "" | "*" | "/*" | ".*" => below(""),
            _ => match text.strip_suffix(".*").or_else(|| text.strip_suffix("/*")) {
                Some(prefix) => below(prefix),
                None => StringMatch::Exact(path.path.clone()),
            },
        },
    }
}

fn below(text: &str) -> StringMatch {
    match text.trim_end_matches('/') {
        "" => StringMatch::Prefix(Str::new_static("/")),
        trimmed => StringMatch::Segments(Str::new(trimmed)),
    }
}

impl Ways<'_> {
    fn host(&self, service: &BackendService) -> Option<Hostname> {
        let Self {
            namespace, domain, ..
        } = self;
        Hostname::parse(&format!("{}.{namespace}.svc.{domain}", service.name)).ok()
    }

    /// None matches whatever no path took.
    fn route(&self, uri: Option<StringMatch>, backend: &Backend) -> HttpRoute {
        let matches = uri.map(|uri| HttpMatchRequest {
            uri: Some(uri),
            ..HttpMatchRequest::default()
        });
        let route = HttpRoute {
            matches: matches.into_iter().collect(),
            ..HttpRoute::default()
        };
        match self.destination(backend) {
            Some(destination) => HttpRoute {
                route: vec![HttpRouteDestination {
                    destination,
                    weight: 100,
                    ..HttpRouteDestination::default()
                }],
                ..route
            },
            // Otherwise a shorter path would get what is not meant for it.
            None => HttpRoute {
                direct_response: Some(HttpDirectResponse {
                    status: 503,
                    ..HttpDirectResponse::default()
                }),
                ..route
            },
        }
    }

    fn destination(&self, backend: &Backend) -> Option<Destination> {
        let service = backend.service.as_ref()?;
        let host = self.host(service)?;
        let number = match service.port.number {
            0 => (self.ports)(&host, &service.port.name)?,
            number => number,
        };
        Some(Destination {
            host: host.to_str(),
            subset: Str::default(),
            port: Some(PortSelector { number }),
        })
    }
}
