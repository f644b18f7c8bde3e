//! A simulated proxy asks and acknowledges as Envoy does.

use bytes::Bytes;
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::ClusterDiscoveryType;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::ScopedRouteConfiguration;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use fairlead::xds::ResourceType;
use prost::Message as _;

use super::push::catalogue::Catalogue;
use super::push::proxy::{Delivery, Ground, Opening, Phrases, Proxy, Secrets};
use super::push::wire::{PREFIX, Packed};
use super::scoped::scoped_chain;

/// Envoy's number for clusters whose endpoints come by EDS.
const EDS: i32 = 3;

struct Talk {
    catalogue: Catalogue,
    phrases: Phrases,
    proxy: Proxy,
    nonces: u32,
}

impl Talk {
    fn new() -> Self {
        let node = Bytes::new();
        let mut talk = Self {
            catalogue: Catalogue::default(),
            phrases: Phrases::default(),
            proxy: Proxy::new(node, Secrets::Unasked, Opening::Clusters),
            nonces: 0,
        };
        assert_eq!(talk.open(), ["cds"]);
        talk
    }

    fn open(&mut self) -> Vec<String> {
        let mut ground = Ground {
            catalogue: &mut self.catalogue,
            phrases: &mut self.phrases,
        };
        self.proxy.open(&mut ground).iter().map(shown).collect()
    }

    /// What the proxy says to these resources, each a name and a version, and to these removals.
    fn send(
        &mut self,
        kind: ResourceType,
        resources: &[(&str, &str)],
        removed: &[&str],
    ) -> Vec<String> {
        let bodies = resources.iter().map(|(_, version)| body(kind, version));
        let bodies: Vec<Vec<u8>> = bodies.collect();
        let packed = resources.iter().zip(&bodies);
        let packed = packed.map(|((name, version), body)| Packed {
            kind,
            name,
            version,
            body,
        });
        let items: Vec<_> = packed.map(|p| self.catalogue.item(&p)).collect();
        let removed = removed.iter().map(|n| self.catalogue.name(kind, n));
        let removed: Vec<_> = removed.collect();
        self.nonces += 1;
        let nonce = self.nonces.to_string();
        let delivery = Delivery {
            kind,
            nonce: nonce.as_bytes(),
            items: &items,
            removed: &removed,
        };
        let mut ground = Ground {
            catalogue: &mut self.catalogue,
            phrases: &mut self.phrases,
        };
        let replies = self.proxy.on_delivery(&delivery, &mut ground);
        replies.iter().map(shown).collect()
    }
}

/// Clusters have assignments, listeners look for scopes; a scope's version says which table it leads to, and ends in
/// `?` if that comes on demand.
fn body(kind: ResourceType, version: &str) -> Vec<u8> {
    match kind {
        ResourceType::Cluster => Cluster {
            cluster_discovery_type: Some(ClusterDiscoveryType::Type(EDS)),
            ..Cluster::default()
        }
        .encode_to_vec(),
        ResourceType::Listener => Listener {
            filter_chains: vec![scoped_chain()],
            ..Listener::default()
        }
        .encode_to_vec(),
        ResourceType::ScopedRoute => ScopedRouteConfiguration {
            route_configuration_name: version.trim_end_matches('?').into(),
            on_demand: version.ends_with('?'),
            ..ScopedRouteConfiguration::default()
        }
        .encode_to_vec(),
        ResourceType::Endpoint | ResourceType::Route | ResourceType::Secret => Vec::new(),
    }
}

/// A request in short: `type ack N +subscribed -unsubscribed =held@version`.
fn shown(request: &Bytes) -> String {
    let request = DeltaDiscoveryRequest::decode(&request[PREFIX..]).unwrap();
    let kind = ResourceType::from_type_url(&request.type_url).unwrap();
    let mut out = kind.short().to_owned();
    if !request.response_nonce.is_empty() {
        out += &format!(" ack {}", request.response_nonce);
    }
    for name in request.resource_names_subscribe {
        out += &format!(" +{name}");
    }
    for name in request.resource_names_unsubscribe {
        out += &format!(" -{name}");
    }
    let mut held: Vec<_> = request.initial_resource_versions.into_iter().collect();
    held.sort();
    for (name, version) in held {
        out += &format!(" ={name}@{version}");
    }
    out
}

#[test]
fn clusters_are_acknowledged_once_their_assignments_came() {
    let mut talk = Talk::new();
    let said = talk.send(ResourceType::Cluster, &[("a", "1"), ("b", "1")], &[]);
    assert_eq!(said, ["eds +a +b"]);
    let said = talk.send(ResourceType::Endpoint, &[("a", "1")], &[]);
    assert_eq!(said, ["eds ack 2"]);
    let said = talk.send(ResourceType::Endpoint, &[("b", "1")], &[]);
    assert_eq!(said, ["eds ack 3", "cds ack 1", "lds"]);
}

