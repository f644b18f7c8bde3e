//! Where a host asks for a listener, and for which sort of traffic.

use std::net::IpAddr;

use xxhash_rust::xxh3::xxh3_64;

use crate::ir::outbound::Asks;

pub type Place = (IpAddr, u16);

/// Of all hosts that ask for a listener at one place, the first by name for each sort decides; of what is told apart,
/// all do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Http,
    Bytes,
    Detect,
    Told,
}

impl Sort {
    /// Those of which one host decides.
    pub const SINGLE: [Self; 3] = [Self::Http, Self::Bytes, Self::Detect];

    pub fn of(asks: &Asks) -> Self {
        match asks {
            Asks::Http { .. } => Self::Http,
            Asks::Tcp(_) => Self::Bytes,
            Asks::Detect { .. } => Self::Detect,
            Asks::Told { .. } => Self::Told,
        }
    }

    /// Equal for equal places, and hardly ever for others.
    pub fn hash_at(self, (address, port): Place) -> u64 {
        let address = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let mut bytes = [0; 19];
        bytes[..16].copy_from_slice(&address.octets());
        bytes[16..18].copy_from_slice(&port.to_be_bytes());
        bytes[18] = self as u8;
        xxh3_64(&bytes)
    }
}
