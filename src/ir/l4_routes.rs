//! Where byte streams to a Service's port go: by a VirtualService's rules for TLS and TCP, else to the Service itself.

use super::outbound::{Apart, Bytes, Targets};
use super::relation::{Followed, Lead};
use super::traffic_policy;
use super::{Flow, Target};
use crate::config::l4_route::{L4Match, RouteDestination};
use crate::model::protocol::Protocol;
use crate::model::rules::Obeyed;
use crate::text::{Hostname, Str};

/// The port that is called.
pub struct Called<'a> {
    pub port: u16,
    pub protocol: Protocol,
    pub domain: &'a str,
}

/// What is told apart, and what becomes of the rest; None leaves that to the Service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ways {
    pub told: Vec<(Apart, Bytes)>,
    pub rest: Option<Bytes>,
}

/// TLS rules in their order, then those of TCP up to the first that takes everything. `apart` tells the host's
/// connections from others to the same address.
pub fn of_virtual(followed: &Followed, called: &Called<'_>, apart: &[Apart]) -> Ways {
    let spec = &followed.entry.spec;
    let mut ways = Ways::default();
    let is_tls = matches!(called.protocol, Protocol::Tls | Protocol::Https);
    for (index, rule) in spec.tls.iter().enumerate().filter(|_| is_tls) {
        let Some(bytes) = called.bytes(followed, &rule.route) else {
            continue;
        };
        for (place, one) in rule.matches.iter().enumerate() {
            let there = followed.tls_elsewhere.contains(&(index, place));
            if there || !called.meets(one) {
                continue;
            }
            let names = one
                .sni_hosts
                .iter()
                .filter_map(|name| Hostname::parse(name).ok());
            for server_name in names.filter_map(|name| server_name(&name)) {
                for range in ranges(one) {
                    let apart = Apart {
                        server_name: server_name.clone(),
                        range,
                    };
                    ways.told.push((apart, bytes.clone()));
                }
            }
        }
    }
    // TLS is no plain TCP, and has rules of its own.
    for (index, rule) in spec.tcp.iter().enumerate().filter(|_| !is_tls) {
        let Some(bytes) = called.bytes(followed, &rule.route) else {
            continue;
        };
        let places = rule.matches.iter().enumerate();
        let met = places.filter(|(place, one)| {
            !followed.tcp_elsewhere.contains(&(index, *place)) && called.meets(one)
        });
        let met: Vec<_> = met.flat_map(|(_, one)| ranges(one)).collect();
        if rule.matches.is_empty() || met.contains(&None) {
            ways.rest = Some(bytes);
            break;
        }
        for range in met {
            let by_range = Apart {
                range,
                ..apart.first().cloned().unwrap_or_default()
            };
            ways.told.push((by_range, bytes.clone()));
        }
    }
    ways
}

/// A host as Envoy matches it against the name that a TLS client asks for: exactly, or all below a domain.
pub fn server_name(host: &Hostname) -> Option<Str> {
    let wild = host.as_str().strip_prefix('*');
    wild.is_none_or(|rest| rest.starts_with('.'))
        .then(|| host.to_str())
}

/// The ranges that a match names; `None` for all addresses.
fn ranges(one: &L4Match) -> Vec<Option<ipnet::IpNet>> {
    if one.destination_subnets.is_empty() {
        return vec![None];
    }
    let each = one.destination_subnets.iter();
    each.filter_map(|text| crate::config::value::range(text))
        .map(Some)
        .collect()
}

impl Called<'_> {
    fn meets(&self, one: &L4Match) -> bool {
        one.port.is_none_or(|port| port == self.port)
    }

    /// One destination counts whatever its weight; of several, those without weight get nothing.
    fn bytes(&self, followed: &Followed, route: &[RouteDestination]) -> Option<Bytes> {
        let single = route.len() == 1;
        let weighted = route.iter().filter(|d| single || d.weight > 0);
        let target = |d: &RouteDestination| {
            let namespace = &followed.entry.key.namespace;
            let host = Hostname::expand(&d.destination.host, namespace, self.domain).ok()?;
            let port = self.port_of(followed, d, &host);
            let subset = &d.destination.subset;
            Some(Target {
                cluster: Str::new(format!("outbound|{port}|{subset}|{host}")),
                weight: d.weight.max(1),
            })
        };
        let targets: Vec<Target> = weighted.filter_map(target).collect();
        let prefix = match targets.as_slice() {
            [] => return None,
            [only] => only.cluster.clone(),
            _ => {
                let key = &followed.entry.key;
                Str::new(format!("{}.{}", key.name, key.namespace))
            }
        };
        Some(Bytes {
            to: Targets { targets, prefix },
            flow: self.flow(followed, route),
            server: None,
        })
    }

    fn port_of(&self, followed: &Followed, to: &RouteDestination, host: &Hostname) -> u16 {
        let only = || lead(followed, host).and_then(|lead| lead.only_port);
        let stated = to.destination.port.as_ref().map(|port| port.number);
        stated.or_else(only).unwrap_or(self.port)
    }

    /// As the rule of the first destination says: of several, no subset's own.
    fn flow(&self, followed: &Followed, route: &[RouteDestination]) -> Flow {
        let Some(first) = route.first() else {
            return Flow::default();
        };
        let namespace = &followed.entry.key.namespace;
        let Ok(host) = Hostname::expand(&first.destination.host, namespace, self.domain) else {
            return Flow::default();
        };
        let rule = lead(followed, &host).and_then(|lead| lead.rule.as_ref());
        let subset = match route {
            [only] => only.destination.subset.as_str(),
            _ => "",
        };
        let port = self.port_of(followed, first, &host);
        traffic_policy::flow(rule.map(Obeyed::merged).as_ref(), port, subset)
    }
}

fn lead<'f>(followed: &'f Followed, host: &Hostname) -> Option<&'f Lead> {
    let mut leads = followed.leads.iter();
    leads.find(|(h, _)| h == host).map(|(_, lead)| lead)
}
