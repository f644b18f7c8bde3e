//! Listen addresses on the command line: `:15012`, `127.0.0.1:0`, or nothing. Binding is in `app`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::text::Hostname;

/// Where a server listens, or that it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// The empty text: this server is not wanted.
    Off,
    On(SocketAddr),
}

impl Listen {
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::On(address) => Some(address),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    /// `:port` is every address of the machine, IPv6 and IPv4 alike, as in Go.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::Off);
        }
        let fault =
            || format!("`{text}` is no listen address such as :15012, 127.0.0.1:0 or [::1]:15012");
        if let Some(port) = text.strip_prefix(':') {
            let port = port.parse().map_err(|_| fault())?;
            return Ok(Self::On(SocketAddr::new(
                IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                port,
            )));
        }
        let spelled = text
            .strip_prefix("localhost:")
            .map(|port| format!("127.0.0.1:{port}"));
        let address = spelled.as_deref().unwrap_or(text);
        address.parse().map(Self::On).map_err(|_| fault())
    }
}

/// The DNS domain of a cluster's Services.
pub fn domain(text: &str) -> Result<String, String> {
    let fault = |why: &str| format!("`{text}` is no DNS domain such as cluster.local: {why}");
    let host = Hostname::parse(text).map_err(|e| fault(e.1))?;
    if text.starts_with(['*', '.']) || text.parse::<IpAddr>().is_ok() {
        return Err(fault("it is a wildcard, an address, or begins with a dot"));
    }
    Ok(host.to_string())
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::On(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_a_dns_name() {
        assert_eq!(domain("Mesh.local"), Ok("mesh.local".to_owned()));
        for bad in ["", "a..b", "*.local", "10.0.0.1", "a b", ".a"] {
            assert!(domain(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bare_port_is_every_address_and_nothing_is_off() {
        assert_eq!(
            ":15012".parse(),
            Ok(Listen::On("[::]:15012".parse().unwrap()))
        );
        assert_eq!(
            "localhost:0".parse(),
            Ok(Listen::On("127.0.0.1:0".parse().unwrap()))
        );
        assert_eq!("".parse(), Ok(Listen::Off));
        for bad in ["15012", ":x", ":70000", "name:1"] {
            assert!(bad.parse::<Listen>().is_err(), "{bad}");
        }
    }
}
