//! What becomes of a request that an HTTP rule takes: where it goes, or what is answered instead.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::relation::Lead;
use super::traffic_policy;
use super::{Action, Also, Forward, HttpTarget, Mirror, Redirect, Response, Rewrite};
use crate::config::http_action::{
    HeaderChanges, HeaderOperations, HttpDirectResponse, HttpRedirect, Percent, RedirectPort,
};
use crate::config::mesh::MeshConfig;
use crate::config::value::Span;
use crate::config::virtual_service::{Destination, HttpMatchRequest, HttpRetry, HttpRoute};
use crate::model::rules::Obeyed;
use crate::text::{Hostname, Str};

/// The listener's port that was called, and what is known of destinations.
pub struct Called<'a> {
    pub lead: &'a dyn Fn(&Hostname) -> &'a Lead,
    pub port: u16,
    pub mesh: &'a MeshConfig,
}

/// A destination whose host is known in full.
#[derive(Clone, Debug)]
pub struct Way<'a> {
    pub host: Hostname,
    pub to: &'a Destination,
    pub weight: u32,
    pub headers: Option<&'a HeaderChanges>,
}

/// Where a rule leads requests, and copies of them.
#[derive(Clone, Debug, Default)]
pub struct Ways<'a> {
    pub targets: Vec<Way<'a>>,
    pub copies: Vec<(Way<'a>, Percent)>,
}

impl Ways<'_> {
    pub fn hosts(&self) -> Vec<Hostname> {
        let copies = self.copies.iter().map(|(way, _)| way);
        self.targets
            .iter()
            .chain(copies)
            .map(|way| way.host.clone())
            .collect()
    }
}

/// One destination counts whatever its weight; of several, those without weight get nothing.
pub fn ways<'a>(rule: &'a HttpRoute, namespace: &str, domain: &str) -> Ways<'a> {
    let single = rule.route.len() == 1;
    let weighted = rule.route.iter().filter(|d| single || d.weight > 0);
    let way = |to: &'a Destination| {
        Some(Way {
            host: Hostname::expand(&to.host, namespace, domain).ok()?,
            to,
            weight: 1,
            headers: None,
        })
    };
    let targets = weighted.filter_map(|d| {
        Some(Way {
            weight: d.weight.max(1),
            headers: Some(&d.headers).filter(|h| !h.is_empty()),
            ..way(&d.destination)?
        })
    });
    let copies = rule.copies().into_iter();
    Ways {
        targets: targets.collect(),
        copies: copies
            .filter_map(|(to, share)| Some((way(to)?, share)))
            .collect(),
    }
}

