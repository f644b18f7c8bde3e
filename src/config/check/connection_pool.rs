//! Connection pools: durations, and what excludes each other.

use super::{fault, span};
use crate::config::connection_pool::{ConnectionPool, H2UpgradePolicy};
use crate::config::decode::reader::Fault;

/// `path` is the pool's own.
pub(super) fn faults(path: &str, pool: &ConnectionPool) -> Vec<Fault> {
    let ConnectionPool { tcp, http } = pool;
    let mut out = Vec::new();
    let spans = [
        ("tcp.connectTimeout", tcp.connect_timeout),
        ("tcp.maxConnectionDuration", tcp.max_connection_duration),
        ("tcp.idleTimeout", tcp.idle_timeout),
        ("http.idleTimeout", http.idle_timeout),
    ];
    for (name, value) in spans {
        out.extend(span(&format!("{path}.{name}"), value));
    }
    let ping = http.http2_keep_alive.as_ref();
    for (name, value) in [
        ("interval", ping.and_then(|k| k.interval)),
        ("timeout", ping.and_then(|k| k.timeout)),
    ] {
        let at = format!("{path}.http.http2KeepAlive.{name}");
        out.extend(span(&at, value));
    }
    if ping.is_some_and(|k| k.timeout.is_none()) {
        let message = "a keepalive needs a timeout";
        let at = format!("{path}.http.http2KeepAlive.timeout");
        out.push(fault(at, message));
    }
    if http.use_client_protocol && http.h2_upgrade_policy == H2UpgradePolicy::Upgrade {
        let message = "useClientProtocol and an upgrade to HTTP/2 exclude each other";
        out.push(fault(format!("{path}.http"), message));
    }
    out
}
