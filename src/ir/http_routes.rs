//! The routes of one virtual host: a VirtualService's rules, or the Service's default.

use std::collections::BTreeSet;

use super::http_actions::{Called, Way, also, ways};
use super::relation::{Followed, Lead};
use super::{Action, Route};
use crate::config::mesh::MeshConfig;
use crate::config::value::StringMatch;
use crate::config::virtual_service::{Destination, HttpMatchRequest, HttpRoute};
use crate::config::{Key, Kind, Source};
use crate::text::{Hostname, Str};

/// Routes, where they come from, and the hosts whose Service or rule decided part of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Joined {
    pub routes: Vec<Route>,
    pub sources: Vec<Source>,
    pub destinations: BTreeSet<Hostname>,
}

/// The default: everything to the Service's own cluster. `own` is what decides of it as a destination.
pub fn default(host: &Hostname, own: &Lead, port: u16, mesh: &MeshConfig) -> Joined {
    let target = Destination {
        host: host.to_str(),
        ..Destination::default()
    };
    let way = Way {
        host: host.clone(),
        to: &target,
        weight: 1,
        headers: None,
    };
    let called = Called {
        lead: &|_: &Hostname| own,
        port,
        mesh,
    };
    let forward = called.default(way);
    Joined {
        routes: vec![Route {
            name: Str::new_static("default"),
            matches: None,
            operation: operation(host, port, None),
            config: Str::default(),
            action: Action::Forward(forward),
            also: None,
        }],
        ..Joined::default()
    }
}

/// A VirtualService's rules in their order, up to the first that takes everything.
pub fn of_virtual(
    followed: &Followed,
    host: &Hostname,
    port: u16,
    mesh: &MeshConfig,
    domain: &str,
) -> Joined {
    const NOWHERE: &Lead = &Lead {
        only_port: None,
        rule: None,
    };
    let entry = &followed.entry;
    let lead = |to: &Hostname| {
        let mut leads = followed.leads.iter();
        leads.find(|(h, _)| h == to).map_or(NOWHERE, |(_, l)| l)
    };
    let called = Called {
        lead: &lead,
        port,
        mesh,
    };
    let mut joined = Joined::default();
    for (index, of_rule) in entry.rules.iter().enumerate() {
        let (rule, origin) = (&*of_rule.route, entry.origin(of_rule));
        let ways = ways(rule, &origin.namespace, domain);
        let hosts = ways.hosts();
        let Some(action) = called.action(rule, &ways) else {
            continue;
        };
        joined.destinations.extend(hosts);
        let mut ends = false;
        for matches in passing(followed, index, rule, port) {
            ends |= matches.as_ref().is_none_or(takes_all);
            joined.routes.push(Route {
                name: route_name(rule, matches.as_ref()),
                operation: operation(host, port, matches.as_ref()),
                config: config_path(origin),
                also: also(rule, matches.as_ref(), &ways, &action),
                matches: matches.map(decided),
                action: action.clone(),
            });
            joined.sources.push(Source {
                key: origin.clone(),
                field: of_rule.place.field(),
            });
        }
        if ends {
            break;
        }
    }
    joined
}

/// The matches that the client can meet on this port; one `None` for a rule without any.
fn passing(
    followed: &Followed,
    index: usize,
    rule: &HttpRoute,
    port: u16,
) -> Vec<Option<HttpMatchRequest>> {
    if rule.matches.is_empty() {
        return vec![None];
    }
    let passes = |(place, m): &(usize, &HttpMatchRequest)| {
        let at_port = m.port.is_none_or(|p| p == port);
        at_port && !followed.elsewhere.contains(&(index, *place))
    };
    let mut out = Vec::new();
    for (_, matches) in rule.matches.iter().enumerate().filter(passes) {
        let ends = takes_all(matches);
        out.push(Some(matches.clone()));
        if ends {
            break;
        }
    }
    out
}

/// Clears what was decided here, so that it is no part of what Envoy is given.
fn decided(matches: HttpMatchRequest) -> HttpMatchRequest {
    HttpMatchRequest {
        name: Str::default(),
        port: None,
        gateways: Vec::new(),
        source_namespace: Str::default(),
        source_labels: Default::default(),
        stat_prefix: Str::default(),
        ..matches
    }
}

pub fn takes_all(m: &HttpMatchRequest) -> bool {
    let any_path = match &m.uri {
        None => true,
        Some(StringMatch::Prefix(p)) => p == "/",
        Some(StringMatch::Regex(r)) => r == ".*" || r == "*",
        Some(StringMatch::Exact(_) | StringMatch::Segments(_)) => false,
    };
    any_path
        && m.scheme.is_none()
        && m.method.is_none()
        && m.authority.is_none()
        && m.headers.is_empty()
        && m.without_headers.is_empty()
        && m.query_params.is_empty()
}

fn route_name(rule: &HttpRoute, matches: Option<&HttpMatchRequest>) -> Str {
    match matches.map(|m| m.name.as_str()).filter(|n| !n.is_empty()) {
        Some(own) => Str::new(format!("{}.{own}", rule.name)),
        None => rule.name.clone(),
    }
}

fn operation(host: &Hostname, port: u16, matches: Option<&HttpMatchRequest>) -> Str {
    let path = match matches.and_then(|m| m.uri.as_ref()) {
        Some(StringMatch::Exact(p) | StringMatch::Regex(p)) => p.clone(),
        Some(StringMatch::Prefix(p) | StringMatch::Segments(p)) => Str::new(format!("{p}*")),
        None => Str::new_static("/*"),
    };
    Str::new(format!("{host}:{port}{path}"))
}

/// The path that istioctl and Kiali read from a route's metadata.
pub fn config_path(key: &Key) -> Str {
    let (group, kind) = match key.kind {
        Kind::VirtualService => ("networking.istio.io", "virtual-service"),
        Kind::DestinationRule => ("networking.istio.io", "destination-rule"),
        Kind::Ingress => ("networking.k8s.io", "ingress"),
        other => return Str::new(other.name()),
    };
    let Key {
        namespace, name, ..
    } = key;
    Str::new(format!(
        "/apis/{group}/v1/namespaces/{namespace}/{kind}/{name}"
    ))
}