impl Called<'_> {
    /// A Service's own: everything to it.
    pub fn default(&self, way: Way<'_>) -> Forward {
        let ways = Ways {
            targets: vec![way],
            copies: Vec::new(),
        };
        self.forward(&ways, None)
    }

    /// A redirect goes before an answer, and that before a route. None for a rule that has none of them.
    pub fn action(&self, rule: &HttpRoute, ways: &Ways<'_>) -> Option<Action> {
        if let Some(redirect) = &rule.redirect {
            return Some(Action::Redirect(Box::new(self.redirect(redirect))));
        }
        if let Some(answer) = &rule.direct_response {
            return Some(Action::Respond(respond(answer)));
        }
        (!ways.targets.is_empty()).then(|| Action::Forward(self.forward(ways, Some(rule))))
    }

    fn redirect(&self, spec: &HttpRedirect) -> Redirect {
        let port = match spec.derive_port {
            Some(RedirectPort::FromRequestPort) => Some(self.port),
            Some(RedirectPort::FromProtocolDefault) => None,
            None => spec.port,
        };
        // The scheme says these by itself; a port that the request's host names stays then, as in Istio.
        let implied = |port: &u16| match spec.scheme.as_str() {
            "" | "http" => *port == 80,
            _ => *port == 443,
        };
        Redirect {
            spec: spec.clone(),
            port: port.filter(|port| !implied(port)),
        }
    }

    fn forward(&self, ways: &Ways<'_>, rule: Option<&HttpRoute>) -> Forward {
        let targets = &ways.targets;
        let single = targets.len() == 1;
        let target = |way: &Way<'_>| HttpTarget {
            cluster: self.cluster(way),
            weight: way.weight,
            // Of an only one they are the route's.
            headers: way.headers.filter(|_| !single).cloned().map(Box::new),
        };
        let mirror = |(way, share): &(Way<'_>, Percent)| Mirror {
            cluster: self.cluster(way),
            share: *share,
        };
        let only = targets.first().filter(|_| single).and_then(|w| w.headers);
        Forward {
            targets: targets.iter().map(target).collect(),
            timeout: rule
                .and_then(|r| r.timeout)
                .unwrap_or(Span(std::time::Duration::ZERO)),
            retries: retries(rule.and_then(|r| r.retries.as_ref()), self.mesh),
            hash: self.hash(targets.first()),
            rewrite: rule.and_then(|rule| rewrite(rule, only)).map(Box::new),
            mirrors: ways.copies.iter().map(mirror).collect(),
        }
    }

    /// The port that is named, else the Service's only one, else the one that was called.
    fn destination_port(&self, way: &Way<'_>) -> u16 {
        match &way.to.port {
            Some(port) => port.number,
            None => (self.lead)(&way.host).only_port.unwrap_or(self.port),
        }
    }

    fn cluster(&self, way: &Way<'_>) -> Str {
        let port = self.destination_port(way);
        let (subset, host) = (&way.to.subset, &way.host);
        Str::new(format!("outbound|{port}|{subset}|{host}"))
    }

    fn hash(&self, first: Option<&Way<'_>>) -> Vec<super::HashPolicy> {
        let Some(first) = first else {
            return Vec::new();
        };
        let rules = (self.lead)(&first.host).rule.as_ref().map(Obeyed::merged);
        let port = self.destination_port(first);
        let policy = traffic_policy::policy(rules.as_ref(), port, &first.to.subset);
        traffic_policy::hash_policies(&policy)
    }
}

fn respond(answer: &HttpDirectResponse) -> Response {
    let body = &answer.body;
    let bytes = match body.bytes.as_str() {
        "" => body.string.as_bytes().to_vec(),
        // Checked when the object was read.
        text => BASE64_STANDARD.decode(text).unwrap_or_default(),
    };
    Response {
        status: answer.status,
        body: bytes,
    }
}

/// A host that the only destination's headers set goes before the rule's own, and that before the rule's headers.
fn rewrite(rule: &HttpRoute, only: Option<&HeaderChanges>) -> Option<Rewrite> {
    let spec = rule.rewrite.clone().unwrap_or_default();
    let said = [
        only.and_then(authority),
        Some(&spec.authority).filter(|a| !a.is_empty()),
        authority(&rule.headers),
    ];
    let rewrite = Rewrite {
        authority: said
            .into_iter()
            .flatten()
            .next()
            .cloned()
            .unwrap_or_default(),
        prefix: spec.uri,
        regex: spec.uri_regex_rewrite,
    };
    (rewrite != Rewrite::default()).then_some(rewrite)
}

/// A request's host is no header like others: setting it is a rewrite.
pub fn authority(changes: &HeaderChanges) -> Option<&Str> {
    let HeaderOperations { set, add, .. } = &changes.request;
    let all = set.iter().chain(add);
    let mut named = all.filter(|(name, _)| is_authority(name));
    named.next().map(|(_, value)| value)
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

/// What of the rule is done besides its action. Of one way alone the headers are the route's.
pub fn also(
    rule: &HttpRoute,
    matches: Option<&HttpMatchRequest>,
    ways: &Ways<'_>,
    action: &Action,
) -> Option<Box<Also>> {
    let only = match (action, &ways.targets[..]) {
        (Action::Forward(_), [only]) => only.headers,
        _ => None,
    };
    let also = Also {
        headers: std::iter::once(&rule.headers)
            .chain(only)
            .filter(|changes| !changes.is_empty())
            .cloned()
            .collect(),
        fault: rule.fault.clone(),
        cors: rule.cors_policy.clone(),
        stat_prefix: matches.map(|m| m.stat_prefix.clone()).unwrap_or_default(),
    };
    (also != Also::default()).then(|| Box::new(also))
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
