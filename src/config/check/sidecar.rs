//! Sidecar: listeners, their addresses, the hosts they see.

use std::collections::BTreeSet;

use super::{
    NotYet, connection_pool, fault, gateway, host, ip, is_label, port, selector, unix_path,
};
use crate::config::decode::reader::Fault;
use crate::config::gateway::TlsMode;
use crate::config::sidecar::{CaptureMode, EgressListener, IngressListener, Sidecar, SidecarPort};
use crate::diagnostic::Code;

/// Protocols that Istio's ports take, in any case.
const PROTOCOLS: &[&str] = &[
    "grpc",
    "grpc-web",
    "hbone",
    "http",
    "http2",
    "http_proxy",
    "https",
    "mongo",
    "mysql",
    "redis",
    "tcp",
    "tls",
    "udp",
];

pub(super) fn faults(spec: &Sidecar, not_yet: &NotYet) -> Vec<Fault> {
    let mut out = Vec::new();
    if *spec == Sidecar::default() && not_yet.is_empty() {
        out.push(fault("spec", "a Sidecar must say something"));
    }
    if let Some(workloads) = &spec.workload_selector {
        out.extend(selector("spec.workloadSelector.labels", &workloads.labels));
    }
    let mut numbers = BTreeSet::new();
    for (i, one) in spec.ingress.iter().enumerate() {
        let path = format!("spec.ingress[{i}]");
        out.extend(ingress(&path, one));
        if !numbers.insert(one.port.number) {
            out.push(fault(
                format!("{path}.port.number"),
                "another ingress listener has this port",
            ));
        }
    }
    out.extend(egress_list(&spec.egress));
    if let Some(pool) = &spec.inbound_connection_pool {
        out.extend(connection_pool::faults("spec.inboundConnectionPool", pool));
    }
    out
}

/// The mode of the whole proxy decides, for all of its listeners.
fn capture(path: &str, mode: CaptureMode) -> Option<Fault> {
    let message = "this field is not in effect yet: how the pod's traffic is captured decides for all listeners";
    match mode {
        CaptureMode::Default => None,
        CaptureMode::Iptables | CaptureMode::None => Some(Fault::warning(
            Code::NotYetInEffect,
            format!("{path}.captureMode"),
            message,
        )),
    }
}

fn ingress(path: &str, one: &IngressListener) -> Vec<Fault> {
    let mut out: Vec<Fault> = capture(path, one.capture_mode).into_iter().collect();
    if one.port == SidecarPort::default() {
        out.push(fault(
            format!("{path}.port"),
            "an ingress listener needs a port",
        ));
        return out;
    }
    out.extend(protocol(&format!("{path}.port"), &one.port));
    out.extend(port(&format!("{path}.port.number"), one.port.number));
    if !one.bind.is_empty() {
        out.extend(ip(&format!("{path}.bind"), &one.bind));
    }
    if let Some(tls) = &one.tls {
        let path = format!("{path}.tls");
        out.extend(gateway::tls(&path, tls));
        if !matches!(
            tls.mode,
            TlsMode::Simple | TlsMode::Mutual | TlsMode::OptionalMutual
        ) {
            let message = "a workload's own TLS is SIMPLE, MUTUAL or OPTIONAL_MUTUAL";
            out.push(fault(format!("{path}.mode"), message));
        }
    }
    if let Some(pool) = &one.connection_pool {
        out.extend(connection_pool::faults(
            &format!("{path}.connectionPool"),
            pool,
        ));
    }
    out.extend(endpoint(
        &format!("{path}.defaultEndpoint"),
        &one.default_endpoint,
    ));
    out
}

