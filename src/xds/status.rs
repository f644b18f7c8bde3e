//! How proxies stand, as `istioctl` asks for it over xDS: questions of Istio's own types, answers of Envoy's.
//!
//! `istio.io/debug/syncz` is answered by an `envoy.service.status.v3.ClientConfig` a proxy, `istio.io/debug/config_dump` by
//! the dumps of `envoy.admin.v3`, as an Envoy's own admin page has them.

use envoy_types::pb::envoy::admin::v3::clusters_config_dump::DynamicCluster;
use envoy_types::pb::envoy::admin::v3::endpoints_config_dump::DynamicEndpointConfig;
use envoy_types::pb::envoy::admin::v3::listeners_config_dump::{
    DynamicListener, DynamicListenerState,
};
use envoy_types::pb::envoy::admin::v3::routes_config_dump::DynamicRouteConfig;
use envoy_types::pb::envoy::admin::v3::scoped_routes_config_dump::DynamicScopedRouteConfigs;
use envoy_types::pb::envoy::admin::v3::{
    ClustersConfigDump, EndpointsConfigDump, ListenersConfigDump, RoutesConfigDump,
    ScopedRoutesConfigDump, UpdateFailureState,
};
use envoy_types::pb::envoy::config::core::v3::{ControlPlane, Node};
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use envoy_types::pb::envoy::service::status::v3::client_config::GenericXdsConfig;
use envoy_types::pb::envoy::service::status::v3::{ClientConfig, ConfigStatus};
use envoy_types::pb::google::protobuf::{Any, Struct, Value, value};
use prost::{Message, Name};

use super::{Encoded, Entry, ResourceType};

pub use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};

/// How Istio's own types begin.
pub const PREFIX: &str = "istio.io/debug";
pub const SYNC: &str = "istio.io/debug/syncz";
pub const CONFIG: &str = "istio.io/debug/config_dump";

/// One proxy, for [`SYNC`].
pub struct ProxyStatus<'a> {
    pub node_id: &'a str,
    pub cluster_id: &'a str,
    pub namespace: &'a str,
    /// Of its Envoy.
    pub version: &'a str,
    pub types: Vec<(ResourceType, TypeStatus)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypeStatus {
    NotSent,
    Synced,
    /// Sent, and not answered yet.
    Stale,
    /// What the proxy said of it.
    Refused(String),
}

/// An answer: `identifier` says who gives it.
pub fn response(
    type_url: &str,
    resources: Vec<Any>,
    nonce: String,
    identifier: &str,
) -> DiscoveryResponse {
    DiscoveryResponse {
        version_info: nonce.clone(),
        resources,
        type_url: type_url.to_owned(),
        nonce,
        control_plane: Some(ControlPlane {
            identifier: identifier.to_owned(),
        }),
        ..DiscoveryResponse::default()
    }
}

/// What is no message of Envoy's.
pub fn opaque(type_url: &str, text: String) -> Any {
    Any {
        type_url: type_url.to_owned(),
        value: text.into_bytes(),
    }
}

pub fn client(proxy: &ProxyStatus<'_>) -> Any {
    let text = |text: &str| Value {
        kind: Some(value::Kind::StringValue(text.to_owned())),
    };
    let metadata = [
        ("CLUSTER_ID", proxy.cluster_id),
        ("NAMESPACE", proxy.namespace),
        ("ISTIO_VERSION", proxy.version),
    ];
    let fields = metadata.map(|(key, value)| (key.to_owned(), text(value)));
    any(&ClientConfig {
        node: Some(Node {
            id: proxy.node_id.to_owned(),
            metadata: Some(Struct {
                fields: fields.into(),
            }),
            ..Node::default()
        }),
        generic_xds_configs: proxy.types.iter().map(generic).collect(),
        ..ClientConfig::default()
    })
}

fn generic((kind, status): &(ResourceType, TypeStatus)) -> GenericXdsConfig {
    let (word, details) = match status {
        TypeStatus::NotSent => (ConfigStatus::NotSent, None),
        TypeStatus::Synced => (ConfigStatus::Synced, None),
        TypeStatus::Stale => (ConfigStatus::Stale, None),
        TypeStatus::Refused(why) => (ConfigStatus::Error, Some(why.clone())),
    };
    GenericXdsConfig {
        type_url: kind.type_url().to_owned(),
        config_status: word.into(),
        error_state: details.map(|details| UpdateFailureState {
            details,
            ..UpdateFailureState::default()
        }),
        ..GenericXdsConfig::default()
    }
}

/// What a proxy must hold, one dump a type; never a secret.
pub fn dumps(entries: &[Entry]) -> Vec<Any> {
    let of = |kind: ResourceType| {
        entries
            .iter()
            .map(|e| &*e.encoded)
            .filter(move |e| e.kind == kind)
    };
    let clusters = of(ResourceType::Cluster).map(|encoded| DynamicCluster {
        version_info: encoded.version.to_string(),
        cluster: message(encoded),
        ..DynamicCluster::default()
    });
    let listeners = of(ResourceType::Listener).map(|encoded| DynamicListener {
        name: encoded.name.to_string(),
        active_state: Some(DynamicListenerState {
            version_info: encoded.version.to_string(),
            listener: message(encoded),
            ..DynamicListenerState::default()
        }),
        ..DynamicListener::default()
    });
    let routes = of(ResourceType::Route).map(|encoded| DynamicRouteConfig {
        version_info: encoded.version.to_string(),
        route_config: message(encoded),
        ..DynamicRouteConfig::default()
    });
    let scopes = of(ResourceType::ScopedRoute).map(|encoded| DynamicScopedRouteConfigs {
        name: encoded.name.to_string(),
        version_info: encoded.version.to_string(),
        scoped_route_configs: message(encoded).into_iter().collect(),
        ..DynamicScopedRouteConfigs::default()
    });
    let endpoints = of(ResourceType::Endpoint).map(|encoded| DynamicEndpointConfig {
        version_info: encoded.version.to_string(),
        endpoint_config: message(encoded),
        ..DynamicEndpointConfig::default()
    });
    vec![
        any(&ClustersConfigDump {
            dynamic_active_clusters: clusters.collect(),
            ..ClustersConfigDump::default()
        }),
        any(&ListenersConfigDump {
            dynamic_listeners: listeners.collect(),
            ..ListenersConfigDump::default()
        }),
        any(&ScopedRoutesConfigDump {
            dynamic_scoped_route_configs: scopes.collect(),
            ..ScopedRoutesConfigDump::default()
        }),
        any(&RoutesConfigDump {
            dynamic_route_configs: routes.collect(),
            ..RoutesConfigDump::default()
        }),
        any(&EndpointsConfigDump {
            dynamic_endpoint_configs: endpoints.collect(),
            ..EndpointsConfigDump::default()
        }),
    ]
}

/// The chunks are one `resources` entry of a response, so together they are a response.
fn message(encoded: &Encoded) -> Option<Any> {
    let response = DeltaDiscoveryResponse::decode(&encoded.chunks.concat()[..]).ok()?;
    response.resources.into_iter().find_map(|r| r.resource)
}

fn any<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: M::type_url(),
        value: message.encode_to_vec(),
    }
}
