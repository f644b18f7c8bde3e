//! What a change costs, in joins and renders, with clients in many namespaces.

use std::sync::Arc;

use crate::acceptance::{Acceptance, Options};
use crate::config::decode;
use crate::config::event::Event;
use crate::model::Settings;
use crate::model::proxy::Proxy;
use crate::text::Str;
use crate::view::{Engine, ProxyId};
use crate::xds::{Entry, ResourceType};

const NAMESPACES: usize = 6;

struct Mesh {
    acceptance: Acceptance,
    engine: Engine,
}

/// What one edit cost.
#[derive(Debug, PartialEq)]
struct Cost {
    joins: u64,
    clusters: u64,
    assignments: u64,
    listeners: u64,
    tables: u64,
}

impl Mesh {
    /// One Service in each namespace, with a client beside it.
    fn new() -> Self {
        let mut mesh = Self::unattended();
        for n in 0..NAMESPACES {
            mesh.attach(n);
        }
        mesh
    }

    fn attach(&mut self, n: usize) {
        let id = format!("sidecar~10.0.0.{n}~client.ns-{n}~ns-{n}.svc.cluster.local");
        let proxy = Proxy::parse(&id, serde_json::Value::Null, None).unwrap();
        self.engine.attach(ProxyId(n as u64), proxy);
    }

    /// The same without clients.
    fn unattended() -> Self {
        let options = Options {
            hold_unresolved: true,
            domain: Str::new_static("cluster.local"),
        };
        let mut mesh = Self {
            acceptance: Acceptance::new(options),
            engine: Engine::new(Settings::default()),
        };
        let services = (0..NAMESPACES).map(|n| {
            format!(
                "apiVersion: v1
kind: Service
metadata: {{name: shop, namespace: ns-{n}}}
spec:
  clusterIP: 10.96.0.{}
  ports: [{{name: http, port: 80}}, {{name: tcp, port: 9000}}]
---
",
                n + 1
            )
        });
        let text: String = services.collect();
        let found = Event::File(decode::documents(&text, "services.yaml"));
        let events = vec![Event::Init, found, Event::InitDone];
        mesh.engine.apply(&mesh.acceptance.on(events));
        mesh
    }

    fn counts(&self) -> Cost {
        let renders = self.engine.renders();
        let of = |kind: ResourceType| renders[kind as usize];
        Cost {
            joins: self.engine.joins(),
            clusters: of(ResourceType::Cluster),
            assignments: of(ResourceType::Endpoint),
            listeners: of(ResourceType::Listener),
            tables: of(ResourceType::Route),
        }
    }

    fn edit(&mut self, file: &str, text: &str) -> (Cost, usize) {
        let before = self.counts();
        let found = Event::File(decode::documents(text, file));
        let update = self.engine.apply(&self.acceptance.on(vec![found]));
        let after = self.counts();
        let cost = Cost {
            joins: after.joins - before.joins,
            clusters: after.clusters - before.clusters,
            assignments: after.assignments - before.assignments,
            listeners: after.listeners - before.listeners,
            tables: after.tables - before.tables,
        };
        (cost, update.scopes.len())
    }
}

fn rule(balancer: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: shop, namespace: ns-0}}
spec: {{host: shop, trafficPolicy: {{loadBalancer: {{simple: {balancer}}}}}}}
"
    )
}

#[test]
fn clients_alike_to_a_host_share_its_join() {
    let mesh = Mesh::new();
    let services = NAMESPACES as u64;
    let found = mesh.counts();
    // For clients beside it, which call it by its short name, and for all others.
    assert_eq!(found.joins, 2 * services);
    // Once each; and the black hole and passthrough of outbound, and the passthrough of inbound.
    assert_eq!(found.clusters, 2 * services + 3);
    assert_eq!(found.assignments, 2 * services);
}

#[test]
fn a_rule_is_joined_once_for_each_relation_and_rendered_once_for_all() {
    let mut mesh = Mesh::new();
    let (cost, scopes) = mesh.edit("rule.yaml", &rule("RANDOM"));
    let want = Cost {
        joins: 2,
        clusters: 2,
        assignments: 0,
        listeners: 0,
        tables: 0,
    };
    assert_eq!((cost, scopes), (want, NAMESPACES));
}

