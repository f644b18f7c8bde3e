//! Who reaches which of Envoy's admin pages: socket, status, read-only, Prometheus, drain.
//!
//! The admin interface itself is a Unix socket that only the proxy's user can open. The listeners here pass on
//! single pages of it, named one by one; whatever is not named is refused.

use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::digest;
use data_encoding::{BASE64, HEXLOWER};
use serde_json::{Map, Value, json};

use super::{FilePath, Pod, Role, socket_address, typed};
use crate::config::value::Span;

/// Names of all page listeners, for their limits.
pub(super) const NAMES: &[&str] = &[STATUS, PAGES, PROMETHEUS, PROBES];
pub(super) const PROBES: &str = "app-probes";
const STATUS: &str = "status";
const PAGES: &str = "admin-pages";
const PROMETHEUS: &str = "prometheus";
pub(super) const ADMIN: &str = "admin";

/// Pages that change nothing. Envoy takes changes by POST alone, and only GET is passed on.
const READ_ONLY: &[&str] = &[
    "/certs",
    "/clusters",
    "/config_dump",
    "/help",
    "/init_dump",
    "/listeners",
    "/memory",
    "/ready",
    "/runtime",
    "/server_info",
    "/stats",
    "/stats/prometheus",
];
/// Pages that change something, on the socket alone.
const SOCKET_ONLY: &[&str] = &["/drain_listeners", "/logging"];

/// Answers requests in flight and those of open connections, and tells clients to go elsewhere.
const DRAIN: &str = "/drain_listeners?graceful&skip_exit";

/// What draining over the network takes: a secret that only the kubelet is told.
///
/// Envoy keeps its digest, so nothing that it shows or logs gives the secret away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainKey {
    digest: String,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the drain secret has {0} characters; it must have 16 to 128, of A-Z, a-z, 0-9, `-`, `_`")]
pub struct DrainKeyError(usize);

/// The user name that goes with the secret in `Authorization: Basic`.
const DRAIN_USER: &str = "drain";

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("make a drain secret: no random numbers")]
pub struct NoRandomness;

/// A secret that nobody can guess.
pub fn new_drain_secret() -> Result<String, NoRandomness> {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| NoRandomness)?;
    Ok(HEXLOWER.encode(&random))
}

/// The header by which the kubelet may drain.
pub fn drain_authorization(secret: &str) -> String {
    format!(
        "Basic {}",
        BASE64.encode(format!("{DRAIN_USER}:{secret}").as_bytes())
    )
}

impl DrainKey {
    pub fn parse(secret: &str) -> Result<Self, DrainKeyError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if !(16..=128).contains(&secret.len()) || !secret.chars().all(plain) {
            return Err(DrainKeyError(secret.chars().count()));
        }
        // Envoy's basic_auth knows this digest only; against guessing stands the length of a random secret.
        let sha1 = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
        let digest = format!("{{SHA}}{}", BASE64.encode(sha1.as_ref()));
        Ok(Self { digest })
    }
}

pub(super) fn admin(socket: &FilePath) -> Value {
    let allowed = READ_ONLY.iter().chain(SOCKET_ONLY);
    // The whole page or the page with a query: `/runtime` must not open `/runtime_modify`.
    let exactly = |page: &&str| json!({"safe_regex": {"regex": format!("{page}(\\?.*)?")}});
    let paths: Vec<Value> = allowed.map(exactly).collect();
    json!({
        "address": {"pipe": {"path": socket.as_str(), "mode": 0o600}},
        "allow_paths": paths,
    })
}

pub(super) fn admin_cluster(socket: &FilePath) -> Value {
    json!({
        "name": ADMIN,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": ADMIN, "endpoints": [{"lb_endpoints": [{"endpoint": {
            "address": {"pipe": {"path": socket.as_str()}},
        }}]}]},
    })
}

pub(super) fn listeners(pod: &Pod, role: Role) -> Vec<Value> {
    let mut all = vec![status(pod, role)];
    if let Some(address) = pod.pages {
        let mut routes: Vec<Value> = READ_ONLY.iter().map(|page| get(page, page)).collect();
        routes.push(refusal());
        all.push(listener(PAGES, address, &routes, &[]));
    }
    if let Some(address) = pod.prometheus {
        let page = "/stats/prometheus";
        all.push(listener(PROMETHEUS, address, &[get(page, page)], &[]));
    }
    all
}

/// Readiness for everybody. `/drain` exists only for a request with credentials, and then they must be right.
fn status(pod: &Pod, role: Role) -> Value {
    let page = drain_page(role);
    let filters = drain_filters(pod, &page);
    let enabled = |filter: &Value| {
        let config = json!({"@type": typed("envoy.config.route.v3.FilterConfig"), "config": {}});
        Some((filter["name"].as_str()?.to_owned(), config))
    };
    let enabled: Map<String, Value> = filters.iter().filter_map(enabled).collect();
    let drain = json!({
        "match": {"path": "/drain", "headers": [
            {"name": ":method", "string_match": {"exact": "GET"}},
            {"name": "authorization", "present_match": true},
        ]},
        // However long the answer is held: it is the kubelet that waits.
        "route": {"cluster": ADMIN, "prefix_rewrite": page, "idle_timeout": "0s"},
        "typed_per_filter_config": enabled,
    });
    let routes = [get("/healthz/ready", "/ready"), drain];
    listener(STATUS, pod.status, &routes, &filters)
}

