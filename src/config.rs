//! The objects Fairlead reads, as plain values; decoding and bounds are in the files below.
//!
//! `kinds!` is the only list of kinds: a new one is a line here and its file.

pub mod api;
pub mod check;
pub mod connection_pool;
pub mod core;
pub mod decode;
pub mod destination_rule;
pub mod envoy_filter;
pub mod event;
pub mod gateway;
pub mod http_action;
pub mod ingress;
pub mod l4_route;
pub mod locality;
pub mod mesh;
pub mod meta;
pub mod peer_authentication;
pub mod proxy_config;
pub mod secret;
pub mod service_entry;
pub mod sidecar;
pub mod traffic_extension;
pub mod value;
pub mod virtual_service;
pub mod workload_entry;
pub mod workload_group;
pub mod workload_proxy;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::diagnostic::Subject;
use crate::text::Str;

pub use self::meta::Meta;

macro_rules! kinds {
    ($($kind:ident($spec:ty), $group:literal;)*) => {
        /// Every kind that is read and acted on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Kind { $($kind,)* }

        /// The part of an object that its kind decides.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub enum Spec { $($kind($spec),)* }

        impl Kind {
            pub const ALL: &[Kind] = &[$(Kind::$kind,)*];

            pub fn name(self) -> &'static str {
                match self { $(Kind::$kind => stringify!($kind),)* }
            }

            /// The API group, empty for Kubernetes' core.
            pub fn group(self) -> &'static str {
                match self { $(Kind::$kind => $group,)* }
            }
        }

        impl Spec {
            pub fn kind(&self) -> Kind {
                match self { $(Spec::$kind(_) => Kind::$kind,)* }
            }
        }
    };
}

kinds! {
    Namespace(core::Namespace), "";
    Node(core::Node), "";
    Service(core::Service), "";
    EndpointSlice(core::EndpointSlice), "discovery.k8s.io";
    Pod(core::Pod), "";
    WorkloadEntry(workload_entry::WorkloadEntry), "networking.istio.io";
    // Boxed: few, and large.
    WorkloadGroup(Box<workload_group::WorkloadGroup>), "networking.istio.io";
    ServiceEntry(Box<service_entry::ServiceEntry>), "networking.istio.io";
    VirtualService(virtual_service::VirtualService), "networking.istio.io";
    // The same, beside a Pod or a Service, of which there are many.
    DestinationRule(Box<destination_rule::DestinationRule>), "networking.istio.io";
    PeerAuthentication(peer_authentication::PeerAuthentication), "security.istio.io";
    Sidecar(sidecar::Sidecar), "networking.istio.io";
    Gateway(gateway::Gateway), "networking.istio.io";
    // Only of pods that are yet to come.
    ProxyConfig(workload_proxy::WorkloadProxy), "networking.istio.io";
    TrafficExtension(Box<traffic_extension::TrafficExtension>), "extensions.istio.io";
    Ingress(Box<ingress::Ingress>), "networking.k8s.io";
    IngressClass(ingress::IngressClass), "networking.k8s.io";
    // Boxed: few, and large.
    EnvoyFilter(Box<envoy_filter::EnvoyFilter>), "networking.istio.io";
    // Boxed: most of them are empty here.
    Secret(Box<secret::Secret>), "";
    // The ConfigMap `istio` of the root namespace, or the file given by `--mesh-config`.
    MeshConfig(Box<mesh::MeshConfig>), "mesh.istio.io";
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Names one object. Ordered, so that everything derived from a set of objects is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    pub kind: Kind,
    pub namespace: Str,
    pub name: Str,
}

impl Key {
    pub fn subject(&self) -> Subject {
        Subject {
            kind: Str::new_static(self.kind.name()),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.subject().fmt(f)
    }
}

/// A decoded object without faults inside itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Object {
    pub meta: Meta,
    pub spec: Spec,
}

impl Object {
    pub fn key(&self) -> Key {
        Key {
            kind: self.spec.kind(),
            namespace: self.meta.namespace.clone(),
            name: self.meta.name.clone(),
        }
    }
}

/// Which object, and which field of it, made (a part of) a resource. No part of a cache key or version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Source {
    pub key: Key,
    /// Empty for the whole object.
    pub field: Str,
}

/// One difference of the accepted set: the object in force, or none.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub key: Key,
    pub object: Option<Arc<Object>>,
}
