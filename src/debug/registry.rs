//! What the mesh is made of, in the shapes of istiod's pages: services, their endpoints, the objects in force.
//!
//! Of an object there is here what is in effect of it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::config::service_entry::Location;
use crate::config::{Kind, Object, Spec};
use crate::model::Snapshot;
use crate::model::endpoints::{Address, EndpointSet, Health, Member, TlsMode};
use crate::model::protocol::Protocol;
use crate::model::services::{Lookup, Resolution, Service};

/// `registryz`: a list of services.
pub fn services(snapshot: &Snapshot) -> Value {
    let cluster = &snapshot.settings.cluster;
    let all = snapshot.services.all();
    all.map(|service| of_service(service, cluster)).collect()
}

fn of_service(service: &Service, cluster: &str) -> Value {
    let Service {
        host,
        name,
        namespace,
        addresses,
        ..
    } = service;
    let ports: Vec<Value> = service
        .ports
        .iter()
        .map(|port| json!({"name": port.name, "port": port.number, "protocol": protocol(port.protocol)}))
        .collect();
    let vips: Map<String, Value> = match addresses.is_empty() {
        true => Map::new(),
        false => Map::from_iter([(cluster.to_owned(), json!(addresses))]),
    };
    let first = addresses.first().map(ToString::to_string);
    json!({
        "Attributes": {
            "ServiceRegistry": registry(service),
            "Name": name,
            "Namespace": namespace,
            "LabelSelectors": service.selector,
        },
        "ports": ports,
        "creationTime": time(service.created),
        "hostname": host.as_str(),
        "clusterVIPs": {"Addresses": vips},
        // Istio's word for a service without an address.
        "defaultAddress": first.unwrap_or_else(|| "0.0.0.0".to_owned()),
        "Resolution": resolution(service),
        "MeshExternal": is_external(service),
        "ResourceVersion": "",
    })
}

/// `endpointShardz`: by host, by namespace, by the cluster and registry that they come from.
pub fn endpoints(snapshot: &Snapshot) -> Value {
    let mut all = Map::new();
    for service in snapshot.services.all() {
        let Some(set) = snapshot.endpoints.get(service.host.as_str()) else {
            continue;
        };
        let shard = format!("{}/{}", registry(service), snapshot.settings.cluster);
        let accounts: Map<String, Value> = set
            .accounts
            .iter()
            .map(|(namespace, account)| (spiffe(snapshot, namespace, account), json!({})))
            .collect();
        let shards = json!({
            "Shards": {shard: members(snapshot, service, set)},
            "ServiceAccounts": accounts,
        });
        let by_namespace = json!({service.namespace.as_str(): shards});
        all.insert(service.host.to_string(), by_namespace);
    }
    Value::Object(all)
}

fn members(snapshot: &Snapshot, service: &Service, set: &EndpointSet) -> Vec<Value> {
    let of_port = |(number, members): (&u16, &Vec<Member>)| {
        let name = service.port(*number).map(|port| port.name.clone());
        let name = name.unwrap_or_default();
        let one = |member: &Member| member_of(snapshot, member, &name);
        members.iter().map(one).collect::<Vec<_>>()
    };
    set.by_port.iter().flat_map(of_port).collect()
}

