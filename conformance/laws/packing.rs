//! Route tables and scopes of one proxy as Envoy would read them.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::route::v3::scoped_route_configuration::key::fragment::Type;
use envoy_types::pb::envoy::config::route::v3::{
    RouteConfiguration, ScopedRouteConfiguration, VirtualHost,
};
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use fairlead::view::{Engine, ProxyId};
use fairlead::xds::{Encoded, ResourceType};
use prost::Message;

pub struct Packed {
    pub tables: BTreeMap<String, Vec<VirtualHost>>,
    /// Key to table.
    pub scopes: BTreeMap<String, String>,
}

pub fn of(engine: &Engine, id: u64) -> Packed {
    let scope = engine.scope_of(ProxyId(id)).unwrap();
    let resources = engine.resources(scope).unwrap();
    let tables = resources.of(ResourceType::Route).map(|entry| {
        let table = RouteConfiguration::decode(&body(entry)[..]).unwrap();
        (table.name, table.virtual_hosts)
    });
    let scopes = resources.of(ResourceType::ScopedRoute).map(|entry| {
        let scope = ScopedRouteConfiguration::decode(&body(entry)[..]).unwrap();
        let [fragment] = &scope.key.unwrap().fragments[..] else {
            panic!("{} has not one fragment", scope.name);
        };
        let Some(Type::StringKey(key)) = &fragment.r#type else {
            panic!("{} has no key", scope.name);
        };
        (key.clone(), scope.route_configuration_name)
    });
    let scopes: Vec<_> = scopes.collect();
    let count = scopes.len();
    let scopes = BTreeMap::from_iter(scopes);
    // Envoy refuses the whole response otherwise.
    assert_eq!(scopes.len(), count, "two scopes have one key");
    Packed {
        tables: tables.collect(),
        scopes,
    }
}

impl Packed {
    /// The virtual host that a request for `domain` at a port ends in: by the scope of the name in its one
    /// spelling, else by the fallback.
    pub fn leads_to(&self, port: &str, domain: &str) -> Option<&VirtualHost> {
        let spelled = domain.trim_end_matches('.').replace(':', "_");
        let tables = [spelled.as_str(), "*"].map(|name| self.scopes.get(&format!("{port}/{name}")));
        let hosts = tables
            .into_iter()
            .flatten()
            .filter_map(|t| self.tables.get(t));
        // Whoever comes to a table of one host by its scope is that host's, whatever the name.
        hosts
            .flatten()
            .find(|host| host.domains == ["*"] || host.domains.iter().any(|d| d == domain))
    }
}

/// What a virtual host does, whatever it is called by.
pub fn without_names(host: &VirtualHost) -> VirtualHost {
    VirtualHost {
        domains: Vec::new(),
        ..host.clone()
    }
}

fn body(encoded: &Encoded) -> Vec<u8> {
    let response = DeltaDiscoveryResponse::decode(&encoded.chunks.concat()[..]).unwrap();
    let resource = response.resources.into_iter().next().unwrap();
    resource.resource.unwrap().value
}
