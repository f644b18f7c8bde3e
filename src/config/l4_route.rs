//! A VirtualService's rules for byte streams: TLS by the name that is asked for, TCP by where it goes.
//!
//! Field meaning: <https://istio.io/latest/docs/reference/config/networking/virtual-service/>.

use serde::{Deserialize, Serialize};

use super::meta::Labels;
use super::virtual_service::Destination;
use crate::text::Str;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsRoute {
    /// Never empty, once it was checked.
    #[serde(rename = "match")]
    pub matches: Vec<L4Match>,
    pub route: Vec<RouteDestination>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpRoute {
    /// Empty matches all.
    #[serde(rename = "match")]
    pub matches: Vec<L4Match>,
    pub route: Vec<RouteDestination>,
}

/// Of TLS and of TCP alike; `sniHosts` stands in the former alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct L4Match {
    pub sni_hosts: Vec<Str>,
    pub destination_subnets: Vec<Str>,
    pub port: Option<u16>,
    pub source_labels: Labels,
    pub source_namespace: Str,
    pub gateways: Vec<Str>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteDestination {
    pub destination: Destination,
    pub weight: u32,
}
