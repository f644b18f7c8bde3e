//! What is served from an API server: the same as from files, and each change of each kind.

use std::process::Command;

use anyhow::{Result, ensure};
use fairlead::xds::ResourceType::{Cluster, Endpoint, Listener, Route};
use serde_json::Value;

use super::Scenario;
use super::harness::isolation::{output, program};
use super::harness::wait::eventually;
use super::mirror::Mirror;
use super::world::{Plane, World};

pub const SCENARIOS: &[Scenario] = &[
    (
        "what_is_served_is_what_a_folder_with_the_same_objects_gives",
        as_from_files,
    ),
    (
        "services_and_their_endpoints_reach_a_client_when_they_come_change_and_go",
        registry,
    ),
    (
        "istios_kinds_reach_a_client_when_they_come_change_and_go",
        configuration,
    ),
    (
        "mesh_config_is_followed_in_its_config_map_and_in_a_file",
        mesh_config,
    ),
    (
        "an_object_of_another_revision_is_none_until_it_is_ours",
        another_revision,
    ),
];

pub const MESH: &str = include_str!("mesh.yaml");
/// A sidecar that has no Service of its own.
pub const CALLER: &str = "sidecar~10.1.0.9~caller.shop~shop.svc.cluster.local";
const TEA: &str = "sidecar~10.1.0.1~tea-1.shop~shop.svc.cluster.local";
const BOXES: &str = "sidecar~10.2.0.1~boxes-vm.depot~depot.svc.cluster.local";

fn as_from_files() -> Result<()> {
    let world = World::start()?;
    world.put_all(MESH)?;
    let plane = Plane::start(&world, &[])?;
    let folder = tempfile::tempdir()?;
    let same = serde_json::to_string_pretty(&world.everything()?)?;
    std::fs::write(folder.path().join("same.json"), same)?;
    for node in [CALLER, TEA, BOXES] {
        let _mirror = Mirror::join(&world, &plane, node)?;
        let mut dump = Command::new(program("fairlead"));
        dump.args(["dump", "--node", node, "-o", "json", "--config-dir"]);
        let filed = output(dump.arg(folder.path()))?;
        let mut filed: Value = serde_json::from_str(&filed)?;
        forget_places(&mut filed);
        let live = plane.dump(node)?;
        ensure!(
            count(&live) > 6,
            "{node} is served next to nothing: {live:#}"
        );
        ensure!(
            live == filed,
            "{node}: from the API server {live:#}\nfrom the folder {filed:#}"
        );
    }
    Ok(())
}

/// Only files have places.
fn forget_places(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if fields.contains_key("namespace") && fields.contains_key("kind") {
                fields.remove("file");
                fields.remove("line");
            }
            fields.values_mut().for_each(forget_places);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_places),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn count(dump: &Value) -> usize {
    let types = dump
        .as_object()
        .into_iter()
        .flat_map(|types| types.values());
    types.filter_map(Value::as_array).map(Vec::len).sum()
}

pub const NAMESPACES: &str = "apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Namespace
metadata: {name: istio-system}";

/// `port` beside 80.
pub fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec:
  selector: {{app: {name}}}
  ports:
  - {{name: http, port: 80, targetPort: 8080}}
  - {{name: http-b, port: {port}, targetPort: 8080}}"
    )
}

pub fn slice(name: &str, address: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-a, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: http, port: 8080, protocol: TCP}}]
endpoints:
- addresses: [{address}]
  conditions: {{ready: true}}
  targetRef: {{kind: Pod, name: {name}-1, namespace: shop}}"
    )
}

fn pod(name: &str, address: &str, version: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}-1, namespace: shop, labels: {{app: {name}, version: {version}}}}}
spec: {{containers: [{{name: a, image: a}}]}}
status: {{phase: Running, podIP: {address}, podIPs: [{{ip: {address}}}]}}"
    )
}

fn entry(address: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: cups-vm, namespace: shop}}
spec: {{address: {address}, labels: {{app: cups}}}}"
    )
}

pub fn rule(name: &str, subset: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}, namespace: shop}}
spec: {{host: {name}, subsets: [{{name: {subset}, labels: {{version: {subset}}}}}]}}"
    )
}

pub fn route(name: &str, prefix: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: shop}}
spec:
  hosts: [{name}]
  http:
  - match: [{{uri: {{prefix: {prefix}}}}}]
    route: [{{destination: {{host: {name}}}}}]"
    )
}

fn policy(mode: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: shop}}
spec: {{mtls: {{mode: {mode}}}}}"
    )
}

fn sidecar(hosts: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: default, namespace: shop}}
spec: {{egress: [{{hosts: ['{hosts}']}}]}}"
    )
}

