//! Pods that ask for a gateway's Envoy by the template `gateway`.

use super::*;

/// As a chart makes it: nothing but the proxy, with an image that means "whatever is injected".
fn gateway() -> Value {
    json!({
        "metadata": {
            "generateName": "shop-front-5c4-",
            "labels": {"app": "shop-front", "istio": "front", "pod-template-hash": "5c4", "sidecar.istio.io/inject": "true"},
            "annotations": {"inject.istio.io/templates": "gateway"},
        },
        "spec": {
            "serviceAccountName": "shop-front",
            "containers": [{"name": PROXY, "image": "auto"}],
        },
    })
}

#[test]
fn a_gateway_is_its_envoy_and_nothing_else() {
    let pod = injected(&gateway());
    let spec = &pod["spec"];
    assert_eq!(names(&spec["containers"]), [PROXY]);
    assert!(spec.get("initContainers").is_none(), "{spec}");
    let proxy = container(&pod, PROXY);
    assert_eq!(proxy["image"], values::ENVOY_IMAGE);
    assert!(proxy.get("restartPolicy").is_none());
    assert!(proxy.get("resources").is_none(), "a sidecar's are not its");
    let ready = &proxy["readinessProbe"]["httpGet"];
    assert_eq!(
        (&ready["port"], &ready["path"]),
        (&json!(15021), &json!("/healthz/ready"))
    );
    let wanted = [
        "istio-envoy",
        "istio-podinfo",
        "istio-token",
        "istiod-ca-cert",
    ];
    assert_eq!(names(&spec["volumes"]), wanted);
    assert_eq!(names(&proxy["volumeMounts"]).len(), wanted.len());
    let labels = &pod["metadata"]["labels"];
    assert!(
        labels.get("security.istio.io/tlsMode").is_none(),
        "{labels}"
    );
    assert_eq!(labels["service.istio.io/canonical-name"], "shop-front");
    let status = pod["metadata"]["annotations"][marks::STATUS].as_str();
    let status: Value = serde_json::from_str(status.unwrap()).unwrap();
    assert_eq!(status["containers"], json!([PROXY]));
}

#[test]
fn a_gateway_says_that_it_is_a_router_and_captures_nothing() {
    let bootstrap = bootstrap_of(&injected(&gateway()));
    let node = &bootstrap["node"];
    assert_eq!(
        node["id"],
        "router~$(INSTANCE_IP)~$(POD_NAME).$(POD_NAMESPACE)~$(POD_NAMESPACE).svc.cluster.local"
    );
    assert_eq!(node["metadata"]["INTERCEPTION_MODE"], "NONE");
    assert_eq!(node["metadata"]["LABELS"]["istio"], "front");
    assert_eq!(node["metadata"]["SERVICE_ACCOUNT"], "$(SERVICE_ACCOUNT)");
    assert_eq!(node["metadata"]["ENVOY_PROMETHEUS_PORT"], 15090);
}

#[test]
fn a_gateway_has_no_privilege_and_binds_low_ports() {
    let mut pod = gateway();
    let sysctl = json!({"name": "net.core.somaxconn", "value": "1024"});
    pod["spec"]["securityContext"] = json!({"fsGroup": 5, "sysctls": [sysctl]});
    let pod = injected(&pod);
    let low = json!({"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"});
    assert_eq!(
        pod["spec"]["securityContext"],
        json!({"fsGroup": 5, "sysctls": [sysctl, low]})
    );
    let context = &container(&pod, PROXY)["securityContext"];
    assert_eq!(
        *context,
        json!({
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsGroup": 1337,
            "runAsNonRoot": true,
            "runAsUser": 1337,
            "seccompProfile": {"type": "RuntimeDefault"},
        })
    );
}

#[test]
fn what_a_gateways_pod_says_of_its_kernel_stays() {
    let mut pod = gateway();
    let own = json!([{"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"}]);
    pod["spec"]["securityContext"] = json!({"sysctls": own});
    assert_eq!(injected(&pod)["spec"]["securityContext"]["sysctls"], own);
}

