//! The names under which a client may call a host.

use std::net::IpAddr;

use crate::model::services::{Resolution, Service};
use crate::text::{Hostname, Str};

/// How strong a claim on a domain is. In one table the strongest claimant gets it, the others lose it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// A Service's own full name or address.
    Own,
    /// The host of a VirtualService that is no Service.
    Routed,
    /// A short form.
    Short,
}

/// Whether a Service is of the client's own namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    Own,
    Elsewhere,
}

/// FQDN, with a trailing dot, addresses, and the short forms that the client's DNS search list allows.
pub fn of_service(service: &Service, home: Home, domain: &str) -> Vec<(Str, Claim)> {
    let Service {
        name, namespace, ..
    } = service;
    let mut names = vec![
        (service.host.to_str(), Claim::Own),
        (Str::new(format!("{}.", service.host)), Claim::Own),
    ];
    if service.host.as_str() == format!("{name}.{namespace}.svc.{domain}") {
        names.push((Str::new(format!("{name}.{namespace}.svc")), Claim::Short));
        names.push((Str::new(format!("{name}.{namespace}")), Claim::Short));
        if home == Home::Own {
            names.push((name.clone(), Claim::Short));
        }
    }
    // A headless Service's pods have names below its own.
    if service.resolution == Resolution::Headless && service.entry.is_none() {
        let each: Vec<_> = names
            .iter()
            .map(|(n, c)| (Str::new(format!("*.{n}")), *c))
            .collect();
        names.extend(each);
    }
    names.extend(
        service
            .addresses
            .iter()
            .map(|ip| (ip_domain(*ip), Claim::Own)),
    );
    names
}

/// A VirtualService's host that no Service has.
pub fn of_host(host: &Hostname) -> Vec<(Str, Claim)> {
    let mut names = vec![(host.to_str(), Claim::Routed)];
    if host.as_str() != "*" && host.as_str().parse::<IpAddr>().is_err() {
        names.push((Str::new(format!("{host}.")), Claim::Routed));
    }
    names
}

fn ip_domain(ip: IpAddr) -> Str {
    match ip {
        IpAddr::V4(v4) => Str::new(v4.to_string()),
        IpAddr::V6(v6) => Str::new(format!("[{v6}]")),
    }
}