fn member_of(snapshot: &Snapshot, member: &Member, port: &str) -> Value {
    let peer = &member.peer;
    let (address, number) = match &member.address {
        Address::Ip(ip, port) => (ip.to_string(), *port),
        Address::Name(name, port) => (name.to_string(), *port),
        Address::Pipe(path) => (path.to_string(), 0),
    };
    let account = match peer.service_account.is_empty() {
        true => String::new(),
        false => spiffe(snapshot, &peer.namespace, &peer.service_account),
    };
    let [region, zone, subzone] = &peer.locality;
    let place = [region, zone, subzone].map(|part| part.as_str());
    let known = place.iter().take_while(|part| !part.is_empty()).count();
    let health = match member.health {
        Health::Healthy => 1,
        Health::Unhealthy => 2,
        Health::Draining => 3,
    };
    json!({
        "Labels": peer.labels,
        "Addresses": [address],
        "ServicePortName": port,
        "ServiceAccount": account,
        "Network": "",
        "Locality": {"Label": place[..known].join("/"), "ClusterID": snapshot.settings.cluster},
        "EndpointPort": number,
        "LbWeight": member.weight,
        "TLSMode": match peer.tls_mode {
            TlsMode::Istio => "istio",
            TlsMode::Disabled => "disabled",
        },
        "Namespace": peer.namespace,
        "WorkloadName": peer.workload.split(';').next().unwrap_or_default(),
        "HealthStatus": health,
    })
}

/// `configz`: the objects in force, as their authors would write them.
pub fn objects<'o>(objects: impl Iterator<Item = &'o Object>) -> serde_json::Result<Value> {
    let mut all = Vec::new();
    for object in objects {
        let kind = object.spec.kind();
        if !kind.group().ends_with("istio.io") || kind == Kind::MeshConfig {
            continue;
        }
        let version = kind.versions().first().copied().unwrap_or("v1");
        let meta = &object.meta;
        let mut metadata = json!({"name": meta.name, "namespace": meta.namespace});
        for (field, labels) in [("labels", &meta.labels), ("annotations", &meta.annotations)] {
            if !labels.is_empty() {
                metadata[field] = json!(labels);
            }
        }
        if meta.creation_timestamp != 0 {
            metadata["creationTimestamp"] = time(meta.creation_timestamp);
        }
        if meta.generation != 0 {
            metadata["generation"] = json!(meta.generation);
        }
        all.push(json!({
            "apiVersion": format!("{}/{version}", kind.group()),
            "kind": kind.name(),
            "metadata": metadata,
            "spec": spec(&object.spec)?,
        }));
    }
    Ok(Value::Array(all))
}

/// Without the name of its kind, and without what is empty.
fn spec(spec: &Spec) -> serde_json::Result<Value> {
    let by_kind: BTreeMap<String, Value> = serde_json::from_value(serde_json::to_value(spec)?)?;
    let mut value = by_kind.into_values().next().unwrap_or_default();
    prune(&mut value);
    Ok(value)
}

fn prune(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.values_mut().for_each(prune);
        fields.retain(|_, field| match field {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Array(list) => !list.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
            Value::Bool(_) | Value::Number(_) => true,
        });
    } else if let Value::Array(list) = value {
        list.iter_mut().for_each(prune);
    }
}

fn spiffe(snapshot: &Snapshot, namespace: &str, account: &str) -> String {
    format!(
        "spiffe://{}/ns/{namespace}/sa/{account}",
        snapshot.mesh.trust_domain
    )
}

fn registry(service: &Service) -> &'static str {
    match service.entry {
        None => "Kubernetes",
        Some(_) => "External",
    }
}

fn is_external(service: &Service) -> bool {
    let entry = service.entry.as_deref();
    entry.is_some_and(|entry| entry.location == Location::External)
}

/// Istio's numbers.
fn resolution(service: &Service) -> u8 {
    match service.resolution {
        Resolution::Endpoints => 0,
        Resolution::Dns(Lookup::Every) => 1,
        Resolution::Headless => 2,
        Resolution::Dns(Lookup::First) => 3,
    }
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "HTTP",
        Protocol::Http2 => "HTTP2",
        Protocol::Grpc => "GRPC",
        Protocol::GrpcWeb => "GRPC-Web",
        Protocol::Https => "HTTPS",
        Protocol::Tls => "TLS",
        Protocol::Tcp => "TCP",
        Protocol::Auto => "UnsupportedProtocol",
        Protocol::Udp => "UDP",
    }
}

fn time(seconds: i64) -> Value {
    let at = Timestamp::from_second(seconds).unwrap_or_default();
    json!(at.to_string())
}