#[test]
fn a_changed_cluster_warms_again_and_nothing_known_is_asked_for() {
    let mut talk = Talk::new();
    talk.send(ResourceType::Cluster, &[("a", "1")], &[]);
    talk.send(ResourceType::Endpoint, &[("a", "1")], &[]);
    let said = talk.send(ResourceType::Cluster, &[("a", "2")], &[]);
    assert!(said.is_empty(), "{said:?}");
    assert!(!talk.proxy.is_warm());
    let said = talk.send(ResourceType::Endpoint, &[("a", "1")], &[]);
    assert_eq!(said, ["eds ack 4", "cds ack 3"]);
}

#[test]
fn the_same_cluster_again_warms_nothing() {
    let mut talk = Talk::new();
    talk.send(ResourceType::Cluster, &[("a", "1")], &[]);
    talk.send(ResourceType::Endpoint, &[("a", "1")], &[]);
    let said = talk.send(ResourceType::Cluster, &[("a", "1")], &[]);
    assert_eq!(said, ["cds ack 3"]);
}

#[test]
fn a_removed_cluster_takes_its_assignment_with_it() {
    let mut talk = Talk::new();
    talk.send(ResourceType::Cluster, &[("a", "1"), ("b", "1")], &[]);
    talk.send(ResourceType::Endpoint, &[("a", "1"), ("b", "1")], &[]);
    let said = talk.send(ResourceType::Cluster, &[], &["a"]);
    assert_eq!(said, ["eds -a", "cds ack 3"]);
}

#[test]
fn a_reconnect_presents_what_is_held() {
    let mut talk = Talk::new();
    talk.send(ResourceType::Cluster, &[("a", "7")], &[]);
    talk.send(ResourceType::Endpoint, &[("a", "8")], &[]);
    assert_eq!(talk.open(), ["cds =a@7", "eds +a =a@8", "lds"]);
}

/// A proxy with a listener that looks for scopes, of which it has these, each with its table.
fn scoped(scopes: &[(&str, &str)]) -> Talk {
    let mut talk = Talk::new();
    talk.send(ResourceType::Cluster, &[], &[]);
    let said = talk.send(ResourceType::Listener, &[("80", "1")], &[]);
    assert_eq!(said, ["srds", "lds ack 2"]);
    assert!(!talk.proxy.is_warm());
    talk.send(ResourceType::ScopedRoute, scopes, &[]);
    let tables: Vec<(&str, &str)> = scopes.iter().map(|(_, table)| (*table, "1")).collect();
    talk.send(ResourceType::Route, &tables, &[]);
    assert!(talk.proxy.is_warm());
    talk
}

#[test]
fn a_listener_asks_for_all_scopes_and_these_for_their_tables() {
    let mut talk = scoped(&[("80/*", "t*"), ("80/a", "ta")]);
    let more = [("80/b", "tb"), ("80/b.ns", "tb"), ("80/a.ns", "ta")];
    let said = talk.send(ResourceType::ScopedRoute, &more, &[]);
    assert_eq!(said, ["rds +tb", "srds ack 5"]);
    assert!(!talk.proxy.is_warm());
    talk.send(ResourceType::Route, &[("tb", "1")], &[]);
    assert!(talk.proxy.is_warm());
}

#[test]
fn a_table_on_demand_is_neither_asked_for_nor_waited_for() {
    let mut talk = scoped(&[("80/*", "t*")]);
    let said = talk.send(ResourceType::ScopedRoute, &[("80/a", "ta?")], &[]);
    assert_eq!(said, ["srds ack 5"]);
    assert!(talk.proxy.is_warm());
}

#[test]
fn the_next_listener_asks_for_no_scopes_again() {
    let mut talk = scoped(&[("80/*", "t*")]);
    let said = talk.send(ResourceType::Listener, &[("81", "1")], &[]);
    assert_eq!(said, ["lds ack 5"]);
    assert!(talk.proxy.is_warm());
}

#[test]
fn a_table_is_let_go_with_the_last_scope_that_leads_to_it() {
    let mut talk = scoped(&[("80/a", "ta"), ("80/a.ns", "ta")]);
    let said = talk.send(ResourceType::ScopedRoute, &[("80/a", "tb")], &[]);
    assert_eq!(said, ["rds +tb", "srds ack 5"]);
    let said = talk.send(ResourceType::ScopedRoute, &[], &["80/a.ns"]);
    assert_eq!(said, ["rds -ta", "srds ack 6"]);
}

#[test]
fn a_reconnect_asks_for_all_scopes_before_their_tables() {
    let mut talk = scoped(&[("80/a", "ta")]);
    assert_eq!(
        talk.open(),
        ["cds", "lds =80@1", "srds =80/a@ta", "rds +ta =ta@1"]
    );
}