#[test]
fn an_edit_that_changes_no_resource_renders_none_and_touches_nobody() {
    let mut mesh = Mesh::new();
    mesh.edit("rule.yaml", &rule("RANDOM"));
    let noted = rule("RANDOM").replace("name: shop, ", "name: shop, annotations: {note: x}, ");
    let (cost, scopes) = mesh.edit("rule.yaml", &noted);
    assert_eq!((cost.clusters, cost.tables, scopes), (0, 0, 0));
}

#[test]
fn an_endpoint_is_joined_with_no_host_and_rendered_once_for_all() {
    let mut mesh = Mesh::new();
    let slice = "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: shop, namespace: ns-0, labels: {kubernetes.io/service-name: shop}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.1.0.1]}]
";
    let (cost, scopes) = mesh.edit("slice.yaml", slice);
    let want = Cost {
        joins: 0,
        clusters: 0,
        assignments: 1,
        listeners: 0,
        tables: 0,
    };
    assert_eq!((cost, scopes), (want, NAMESPACES));
}

#[test]
fn joins_are_forgotten_with_the_last_client_that_held_them_but_one() {
    let mut mesh = Mesh::new();
    for n in 0..NAMESPACES {
        mesh.engine.detach(ProxyId(n as u64));
    }
    // The last one's view stays for whoever comes next.
    let before = mesh.counts();
    mesh.attach(NAMESPACES - 1);
    assert_eq!(mesh.counts().joins, before.joins);
    mesh.engine.detach(ProxyId(NAMESPACES as u64 - 1));
    assert!(mesh.engine.is_idle());
}

#[test]
fn what_was_made_ready_is_joined_for_no_client_again() {
    let mut mesh = Mesh::unattended();
    mesh.engine.prepare();
    let before = mesh.counts();
    mesh.attach(0);
    let after = mesh.counts();
    assert_eq!(before.joins, NAMESPACES as u64);
    assert_eq!(
        (after.joins, after.assignments),
        (before.joins, before.assignments)
    );
    // For a client of another namespace: both of them stand to their own Services in a way of their own.
    mesh.attach(1);
    assert_eq!(mesh.counts().joins, before.joins + 2);
}

/// The listeners that a mesh gives a proxy of namespace `shop`, besides the two of capture.
fn listeners(objects: &str, metadata: serde_json::Value) -> Vec<String> {
    let mut mesh = Mesh::new();
    mesh.edit("own.yaml", objects);
    let id = "sidecar~10.1.0.9~caller.shop~shop.svc.cluster.local";
    let proxy = Proxy::parse(id, metadata, None).unwrap();
    mesh.engine.attach(ProxyId(99), proxy);
    let scope = mesh.engine.scope_of(ProxyId(99)).unwrap();
    let resources = mesh.engine.resources(scope).unwrap();
    let names = resources.of(ResourceType::Listener);
    let names = names.map(|e| e.name.to_string());
    let of_mesh = |n: &String| n.ends_with("_80") || n.ends_with("_9000");
    names
        .filter(|n| !n.starts_with("virtual") && !of_mesh(n))
        .collect()
}

fn service(address: &str, ports: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: own, namespace: shop}}
spec: {{clusterIP: \"{address}\", ports: [{ports}]}}
"
    )
}

#[test]
fn a_port_that_the_proxy_has_itself_gets_no_listener_at_a_shared_address() {
    let ports = "{name: http, port: 15001}, {name: http-in, port: 15006}, {name: http-s, port: 15021}, \
                 {name: http-x, port: 15999}, {name: tcp, port: 15090}";
    let own = service("10.96.1.1", ports);
    assert_eq!(
        listeners(&own, serde_json::Value::Null),
        ["0.0.0.0_15999", "10.96.1.1_15090"]
    );
    let moved = serde_json::json!({"ENVOY_STATUS_PORT": 15999, "ENVOY_PROMETHEUS_PORT": 15998});
    assert_eq!(listeners(&own, moved), ["0.0.0.0_15021", "10.96.1.1_15090"]);
    let bare = serde_json::json!({"INTERCEPTION_MODE": "NONE"});
    assert_eq!(listeners(&own, bare), ["127.0.0.1_15999"]);
}