#[test]
fn what_a_gateways_container_says_wins() {
    let mut pod = gateway();
    let own = json!({
        "name": PROXY,
        "image": "auto",
        "imagePullPolicy": "Always",
        "resources": {"limits": {"cpu": "4"}},
        "ports": [{"containerPort": 8443, "name": "https"}],
        "env": [{"name": "COLOUR", "value": "red"}],
        "securityContext": {"runAsUser": 5000},
        "volumeMounts": [{"name": "certs", "mountPath": "/certs"}],
        "lifecycle": {"preStop": {"sleep": {"seconds": 9}}},
    });
    pod["spec"]["containers"] = json!([own]);
    pod["spec"]["volumes"] = json!([{"name": "certs", "emptyDir": {}}]);
    let pod = injected(&pod);
    let proxy = container(&pod, PROXY);
    assert_eq!(proxy["resources"], own["resources"]);
    assert_eq!(proxy["imagePullPolicy"], "Always");
    assert_eq!(
        names(&proxy["ports"]),
        ["http-envoy-prom", "http-status", "https"]
    );
    assert!(names(&proxy["env"]).contains(&"COLOUR") && names(&proxy["env"]).contains(&"POD_NAME"));
    assert_eq!(proxy["securityContext"]["runAsUser"], 5000);
    assert_eq!(proxy["securityContext"]["runAsNonRoot"], true);
    assert!(names(&proxy["volumeMounts"]).contains(&"certs"));
    assert!(names(&pod["spec"]["volumes"]).contains(&"certs"));
    assert_eq!(proxy["lifecycle"], own["lifecycle"]);
}

#[test]
fn a_gateway_tells_clients_to_leave_while_its_hook_is_held() {
    let mut pod = gateway();
    pod["metadata"]["annotations"]["proxy.istio.io/config"] =
        json!("terminationDrainDuration: 12s");
    let pod = injected(&pod);
    let hook = &container(&pod, PROXY)["lifecycle"]["preStop"]["httpGet"];
    assert_eq!(
        (&hook["port"], &hook["path"]),
        (&json!(15021), &json!("/drain"))
    );
    let text = bootstrap_of(&pod).to_string();
    assert!(text.contains(r#""fixed_delay":"12s""#), "{text}");
    assert!(!text.contains("inboundonly"), "{text}");
}

#[test]
fn containers_beside_a_gateway_keep_their_probes() {
    let mut pod = gateway();
    let probe = json!({"httpGet": {"path": "/", "port": 8080}});
    let beside = json!({"name": "beside", "image": "b", "readinessProbe": probe});
    let containers = pod["spec"]["containers"].as_array_mut().unwrap();
    containers.push(beside.clone());
    let pod = injected(&pod);
    assert_eq!(names(&pod["spec"]["containers"]), ["beside", PROXY]);
    assert_eq!(*container(&pod, "beside"), beside);
}

#[test]
fn a_sidecar_beside_nothing_is_told_how_to_be_a_gateway() {
    let mut pod = gateway();
    pod["metadata"]["annotations"] = json!({});
    let request = Request {
        pod: &pod,
        namespace: "shop",
        drain_secret: SECRET,
    };
    let refused = inject(request, &injection()).unwrap_err().to_string();
    assert!(refused.contains("templates: gateway"), "{refused}");
}

#[test]
fn one_pod_is_not_both() {
    let mut pod = gateway();
    pod["metadata"]["annotations"]["inject.istio.io/templates"] = json!("sidecar, gateway");
    let request = Request {
        pod: &pod,
        namespace: "shop",
        drain_secret: SECRET,
    };
    let refused = inject(request, &injection()).unwrap_err().to_string();
    assert!(refused.contains("one proxy"), "{refused}");
}

#[test]
fn a_manifests_gateway_is_injected_where_it_stands() {
    let template = json!({"metadata": gateway()["metadata"], "spec": gateway()["spec"]});
    let deployment = json!({
        "kind": "Deployment",
        "metadata": {"name": "shop-front", "namespace": "edge"},
        "spec": {"template": template},
    });
    let done = inject_manifest(&deployment, &injection(), SECRET);
    let spec = &done.unwrap().unwrap()["spec"]["template"]["spec"];
    assert_eq!(spec["containers"][0]["image"], values::ENVOY_IMAGE);
}
