//! VirtualService: rules for TLS and TCP.

use super::virtual_service::{destination, gateways, source};
use super::{fault, port};
use crate::config::decode::reader::Fault;
use crate::config::l4_route::{L4Match, RouteDestination};
use crate::config::value::range;
use crate::config::virtual_service::VirtualService;
use crate::diagnostic::Code;
use crate::text::Hostname;

pub(super) fn faults(spec: &VirtualService) -> Vec<Fault> {
    let hosts = spec.hosts.iter().filter_map(|h| Hostname::parse(h).ok());
    let hosts: Vec<Hostname> = hosts.collect();
    let mut out = Vec::new();
    for (i, rule) in spec.tls.iter().enumerate() {
        let path = format!("spec.tls[{i}]");
        if rule.matches.is_empty() {
            out.push(fault(format!("{path}.match"), "a TLS rule needs a match"));
        }
        for (j, one) in rule.matches.iter().enumerate() {
            let path = format!("{path}.match[{j}]");
            out.extend(server_names(&path, one, &hosts));
            out.extend(match_of(&path, one));
        }
        out.extend(destinations(&format!("{path}.route"), &rule.route));
    }
    for (i, rule) in spec.tcp.iter().enumerate() {
        let path = format!("spec.tcp[{i}]");
        for (j, one) in rule.matches.iter().enumerate() {
            out.extend(match_of(&format!("{path}.match[{j}]"), one));
        }
        out.extend(destinations(&format!("{path}.route"), &rule.route));
    }
    out
}

/// Names that the VirtualService's hosts cover: for others it is never asked.
fn server_names(path: &str, one: &L4Match, hosts: &[Hostname]) -> Vec<Fault> {
    let mut out = Vec::new();
    if one.sni_hosts.is_empty() {
        out.push(fault(
            format!("{path}.sniHosts"),
            "a TLS match needs a name",
        ));
    }
    for (i, name) in one.sni_hosts.iter().enumerate() {
        let at = format!("{path}.sniHosts[{i}]");
        match Hostname::parse(name) {
            Err(why) => out.push(fault(at, why.to_string())),
            Ok(name) if name.as_str().starts_with('*') && !name.as_str().starts_with("*.") => {
                let message = format!(
                    "`{name}` is no name that Envoy tells apart: exactly, or `*.` and a domain"
                );
                out.push(Fault::warning(Code::NotYetInEffect, at, message));
            }
            Ok(name) => {
                let covers = |host: &Hostname| {
                    let below = name.as_str().trim_start_matches("*.");
                    *host == name || host.matches(name.as_str()) || host.matches(below)
                };
                if !hosts.iter().any(covers) {
                    let message = format!("`{name}` is under none of spec.hosts");
                    out.push(fault(at, message));
                }
            }
        }
    }
    out
}

fn match_of(path: &str, one: &L4Match) -> Vec<Fault> {
    let mut out = Vec::new();
    for (i, subnet) in one.destination_subnets.iter().enumerate() {
        if range(subnet).is_none() {
            let message = format!("`{subnet}` is neither an IP address nor a CIDR range");
            out.push(fault(format!("{path}.destinationSubnets[{i}]"), message));
        }
    }
    out.extend(
        one.port
            .and_then(|number| port(&format!("{path}.port"), number)),
    );
    out.extend(source(path, &one.source_labels, &one.source_namespace));
    out.extend(gateways(&format!("{path}.gateways"), &one.gateways));
    out
}

fn destinations(path: &str, list: &[RouteDestination]) -> Vec<Fault> {
    let mut out = Vec::new();
    if list.is_empty() {
        out.push(fault(path, "a rule needs a destination"));
    }
    for (i, one) in list.iter().enumerate() {
        out.extend(destination(
            &format!("{path}[{i}].destination"),
            &one.destination,
        ));
    }
    if list.len() > 1 && list.iter().all(|d| d.weight == 0) {
        let message = "the weights of several destinations must not all be 0";
        out.push(fault(path, message));
    }
    out
}
