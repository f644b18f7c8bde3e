//! VirtualService: hosts, matches, destinations, retries.

use super::{export_to, fault, host, http_action, is_label, key_path, l4_route, port, regex, span};
use crate::config::decode::reader::Fault;
use crate::config::meta::Labels;
use crate::config::value::StringMatch;
use crate::config::virtual_service::{
    Destination, HeaderMatch, HttpMatchRequest, HttpRetry, HttpRoute, HttpRouteDestination,
    VirtualService,
};
use crate::text::{Hostname, Str};

/// The pseudo gateway that stands for all sidecars.
const MESH: &str = "mesh";
const JWT_CLAIM: &str = "@request.auth.claims";

/// Words of Envoy's `x-envoy-retry-on` and `x-envoy-retry-grpc-on`.
const RETRY_ON: &[&str] = &[
    "5xx",
    "cancelled",
    "connect-failure",
    "deadline-exceeded",
    "envoy-ratelimited",
    "gateway-error",
    "http3-post-connect-failure",
    "internal",
    "refused-stream",
    "reset",
    "reset-before-request",
    "resource-exhausted",
    "retriable-4xx",
    "retriable-headers",
    "retriable-status-codes",
    "unavailable",
];

/// Where the routes of a VirtualService apply.
#[derive(Clone, Copy, PartialEq)]
enum Reach {
    Sidecars,
    GatewaysOnly,
}

pub(super) fn faults(spec: &VirtualService, namespace: &str) -> Vec<Fault> {
    let on_mesh = spec.gateways.is_empty() || spec.gateways.iter().any(|g| g == MESH);
    let reach = if on_mesh {
        Reach::Sidecars
    } else {
        Reach::GatewaysOnly
    };
    let mut out = Vec::new();
    if spec.hosts.is_empty() && !spec.gateways.is_empty() {
        let message = "a delegate, which has no hosts, has no gateways";
        out.push(fault("spec.gateways", message));
    }
    out.extend(gateways("spec.gateways", &spec.gateways));
    out.extend(hosts(&spec.hosts, reach));
    if spec.http.is_empty() && spec.tcp.is_empty() && spec.tls.is_empty() {
        out.push(fault("spec", "one of http, tcp, tls must have a route"));
    }
    for (i, route) in spec.http.iter().enumerate() {
        let path = format!("spec.http[{i}]");
        out.extend(http_route(&path, route, reach));
        if route.delegate.is_some() && spec.hosts.is_empty() {
            let message = "a delegate delegates no further";
            out.push(fault(format!("{path}.delegate"), message));
        }
    }
    out.extend(l4_route::faults(spec));
    out.extend(export_to("spec.exportTo", namespace, &spec.export_to));
    out
}

fn hosts(hosts: &[Str], reach: Reach) -> Vec<Fault> {
    let mut out = Vec::new();
    let mut parsed: Vec<Hostname> = Vec::new();
    for (i, text) in hosts.iter().enumerate() {
        let path = format!("spec.hosts[{i}]");
        match Hostname::parse(text) {
            Err(e) => out.push(fault(path, e.to_string())),
            Ok(host) if host.as_str() == "*" && reach == Reach::Sidecars => {
                out.push(fault(
                    path,
                    "`*` is taken on gateways only; sidecars need a narrower host",
                ));
            }
            Ok(host) => {
                if let Some(other) = parsed.iter().find(|p| overlap(p, &host)) {
                    out.push(fault(path, format!("`{host}` repeats `{other}`")));
                }
                parsed.push(host);
            }
        }
    }
    out
}

fn overlap(a: &Hostname, b: &Hostname) -> bool {
    let bare = |h: &Hostname| h.as_str().trim_start_matches('*').to_owned();
    match (a.is_wildcard(), b.is_wildcard()) {
        (true, true) => bare(a).ends_with(&bare(b)) || bare(b).ends_with(&bare(a)),
        (true, false) => a.matches(b.as_str()),
        (false, true) => b.matches(a.as_str()),
        (false, false) => a == b,
    }
}