pub fn cluster(name: &str) -> String {
    format!("outbound|80||{name}.shop.svc.cluster.local")
}

fn subset(name: &str, subset: &str) -> String {
    format!("outbound|80|{subset}|{name}.shop.svc.cluster.local")
}

pub fn read(yaml: &str) -> Result<Value> {
    Ok(serde_saphyr::from_str(yaml)?)
}

fn another_revision() -> Result<()> {
    let world = World::start()?;
    world.put_all(NAMESPACES)?;
    world.put_yaml(&service("cups", 81))?;
    let of = |revision: &str, subset: &str| -> Result<Value> {
        let mut rule = read(&rule("cups", subset))?;
        rule["metadata"]["labels"] = serde_json::json!({"istio.io/rev": revision});
        Ok(rule)
    };
    world.put(&of("canary", "theirs")?)?;
    let plane = Plane::start(&world, &[])?;
    let mut mirror = Mirror::join(&world, &plane, CALLER)?;
    let subset = |name: &str| format!("outbound|80|{name}|cups.shop.svc.cluster.local");
    ensure!(
        !mirror.holds(Cluster, &subset("theirs")),
        "another's rule is served"
    );
    world.put(&of("default", "ours")?)?;
    mirror.until(|m| m.holds(Cluster, &subset("ours")));
    world.put(&of("canary", "ours")?)?;
    mirror.until(|m| !m.holds(Cluster, &subset("ours")));
    Ok(())
}

fn registry() -> Result<()> {
    let world = World::start()?;
    world.put_all(NAMESPACES)?;
    let plane = Plane::start(&world, &[])?;
    let mut mirror = Mirror::join(&world, &plane, CALLER)?;
    let cups = cluster("cups");
    let second = |port: u16| format!("outbound|{port}||cups.shop.svc.cluster.local");

    world.put_yaml(&service("cups", 81))?;
    mirror.until(|m| m.holds(Cluster, &cups) && m.holds(Cluster, &second(81)));
    world.put_yaml(&service("cups", 82))?;
    mirror.until(|m| m.holds(Cluster, &second(82)) && !m.holds(Cluster, &second(81)));

    world.put_yaml(&slice("cups", "10.1.0.2"))?;
    mirror.until(|m| m.says(Endpoint, &cups, "10.1.0.2"));
    world.put_yaml(&slice("cups", "10.1.0.3"))?;
    mirror.until(|m| m.says(Endpoint, &cups, "10.1.0.3"));
    ensure!(!mirror.says(Endpoint, &cups, "10.1.0.2"));

    // A Pod is seen by its labels: they decide in which subset its endpoint is.
    world.put_yaml(&rule("cups", "v1"))?;
    let subset = subset("cups", "v1");
    mirror.until(|m| m.holds(Endpoint, &subset));
    world.put_yaml(&pod("cups", "10.1.0.3", "v1"))?;
    mirror.until(|m| m.says(Endpoint, &subset, "10.1.0.3"));
    world.put_yaml(&pod("cups", "10.1.0.3", "v2"))?;
    mirror.until(|m| !m.says(Endpoint, &subset, "10.1.0.3"));
    world.put_yaml(&pod("cups", "10.1.0.3", "v1"))?;
    mirror.until(|m| m.says(Endpoint, &subset, "10.1.0.3"));
    world.delete(&read(&pod("cups", "10.1.0.3", "v1"))?)?;
    mirror.until(|m| !m.says(Endpoint, &subset, "10.1.0.3"));

    world.delete(&read(&slice("cups", "10.1.0.3"))?)?;
    mirror.until(|m| !m.says(Endpoint, &cups, "10.1.0.3"));
    world.delete(&read(&service("cups", 82))?)?;
    mirror.until(|m| !m.holds(Cluster, &cups));

    // Nothing that a sidecar is sent depends on a Namespace; that it was seen is counted.
    let attic = "apiVersion: v1\nkind: Namespace\nmetadata: {name: attic}";
    world.put_yaml(attic)?;
    world.delete(&read(attic)?)?;
    let gone = "pilot_k8s_reg_events{type=\"Namespaces\",event=\"delete\"}";
    eventually("see the Namespace go", || {
        let count = plane.metric(gone)?;
        ensure!(count == 1, "{gone} {count}");
        Ok(())
    })?;
    let changed = plane.metric("pilot_k8s_reg_events{type=\"Pods\",event=\"update\"}")?;
    ensure!(changed >= 2, "{changed} changes of the Pod");
    Ok(())
}