/// `127.0.0.1:p`, `0.0.0.0:p`, `[::1]:p`, `[::]:p`, `:p`, `unix://path`, or absent.
fn endpoint(path: &str, text: &str) -> Option<Fault> {
    if text.is_empty() {
        return None;
    }
    if let Some(file) = text.strip_prefix("unix://") {
        return unix_path(path, file);
    }
    let local = ["", "127.0.0.1", "0.0.0.0", "[::1]", "[::]"];
    let sound = text.rsplit_once(':').is_some_and(|(host, number)| {
        local.contains(&host) && number.parse::<u16>().is_ok_and(|n| n > 0)
    });
    (!sound).then(|| {
        let forms = "127.0.0.1:<port>, 0.0.0.0:<port>, [::1]:<port>, [::]:<port>, unix://<path>";
        fault(path, format!("`{text}` is none of {forms}"))
    })
}

fn egress_list(list: &[EgressListener]) -> Vec<Fault> {
    let mut out = Vec::new();
    let mut places = BTreeSet::new();
    for (i, one) in list.iter().enumerate() {
        let path = format!("spec.egress[{i}]");
        out.extend(capture(&path, one.capture_mode));
        match &one.port {
            None if i + 1 < list.len() => {
                out.push(fault(&path, "a listener without port must be the last one"));
            }
            None => {}
            Some(port) => {
                out.extend(egress_port(&path, one, port));
                // Sockets are told apart by path, ports by number.
                let place = if port.number == 0 {
                    one.bind.as_str()
                } else {
                    ""
                };
                if !places.insert((port.number, place)) {
                    let message = "another egress listener has this port";
                    out.push(fault(format!("{path}.port"), message));
                }
            }
        }
        out.extend(hosts(&path, one));
    }
    out
}

fn egress_port(path: &str, one: &EgressListener, number: &SidecarPort) -> Vec<Fault> {
    let mut out = Vec::new();
    out.extend(protocol(&format!("{path}.port"), number));
    let bind = format!("{path}.bind");
    match (number.number, one.bind.strip_prefix("unix://")) {
        (0, Some(file)) => {
            out.extend(unix_path(&bind, file));
            let message = "a listener at a socket is not in effect yet: nothing listens there";
            out.push(Fault::warning(Code::NotYetInEffect, &bind, message));
            if one.capture_mode == CaptureMode::Iptables {
                let message = "a socket cannot be captured with iptables";
                out.push(fault(format!("{path}.captureMode"), message));
            }
        }
        (0, None) => out.push(fault(bind, "port 0 needs a unix:// address to bind")),
        (_, _) if one.bind.is_empty() => {}
        (_, _) => out.extend(ip(&bind, &one.bind)),
    }
    out
}

fn protocol(path: &str, port: &SidecarPort) -> Option<Fault> {
    let known =
        port.protocol.is_empty() || PROTOCOLS.contains(&port.protocol.to_lowercase().as_str());
    (!known).then(|| {
        fault(
            format!("{path}.protocol"),
            format!("`{}` is no protocol", port.protocol),
        )
    })
}

/// `<namespace>/<host>` each, at least one.
fn hosts(path: &str, one: &EgressListener) -> Vec<Fault> {
    if one.hosts.is_empty() {
        return vec![fault(
            format!("{path}.hosts"),
            "an egress listener needs at least one host",
        )];
    }
    let mut out = Vec::new();
    for (i, text) in one.hosts.iter().enumerate() {
        let at = format!("{path}.hosts[{i}]");
        let Some((namespace, name)) = text.split_once('/') else {
            out.push(fault(
                at,
                format!("`{text}` is not of the form <namespace>/<host>"),
            ));
            continue;
        };
        let excluded = namespace.strip_prefix('~').filter(|n| !n.is_empty());
        if excluded.is_some() {
            let message =
                "leaving out single hosts is not in effect yet: what other entries import stays";
            out.push(Fault::warning(Code::NotYetInEffect, &at, message));
        }
        let bare = excluded.unwrap_or(namespace);
        if !matches!(bare, "*" | "." | "~") && !is_label(bare) {
            out.push(fault(
                &at,
                format!("`{namespace}` is none of `*`, `.`, `~`, a namespace"),
            ));
        }
        out.extend(host(&at, name));
    }
    out
}