pub(super) fn gateways(path: &str, names: &[Str]) -> Vec<Fault> {
    let sound = |name: &str| match name.split_once('/') {
        Some((namespace, name)) => is_label(namespace) && is_label(name),
        None => name.split('.').all(is_label),
    };
    let unsound = names.iter().enumerate().filter(|(_, name)| !sound(name));
    unsound
        .map(|(i, name)| {
            let message = format!("`{name}` is no <namespace>/<gateway> or `mesh`");
            fault(format!("{path}[{i}]"), message)
        })
        .collect()
}

fn http_route(path: &str, route: &HttpRoute, reach: Reach) -> Vec<Fault> {
    let mut out = Vec::new();
    let actions = [
        !route.route.is_empty(),
        route.redirect.is_some(),
        route.direct_response.is_some(),
        route.delegate.is_some(),
    ];
    match actions.iter().filter(|is_there| **is_there).count() {
        0 => {
            let message = "a rule needs a route, a redirect, a direct response or a delegate";
            out.push(fault(path, message));
        }
        1 => {}
        _ => {
            let message = "a rule has only one of route, redirect, directResponse, delegate";
            out.push(fault(path, message));
        }
    }
    for (i, one) in route.matches.iter().enumerate() {
        out.extend(match_request(&format!("{path}.match[{i}]"), one, reach));
    }
    out.extend(destinations(&format!("{path}.route"), &route.route));
    out.extend(span(&format!("{path}.timeout"), route.timeout));
    if let Some(retries) = &route.retries {
        out.extend(retry(&format!("{path}.retries"), retries));
    }
    for (at, to) in mirrors(path, route) {
        out.extend(destination(&at, to));
    }
    out.extend(http_action::faults(path, route));
    out
}

fn mirrors<'r>(
    path: &str,
    route: &'r HttpRoute,
) -> impl Iterator<Item = (String, &'r Destination)> {
    let single = route.mirror.iter();
    let single = single.map(|to| (format!("{path}.mirror"), to));
    let several = route.mirrors.iter().enumerate();
    let several =
        several.map(|(i, m)| (format!("{path}.mirrors[{i}].destination"), &m.destination));
    single.chain(several).collect::<Vec<_>>().into_iter()
}

fn match_request(path: &str, one: &HttpMatchRequest, reach: Reach) -> Vec<Fault> {
    let mut out = Vec::new();
    let texts = [
        ("uri", &one.uri),
        ("scheme", &one.scheme),
        ("method", &one.method),
        ("authority", &one.authority),
    ];
    for (name, text) in texts {
        out.extend(
            text.as_ref()
                .and_then(|t| string_match(&format!("{path}.{name}"), t)),
        );
    }
    let maps = [
        ("headers", &one.headers),
        ("withoutHeaders", &one.without_headers),
    ];
    for (name, map) in maps {
        for (header, value) in map {
            let at = key_path(&format!("{path}.{name}"), header);
            out.extend(header_name(&at, header, reach));
            out.extend(header_match(&at, value));
        }
    }
    for (name, value) in &one.query_params {
        out.extend(header_match(
            &key_path(&format!("{path}.queryParams"), name),
            value,
        ));
    }
    out.extend(
        one.port
            .and_then(|number| port(&format!("{path}.port"), number)),
    );
    out.extend(source(path, &one.source_labels, &one.source_namespace));
    out.extend(gateways(&format!("{path}.gateways"), &one.gateways));
    out
}

/// Whose calls a match of any protocol is for.
pub(super) fn source(path: &str, wanted: &Labels, namespace: &str) -> Vec<Fault> {
    let mut out = labels(&format!("{path}.sourceLabels"), wanted);
    if !namespace.is_empty() && !is_label(namespace) {
        let message = format!("`{namespace}` is no namespace");
        out.push(fault(format!("{path}.sourceNamespace"), message));
    }
    out
}

