use serde_json::json;

use super::*;

mod gateway;

const SECRET: &str = "0123456789abcdef";

fn injection() -> Injection {
    Injection {
        values: Values::parse("global: {proxy_init: {image: example.com/fairlead:1}}").unwrap(),
        ..Injection::default()
    }
}

fn injected_by(pod: &Value, injection: &Injection) -> Value {
    let request = Request {
        pod,
        namespace: "shop",
        drain_secret: SECRET,
    };
    match inject(request, injection).unwrap() {
        Outcome::Injected(pod) => pod,
        Outcome::Skipped(why) => panic!("skipped: {why}"),
    }
}

fn injected(pod: &Value) -> Value {
    injected_by(pod, &injection())
}

fn container<'v>(pod: &'v Value, name: &str) -> &'v Value {
    let lists = ["containers", "initContainers"];
    let all = lists.iter().filter_map(|list| pod["spec"][list].as_array());
    let mut all = all.flatten();
    all.find(|c| c["name"] == name)
        .unwrap_or_else(|| panic!("no container {name} in {pod}"))
}

fn names(list: &Value) -> Vec<&str> {
    let items = list.as_array().map_or(&[][..], Vec::as_slice);
    items.iter().filter_map(|i| i["name"].as_str()).collect()
}

fn bootstrap_of(pod: &Value) -> Value {
    let args = container(pod, PROXY)["args"].as_array().unwrap();
    let at = args.iter().position(|a| a == "--config-yaml").unwrap();
    serde_json::from_str(args[at + 1].as_str().unwrap()).unwrap()
}

fn app() -> Value {
    json!({
        "metadata": {"generateName": "reviews-7d9-", "labels": {"app": "reviews", "version": "v2", "pod-template-hash": "7d9"}},
        "spec": {
            "serviceAccountName": "reviews",
            "initContainers": [{"name": "migrate", "image": "m"}],
            "containers": [{"name": "app", "image": "a", "ports": [{"containerPort": 8080, "name": "web"}]}],
        },
    })
}

#[test]
fn a_pod_gets_capture_first_then_its_proxy_then_its_own_init_containers() {
    let pod = injected(&app());
    assert_eq!(
        names(&pod["spec"]["initContainers"]),
        [INIT, PROXY, "migrate"]
    );
    assert_eq!(names(&pod["spec"]["containers"]), ["app"]);
    assert_eq!(container(&pod, PROXY)["restartPolicy"], "Always");
    let volumes = names(&pod["spec"]["volumes"]);
    assert_eq!(
        volumes,
        [
            "istio-envoy",
            "istio-podinfo",
            "istio-token",
            "istiod-ca-cert"
        ]
    );
    let labels = &pod["metadata"]["labels"];
    assert_eq!(labels["security.istio.io/tlsMode"], "istio");
    assert_eq!(labels["service.istio.io/canonical-name"], "reviews");
    assert_eq!(labels["service.istio.io/canonical-revision"], "v2");
    let status = pod["metadata"]["annotations"][marks::STATUS]
        .as_str()
        .unwrap();
    let status: Value = serde_json::from_str(status).unwrap();
    assert_eq!(status["initContainers"], json!([INIT, PROXY]));
    assert_eq!(status["revision"], "default");
}

#[test]
fn an_injected_pod_is_not_injected_again() {
    let pod = injected(&app());
    let request = Request {
        pod: &pod,
        namespace: "shop",
        drain_secret: SECRET,
    };
    let again = inject(request, &injection()).unwrap();
    assert_eq!(again, Outcome::Skipped(Skipped::Already));
}

#[test]
fn what_the_pod_is_called_is_left_to_the_kubelet() {
    let bootstrap = bootstrap_of(&injected(&app()));
    assert_eq!(
        bootstrap["node"]["id"],
        "sidecar~$(INSTANCE_IP)~$(POD_NAME).$(POD_NAMESPACE)~$(POD_NAMESPACE).svc.cluster.local"
    );
    assert_eq!(bootstrap["node"]["cluster"], "reviews.$(POD_NAMESPACE)");
}

#[test]
fn the_roots_are_found_where_the_annotation_is_mounted() {
    let pod = injected(&app());
    let roots = pod["metadata"]["annotations"][marks::ROOTS]
        .as_str()
        .unwrap();
    let roots: Value = serde_json::from_str(roots).unwrap();
    let context = &roots["resources"][0]["validation_context"];
    assert_eq!(
        context["trusted_ca"]["filename"],
        "/var/run/secrets/istio/root-cert.pem"
    );
    let text = bootstrap_of(&pod).to_string();
    assert!(
        text.contains("/etc/istio/pod/control-plane-roots.yaml"),
        "{text}"
    );
    let info = pod["spec"]["volumes"].as_array().unwrap();
    let info = info
        .iter()
        .find(|v| v["name"] == "istio-podinfo")
        .unwrap()
        .to_string();
    assert!(info.contains("control-plane-roots.yaml"), "{info}");
}

