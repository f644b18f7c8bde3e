//! The routes of one virtual host: a VirtualService's rules, or the Service's default.

use std::collections::BTreeSet;

use super::relation::{Followed, Lead};
use super::traffic_policy;
use super::{Action, Forward, Route, Target};
use crate::config::mesh::MeshConfig;
use crate::config::value::{Span, StringMatch};
use crate::config::virtual_service::{Destination, HttpMatchRequest, HttpRetry, HttpRoute};
use crate::config::{Key, Source};
use crate::model::rules::Obeyed;
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
    let lead = |_: &Hostname| own;
    let forward = forward(&[(host.clone(), target, 1)], lead, port, None, mesh);
    Joined {
        routes: vec![Route {
            name: Str::new_static("default"),
            matches: None,
            operation: operation(host, port, None),
            config: Str::default(),
            action: Action::Forward(forward),
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
    let mut joined = Joined::default();
    for (index, rule) in entry.spec.http.iter().enumerate() {
        let targets = targets(rule, &entry.key, domain);
        joined
            .destinations
            .extend(targets.iter().map(|(host, _, _)| host.clone()));
        if targets.is_empty() {
            continue;
        }
        let action = forward(&targets, lead, port, Some(rule), mesh);
        let mut ends = false;
        for matches in passing(followed, index, rule, port) {
            ends |= matches.as_ref().is_none_or(takes_all);
            joined.routes.push(Route {
                name: route_name(rule, matches.as_ref()),
                operation: operation(host, port, matches.as_ref()),
                config: config_path(&entry.key),
                matches: matches.map(decided),
                action: Action::Forward(action.clone()),
            });
            joined.sources.push(Source {
                key: entry.key.clone(),
                field: Str::new(format!("spec.http[{index}]")),
            });
        }
        if ends {
            break;
        }
    }
    joined
}

type Resolved = (Hostname, Destination, u32);

/// One destination counts whatever its weight; of several, those without weight get nothing.
pub(super) fn targets(rule: &HttpRoute, key: &Key, domain: &str) -> Vec<Resolved> {
    let single = rule.route.len() == 1;
    let weighted = rule.route.iter().filter(|d| single || d.weight > 0);
    weighted
        .filter_map(|d| {
            let host = Hostname::expand(&d.destination.host, &key.namespace, domain).ok()?;
            Some((host, d.destination.clone(), d.weight.max(1)))
        })
        .collect()
}

fn forward<'l>(
    targets: &[Resolved],
    lead: impl Fn(&Hostname) -> &'l Lead,
    listener_port: u16,
    rule: Option<&HttpRoute>,
    mesh: &MeshConfig,
) -> Forward {
    // The port that is named, else the Service's only one, else the one that was called.
    let port = |(host, to, _): &Resolved| match &to.port {
        Some(port) => port.number,
        None => lead(host).only_port.unwrap_or(listener_port),
    };
    let named = |target: &Resolved| {
        let (host, destination, weight) = target;
        let port = port(target);
        Target {
            cluster: Str::new(format!("outbound|{port}|{}|{host}", destination.subset)),
            weight: *weight,
        }
    };
    let hash = targets.first().map(|first| {
        let rules = lead(&first.0).rule.as_ref().map(Obeyed::merged);
        let policy = traffic_policy::policy(rules.as_ref(), port(first), &first.1.subset);
        traffic_policy::hash_policies(&policy)
    });
    Forward {
        targets: targets.iter().map(named).collect(),
        timeout: rule
            .and_then(|r| r.timeout)
            .unwrap_or(Span(std::time::Duration::ZERO)),
        retries: retries(rule.and_then(|r| r.retries.as_ref()), mesh),
        hash: hash.unwrap_or_default(),
    }
}

/// The rule's, else the mesh's, else Istio's default. No attempts mean no retry.
fn retries(rule: Option<&HttpRetry>, mesh: &MeshConfig) -> Option<HttpRetry> {
    let standard = HttpRetry::standard();
    let chosen = rule.or(mesh.default_http_retry_policy.as_ref());
    let Some(chosen) = chosen else {
        return Some(standard);
    };
    if chosen.attempts == 0 {
        return None;
    }
    let mut policy = chosen.clone();
    if policy.retry_on.is_empty() {
        policy.retry_on = standard.retry_on;
    }
    policy.retry_ignore_previous_hosts = policy
        .retry_ignore_previous_hosts
        .or(standard.retry_ignore_previous_hosts);
    Some(policy)
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
        if m.port.is_some_and(|p| p != port) {
            return false;
        }
        if !m.gateways.is_empty() {
            return m.gateways.iter().any(|g| g == "mesh");
        }
        !followed.elsewhere.contains(&(index, *place))
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
        ..matches
    }
}

fn takes_all(m: &HttpMatchRequest) -> bool {
    let any_path = match &m.uri {
        None => true,
        Some(StringMatch::Prefix(p)) => p == "/",
        Some(StringMatch::Regex(r)) => r == ".*" || r == "*",
        Some(StringMatch::Exact(_)) => false,
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
        Some(StringMatch::Prefix(p)) => Str::new(format!("{p}*")),
        None => Str::new_static("/*"),
    };
    Str::new(format!("{host}:{port}{path}"))
}

/// The path that istioctl and Kiali read from a route's metadata.
pub fn config_path(key: &Key) -> Str {
    let kind = match key.kind {
        crate::config::Kind::VirtualService => "virtual-service",
        crate::config::Kind::DestinationRule => "destination-rule",
        other => return Str::new(other.name()),
    };
    let Key {
        namespace, name, ..
    } = key;
    Str::new(format!(
        "/apis/networking.istio.io/v1/namespaces/{namespace}/{kind}/{name}"
    ))
}