fn configuration() -> Result<()> {
    let world = World::start()?;
    world.put_all(NAMESPACES)?;
    let plane = Plane::start(&world, &[])?;
    let mut mirror = Mirror::join(&world, &plane, CALLER)?;
    let (cups, tea) = (cluster("cups"), cluster("tea"));
    world.put_yaml(&service("cups", 81))?;
    world.put_yaml(&service("tea", 81))?;
    mirror.until(|m| m.holds(Endpoint, &cups) && m.holds(Cluster, &tea));

    world.put_yaml(&entry("10.2.0.1"))?;
    mirror.until(|m| m.says(Endpoint, &cups, "10.2.0.1"));
    world.put_yaml(&entry("10.2.0.2"))?;
    mirror.until(|m| m.says(Endpoint, &cups, "10.2.0.2"));
    world.delete(&read(&entry("10.2.0.2"))?)?;
    mirror.until(|m| !m.says(Endpoint, &cups, "10.2.0.2"));

    let (v1, v2) = (subset("cups", "v1"), subset("cups", "v2"));
    world.put_yaml(&rule("cups", "v1"))?;
    mirror.until(|m| m.holds(Cluster, &v1));
    world.put_yaml(&rule("cups", "v2"))?;
    mirror.until(|m| m.holds(Cluster, &v2) && !m.holds(Cluster, &v1));
    world.delete(&read(&rule("cups", "v2"))?)?;
    mirror.until(|m| !m.holds(Cluster, &v2));

    world.put_yaml(&route("cups", "/glass"))?;
    mirror.until(|m| m.says(Route, "80", "/glass"));
    world.put_yaml(&route("cups", "/paper"))?;
    mirror.until(|m| m.says(Route, "80", "/paper"));
    ensure!(!mirror.says(Route, "80", "/glass"));
    world.delete(&read(&route("cups", "/paper"))?)?;
    mirror.until(|m| !m.says(Route, "80", "/paper"));

    let inbound = "virtualInbound";
    let permissive = mirror.version(Listener, inbound).to_owned();
    ensure!(!permissive.is_empty(), "no listener {inbound}");
    world.put_yaml(&policy("STRICT"))?;
    mirror.until(|m| m.version(Listener, inbound) != permissive);
    let strict = mirror.version(Listener, inbound).to_owned();
    world.put_yaml(&policy("DISABLE"))?;
    mirror.until(|m| m.version(Listener, inbound) != strict);
    world.delete(&read(&policy("DISABLE"))?)?;
    mirror.until(|m| m.version(Listener, inbound) == permissive);

    let narrow = sidecar("./tea.shop.svc.cluster.local");
    world.put_yaml(&narrow)?;
    mirror.until(|m| !m.holds(Cluster, &cups));
    world.put_yaml(&sidecar("./*"))?;
    mirror.until(|m| m.holds(Cluster, &cups));
    world.put_yaml(&narrow)?;
    mirror.until(|m| !m.holds(Cluster, &cups));
    world.delete(&read(&narrow)?)?;
    mirror.until(|m| m.holds(Cluster, &cups));
    ensure!(mirror.holds(Cluster, &tea), "tea was never hidden");
    Ok(())
}

fn config_map(timeout: &str) -> String {
    format!(
        "apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data: {{mesh: 'connectTimeout: {timeout}'}}"
    )
}

fn mesh_config() -> Result<()> {
    let world = World::start()?;
    world.put_all(NAMESPACES)?;
    world.put_yaml(&service("cups", 81))?;
    let cups = cluster("cups");
    let plane = Plane::start(&world, &[])?;
    let mut mirror = Mirror::join(&world, &plane, CALLER)?;
    let version = |m: &Mirror| m.version(Cluster, &cups).to_owned();
    let by_default = version(&mirror);
    world.put_yaml(&config_map("3s"))?;
    mirror.until(|m| version(m) != by_default);
    let three = version(&mirror);
    world.put_yaml(&config_map("4s"))?;
    mirror.until(|m| version(m) != three);
    let four = version(&mirror);

    // A file counts instead, as it does beside a folder.
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("mesh.yaml");
    std::fs::write(&file, "connectTimeout: 3s\n")?;
    let flag = format!("--mesh-config={}", file.display());
    let filed = Plane::start(&world, &[&flag])?;
    let mut other = Mirror::join(&world, &filed, CALLER)?;
    ensure!(version(&other) == three, "the file does not count");
    std::fs::write(&file, "connectTimeout: 4s\n")?;
    other.until(|m| version(m) == four);
    drop(other.news());

    world.delete(&read(&config_map("4s"))?)?;
    mirror.until(|m| version(m) == by_default);
    ensure!(
        other.news().is_empty(),
        "the ConfigMap counts beside the file"
    );
    Ok(())
}
