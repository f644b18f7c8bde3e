//! Values of the gateway chart take effect, by the names that Istio's users know.

use serde_json::{Value, json};

use super::{GATEWAY, of};

fn one(objects: &[Value], kind: &str) -> Value {
    let found = of(objects, kind);
    assert_eq!(found.len(), 1, "{kind}");
    found[0].clone()
}

fn template(objects: &[Value]) -> Value {
    one(objects, "Deployment")["spec"]["template"].clone()
}

#[test]
fn labels_come_from_the_name() {
    let cases: [(&[&str], &str, &str); 4] = [
        (&[], "istio-ingress", "ingress"),
        (&["name=front"], "front", "front"),
        (
            &["name=istio-egress", "labels.istio=out"],
            "istio-egress",
            "out",
        ),
        (&["labels.app=a", "labels.istio=b"], "a", "b"),
    ];
    for (settings, app, istio) in cases {
        let objects = GATEWAY.objects(settings);
        let wanted = json!({"app": app, "istio": istio});
        let workload = one(&objects, "Deployment");
        assert_eq!(workload["spec"]["selector"]["matchLabels"], wanted);
        assert_eq!(one(&objects, "Service")["spec"]["selector"], wanted);
        for label in ["app", "istio"] {
            let labels = &workload["spec"]["template"]["metadata"]["labels"];
            assert_eq!(labels[label], wanted[label], "{settings:?}");
        }
    }
}

