//! The routes of one virtual host: a VirtualService's rules, or the Service's default.

use std::collections::BTreeSet;

use super::client::Client;
use super::traffic_policy;
use super::{Action, Forward, Route, Target};
use crate::config::meta::selects;
use crate::config::value::{Span, StringMatch};
use crate::config::virtual_service::{Destination, HttpMatchRequest, HttpRetry, HttpRoute};
use crate::config::{Key, Source};
use crate::model::Snapshot;
use crate::model::routes::Virtual;
use crate::text::{Hostname, Str};

/// Routes, where they come from, and the hosts whose Service or rule decided part of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Joined {
    pub routes: Vec<Route>,
    pub sources: Vec<Source>,
    pub destinations: BTreeSet<Hostname>,
}

/// The default: everything to the Service's own cluster.
pub fn default(client: &Client, snapshot: &Snapshot, host: &Hostname, port: u16) -> Joined {
    let target = Destination {
        host: host.to_str(),
        ..Destination::default()
    };
    let forward = forward(client, snapshot, &[(host.clone(), target, 1)], port, None);
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
    client: &Client,
    snapshot: &Snapshot,
    entry: &Virtual,
    host: &Hostname,
    port: u16,
) -> Joined {
    let mut joined = Joined::default();
    let domain = &snapshot.settings.domain;
    for (index, rule) in entry.spec.http.iter().enumerate() {
        let targets = targets(rule, &entry.key, domain);
        joined
            .destinations
            .extend(targets.iter().map(|(host, _, _)| host.clone()));
        if targets.is_empty() {
            continue;
        }
        let action = forward(client, snapshot, &targets, port, Some(rule));
        let mut ends = false;
        for matches in passing(client, rule, port) {
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
fn targets(rule: &HttpRoute, key: &Key, domain: &str) -> Vec<Resolved> {
    let single = rule.route.len() == 1;
    let weighted = rule.route.iter().filter(|d| single || d.weight > 0);
    weighted
        .filter_map(|d| {
            let host = Hostname::expand(&d.destination.host, &key.namespace, domain).ok()?;
            Some((host, d.destination.clone(), d.weight.max(1)))
        })
        .collect()
}

fn forward(
    client: &Client,
    snapshot: &Snapshot,
    targets: &[Resolved],
    listener_port: u16,
    rule: Option<&HttpRoute>,
) -> Forward {
    let named = |(host, destination, weight): &Resolved| {
        let port = destination_port(snapshot, host, destination, listener_port);
        let cluster = Str::new(format!("outbound|{port}|{}|{host}", destination.subset));
        (
            port,
            Target {
                cluster,
                weight: *weight,
            },
        )
    };
    let hash = targets.first().map(|first| {
        let (port, _) = named(first);
        let rules = snapshot.services.get(first.0.as_str()).and_then(|service| {
            snapshot
                .rules
                .select(&snapshot.mesh.root_namespace, &client.namespace, service)
        });
        let policy = traffic_policy::policy(rules.as_ref(), port, &first.1.subset);
        traffic_policy::hash_policies(&policy)
    });
    Forward {
        targets: targets.iter().map(|t| named(t).1).collect(),
        timeout: rule
            .and_then(|r| r.timeout)
            .unwrap_or(Span(std::time::Duration::ZERO)),
        retries: retries(rule.and_then(|r| r.retries.as_ref()), snapshot),
        hash: hash.unwrap_or_default(),
    }
}

/// The port that is named, else the Service's only one, else the one that was called.
fn destination_port(snapshot: &Snapshot, host: &Hostname, to: &Destination, called: u16) -> u16 {
    if let Some(port) = to.port {
        return port.number;
    }
    match snapshot
        .services
        .get(host.as_str())
        .map(|s| s.ports.as_slice())
    {
        Some([only]) => only.number,
        _ => called,
    }
}

/// The rule's, else the mesh's, else Istio's default. No attempts mean no retry.
fn retries(rule: Option<&HttpRetry>, snapshot: &Snapshot) -> Option<HttpRetry> {
    let standard = HttpRetry::standard();
    let chosen = rule.or(snapshot.mesh.default_http_retry_policy.as_ref());
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

/// The matches that this client can meet on this port; one `None` for a rule without any.
fn passing(client: &Client, rule: &HttpRoute, port: u16) -> Vec<Option<HttpMatchRequest>> {
    if rule.matches.is_empty() {
        return vec![None];
    }
    let passes = |m: &&HttpMatchRequest| {
        if m.port.is_some_and(|p| p != port) {
            return false;
        }
        if !m.gateways.is_empty() {
            return m.gateways.iter().any(|g| g == "mesh");
        }
        let from = m.source_namespace.is_empty() || m.source_namespace == client.namespace;
        from && selects(&m.source_labels, &client.labels)
    };
    let mut out = Vec::new();
    for matches in rule.matches.iter().filter(passes) {
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
