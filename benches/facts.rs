//! What a resource means, in words that a manifest can foretell: so sets are compared. No names of one server alone.

use envoy_types::pb::envoy::config::core::v3::Address;
use envoy_types::pb::envoy::config::core::v3::address::Address as Kind;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::config::route::v3::scoped_route_configuration::key::fragment::Type;
use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, ScopedRouteConfiguration};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use fairlead::xds::ResourceType;
use prost::Message as _;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::wire::{Field, Fields, Packed};

/// One thing that a proxy holds, in words.
pub type Fact = (ResourceType, String);
/// Sums of facts by type: equal sets have equal sums, whatever their order.
pub type Sums = [u64; ResourceType::COUNT];

/// One fact's part of a sum.
pub fn weight(kind: ResourceType, fact: &str) -> u64 {
    xxh3_64_with_seed(fact.as_bytes(), kind as u64)
}

/// A cluster's name; an assignment's name and endpoints; a listener's address; a table's virtual hosts; a scope's
/// key and table, and when that comes.
pub fn of(packed: &Packed<'_>) -> Vec<String> {
    match packed.kind {
        ResourceType::Cluster => vec![packed.name.to_owned()],
        ResourceType::Endpoint => endpoints(packed),
        ResourceType::Listener => {
            let listener = Listener::decode(packed.body).unwrap_or_default();
            vec![listener.address.as_ref().map(shown).unwrap_or_default()]
        }
        ResourceType::Route => {
            let table = RouteConfiguration::decode(packed.body).unwrap_or_default();
            let hosts = table.virtual_hosts.iter();
            hosts
                .map(|host| virtual_host(packed.name, &host.name))
                .collect()
        }
        ResourceType::ScopedRoute => {
            let read = ScopedRouteConfiguration::decode(packed.body).unwrap_or_default();
            let loading = loading(&read);
            vec![scope(&key(&read), &read.route_configuration_name, loading)]
        }
        // No two are the same, and none is a part of the mesh.
        ResourceType::Secret => Vec::new(),
    }
}

pub fn endpoint(assignment: &str, address: &str, port: u16) -> String {
    format!("{assignment} {address}:{port}")
}

pub fn virtual_host(table: &str, host: &str) -> String {
    format!("{table} {host}")
}

/// When the table comes that a scope leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loading {
    AtOnce,
    /// When a request first needs it.
    OnDemand,
}

pub fn scope(key: &str, table: &str, loading: Loading) -> String {
    match loading {
        Loading::AtOnce => format!("{key} to {table}"),
        Loading::OnDemand => format!("{key} to {table} on demand"),
    }
}

fn loading(scope: &ScopedRouteConfiguration) -> Loading {
    match scope.on_demand {
        true => Loading::OnDemand,
        false => Loading::AtOnce,
    }
}

fn key(scope: &ScopedRouteConfiguration) -> String {
    let fragments = scope.key.iter().flat_map(|key| &key.fragments);
    let texts = fragments.map(|fragment| match &fragment.r#type {
        Some(Type::StringKey(text)) => text.as_str(),
        None => "",
    });
    texts.collect::<Vec<_>>().join(" ")
}

fn endpoints(packed: &Packed<'_>) -> Vec<String> {
    let assignment = ClusterLoadAssignment::decode(packed.body).unwrap_or_default();
    let all = assignment.endpoints.iter().flat_map(|l| &l.lb_endpoints);
    let addresses = all.filter_map(|e| match &e.host_identifier {
        Some(HostIdentifier::Endpoint(endpoint)) => endpoint.address.as_ref(),
        _ => None,
    });
    let addresses = addresses.map(|a| format!("{} {}", packed.name, shown(a)));
    std::iter::once(packed.name.to_owned())
        .chain(addresses)
        .collect()
}

fn shown(address: &Address) -> String {
    match &address.address {
        Some(Kind::SocketAddress(socket)) => match socket.port_specifier {
            Some(PortSpecifier::PortValue(port)) => format!("{}:{port}", socket.address),
            _ => socket.address.clone(),
        },
        _ => "another sort of address".into(),
    }
}

/// What a listener leads to that looks for tables by scope.
pub const ALL_SCOPES: &str = "*";

/// What a resource leads to: a cluster's assignment, a listener's tables or scopes, a scope's table if it is not one
/// that a request waits for.
pub fn leads(packed: &Packed<'_>) -> Vec<Fact> {
    match packed.kind {
        ResourceType::Cluster => {
            let name = assignment(packed).into_iter();
            name.map(|n| (ResourceType::Endpoint, n)).collect()
        }
        ResourceType::Listener => tables(packed.body),
        ResourceType::ScopedRoute => {
            let scope = ScopedRouteConfiguration::decode(packed.body).unwrap_or_default();
            match loading(&scope) {
                Loading::AtOnce => vec![(ResourceType::Route, scope.route_configuration_name)],
                Loading::OnDemand => Vec::new(),
            }
        }
        ResourceType::Endpoint | ResourceType::Route | ResourceType::Secret => Vec::new(),
    }
}

/// `Cluster.type` = 2 is EDS = 3; `eds_cluster_config` = 3 may give another `service_name` = 2.
fn assignment(packed: &Packed<'_>) -> Option<String> {
    let (mut eds, mut service) = (false, None);
    for field in Fields(packed.body) {
        match field {
            (2, Field::Number(kind)) => eds = kind == 3,
            (3, Field::Bytes(config)) => {
                service = Fields(config).find_map(|(tag, field)| match (tag, field) {
                    (2, Field::Bytes(name)) => Some(String::from_utf8_lossy(name).into_owned()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    eds.then(|| service.unwrap_or_else(|| packed.name.into()))
}

fn tables(listener: &[u8]) -> Vec<Fact> {
    let listener = Listener::decode(listener).unwrap_or_default();
    let chains = listener.filter_chains.iter();
    let filters = chains
        .chain(&listener.default_filter_chain)
        .flat_map(|chain| &chain.filters);
    let mut names: Vec<Fact> = filters
        .filter_map(|filter| match &filter.config_type {
            Some(ConfigType::TypedConfig(any)) => Some(any),
            _ => None,
        })
        .filter(|any| any.type_url.ends_with(".HttpConnectionManager"))
        .filter_map(|any| HttpConnectionManager::decode(&any.value[..]).ok())
        .filter_map(|http| match http.route_specifier {
            Some(RouteSpecifier::Rds(rds)) => Some((ResourceType::Route, rds.route_config_name)),
            Some(RouteSpecifier::ScopedRoutes(_)) => {
                Some((ResourceType::ScopedRoute, ALL_SCOPES.to_owned()))
            }
            _ => None,
        })
        .collect();
    names.sort();
    names.dedup();
    names
}