#[test]
fn the_pod_is_left_to_the_injector() {
    let objects = GATEWAY.objects(&["revision=canary"]);
    let template = template(&objects);
    let meta = &template["metadata"];
    assert_eq!(meta["labels"]["sidecar.istio.io/inject"], "true");
    assert_eq!(meta["labels"]["istio.io/rev"], "canary");
    assert_eq!(meta["annotations"]["inject.istio.io/templates"], "gateway");
    let containers = template["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 1);
    assert_eq!(containers[0]["name"], "istio-proxy");
    assert_eq!(containers[0]["image"], "auto");
}

#[test]
fn what_is_said_of_the_pod_stands_in_it() {
    let objects = GATEWAY.objects(&[
        "podLabels.tier=edge",
        "labels.team=a",
        "annotations.note=b",
        "podAnnotations.inject\\.istio\\.io/templates=gateway\\,spire",
        "securityContext.fsGroup=5",
        "containerSecurityContext.runAsUser=6",
        "env.COLOUR=red",
        "nodeSelector.disk=ssd",
        "tolerations[0].key=edge",
        "imagePullSecrets[0].name=registry",
        "imagePullPolicy=Always",
        "priorityClassName=high",
        "terminationGracePeriodSeconds=90",
        "minReadySeconds=7",
        "strategy.type=Recreate",
        "volumes[0].name=v",
        "volumeMounts[0].name=v",
        "volumeMounts[0].mountPath=/v",
        "resources.limits.cpu=3",
        "additionalContainers[0].name=beside",
    ]);
    let workload = one(&objects, "Deployment");
    assert_eq!(workload["spec"]["minReadySeconds"], 7);
    assert_eq!(workload["spec"]["strategy"]["type"], "Recreate");
    assert_eq!(workload["metadata"]["labels"]["team"], "a");
    assert_eq!(workload["metadata"]["annotations"], json!({"note": "b"}));
    let template = template(&objects);
    let (meta, spec) = (&template["metadata"], &template["spec"]);
    assert_eq!(
        (&meta["labels"]["tier"], &meta["labels"]["team"]),
        (&json!("edge"), &json!("a"))
    );
    let annotations = json!({"inject.istio.io/templates": "gateway,spire", "note": "b"});
    assert_eq!(meta["annotations"], annotations);
    for (field, wanted) in [
        ("securityContext", json!({"fsGroup": 5})),
        ("nodeSelector", json!({"disk": "ssd"})),
        ("tolerations", json!([{"key": "edge"}])),
        ("imagePullSecrets", json!([{"name": "registry"}])),
        ("priorityClassName", json!("high")),
        ("terminationGracePeriodSeconds", json!(90)),
        ("volumes", json!([{"name": "v"}])),
    ] {
        assert_eq!(spec[field], wanted, "{field}");
    }
    let proxy = &spec["containers"][0];
    for (field, wanted) in [
        ("securityContext", json!({"runAsUser": 6})),
        ("env", json!([{"name": "COLOUR", "value": "red"}])),
        ("imagePullPolicy", json!("Always")),
        ("volumeMounts", json!([{"name": "v", "mountPath": "/v"}])),
    ] {
        assert_eq!(proxy[field], wanted, "{field}");
    }
    assert_eq!(proxy["resources"]["limits"]["cpu"], 3);
    assert_eq!(spec["containers"][1]["name"], "beside");
}

#[test]
fn the_service_is_what_the_values_say() {
    let objects = GATEWAY.objects(&[
        "service.type=NodePort",
        "service.externalTrafficPolicy=Local",
        "service.loadBalancerIP=10.9.9.9",
        "service.loadBalancerSourceRanges={10.0.0.0/8}",
        "service.annotations.lb=internal",
        "service.selectorLabels.tier=edge",
        "service.allocateLoadBalancerNodePorts=false",
    ]);
    let service = one(&objects, "Service");
    assert_eq!(service["metadata"]["annotations"]["lb"], "internal");
    let spec = &service["spec"];
    assert_eq!(spec["type"], "NodePort");
    assert_eq!(spec["externalTrafficPolicy"], "Local");
    assert_eq!(spec["loadBalancerIP"], "10.9.9.9");
    assert_eq!(spec["loadBalancerSourceRanges"], json!(["10.0.0.0/8"]));
    assert_eq!(spec["allocateLoadBalancerNodePorts"], false);
    assert_eq!(spec["selector"]["tier"], "edge");
    assert_eq!(ports(spec), [15021, 80, 443]);
    assert!(of(&GATEWAY.objects(&["service.type=None"]), "Service").is_empty());
}

fn ports(service: &Value) -> Vec<u64> {
    let ports = service["ports"].as_array().unwrap();
    ports.iter().filter_map(|p| p["port"].as_u64()).collect()
}

#[test]
fn a_gateway_between_networks_has_their_ports_and_label() {
    let objects = GATEWAY.objects(&["networkGateway=north"]);
    let service = one(&objects, "Service");
    assert_eq!(ports(&service["spec"]), [15021, 15443, 15012, 15017]);
    let pod = template(&objects);
    for meta in [&service["metadata"], &pod["metadata"]] {
        assert_eq!(meta["labels"]["topology.istio.io/network"], "north");
    }
}

#[test]
fn a_daemon_set_is_not_scaled() {
    let objects = GATEWAY.objects(&["kind=DaemonSet", "strategy.type=OnDelete"]);
    assert_eq!(
        one(&objects, "DaemonSet")["spec"]["updateStrategy"]["type"],
        "OnDelete"
    );
    assert!(of(&objects, "Deployment").is_empty());
    assert!(of(&objects, "HorizontalPodAutoscaler").is_empty());
    let refused = GATEWAY.template(&["kind=StatefulSet"]).unwrap_err();
    assert!(
        refused.contains("neither Deployment nor DaemonSet"),
        "{refused}"
    );
}

#[test]
fn replicas_are_the_autoscalers_or_the_values() {
    let scaled = GATEWAY.objects(&["autoscaling.targetMemoryUtilizationPercentage=70"]);
    assert!(one(&scaled, "Deployment")["spec"].get("replicas").is_none());
    let metrics = one(&scaled, "HorizontalPodAutoscaler")["spec"]["metrics"].clone();
    assert_eq!(metrics[0]["resource"]["name"], "cpu");
    let memory = &metrics[1]["resource"];
    assert_eq!(memory["name"], "memory");
    assert_eq!(memory["target"]["averageUtilization"], 70);
    let fixed = GATEWAY.objects(&[
        "autoscaling.enabled=false",
        "replicaCount=3",
        "podDisruptionBudget.minAvailable=2",
    ]);
    assert_eq!(one(&fixed, "Deployment")["spec"]["replicas"], 3);
    let budget = one(&fixed, "PodDisruptionBudget");
    assert_eq!(budget["spec"]["minAvailable"], 2);
    assert_eq!(
        budget["spec"]["selector"]["matchLabels"]["istio"],
        "ingress"
    );
}

#[test]
fn its_account_alone_may_read_secrets() {
    let objects = GATEWAY.objects(&["serviceAccount.name=edge"]);
    let account = one(&objects, "ServiceAccount");
    assert_eq!(account["metadata"]["name"], "edge");
    assert_eq!(one(&objects, "RoleBinding")["subjects"][0]["name"], "edge");
    assert_eq!(template(&objects)["spec"]["serviceAccountName"], "edge");
    let without = GATEWAY.objects(&["rbac.enabled=false", "serviceAccount.create=false"]);
    for kind in ["Role", "RoleBinding", "ServiceAccount"] {
        assert!(of(&without, kind).is_empty(), "{kind}");
    }
    assert_eq!(template(&without)["spec"]["serviceAccountName"], "default");
}
