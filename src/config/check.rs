//! Values that a sound type still allows and Istio refuses. Never stricter than Istio's own validation.
//!
//! Only what stands inside one object is judged here; references are `acceptance`'s.

mod connection_pool;
mod destination_rule;
mod envoy_filter;
mod gateway;
mod header_value;
mod http_action;
mod ingress;
mod l4_route;
mod load_balancer;
mod locality;
mod mesh;
mod peer_authentication;
mod regex;
mod service;
mod service_entry;
mod sidecar;
mod traffic_extension;
mod virtual_service;
mod workload_entry;
mod workload_group;
mod workload_proxy;

use std::collections::BTreeSet;
use std::time::Duration;

use super::Spec;
use super::decode::reader::{Fault, push_key};
use super::meta::{Labels, Meta};
use super::value::Span;
use crate::diagnostic::Code;
use crate::text::{Hostname, Str};

/// Paths of the fields that were set and are not in effect yet.
pub type NotYet = BTreeSet<String>;

/// All faults of a spec, in the order of its fields.
pub fn faults(spec: &Spec, meta: &Meta, not_yet: &NotYet) -> Vec<Fault> {
    match spec {
        Spec::Service(spec) => service::service(spec),
        Spec::EndpointSlice(spec) => service::slice(spec),
        Spec::Namespace(_)
        | Spec::Node(_)
        | Spec::Pod(_)
        | Spec::Secret(_)
        | Spec::IngressClass(_) => Vec::new(),
        Spec::TrafficExtension(spec) => traffic_extension::faults(spec, not_yet),
        Spec::ProxyConfig(spec) => workload_proxy::faults(spec),
        Spec::Ingress(spec) => ingress::faults(spec),
        Spec::WorkloadEntry(spec) => workload_entry::faults(spec),
        Spec::WorkloadGroup(spec) => workload_group::faults(spec),
        Spec::ServiceEntry(spec) => service_entry::faults(spec, &meta.namespace),
        Spec::VirtualService(spec) => virtual_service::faults(spec, &meta.namespace),
        Spec::DestinationRule(spec) => destination_rule::faults(spec, &meta.namespace),
        Spec::PeerAuthentication(spec) => peer_authentication::faults(spec),
        Spec::Sidecar(spec) => sidecar::faults(spec, not_yet),
        Spec::Gateway(spec) => gateway::faults(spec),
        Spec::EnvoyFilter(spec) => envoy_filter::faults(spec),
        Spec::MeshConfig(spec) => mesh::faults(spec),
    }
}

/// A name of a Kubernetes object: a DNS subdomain.
pub fn object_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the object has no name".to_owned());
    }
    if name.len() > 253 || !name.split('.').all(is_lower_label) {
        return Err(format!(
            "`{name}` is no name: a-z, 0-9, `-` and `.`, at most 253 characters"
        ));
    }
    Ok(())
}

pub fn namespace(name: &str) -> Result<(), String> {
    if name.len() > 63 || !is_lower_label(name) {
        return Err(format!(
            "`{name}` is no namespace: a-z, 0-9 and `-`, at most 63 characters"
        ));
    }
    Ok(())
}

fn is_lower_label(text: &str) -> bool {
    is_label(text) && !text.bytes().any(|b| b.is_ascii_uppercase())
}

/// A DNS label in Istio's sense, either case.
fn is_label(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

fn fault(path: impl Into<String>, message: impl Into<String>) -> Fault {
    Fault::error(Code::InvalidValue, path, message)
}

fn key_path(path: &str, key: &str) -> String {
    let mut out = path.to_owned();
    push_key(&mut out, key);
    out
}

fn port(path: &str, number: u16) -> Option<Fault> {
    (number == 0).then(|| fault(path, "`0` is no port; ports are 1 to 65535"))
}

/// At least a millisecond and whole milliseconds, Envoy's resolution.
fn span(path: &str, span: Option<Span>) -> Option<Fault> {
    let Span(duration) = span?;
    if duration < Duration::from_millis(1) {
        return Some(fault(path, "a duration must be at least 1ms"));
    }
    let rest = duration.subsec_nanos() % 1_000_000;
    (rest != 0).then(|| fault(path, "a duration must be whole milliseconds"))
}

/// A host name, wildcards in its first label allowed.
fn host(path: &str, text: &str) -> Option<Fault> {
    Hostname::parse(text)
        .err()
        .map(|e| fault(path, e.to_string()))
}

/// `unix://` addresses without their prefix: an absolute path of a file, or an abstract name.
fn unix_path(path: &str, address: &str) -> Option<Fault> {
    let sound = address.starts_with('@') || (address.starts_with('/') && !address.ends_with('/'));
    (!sound).then(|| {
        fault(
            path,
            format!("`unix://{address}` names no absolute path of a file"),
        )
    })
}

fn ip(path: &str, text: &str) -> Option<Fault> {
    let sound = text.parse::<std::net::IpAddr>().is_ok();
    (!sound).then(|| fault(path, format!("`{text}` is no IP address")))
}

fn selector(path: &str, labels: &Labels) -> Vec<Fault> {
    labels
        .iter()
        .filter(|(key, value)| key.contains('*') || value.contains('*'))
        .map(|(key, _)| fault(key_path(path, key), "a selector takes no wildcard"))
        .collect()
}

/// No repeats, and `*` alone.
fn export_to(path: &str, own: &str, values: &[Str]) -> Vec<Fault> {
    let mut seen = BTreeSet::new();
    let mut out = Vec::new();
    for (i, value) in values.iter().enumerate() {
        let at = format!("{path}[{i}]");
        let name = if value == "." { own } else { value };
        if !matches!(name, "*" | "~") && !is_label(name) {
            out.push(fault(
                at,
                format!("`{value}` is none of `.`, `*`, `~`, a namespace"),
            ));
        } else if !seen.insert(name) {
            out.push(fault(at, format!("`{value}` repeats an earlier entry")));
        }
    }
    if values.len() > 1 && values.iter().any(|v| v == "*") {
        out.push(fault(
            path,
            "`*` already exports to every namespace; it must stand alone",
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kubernetes_names() {
        assert!(object_name("reviews-v1.2").is_ok());
        for bad in ["", "Reviews", "a..b", "-a", "a_b", &"x".repeat(254)] {
            assert!(object_name(bad).is_err(), "{bad}");
        }
        assert!(namespace("shop").is_ok());
        assert!(namespace("shop.a").is_err());
    }

    #[test]
    fn an_export_list_has_no_repeats_and_its_star_alone() {
        let of = |v: &[&str]| export_to("p", "me", &v.iter().map(Str::new).collect::<Vec<_>>());
        assert!(of(&[".", "other"]).is_empty());
        assert_eq!(of(&[".", "me"])[0].path, "p[1]");
        assert_eq!(of(&["*", "a"])[0].path, "p");
        assert_eq!(of(&["a/b"]).len(), 1);
    }

    #[test]
    fn durations_have_envoys_resolution() {
        let of = |text| span("p", Some(Span::parse(text).unwrap()));
        assert!(of("1ms").is_none());
        assert!(of("0s").is_some());
        assert!(of("1500us").is_some());
    }
}
