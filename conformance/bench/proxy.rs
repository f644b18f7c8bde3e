//! A simulated proxy asks and acknowledges as Envoy does.

use bytes::Bytes;
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::ClusterDiscoveryType;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use fairlead::xds::ResourceType;
use prost::Message as _;

use super::push::catalogue::Catalogue;
use super::push::proxy::{Delivery, Ground, Opening, Phrases, Proxy, Secrets};
use super::push::wire::{PREFIX, Packed};

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
        let body = Cluster {
            cluster_discovery_type: Some(ClusterDiscoveryType::Type(EDS)),
            ..Cluster::default()
        };
        let body = match kind {
            ResourceType::Cluster => body.encode_to_vec(),
            _ => Vec::new(),
        };
        let packed = resources.iter().map(|(name, version)| Packed {
            kind,
            name,
            version,
            body: &body,
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
