//! What of a pod's traffic goes through its sidecar, as iptables rules.
//!
//! Pure: a [`Capture`] in, the rules out; [`Table`] compares them with what a pod really has. Running iptables
//! is not here. Chain names and the order of rules are Istio's, so that its users recognise what they see.

use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;

mod rules;
mod table;

pub use rules::Interface;
pub use table::{Table, TableError};

/// What is captured and what is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// Where Envoy takes what the workload sends.
    pub outbound_port: u16,
    /// Where Envoy takes what the workload is sent.
    pub inbound_port: u16,
    /// Tunnels between sidecars come in here, uncaptured.
    pub tunnel_port: u16,
    /// Envoy's own user and group ids: what they send is not captured again.
    pub proxy_uids: Vec<u32>,
    pub proxy_gids: Vec<u32>,
    pub inbound: Inbound,
    pub outbound: Outbound,
    /// Traffic over these is left alone in both directions.
    pub excluded_interfaces: Vec<Interface>,
}

/// Which ports of the workload are captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inbound {
    AllBut(Vec<u16>),
    /// An empty list captures nothing.
    Only(Vec<u16>),
}

/// Which destinations of the workload are captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    pub ranges: Ranges,
    pub excluded_ranges: Vec<Ipv4Net>,
    /// Captured wherever they lead, outside `ranges` too.
    pub included_ports: Vec<u16>,
    pub excluded_ports: Vec<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    All,
    /// An empty list captures nothing.
    Only(Vec<Ipv4Net>),
}

/// Documentation addresses (RFC 5737): nothing real is there, so a connection to one proves capture.
const PROBE_TARGETS: &[Ipv4Addr] = &[
    Ipv4Addr::new(192, 0, 2, 1),
    Ipv4Addr::new(198, 51, 100, 1),
    Ipv4Addr::new(203, 0, 113, 1),
];

impl Capture {
    /// An address that must be captured when the workload connects to it; none if nothing on `port` is.
    pub fn outbound_probe(&self, port: u16) -> Option<SocketAddrV4> {
        let Outbound {
            ranges,
            excluded_ranges,
            included_ports,
            excluded_ports,
        } = &self.outbound;
        if excluded_ports.contains(&port) {
            return None;
        }
        let anywhere = matches!(ranges, Ranges::All) || included_ports.contains(&port);
        let candidates: Vec<Ipv4Addr> = match ranges {
            Ranges::Only(nets) if !anywhere => {
                nets.iter().filter_map(|n| n.hosts().next()).collect()
            }
            Ranges::Only(_) | Ranges::All => PROBE_TARGETS.to_vec(),
        };
        let captured = |ip: &Ipv4Addr| {
            !ip.is_loopback() && !excluded_ranges.iter().any(|net| net.contains(ip))
        };
        let ip = candidates.into_iter().find(captured)?;
        Some(SocketAddrV4::new(ip, port))
    }

    /// Whether a connection from outside to `port` of the workload goes through the sidecar.
    pub fn takes_inbound(&self, port: u16) -> bool {
        port != self.tunnel_port
            && match &self.inbound {
                Inbound::AllBut(excluded) => !excluded.contains(&port),
                Inbound::Only(ports) => ports.contains(&port),
            }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What a pod gets when nothing is annotated.
    pub(crate) fn usual() -> Capture {
        Capture {
            outbound_port: 15001,
            inbound_port: 15006,
            tunnel_port: 15008,
            proxy_uids: vec![1337],
            proxy_gids: vec![1337],
            inbound: Inbound::AllBut(vec![15090, 15021]),
            outbound: Outbound {
                ranges: Ranges::All,
                excluded_ranges: Vec::new(),
                included_ports: Vec::new(),
                excluded_ports: Vec::new(),
            },
            excluded_interfaces: Vec::new(),
        }
    }

    #[test]
    fn the_probe_goes_where_capture_is_certain() {
        let mut capture = usual();
        assert_eq!(
            capture.outbound_probe(15002).unwrap().to_string(),
            "192.0.2.1:15002"
        );
        capture.outbound.excluded_ranges = vec!["192.0.2.0/24".parse().unwrap()];
        assert_eq!(
            capture.outbound_probe(15002).unwrap().to_string(),
            "198.51.100.1:15002"
        );
        capture.outbound.ranges = Ranges::Only(vec!["10.96.0.0/12".parse().unwrap()]);
        assert_eq!(
            capture.outbound_probe(15002).unwrap().to_string(),
            "10.96.0.1:15002"
        );
        capture.outbound.excluded_ports = vec![15002];
        assert_eq!(capture.outbound_probe(15002), None);
        capture.outbound.excluded_ports.clear();
        capture.outbound.ranges = Ranges::Only(Vec::new());
        assert_eq!(capture.outbound_probe(15002), None);
    }
}
