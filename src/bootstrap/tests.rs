use super::*;

fn bootstrap() -> Bootstrap {
    let path = |p| FilePath::parse(p).unwrap();
    Bootstrap {
        workload: Workload {
            role: Role::Sidecar,
            name: "reviews-v1".into(),
            namespace: "shop".into(),
            service_account: "reviews".into(),
            ip: "10.0.0.7".into(),
            ips: "10.0.0.7".into(),
            labels: Labels::from([("app".into(), "reviews".into())]),
            annotations: Labels::new(),
            topology: None,
            dns_domain: "shop.svc.cluster.local".into(),
            cluster: "reviews.shop".into(),
            cluster_id: "Kubernetes".into(),
            locality: Locality::default(),
            interception: Interception::None,
            group: None,
        },
        control_plane: ControlPlane {
            endpoint: Endpoint::parse("10.0.0.1:15012").unwrap(),
            server_name: crate::text::Hostname::parse("istiod.istio-system.svc").unwrap(),
            token: path("/run/token/istio-token"),
            root: path("/run/root/root-cert.pem"),
            root_secret_file: path("/run/root/cp-ca-sds.yaml"),
        },
        pod: Pod {
            admin_socket: FilePath::parse_socket("/run/mesh/admin.sock").unwrap(),
            status: "10.0.0.7:15021".parse().unwrap(),
            pages: Some("127.0.0.1:15000".parse().unwrap()),
            prometheus: None,
            drain: DrainKey::parse("0123456789abcdef").unwrap(),
            drain_hold: Duration::ZERO,
            probes: None,
            metrics: None,
            max_connections: 1000,
            stats: vec!["cluster.outbound".into()],
        },
    }
}

#[test]
fn the_control_plane_reads_the_node_it_wrote() {
    let rendered = bootstrap().render();
    let node = &rendered["node"];
    let id = node["id"].as_str().unwrap();
    assert_eq!(
        id,
        "sidecar~10.0.0.7~reviews-v1.shop~shop.svc.cluster.local"
    );
    let proxy = crate::model::proxy::Proxy::parse(id, node["metadata"].clone(), None).unwrap();
    assert_eq!(proxy.interception, Interception::None);
    assert_eq!(proxy.labels.get("app").unwrap(), "reviews");
}

#[test]
fn a_gateway_is_a_router_whose_every_listener_drains() {
    let mut bootstrap = bootstrap();
    bootstrap.workload.role = Role::Router;
    let rendered = bootstrap.render();
    let node = &rendered["node"];
    let id = node["id"].as_str().unwrap();
    let proxy = crate::model::proxy::Proxy::parse(id, node["metadata"].clone(), None).unwrap();
    assert_eq!(proxy.role, Role::Router);
    let status = rendered["static_resources"]["listeners"][0].to_string();
    let page = "/drain_listeners?graceful&skip_exit";
    assert!(status.contains(&format!("{page}\"")), "{status}");
}

#[test]
fn a_held_drain_begins_before_its_answer_waits() {
    let mut bootstrap = bootstrap();
    let filters = |bootstrap: &Bootstrap| {
        let listener = &bootstrap.render()["static_resources"]["listeners"][0];
        let manager = &listener["filter_chains"][0]["filters"][0]["typed_config"];
        let filters = manager["http_filters"].as_array().unwrap().clone();
        let name = |f: &Value| f["name"].as_str().unwrap().to_owned();
        (filters.iter().map(name).collect::<Vec<_>>(), filters)
    };
    let (names, _) = filters(&bootstrap);
    let router = "envoy.filters.http.router";
    assert_eq!(names, ["drain-key", "drain-method", router]);
    bootstrap.pod.drain_hold = Duration::from_secs(7);
    let (names, filters) = filters(&bootstrap);
    assert_eq!(names, ["drain-key", "drain-method", "drain-hold", router]);
    assert!(filters[1].to_string().contains("httpCall"));
    assert_eq!(filters[2]["typed_config"]["delay"]["fixed_delay"], "7s");
}

#[test]
fn the_token_is_read_by_envoy_and_not_by_us() {
    let cluster = &bootstrap().render()["static_resources"]["clusters"][1];
    let text = cluster.to_string();
    assert!(
        text.contains("Bearer %FILE_CONTENT(/run/token/istio-token:/run/token)%"),
        "{text}"
    );
    let tls = &cluster["transport_socket"]["typed_config"];
    assert_eq!(tls["sni"], "istiod.istio-system.svc");
    let versions = &tls["common_tls_context"]["tls_params"];
    for bound in [
        "tls_minimum_protocol_version",
        "tls_maximum_protocol_version",
    ] {
        assert_eq!(versions[bound], "TLSv1_3", "{bound}");
    }
}

#[test]
fn the_control_plane_is_known_by_its_roots_and_its_name() {
    let secret = &bootstrap().control_plane.root_secret()["resources"][0];
    let wanted = &bootstrap().control_plane.cluster()["transport_socket"]["typed_config"]["common_tls_context"]
        ["validation_context_sds_secret_config"];
    assert_eq!(secret["name"], wanted["name"]);
    let context = &secret["validation_context"];
    assert_eq!(context["watched_directory"]["path"], "/run/root");
    let name = &context["match_typed_subject_alt_names"][0]["matcher"]["exact"];
    assert_eq!(name, "istiod.istio-system.svc");
}

#[test]
fn the_admin_interface_has_no_tcp_port() {
    let mut bootstrap = bootstrap();
    bootstrap.pod.pages = None;
    let rendered = bootstrap.render();
    let admin = &rendered["admin"]["address"];
    assert_eq!(
        admin["pipe"],
        json!({"path": "/run/mesh/admin.sock", "mode": 0o600})
    );
    let listeners = rendered["static_resources"]["listeners"]
        .as_array()
        .unwrap();
    let names: Vec<&Value> = listeners.iter().map(|l| &l["name"]).collect();
    assert_eq!(names, ["status"]);
}

#[test]
fn every_page_listener_has_its_own_connection_limit() {
    let mut bootstrap = bootstrap();
    bootstrap.pod.prometheus = Some("127.0.0.1:15090".parse().unwrap());
    let rendered = bootstrap.render();
    let layer = &rendered["layered_runtime"]["layers"][0]["static_layer"];
    let listeners = rendered["static_resources"]["listeners"]
        .as_array()
        .unwrap();
    assert_eq!(listeners.len(), 3);
    for listener in listeners {
        let name = listener["name"].as_str().unwrap();
        let key = format!("envoy.resource_limits.listener.{name}.connection_limit");
        assert_eq!(layer[key], MAX_PAGE_CONNECTIONS, "{name}");
    }
}

#[test]
fn asked_statistics_come_besides_the_usual_ones() {
    let text = bootstrap().render()["stats_config"].to_string();
    assert!(text.contains(r#"{"prefix":"cluster.outbound"}"#), "{text}");
    assert!(text.contains(r#"{"prefix":"control_plane"}"#), "{text}");
}
