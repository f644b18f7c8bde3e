//! Service and EndpointSlice, as far as their values are used without further parsing.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{fault, port};
use crate::config::core::{AddressType, EndpointSlice, Service, ServicePort, ServiceType};
use crate::config::decode::reader::Fault;
use crate::diagnostic::Code;

pub(super) fn service(spec: &Service) -> Vec<Fault> {
    let mut out = Vec::new();
    for (i, one) in spec.ports.iter().enumerate() {
        out.extend(port(&format!("spec.ports[{i}].port"), one.port));
    }
    out.extend(repeated(&spec.ports));
    out.extend(taken(&spec.ports));
    if spec.kind == ServiceType::ExternalName {
        let message = "ExternalName is not in effect yet: no proxy is told of this Service";
        out.push(Fault::warning(Code::NotYetInEffect, "spec.type", message));
    }
    let addresses = spec.cluster_ips.iter().enumerate();
    let addresses = addresses.map(|(i, a)| (format!("spec.clusterIPs[{i}]"), a));
    let first = spec
        .cluster_ip
        .iter()
        .map(|a| ("spec.clusterIP".to_owned(), a));
    for (path, text) in first.chain(addresses) {
        if !text.is_empty() && text != "None" && text.parse::<IpAddr>().is_err() {
            out.push(fault(
                path,
                format!("`{text}` is neither an IP address nor `None`"),
            ));
        }
    }
    out
}

/// Ports of the two listeners that capture leads to: 15001 outbound, 15006 inbound.
const CAPTURE: [u16; 2] = [15001, 15006];

fn taken(ports: &[ServicePort]) -> impl Iterator<Item = Fault> {
    let own = |(_, one): &(usize, &ServicePort)| CAPTURE.contains(&one.port);
    let told = |(i, one): (usize, &ServicePort)| {
        let message = format!(
            "every Envoy listens on {} itself: calls to this port as HTTP go where the client's own \
             lookup led, past all rules",
            one.port
        );
        Fault::warning(Code::Conflict, format!("spec.ports[{i}].port"), message)
    };
    ports.iter().enumerate().filter(own).map(told)
}

/// Kubernetes takes neither a number of one protocol twice nor a name.
fn repeated(ports: &[ServicePort]) -> Vec<Fault> {
    let (mut numbers, mut names) = (BTreeSet::new(), BTreeSet::new());
    let mut out = Vec::new();
    for (i, one) in ports.iter().enumerate() {
        if one.port != 0 && !numbers.insert((one.port, one.protocol)) {
            let message = format!("an earlier port has the number `{}` already", one.port);
            out.push(fault(format!("spec.ports[{i}].port"), message));
        }
        if !one.name.is_empty() && !names.insert(&one.name) {
            let message = format!("an earlier port has the name `{}` already", one.name);
            out.push(fault(format!("spec.ports[{i}].name"), message));
        }
    }
    out
}

pub(super) fn slice(spec: &EndpointSlice) -> Vec<Fault> {
    let mut out = Vec::new();
    for (i, endpoint) in spec.endpoints.iter().enumerate() {
        for (j, address) in endpoint.addresses.iter().enumerate() {
            let sound = match spec.address_type {
                AddressType::IPv4 | AddressType::IPv6 => address.parse::<IpAddr>().is_ok(),
                AddressType::Fqdn => true,
            };
            if !sound {
                let path = format!("endpoints[{i}].addresses[{j}]");
                out.push(fault(path, format!("`{address}` is no IP address")));
            }
        }
    }
    for (i, one) in spec.ports.iter().enumerate() {
        out.extend(
            one.port
                .and_then(|number| port(&format!("ports[{i}].port"), number)),
        );
    }
    out
}
