//! What of a pod's traffic goes through its sidecar, as rules of iptables or nftables.
//!
//! Pure: a [`Capture`] in, the rules out; [`Table`] and [`Ruleset`] compare them with what a pod really has. Running
//! iptables and nft is not here. Chain names and the order of rules are Istio's, so that its users recognise what they see.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

mod nftables;
mod rule;
mod rules;
mod table;

pub use nftables::{Ruleset, RulesetError};
pub use rule::{Family, TableName};
pub use rules::{Interface, PASSTHROUGH_SOURCE_V6};
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
    pub mode: Mode,
    pub inbound: Inbound,
    pub outbound: Outbound,
    /// Traffic over these is left alone in both directions.
    pub excluded_interfaces: Vec<Interface>,
}

/// How Envoy gets what the workload is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// At an address of its own; it asks the kernel where the connection was going.
    Redirect,
    /// As it is, by a transparent socket: Envoy can then speak to the workload from the client's address.
    Tproxy(Transparent),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transparent {
    /// Of what Envoy takes and of what it sends on; the next number marks what comes from its own pod.
    pub mark: u32,
    /// The routing table that keeps in the pod what is marked.
    pub route_table: u32,
}

impl Default for Transparent {
    fn default() -> Self {
        Self {
            mark: 1337,
            route_table: 133,
        }
    }
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
    pub excluded_ranges: Vec<IpNet>,
    /// Captured wherever they lead, outside `ranges` too.
    pub included_ports: Vec<u16>,
    pub excluded_ports: Vec<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    All,
    /// An empty list captures nothing.
    Only(Vec<IpNet>),
}

/// Documentation addresses (RFC 5737, RFC 3849): nothing real is there, so a connection to one proves capture.
const PROBE_TARGETS: &[IpAddr] = &[
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1)),
];

impl Capture {
    /// An address that must be captured when the workload connects to it; none if nothing on `port` is.
    pub fn outbound_probe(&self, port: u16, family: Family) -> Option<SocketAddr> {
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
        let candidates: Vec<IpAddr> = match ranges {
            Ranges::Only(nets) if !anywhere => {
                nets.iter().filter_map(|n| n.hosts().next()).collect()
            }
            Ranges::Only(_) | Ranges::All => PROBE_TARGETS.to_vec(),
        };
        let captured = |ip: &IpAddr| {
            family.has(&IpNet::from(*ip))
                && !ip.is_loopback()
                && !excluded_ranges.iter().any(|net| net.contains(ip))
        };
        let ip = candidates.into_iter().find(captured)?;
        Some(SocketAddr::new(ip, port))
    }

    fn takes_some_inbound(&self) -> bool {
        self.inbound != Inbound::Only(Vec::new())
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
            mode: Mode::Redirect,
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
            capture
                .outbound_probe(15002, Family::V4)
                .unwrap()
                .to_string(),
            "192.0.2.1:15002"
        );
        let v6 = capture.outbound_probe(15002, Family::V6).unwrap();
        assert_eq!(v6.to_string(), "[2001:db8::1]:15002");
        capture.outbound.excluded_ranges = vec!["192.0.2.0/24".parse().unwrap()];
        assert_eq!(
            capture
                .outbound_probe(15002, Family::V4)
                .unwrap()
                .to_string(),
            "198.51.100.1:15002"
        );
        capture.outbound.ranges = Ranges::Only(vec!["10.96.0.0/12".parse().unwrap()]);
        assert_eq!(
            capture
                .outbound_probe(15002, Family::V4)
                .unwrap()
                .to_string(),
            "10.96.0.1:15002"
        );
        capture.outbound.excluded_ports = vec![15002];
        assert_eq!(capture.outbound_probe(15002, Family::V4), None);
        capture.outbound.excluded_ports.clear();
        capture.outbound.ranges = Ranges::Only(Vec::new());
        assert_eq!(capture.outbound_probe(15002, Family::V4), None);
    }
}