#[test]
fn bytes_to_a_service_with_ipv6_alone_get_no_ipv4_listener() {
    let own = service("fd00::1", "{name: tcp, port: 3306}, {name: http, port: 81}");
    assert_eq!(listeners(&own, serde_json::Value::Null), ["0.0.0.0_81"]);
}

#[test]
fn an_egress_listener_at_a_socket_is_not_in_effect_and_takes_no_port() {
    let sidecar = "apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: shop}
spec:
  egress:
  - port: {number: 0, protocol: HTTP, name: socket}
    bind: unix:///run/own.sock
    hosts: ['*/*']
  - port: {number: 15001, protocol: HTTP, name: taken}
    hosts: ['*/*']
  - hosts: ['*/*']
";
    let own = service("10.96.1.1", "{name: http, port: 81}");
    let objects = format!("{own}---\n{sidecar}");
    for mode in ["REDIRECT", "NONE"] {
        let metadata = serde_json::json!({"INTERCEPTION_MODE": mode});
        let found = listeners(&objects, metadata);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].ends_with("_81"), "{found:?}");
    }
}

#[test]
fn a_host_whose_ports_change_while_a_rival_comes_keeps_its_routes() {
    let sidecar = "apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: ns-0}
spec: {egress: [{port: {number: 80, protocol: HTTP, name: http}, hosts: ['*/*']}]}
";
    let entry = |hosts: &str, ports: &str| {
        format!(
            "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: www, namespace: ns-1}}
spec: {{hosts: [{hosts}], addresses: [240.0.0.2], resolution: DNS, ports: [{ports}]}}
"
        )
    };
    let (http, https) = (
        "{number: 80, name: http, protocol: HTTP}",
        "{number: 443, name: http-tls, protocol: HTTP}",
    );
    let after = entry("example.com, www.example.com", http);
    let table = |mesh: &Mesh| {
        let scope = mesh.engine.scope_of(ProxyId(0)).unwrap();
        let resources = mesh.engine.resources(scope).unwrap();
        let table = resources.get(ResourceType::Route, "80").unwrap();
        table.version.clone()
    };
    let mut edited = Mesh::new();
    edited.edit("sidecar.yaml", sidecar);
    edited.edit(
        "www.yaml",
        &entry("www.example.com", &format!("{https}, {http}")),
    );
    edited.edit("www.yaml", &after);
    let mut fresh = Mesh::new();
    fresh.edit("sidecar.yaml", sidecar);
    fresh.edit("www.yaml", &after);
    assert_eq!(table(&edited), table(&fresh));
}

const PATCH: &str = "apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: timeout, namespace: ns-1}
spec:
  configPatches:
  - applyTo: CLUSTER
    match: {cluster: {service: shop.ns-0.svc.cluster.local, portNumber: 80}}
    patch: {operation: MERGE, value: {connect_timeout: 3s}}
";

#[test]
fn a_patch_of_one_namespace_joins_and_renders_nothing_and_is_named_where_it_met() {
    let mut mesh = Mesh::new();
    let entries = |mesh: &Mesh, n: u64| {
        let scope = mesh.engine.scope_of(ProxyId(n)).unwrap();
        mesh.engine.entries(scope).unwrap()
    };
    let before = [entries(&mesh, 1), entries(&mesh, 2)];
    let nothing = Cost {
        joins: 0,
        clusters: 0,
        assignments: 0,
        listeners: 0,
        tables: 0,
    };
    assert_eq!(mesh.edit("patch.yaml", PATCH), (nothing, 0));
    let named = |e: &Entry| e.sources.iter().any(|s| s.key.name == "timeout");
    for (n, before) in (1..).zip(before) {
        let after = entries(&mesh, n);
        assert_eq!(after.len(), before.len());
        for (before, after) in before.iter().zip(&after) {
            let met = n == 1
                && after.encoded.kind == ResourceType::Cluster
                && after.encoded.name == "outbound|80||shop.ns-0.svc.cluster.local";
            let same = Arc::ptr_eq(&before.encoded, &after.encoded);
            assert_eq!((same, named(after)), (!met, met), "{:?}", after.encoded);
        }
    }
}