fn string_match(path: &str, text: &StringMatch) -> Option<Fault> {
    match text {
        // Envoy refuses it, except of paths.
        StringMatch::Prefix(text) if text.is_empty() && !path.ends_with(".uri") => {
            let message = "a prefix must not be empty; `{}` matches any value";
            Some(fault(format!("{path}.prefix"), message))
        }
        StringMatch::Exact(_) | StringMatch::Prefix(_) | StringMatch::Segments(_) => None,
        StringMatch::Regex(text) => regex::compiles(text)
            .err()
            .map(|e| fault(format!("{path}.regex"), e)),
    }
}

fn header_match(path: &str, value: &HeaderMatch) -> Option<Fault> {
    match value {
        HeaderMatch::Present => None,
        HeaderMatch::Value(text) => string_match(path, text),
    }
}

fn header_name(path: &str, name: &str, reach: Reach) -> Option<Fault> {
    if name.starts_with(JWT_CLAIM) {
        return (reach == Reach::Sidecars)
            .then(|| fault(path, "claims of a token can be matched on gateways only"));
    }
    let sound = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    (!sound).then(|| fault(path, format!("`{name}` is no header name")))
}

fn labels(path: &str, labels: &Labels) -> Vec<Fault> {
    let sound = |text: &str| {
        text.len() <= 63
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    labels
        .iter()
        .filter(|(_, value)| !sound(value))
        .map(|(key, value)| fault(key_path(path, key), format!("`{value}` is no label value")))
        .collect()
}

fn destinations(path: &str, list: &[HttpRouteDestination]) -> Vec<Fault> {
    let mut out = Vec::new();
    let mut total: u64 = 0;
    for (i, one) in list.iter().enumerate() {
        out.extend(destination(
            &format!("{path}[{i}].destination"),
            &one.destination,
        ));
        total += u64::from(one.weight);
        if i32::try_from(one.weight).is_err() {
            out.push(fault(
                format!("{path}[{i}].weight"),
                format!("{} is too large", one.weight),
            ));
        }
    }
    if list.len() > 1 && total == 0 {
        out.push(fault(
            path,
            "the weights of several destinations must not all be 0",
        ));
    }
    if total > u64::from(u32::MAX) {
        out.push(fault(path, "the weights together are more than 4294967295"));
    }
    out
}

pub(super) fn destination(path: &str, to: &Destination) -> Vec<Fault> {
    let mut out = Vec::new();
    if to.host == "*" {
        out.push(fault(format!("{path}.host"), "`*` is no destination"));
    } else {
        out.extend(host(&format!("{path}.host"), &to.host));
    }
    if !to.subset.is_empty() && !is_label(&to.subset) {
        out.push(fault(
            format!("{path}.subset"),
            format!("`{}` is no subset name", to.subset),
        ));
    }
    out.extend(
        to.port
            .and_then(|p| port(&format!("{path}.port.number"), p.number)),
    );
    out
}

/// Also of MeshConfig's default policy.
pub(super) fn retry(path: &str, retry: &HttpRetry) -> Vec<Fault> {
    let mut out = Vec::new();
    let policy = retry.per_try_timeout.is_some()
        || !retry.retry_on.is_empty()
        || retry.retry_remote_localities.is_some();
    if retry.attempts == 0 && policy {
        let message = "attempts 0 turns retries off, so the rest of the policy must be absent";
        out.push(fault(format!("{path}.attempts"), message));
    }
    if i32::try_from(retry.attempts).is_err() {
        out.push(fault(
            format!("{path}.attempts"),
            format!("{} is too large", retry.attempts),
        ));
    }
    out.extend(span(
        &format!("{path}.perTryTimeout"),
        retry.per_try_timeout,
    ));
    out.extend(span(&format!("{path}.backoff"), retry.backoff));
    let words = retry
        .retry_on
        .split(',')
        .filter(|_| !retry.retry_on.is_empty());
    for word in words.filter(|w| !RETRY_ON.contains(w) && !is_status(w)) {
        out.push(fault(
            format!("{path}.retryOn"),
            format!("`{word}` is no condition to retry on"),
        ));
    }
    out
}

fn is_status(word: &str) -> bool {
    word.len() == 3 && word.parse::<u16>().is_ok_and(|n| (100..600).contains(&n))
}
