//! What Envoy is sent: resource types, one rendered resource, and the rule that a renderer sees its input alone.

mod access_log;
pub mod cluster;
pub mod encode;
pub mod endpoint;
mod extension;
mod filter_chain;
mod http;
pub mod json;
pub mod listener;
mod on_demand;
pub mod patch;
mod proto;
pub mod route;
pub mod scope;
pub mod secret;
mod server_tls;
pub mod stamp;
pub mod status;
mod tls;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use prost::Message as _;
use serde::{Deserialize, Serialize};

pub use self::stamp::Stamp;
pub use crate::config::Source;
use crate::text::Str;

/// The xDS types Fairlead serves, in the order in which one flush sends them (secrets are answered apart).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ResourceType {
    Cluster,
    Endpoint,
    Listener,
    Route,
    ScopedRoute,
    Secret,
}

impl ResourceType {
    pub const ALL: [Self; 6] = [
        Self::Cluster,
        Self::Endpoint,
        Self::Listener,
        Self::Route,
        Self::ScopedRoute,
        Self::Secret,
    ];
    pub const COUNT: usize = Self::ALL.len();

    pub fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::ScopedRoute => {
                "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration"
            }
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        }
    }

    /// None for a type that is not served.
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.type_url() == url)
    }

    /// Istio's short name, as metrics and debug pages use it.
    pub fn short(self) -> &'static str {
        match self {
            Self::Cluster => "cds",
            Self::Endpoint => "eds",
            Self::Listener => "lds",
            Self::Route => "rds",
            Self::ScopedRoute => "srds",
            Self::Secret => "sds",
        }
    }
}

/// xxh3-128 of (render epoch, canonical input): equal in every replica and after every restart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u128);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 22 characters, which a `Str` holds without an allocation.
        f.write_str(&BASE64URL_NOPAD.encode(&self.0.to_be_bytes()))
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a cluster stays warming after its CLA came, if it does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Warming {
    /// Active as soon as its CLA (if any) is in.
    #[default]
    Plain,
    Dns,
    HealthCheck,
    /// Secrets it names; warm once the proxy holds all of them.
    Secrets(Vec<Str>),
}

/// One rendered resource, encoded once and shared by every session.
///
/// `chunks` joined are one `resources` entry of a DeltaDiscoveryResponse, its tag and length included
/// (`envoy.service.discovery.v3.DeltaDiscoveryResponse.resources = 2`). No flush copies them.
pub struct Encoded {
    /// Type, name, version, references.
    pub stamp: Arc<Stamp>,
    pub chunks: Box<[Bytes]>,
    /// Sum of the chunks' lengths.
    pub len: usize,
    pub warming: Warming,
    /// A Cluster of type EDS: it takes its CLA with it (design: true delta, exception a).
    pub eds: bool,
    /// By which EnvoyFilters.
    pub patched: encode::Patched,
}

impl Encoded {
    /// The message alone, without what frames it.
    pub fn body(&self) -> Option<Vec<u8>> {
        // The chunks are one `resources` entry of a response, so together they are a response.
        let response = DeltaDiscoveryResponse::decode(&self.chunks.concat()[..]).ok()?;
        let mut resources = response.resources.into_iter();
        Some(resources.find_map(|r| r.resource)?.value)
    }
}

impl Deref for Encoded {
    type Target = Stamp;

    fn deref(&self) -> &Stamp {
        &self.stamp
    }
}

/// Without its bytes: those of a secret are a private key.
impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} {}", self.kind, self.name, self.version)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Ref {
    pub kind: ResourceType,
    pub name: Str,
}

/// A resource with the fields that decided it.
#[derive(Clone, Debug)]
pub struct Entry {
    pub encoded: Arc<Encoded>,
    pub sources: Arc<[Source]>,
}

/// Everything that decides a resource's bytes. What is not here, `render` cannot read.
///
/// The version hashes `EPOCH` and the postcard form of `self`; raise `EPOCH` when `render`
/// gives other bytes for an equal input.
pub trait Render: Serialize {
    type Message: prost::Message;
    const KIND: ResourceType;
    const EPOCH: u32;

    fn name(&self) -> Str;
    fn render(&self) -> Self::Message;

    fn refs(&self) -> Vec<Ref> {
        Vec::new()
    }
    fn warming(&self) -> Warming {
        Warming::Plain
    }
    fn eds(&self) -> bool {
        false
    }
}