/// A sidecar's workload goes on calling others while it ends; a gateway has no other side.
fn drain_page(role: Role) -> String {
    match role {
        Role::Sidecar => format!("{DRAIN}&inboundonly"),
        Role::Router => DRAIN.to_owned(),
    }
}

/// In their order, and off for every route that does not turn them on.
fn drain_filters(pod: &Pod, page: &str) -> Vec<Value> {
    let users = format!("{DRAIN_USER}:{}", pod.drain.digest);
    let key = json!({
        "@type": typed("envoy.extensions.filters.http.basic_auth.v3.BasicAuth"),
        "users": {"inline_string": users},
    });
    let method = json!({
        "@type": typed("envoy.extensions.filters.http.lua.v3.Lua"),
        "default_source_code": {"inline_string": drain_script(pod.drain_hold, page)},
        // Else the route, which wants GET, would be looked up again.
        "clear_route_cache": false,
    });
    let hold = json!({
        "@type": typed("envoy.extensions.filters.http.fault.v3.HTTPFault"),
        "delay": {"fixed_delay": Span(pod.drain_hold), "percentage": {"numerator": 100}},
    });
    let mut filters = vec![("drain-key", key), ("drain-method", method)];
    if !pod.drain_hold.is_zero() {
        filters.push(("drain-hold", hold));
    }
    let off = |(name, config)| json!({"name": name, "disabled": true, "typed_config": config});
    filters.into_iter().map(off).collect()
}

/// A preStop hook can only GET; the admin page takes only POST. Where the answer is held, draining begins before:
/// the request that goes on after that finds it under way.
fn drain_script(hold: Duration, page: &str) -> String {
    let begin = format!(
        "handle:httpCall('{ADMIN}', {{[':method'] = 'POST', [':path'] = '{page}', [':authority'] = '{ADMIN}'}}, '', 1000) "
    );
    let begin = if hold.is_zero() { "" } else { &begin };
    format!(
        "function envoy_on_request(handle) {begin}handle:headers():replace(':method', 'POST') end"
    )
}

fn get(path: &str, page: &str) -> Value {
    let mut action = json!({"cluster": ADMIN});
    if path != page {
        action["prefix_rewrite"] = json!(page);
    }
    json!({
        "match": {"path": path, "headers": [{"name": ":method", "string_match": {"exact": "GET"}}]},
        "route": action,
    })
}

fn refusal() -> Value {
    let text = format!("read-only: GET of {}\n", READ_ONLY.join(" "));
    json!({
        "match": {"prefix": "/"},
        "direct_response": {"status": 403, "body": {"inline_string": text}},
    })
}

/// One small HTTP server. Its limits keep strangers from holding Envoy's memory or connections.
pub(super) fn listener(
    name: &str,
    address: SocketAddr,
    routes: &[Value],
    filters: &[Value],
) -> Value {
    let router = json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": typed("envoy.extensions.filters.http.router.v3.Router")},
    });
    let filters: Vec<&Value> = filters.iter().chain([&router]).collect();
    let manager = json!({
        "@type": typed(
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        ),
        "stat_prefix": name,
        "generate_request_id": false,
        "max_request_headers_kb": 16,
        "request_headers_timeout": "5s",
        "request_timeout": "5s",
        "stream_idle_timeout": "30s",
        "common_http_protocol_options": {"idle_timeout": "60s"},
        "http2_protocol_options": {"max_concurrent_streams": 10},
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "route_config": {
            "name": name,
            "virtual_hosts": [{"name": name, "domains": ["*"], "routes": routes}],
        },
        "http_filters": filters,
    });
    json!({
        "name": name,
        "address": socket_address(address),
        "ignore_global_conn_limit": true,
        "per_connection_buffer_limit_bytes": 32768,
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": manager,
        }]}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_secret_is_long_and_fits_a_header() {
        for bad in [
            "",
            "short",
            "0123456789abcde",
            "0123456789abcde:",
            &"x".repeat(129),
        ] {
            assert!(DrainKey::parse(bad).is_err(), "{bad}");
        }
        let key = DrainKey::parse("0123456789abcdef").unwrap();
        assert!(!format!("{key:?}").contains("0123456789abcdef"));
        // printf %s 0123456789abcdef | openssl sha1 -binary | base64
        assert_eq!(key.digest, "{SHA}/lVn6NdpVQhSGCzfaddLsW3/jik=");
    }

    #[test]
    fn no_page_that_changes_something_is_passed_on() {
        for page in [
            "/quitquitquit",
            "/reset_counters",
            "/healthcheck/fail",
            "/cpuprofiler",
        ] {
            assert!(
                !READ_ONLY.contains(&page) && !SOCKET_ONLY.contains(&page),
                "{page}"
            );
        }
        assert!(SOCKET_ONLY.iter().all(|page| !READ_ONLY.contains(page)));
    }
}
