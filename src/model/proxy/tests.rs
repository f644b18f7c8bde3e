use super::*;

const ID: &str = "sidecar~10.0.0.1~reviews-v1.shop~shop.svc.cluster.local";

#[test]
fn a_node_id_splits_into_its_parts() {
    let meta = serde_json::json!({"INTERCEPTION_MODE": "NONE", "LABELS": {"app": "reviews"}});
    let proxy = Proxy::parse(ID, meta, None).unwrap();
    assert_eq!(
        (proxy.name.as_str(), proxy.namespace.as_str()),
        ("reviews-v1", "shop")
    );
    assert_eq!(proxy.interception, Interception::None);
}

#[test]
fn a_pods_families_are_those_of_all_its_addresses() {
    let of = |ips: &str, id: &str| {
        let metadata = serde_json::json!({"INSTANCE_IPS": ips});
        Proxy::parse(id, metadata, None).unwrap().families
    };
    let six = ID.replace("10.0.0.1", "fd00::1");
    assert_eq!(of("", ID), Families::V4);
    assert_eq!(of("", &six), Families::V6);
    assert_eq!(of("10.0.0.1, fd00::1", ID), Families::Both);
    assert_eq!(of("fd00::1", &six), Families::V6);
    assert_eq!(of("$(INSTANCE_IPS)", ID), Families::V4);
}

#[test]
fn a_token_of_one_pod_is_no_other_pods() {
    let of = |pod| Proxy::parse(ID, serde_json::Value::Null, None).and_then(|p| p.bound_to(pod));
    assert!(of(None).is_ok());
    assert!(of(Some("reviews-v1")).is_ok());
    let refused = of(Some("other")).unwrap_err().to_string();
    assert!(
        refused.contains("says pod `reviews-v1`, the token is bound to pod `other`"),
        "{refused}"
    );
}

#[test]
fn what_a_node_says_at_length_is_neither_kept_nor_repeated() {
    let long = "x".repeat(1 << 20);
    let ids = [
        long.clone(),
        format!("sidecar~10.0.0.1~{long}.shop~d"),
        format!("{long}~10.0.0.1~a.shop~d"),
    ];
    for id in ids {
        let error = Proxy::parse(&id, serde_json::Value::Null, None).unwrap_err();
        assert!(error.to_string().len() < 500, "{error}");
    }
    let many: serde_json::Map<_, _> = (0..1000).map(|i| (i.to_string(), "v".into())).collect();
    let bad = [
        serde_json::json!({"LABELS": {"app": long}}),
        serde_json::json!({"LABELS": {long.as_str(): "x"}}),
        serde_json::json!({"LABELS": many}),
        serde_json::json!({"INTERCEPTION_MODE": long}),
    ];
    for metadata in bad {
        let error = Proxy::parse(ID, metadata, None).unwrap_err();
        assert!(error.to_string().len() < 500, "{error}");
    }
}

#[test]
fn ports_of_its_own_come_as_doubles() {
    let metadata = r#"{"ENVOY_STATUS_PORT": 15121.0, "ENVOY_PROMETHEUS_PORT": 15190}"#;
    let metadata: Metadata = serde_json::from_str(metadata).unwrap();
    let taken = metadata.taken();
    assert_eq!((taken.status, taken.prometheus), (15121, 15190));
}

#[test]
fn the_credential_decides_the_namespace() {
    let other = SpiffeId::parse("spiffe://cluster.local/ns/other/sa/x").unwrap();
    let got = Proxy::parse(ID, serde_json::Value::Null, Some(other));
    assert!(matches!(got, Err(ProxyError::Namespace { .. })));
}
