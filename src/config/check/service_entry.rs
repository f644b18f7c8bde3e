//! ServiceEntry: hosts, addresses, ports, and what its resolution asks of endpoints.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{export_to, fault, host, is_label, key_path, port, selector, unix_path};
use crate::config::decode::reader::Fault;
use crate::config::service_entry::{EntryPort, Resolution, ServiceEntry};
use crate::config::value::range;
use crate::config::workload_entry::WorkloadEntry;
use crate::diagnostic::Code;
use crate::text::{Hostname, Str};

const PROTOCOLS: &[&str] = &[
    "GRPC",
    "GRPC-WEB",
    "HTTP",
    "HTTP2",
    "HTTPS",
    "HTTP_PROXY",
    "MONGO",
    "MYSQL",
    "REDIS",
    "TCP",
    "TLS",
    "UDP",
];

pub(super) fn faults(spec: &ServiceEntry, namespace: &str) -> Vec<Fault> {
    let mut out = hosts(&spec.hosts);
    for (i, address) in spec.addresses.iter().enumerate() {
        let path = format!("spec.addresses[{i}]");
        match range(address) {
            None => {
                let message = format!("`{address}` is neither an IP address nor a CIDR range");
                out.push(fault(path, message));
            }
            Some(IpNet::V6(_)) => {
                let message = "IPv6 is not in effect yet: nothing is captured at this address";
                out.push(Fault::warning(Code::NotYetInEffect, path, message));
            }
            Some(IpNet::V4(_)) => {}
        }
    }
    out.extend(ports(&spec.ports));
    if let Some(chosen) = &spec.workload_selector {
        out.extend(selector("spec.workloadSelector.labels", &chosen.labels));
        if !spec.endpoints.is_empty() {
            let message = "endpoints are either listed or selected";
            out.push(fault("spec.workloadSelector", message));
        }
    }
    out.extend(endpoints(spec));
    out.extend(export_to("spec.exportTo", namespace, &spec.export_to));
    out
}

fn hosts(hosts: &[Str]) -> Vec<Fault> {
    let mut out = Vec::new();
    if hosts.is_empty() {
        out.push(fault("spec.hosts", "a ServiceEntry needs a host"));
    }
    for (i, name) in hosts.iter().enumerate() {
        let path = format!("spec.hosts[{i}]");
        if name == "*" {
            out.push(fault(path, "`*` is no host of a ServiceEntry"));
        } else if name.parse::<IpAddr>().is_ok() {
            let message = format!("`{name}` is an address: it belongs into spec.addresses");
            out.push(fault(path, message));
        } else {
            out.extend(host(&path, name));
        }
    }
    out
}

fn ports(ports: &[EntryPort]) -> Vec<Fault> {
    let mut out = Vec::new();
    let mut numbers = BTreeSet::new();
    let mut names = BTreeSet::new();
    for (i, one) in ports.iter().enumerate() {
        let at = |field: &str| format!("spec.ports[{i}].{field}");
        out.extend(port(&at("number"), one.number));
        if !numbers.insert(one.number) {
            out.push(fault(at("number"), format!("{} stands twice", one.number)));
        }
        if one.name.is_empty() || !is_label(&one.name) {
            out.push(fault(at("name"), format!("`{}` is no port name", one.name)));
        } else if !names.insert(&one.name) {
            out.push(fault(at("name"), format!("`{}` stands twice", one.name)));
        }
        let word = one.protocol.to_ascii_uppercase();
        if !word.is_empty() && !PROTOCOLS.contains(&word.as_str()) {
            let message = format!("`{}` is none of {}", one.protocol, PROTOCOLS.join(", "));
            out.push(fault(at("protocol"), message));
        }
        let target = one.target_port;
        out.extend(target.and_then(|number| port(&at("targetPort"), number)));
    }
    out
}

fn endpoints(spec: &ServiceEntry) -> Vec<Fault> {
    let mut out = Vec::new();
    let listed = !spec.endpoints.is_empty();
    let wild = |name: &Str| Hostname::parse(name).is_ok_and(|h| h.is_wildcard());
    match spec.resolution {
        Resolution::None if listed => {
            let message = "with resolution NONE there are no endpoints";
            out.push(fault("spec.endpoints", message));
        }
        Resolution::Dns | Resolution::DnsRoundRobin => {
            let open = !listed && spec.workload_selector.is_none();
            if open && spec.hosts.iter().any(wild) {
                let message = "a wildcard cannot be looked up: list endpoints";
                out.push(fault("spec.hosts", message));
            }
            if spec.resolution == Resolution::DnsRoundRobin && spec.endpoints.len() > 1 {
                let message = "DNS_ROUND_ROBIN takes one endpoint at most";
                out.push(fault("spec.endpoints", message));
            }
        }
        Resolution::DynamicDns => {
            let message =
                "DYNAMIC_DNS is not in effect yet: the hosts go to where clients look them up";
            out.push(Fault::warning(
                Code::NotYetInEffect,
                "spec.resolution",
                message,
            ));
        }
        Resolution::None | Resolution::Static => {}
    }
    for (i, one) in spec.endpoints.iter().enumerate() {
        out.extend(endpoint(&format!("spec.endpoints[{i}]"), one, spec));
    }
    out
}

fn endpoint(path: &str, one: &WorkloadEntry, spec: &ServiceEntry) -> Vec<Fault> {
    let mut out = Vec::new();
    if !one.network.is_empty() {
        let message = "networks are not in effect yet: an endpoint is reached at its address alone";
        out.push(Fault::warning(
            Code::NotYetInEffect,
            format!("{path}.network"),
            message,
        ));
    }
    let address = format!("{path}.address");
    let by_name = matches!(spec.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
    if by_name && one.address.starts_with("unix://") {
        let message = "a socket file has no name to look up: use resolution STATIC";
        out.push(fault(address, message));
    } else if let Some(file) = one.address.strip_prefix("unix://") {
        out.extend(unix_path(&address, file));
    } else if spec.resolution == Resolution::Static {
        // An entry of another network has none.
        let elsewhere = one.address.is_empty() && !one.network.is_empty();
        if one.address.parse::<IpAddr>().is_err() && !elsewhere {
            let message = format!("`{}` is no IP address: use resolution DNS", one.address);
            out.push(fault(address, message));
        }
    } else {
        out.extend(host(&address, &one.address));
    }
    for (name, number) in &one.ports {
        let at = key_path(&format!("{path}.ports"), name);
        if spec.ports.iter().all(|p| p.name != *name) {
            out.push(fault(
                &at,
                format!("`{name}` is no port of the ServiceEntry"),
            ));
        }
        out.extend(port(&at, *number));
    }
    out
}