#[test]
fn a_revision_is_reached_by_its_own_service() {
    let revised = Injection {
        revision: "canary".into(),
        ..injection()
    };
    let pod = injected_by(&app(), &revised);
    assert_eq!(pod["metadata"]["annotations"]["istio.io/rev"], "canary");
    let text = bootstrap_of(&pod).to_string();
    assert!(text.contains("istiod-canary.istio-system.svc"), "{text}");
}

#[test]
fn draining_takes_what_the_hook_alone_knows() {
    let pod = injected(&app());
    let hook = &container(&pod, PROXY)["lifecycle"]["preStop"]["httpGet"];
    assert_eq!(
        hook["httpHeaders"][0]["value"],
        "Basic ZHJhaW46MDEyMzQ1Njc4OWFiY2RlZg=="
    );
    assert!(!bootstrap_of(&pod).to_string().contains(SECRET));
}

#[test]
fn a_container_beside_the_application_waits_in_its_hook_while_envoy_drains() {
    let native = bootstrap_of(&injected(&app())).to_string();
    assert!(!native.contains("drain-hold"), "{native}");
    let mut pod = app();
    pod["metadata"]["annotations"] = json!({"sidecar.istio.io/nativeSidecar": "false"});
    let beside = bootstrap_of(&injected(&pod)).to_string();
    assert!(beside.contains(r#""fixed_delay":"5s""#), "{beside}");
    assert!(beside.contains("inboundonly"), "{beside}");
}

#[test]
fn probes_of_every_sort_are_asked_of_envoy() {
    let mut pod = app();
    pod["spec"]["containers"][0]["readinessProbe"] = json!({
        "httpGet": {"path": "/ready?full", "port": "web", "httpHeaders": [{"name": "X-A", "value": "b"}]},
        "timeoutSeconds": 3,
    });
    pod["spec"]["containers"][0]["livenessProbe"] =
        json!({"tcpSocket": {"port": 9090}, "periodSeconds": 5});
    pod["spec"]["containers"][0]["startupProbe"] = json!({"grpc": {"port": 9091, "service": "s"}});
    pod["spec"]["containers"][0]["lifecycle"] =
        json!({"preStop": {"httpGet": {"path": "bye", "port": 8080}}});
    let pod = injected(&pod);
    let app = container(&pod, "app");
    let asked = |key: &str| app[key]["httpGet"].clone();
    assert_eq!(
        asked("readinessProbe"),
        json!({"path": "/app-health/app/readyz", "port": 15020, "scheme": "HTTP"})
    );
    assert_eq!(app["readinessProbe"]["timeoutSeconds"], 3);
    assert_eq!(asked("livenessProbe")["path"], "/app-health/app/livez");
    assert!(app["livenessProbe"].get("tcpSocket").is_none());
    assert_eq!(asked("startupProbe")["path"], "/app-health/app/startupz");
    assert_eq!(
        app["lifecycle"]["preStop"]["httpGet"]["path"],
        "/app-lifecycle/app/prestopz"
    );
    let bootstrap = bootstrap_of(&pod).to_string();
    for part in [
        r#""path":"/app-health/app/readyz""#,
        r#""prefix_rewrite":"/ready?full""#,
        r#""service_name":"s""#,
        r#""tcp_health_check":{}"#,
        r#""prefix_rewrite":"/bye""#,
    ] {
        assert!(bootstrap.contains(part), "{part} in {bootstrap}");
    }
}

#[test]
fn a_container_without_probes_has_none_afterwards() {
    let pod = injected(&app());
    assert_eq!(container(&pod, "app"), container(&app(), "app"));
}

#[test]
fn a_probe_of_a_port_that_is_not_there_is_told() {
    let mut pod = app();
    pod["spec"]["containers"][0]["livenessProbe"] = json!({"httpGet": {"port": "admin"}});
    let request = Request {
        pod: &pod,
        namespace: "shop",
        drain_secret: SECRET,
    };
    let refused = inject(request, &injection()).unwrap_err().to_string();
    assert_eq!(
        refused,
        "spec.containers[0].livenessProbe.httpGet.port: container app has no port \"admin\""
    );
}

#[test]
fn a_pod_may_say_something_of_its_proxy_itself() {
    let mut pod = app();
    let own = json!({"name": PROXY, "image": "auto", "resources": {"limits": {"cpu": "3"}}, "env": [{"name": "A", "value": "b"}]});
    pod["spec"]["containers"].as_array_mut().unwrap().push(own);
    let pod = injected(&pod);
    assert_eq!(names(&pod["spec"]["containers"]), ["app"]);
    let proxy = container(&pod, PROXY);
    assert_eq!(proxy["image"], values::ENVOY_IMAGE);
    assert_eq!(
        proxy["resources"]["limits"],
        json!({"cpu": "3", "memory": "1024Mi"})
    );
    assert!(names(&proxy["env"]).contains(&"A") && names(&proxy["env"]).contains(&"POD_NAME"));
    assert!(
        pod["metadata"]["annotations"][overrides::OVERRIDES]
            .as_str()
            .unwrap()
            .contains("auto")
    );
}

#[test]
fn templates_are_laid_over_in_their_order() {
    let mut injection = injection();
    injection.injector = Injector::parse(
        "
templates:
  spire: |
    spec:
      volumes: [{name: spire, csi: {driver: csi.spiffe.io}}]
      initContainers: [{name: istio-proxy, volumeMounts: [{name: spire, mountPath: /spire}]}]
",
    )
    .unwrap();
    let mut pod = app();
    pod["metadata"]["annotations"] = json!({"inject.istio.io/templates": "sidecar,spire"});
    let done = injected_by(&pod, &injection);
    assert!(names(&container(&done, PROXY)["volumeMounts"]).contains(&"spire"));
    assert!(names(&done["spec"]["volumes"]).contains(&"spire"));
    pod["metadata"]["annotations"] = json!({"inject.istio.io/templates": "nobody"});
    let request = Request {
        pod: &pod,
        namespace: "shop",
        drain_secret: SECRET,
    };
    let refused = inject(request, &injection).unwrap_err();
    assert_eq!(refused, InjectError::Template("nobody".into()));
}

#[test]
fn manifests_are_injected_where_their_pod_is() {
    let deployment = json!({
        "kind": "Deployment",
        "metadata": {"name": "reviews", "namespace": "shop"},
        "spec": {"template": {"spec": {"containers": [{"name": "app"}]}}},
    });
    let service = json!({"kind": "Service", "metadata": {"name": "reviews"}});
    let list = json!({"kind": "List", "items": [service, deployment]});
    let done = inject_manifest(&list, &injection(), SECRET)
        .unwrap()
        .unwrap();
    assert_eq!(done["items"][0], service);
    let template = &done["items"][1]["spec"]["template"];
    assert_eq!(
        template["metadata"]["labels"]["service.istio.io/canonical-name"],
        "reviews"
    );
    assert!(template["metadata"].get("name").is_none());
    assert!(names(&template["spec"]["initContainers"]).contains(&PROXY));
    assert_eq!(
        inject_manifest(&service, &injection(), SECRET).unwrap(),
        None
    );
}

#[test]
fn a_proxy_config_says_threads_environment_and_image_beneath_the_annotation() {
    use crate::config::decode::{self, Item};
    use crate::config::workload_proxy::Proxies;

    let yaml = "apiVersion: networking.istio.io/v1beta1\nkind: ProxyConfig\nmetadata: {name: p, namespace: shop}\nspec:\n  \
                concurrency: 3\n  environmentVariables: {TEAM: shop, TIER: back}\n  image: {imageType: debug}\n";
    let decoded = decode::documents(yaml, "f.yaml");
    let objects = decoded.items.iter().map(|item| match item {
        Item::Object(decoded) => &*decoded.object,
        other => panic!("{other:?}"),
    });
    let by = Injection {
        proxies: Proxies::of(objects),
        ..injection()
    };
    let env = |proxy: &Value, name: &str| {
        let all = proxy["env"].as_array().cloned().unwrap_or_default();
        let found = all.into_iter().find(|v| v["name"] == name);
        found.map(|v| v["value"].clone()).unwrap_or_default()
    };
    let pod = injected_by(&app(), &by);
    let proxy = container(&pod, PROXY);
    let args = proxy["args"].to_string();
    assert!(args.contains(r#""--concurrency","3""#), "{args}");
    assert_eq!(env(proxy, "TEAM"), "shop");
    assert_eq!(proxy["image"], "envoyproxy/envoy:debug-v1.40.0");

    let mut annotated = app();
    annotated["metadata"]["annotations"] = json!({
        "proxy.istio.io/config": "concurrency: 1\nproxyMetadata: {TIER: front}",
        "sidecar.istio.io/proxyImageType": "distroless",
    });
    let pod = injected_by(&annotated, &by);
    let proxy = container(&pod, PROXY);
    let args = proxy["args"].to_string();
    assert!(args.contains(r#""--concurrency","1""#), "{args}");
    assert_eq!(
        (env(proxy, "TEAM"), env(proxy, "TIER")),
        ("shop".into(), "front".into())
    );
    assert_eq!(proxy["image"], "envoyproxy/envoy:distroless-v1.40.0");
}
