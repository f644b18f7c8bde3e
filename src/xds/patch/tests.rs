use serde_json::{Value as Json, json};

use super::*;
use crate::config::envoy_filter::EnvoyFilter;
use crate::config::{Key, Kind};
use crate::model::Snapshot;
use crate::model::proxy::Proxy;

fn message(name: &str, json: &Json) -> DynamicMessage {
    schema::read(schema::message(name).unwrap(), json).unwrap()
}

fn merged(name: &str, old: &Json, new: &Json, lists: Lists) -> Json {
    let mut into = message(name, old);
    merge::merge(&mut into, &message(name, new), lists);
    serde_json::to_value(&into).unwrap()
}

#[test]
fn lists_grow_messages_merge_and_what_was_written_counts() {
    let name = "envoy.config.cluster.v3.Cluster";
    let old = json!({
        "connectTimeout": "1.5s",
        "perConnectionBufferLimitBytes": 7,
        "circuitBreakers": {"thresholds": [{"maxRetries": 1}]},
        "commonLbConfig": {"healthyPanicThreshold": {"value": 50.0}},
    });
    let new = json!({
        "connectTimeout": "2s",
        "perConnectionBufferLimitBytes": 0,
        "circuitBreakers": {"thresholds": [{"maxRetries": 2}]},
        "commonLbConfig": {"updateMergeWindow": "1s"},
    });
    let got = merged(name, &old, &new, Lists::Append);
    let wanted = json!({
        "connectTimeout": "2s",
        "perConnectionBufferLimitBytes": 0,
        "circuitBreakers": {"thresholds": [{"maxRetries": 1}, {"maxRetries": 2}]},
        "commonLbConfig": {"healthyPanicThreshold": {"value": 50.0}, "updateMergeWindow": "1s"},
    });
    assert_eq!(got, wanted);
    let got = merged(name, &old, &new, Lists::Replace);
    assert_eq!(
        got["circuitBreakers"]["thresholds"],
        json!([{"maxRetries": 2}])
    );
}

/// The patches of one EnvoyFilter, as a proxy gets them.
fn patches(list: &Json) -> Vec<Arc<Patch>> {
    let spec: EnvoyFilter = serde_json::from_value(json!({"configPatches": list})).unwrap();
    let meta = crate::config::Meta {
        name: "f".into(),
        namespace: "shop".into(),
        ..Default::default()
    };
    let key = Key {
        kind: Kind::EnvoyFilter,
        namespace: "shop".into(),
        name: "f".into(),
    };
    let object = crate::config::Object {
        meta,
        spec: crate::config::Spec::EnvoyFilter(Box::new(spec)),
    };
    let mut snapshot = Snapshot::default();
    snapshot.apply(&[crate::config::Change {
        key,
        object: Some(Arc::new(object)),
    }]);
    let proxy = Proxy::parse("sidecar~10.0.0.1~a.shop~x", Json::Null, None).unwrap();
    let filters = &snapshot.envoy_filters;
    filters.select("istio-system", &proxy, &proxy.labels)
}

fn encoded(version: &str) -> Arc<Encoded> {
    let cluster = message(
        "envoy.config.cluster.v3.Cluster",
        &json!({"name": "c", "type": "EDS"}),
    );
    let kind = ResourceType::Cluster;
    let body = cluster.encode_to_vec();
    Arc::new(encode::encode_with_version(
        kind,
        &"c".into(),
        version.into(),
        &body,
    ))
}

#[test]
fn equal_patches_of_one_resource_are_made_once_and_know_their_object() {
    let list = json!([{"applyTo": "CLUSTER", "patch": {"operation": "MERGE", "value": {"connect_timeout": "3s"}}}]);
    let (once, again) = (patches(&list), patches(&list));
    let mut cache = Cache::default();
    let base = encoded("1");
    let first = resource(&mut cache, &base, &once).unwrap();
    assert!(Arc::ptr_eq(
        &first,
        &resource(&mut cache, &base, &again).unwrap()
    ));
    assert_ne!(first.version, base.version);
    assert!(first.eds);
    let sources: Vec<&str> = first.patched.sources().map(|s| s.field.as_str()).collect();
    assert_eq!(sources, ["spec.configPatches[0]"]);
    let other = resource(&mut cache, &encoded("2"), &once).unwrap();
    assert_ne!(first.version, other.version);
}

#[test]
fn a_resource_that_no_patch_meets_stays_the_same_one() {
    let base = encoded("1");
    let got = resource(&mut Cache::default(), &base, &[]).unwrap();
    assert!(Arc::ptr_eq(&got, &base));
}
