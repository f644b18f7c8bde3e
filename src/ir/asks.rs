//! What a host asks of the listener at an address.

use std::sync::Arc;

use ipnet::IpNet;

use super::front::Served;
use super::{Flow, Target};
use crate::config::Key;
use crate::text::Str;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asks {
    /// HTTP by the table of the port.
    Http { table: Str },
    /// Bytes.
    Tcp(Bytes),
    /// Whatever it turns out to be: HTTP by this table, else bytes.
    Detect { table: Str, bytes: Bytes },
    /// Bytes that are told apart from others to the same address, and where all others go, if the host takes them.
    Told {
        ways: Vec<(Apart, Bytes)>,
        rest: Option<Bytes>,
    },
}

/// Where a byte stream goes, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes {
    pub to: Targets,
    pub flow: Flow,
    /// At the edge: for which server of which Gateway.
    pub server: Option<Arc<(Key, usize)>>,
}

impl Bytes {
    pub fn is_for(&self, served: &Served) -> bool {
        let asking = self.server.as_deref();
        asking.is_some_and(|(key, index)| key == served.key() && *index == served.index)
    }
}

/// One cluster, or several by weight, with the name of their statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    pub targets: Vec<Target>,
    pub prefix: Str,
}

/// By what a connection shows that it is for a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Apart {
    /// The name that a TLS client asks for; empty for any, and for no TLS.
    pub server_name: Str,
    /// The range that it goes to; none is all.
    pub range: Option<IpNet>,
}

impl Asks {
    pub fn table(&self) -> Option<&Str> {
        match self {
            Self::Http { table } | Self::Detect { table, .. } => Some(table),
            Self::Tcp(_) | Self::Told { .. } => None,
        }
    }
}
