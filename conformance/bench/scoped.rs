//! A run whose scopes, or the tables that they lead to, are not the manifest's is void, at once and on demand.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::ClusterDiscoveryType;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain};
use envoy_types::pb::envoy::config::route::v3::scoped_route_configuration::Key;
use envoy_types::pb::envoy::config::route::v3::scoped_route_configuration::key::Fragment;
use envoy_types::pb::envoy::config::route::v3::scoped_route_configuration::key::fragment::Type;
use envoy_types::pb::envoy::config::route::v3::{
    RouteConfiguration, ScopedRouteConfiguration, VirtualHost,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, ScopedRoutes,
};
use envoy_types::pb::google::protobuf::Any;
use fairlead::xds::ResourceType;
use prost::{Message, Name};

use super::push::mesh::{Mesh, PORTS, Size};
use super::push::packing::Packing;
use super::void::{CLUSTERS, listener, mesh, response, run_on};

const VIRTUAL_HOST: &str = "svc-0.ns-0.svc.cluster.local:80";
const CLUSTER: &str = "outbound|80||svc-0.ns-0.svc.cluster.local";
const TABLE: &str = "80/svc-0.ns-0.svc.cluster.local";
const REST: &str = "80/*";
/// Envoy's number for clusters whose endpoints come by EDS.
const EDS: i32 = 3;

/// A chain that looks for its table by scope.
pub fn scoped_chain() -> FilterChain {
    let manager = HttpConnectionManager {
        route_specifier: Some(RouteSpecifier::ScopedRoutes(ScopedRoutes::default())),
        ..HttpConnectionManager::default()
    };
    let manager = Any {
        type_url: HttpConnectionManager::type_url(),
        value: manager.encode_to_vec(),
    };
    let filter = Filter {
        config_type: Some(ConfigType::TypedConfig(manager)),
        ..Filter::default()
    };
    FilterChain {
        filters: vec![filter],
        ..FilterChain::default()
    }
}

/// One Service without endpoints, on an HTTP port.
fn scoped_mesh(packing: Packing) -> Mesh {
    let mut mesh = Mesh::new(Size {
        packing,
        ..mesh().size
    });
    let service = &mut mesh.services[0];
    service.ports = vec![PORTS[0]];
    service.endpoints.clear();
    service.rules = None;
    mesh
}

/// What a server sends: keys with their tables, tables with their virtual host, clusters with an assignment.
struct Routes {
    packing: Packing,
    scopes: BTreeMap<&'static str, &'static str>,
    tables: BTreeMap<&'static str, &'static str>,
    clusters: Vec<&'static str>,
    /// The scopes whose tables come on demand.
    on_demand: Vec<&'static str>,
}

impl Routes {
    fn right() -> Self {
        let names = ["80/svc-0", "80/svc-0.ns-0", "80/svc-0.ns-0.svc", TABLE];
        let address = "80/10.100.0.1";
        let scopes = names.into_iter().chain([address]).map(|key| (key, TABLE));
        Self {
            packing: Packing::Scoped,
            scopes: scopes.chain([(REST, REST)]).collect(),
            tables: [(REST, "allow_any"), (TABLE, VIRTUAL_HOST)].into(),
            clusters: vec![CLUSTER],
            on_demand: Vec::new(),
        }
    }

    /// To proxies that have no requests.
    fn right_on_demand() -> Self {
        let all = Self::right();
        let of_host = all.scopes.iter().filter(|(key, _)| **key != REST);
        Self {
            packing: Packing::OnDemand,
            on_demand: of_host.map(|(key, _)| *key).collect(),
            tables: [(REST, "allow_any")].into(),
            clusters: Vec::new(),
            ..all
        }
    }

    fn script(&self) -> Vec<u8> {
        let scope = |(key, table): (&&'static str, &&'static str)| {
            let fragment = Fragment {
                r#type: Some(Type::StringKey((*key).to_owned())),
            };
            let scope = ScopedRouteConfiguration {
                route_configuration_name: (*table).to_owned(),
                on_demand: self.on_demand.contains(key),
                key: Some(Key {
                    fragments: vec![fragment],
                }),
                ..ScopedRouteConfiguration::default()
            };
            (*key, scope.encode_to_vec())
        };
        let table = |(name, host): (&&'static str, &&'static str)| {
            let host = VirtualHost {
                name: (*host).to_owned(),
                ..VirtualHost::default()
            };
            let table = RouteConfiguration {
                virtual_hosts: vec![host],
                ..RouteConfiguration::default()
            };
            (*name, table.encode_to_vec())
        };
        let scopes = self.scopes.iter().map(scope).collect();
        let tables = self.tables.iter().map(table).collect();
        [
            rest_of_mesh(&self.clusters),
            response(ResourceType::ScopedRoute, scopes),
            response(ResourceType::Route, tables),
        ]
        .concat()
    }

    fn run(&self) -> Result<(), String> {
        let mesh = scoped_mesh(self.packing);
        run_on(&mesh, &self.script(), mesh.least())
    }
}

fn rest_of_mesh(outbound: &[&'static str]) -> Vec<u8> {
    let cluster = Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(EDS)),
        ..Cluster::default()
    };
    let fixed = CLUSTERS.map(|name| (name, Cluster::default().encode_to_vec()));
    let more = outbound.iter().map(|name| (*name, cluster.encode_to_vec()));
    let clusters = fixed.into_iter().chain(more);
    let assignment = ClusterLoadAssignment::default().encode_to_vec();
    let assignments = outbound.iter().map(|name| (*name, assignment.clone()));
    let listeners = vec![
        ("in", listener(15006, Vec::new())),
        ("out", listener(15001, Vec::new())),
        ("80", listener(80, vec![scoped_chain()])),
    ];
    [
        response(ResourceType::Cluster, clusters.collect()),
        response(ResourceType::Endpoint, assignments.collect()),
        response(ResourceType::Listener, listeners),
    ]
    .concat()
}

#[test]
fn scopes_and_tables_as_the_manifest_says_are_measured() {
    Routes::right().run().unwrap();
}

#[test]
fn a_server_that_withholds_a_scope_or_a_table_makes_the_run_void() {
    let mut without_scope = Routes::right();
    without_scope.scopes.remove("80/svc-0.ns-0");
    let mut without_table = Routes::right();
    without_table.tables.remove(REST);
    for routes in [without_scope, without_table] {
        let why = routes.run().unwrap_err();
        assert!(why.starts_with("2 of 2 proxies did not get there"), "{why}");
    }
}

#[test]
fn a_scope_that_leads_elsewhere_makes_the_run_void() {
    let mut routes = Routes::right();
    routes.scopes.insert("80/svc-0", REST);
    let why = routes.run().unwrap_err();
    assert!(
        why.contains("1 missing (srds 80/svc-0 to 80/svc-0.ns-0.svc.cluster.local)"),
        "{why}"
    );
}

#[test]
fn another_key_in_its_place_makes_the_run_void() {
    let mut routes = Routes::right();
    routes.scopes.remove("80/svc-0");
    routes.scopes.insert("80/svc-1", TABLE);
    let why = routes.run().unwrap_err();
    assert!(
        why.contains("1 too many (srds 80/svc-1 to 80/svc-0.ns-0.svc.cluster.local)"),
        "{why}"
    );
}

#[test]
fn a_table_without_its_virtual_host_makes_the_run_void() {
    let mut routes = Routes::right();
    routes.tables.insert(TABLE, "allow_any");
    let why = routes.run().unwrap_err();
    let missing = format!("1 missing (rds {TABLE} {VIRTUAL_HOST})");
    assert!(why.contains(&missing), "{why}");
}

#[test]
fn on_demand_scopes_and_fallbacks_alone_are_measured() {
    Routes::right_on_demand().run().unwrap();
}

#[test]
fn what_nobody_asked_for_makes_the_run_on_demand_void() {
    let mut with_table = Routes::right_on_demand();
    with_table.tables.insert(TABLE, VIRTUAL_HOST);
    let why = with_table.run().unwrap_err();
    let table = format!("1 too many (rds {TABLE} {VIRTUAL_HOST})");
    assert!(why.contains(&table), "{why}");
    let mut with_cluster = Routes::right_on_demand();
    with_cluster.clusters.push(CLUSTER);
    let why = with_cluster.run().unwrap_err();
    assert!(why.contains(&format!("(cds {CLUSTER}")), "{why}");
}

#[test]
fn a_fallback_that_waits_for_a_request_makes_the_run_void() {
    let mut routes = Routes::right_on_demand();
    routes.on_demand.push(REST);
    let why = routes.run().unwrap_err();
    assert!(why.starts_with("2 of 2 proxies did not get there"), "{why}");
}

#[test]
fn a_scope_on_demand_among_those_at_once_makes_the_run_void() {
    let mut routes = Routes::right();
    routes.on_demand.push("80/svc-0");
    let why = routes.run().unwrap_err();
    let scope = format!("1 too many (srds 80/svc-0 to {TABLE} on demand)");
    assert!(why.contains(&scope), "{why}");
}
