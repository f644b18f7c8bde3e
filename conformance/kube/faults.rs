//! What is wrong at the API server: objects with faults, kinds that are missing, versions of long ago.

use anyhow::{Result, ensure};
use fairlead::config::decode;
use fairlead::config::decode::Item;
use fairlead::diagnostic::Diagnostic;
use fairlead::xds::ResourceType::{Cluster, Route};

use super::Scenario;
use super::definitions;
use super::harness::wait::eventually;
use super::mirror::Mirror;
use super::served::{CALLER, NAMESPACES, cluster, read, route, rule, service};
use super::world::{Plane, Starting, World};

pub const SCENARIOS: &[Scenario] = &[
    (
        "a_faulty_object_is_told_as_in_a_file_and_hurts_only_itself",
        faulty_object,
    ),
    (
        "a_kind_is_read_as_soon_as_it_is_defined_and_its_objects_go_with_the_definition",
        defined_later,
    ),
    (
        "listing_and_watching_is_all_that_it_must_be_allowed_and_what_is_missing_is_told",
        permissions,
    ),
    (
        "a_cluster_that_serves_only_an_old_version_of_a_kind_is_read",
        old_version,
    ),
];

/// A weight below zero, and a field that nobody has.
const FAULTY: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cups, namespace: shop}
spec:
  hosts: [cups]
  http:
  - retrys: {attempts: 2}
    route: [{destination: {host: cups}, weight: -1}]";

fn faulty_object() -> Result<()> {
    let world = World::start()?;
    world.put_all(NAMESPACES)?;
    for name in ["cups", "tea"] {
        world.put_yaml(&service(name, 81))?;
        world.put_yaml(&route(name, &format!("/{name}")))?;
    }
    let plane = Plane::start(&world, &[])?;
    let mut mirror = Mirror::join(&world, &plane, CALLER)?;
    world.put_yaml(FAULTY)?;
    let told: Vec<String> = faults_of_a_file(FAULTY)
        .into_iter()
        .map(|found| Diagnostic {
            file: None,
            line: None,
            ..found
        })
        .map(|found| format!("{found}; the form accepted before stays in force"))
        .collect();
    ensure!(told.len() == 2, "{told:?}");
    for line in &told {
        eventually("tell the fault", || {
            ensure!(plane.log().contains(line), "no `{line}` in {}", plane.log());
            Ok(())
        })?;
    }
    let faulty = plane.metric("fairlead_k8s_faulty_objects_total{type=\"VirtualService\"}")?;
    ensure!(faulty == 1, "{faulty} faulty objects");
    eventually("it is counted, with nothing else changed", || {
        let label = "{kind=\"VirtualService\",state=\"rejected\"}";
        let rejected = plane.metric(&format!("fairlead_objects{label}"))?;
        ensure!(rejected == 1, "{rejected} rejected");
        Ok(())
    })?;
    // The others go on, and the form of before stays.
    world.put_yaml(&route("tea", "/green"))?;
    mirror.until(|m| m.says(Route, "80", "/green"));
    ensure!(mirror.says(Route, "80", "/cups"));
    world.put_yaml(&route("cups", "/glass"))?;
    mirror.until(|m| m.says(Route, "80", "/glass"));
    Ok(())
}

fn faults_of_a_file(yaml: &str) -> Vec<Diagnostic> {
    let items = decode::documents(yaml, "f.yaml").items.into_iter();
    let faults = items.filter_map(|item| match item {
        Item::Rejected(rejected) => Some(rejected.diagnostics),
        Item::Object(_) | Item::Notice(_) | Item::Template(_) => None,
    });
    faults.flatten().collect()
}

fn defined_later() -> Result<()> {
    let world = World::bare(&[])?;
    world.put_all(NAMESPACES)?;
    world.put_yaml(&service("cups", 81))?;
    let plane = Plane::start(&world, &[])?;
    let mut mirror = Mirror::join(&world, &plane, CALLER)?;
    ensure!(mirror.holds(Cluster, &cluster("cups")));
    let definition = definitions::only("DestinationRule", "v1");
    let subset = "outbound|80|v1|cups.shop.svc.cluster.local";
    for _ in 0..2 {
        world.define(&definition)?;
        eventually("take an object", || world.put_yaml(&rule("cups", "v1")))?;
        mirror.until(|m| m.holds(Cluster, subset));
        world.delete(&definition)?;
        mirror.until(|m| !m.holds(Cluster, subset));
        eventually("be undefined", || {
            let path = "/apis/networking.istio.io/v1/destinationrules";
            ensure!(world.get(path).is_err(), "it is still served");
            Ok(())
        })?;
    }
    ensure!(mirror.holds(Cluster, &cluster("cups")));
    Ok(())
}

/// What the guest may read, of Istio's kinds these alone.
fn role(istio: &str) -> String {
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: reader}}
rules:
- apiGroups: ['']
  resources: [namespaces, services, pods, nodes, secrets, configmaps]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
- apiGroups: [networking.k8s.io]
  resources: [ingresses, ingressclasses]
  verbs: [list, watch]
- apiGroups: [networking.istio.io, security.istio.io]
  resources: [{istio}]
  verbs: [list, watch]"
    )
}

fn permissions() -> Result<()> {
    let world = World::start()?;
    world.put_all(NAMESPACES)?;
    let most = "virtualservices, destinationrules, workloadentries, peerauthentications";
    world.put_yaml(&role(most))?;
    world.put_yaml(
        "apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: guest}]",
    )?;
    world.put_yaml(
        "apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: authority, namespace: istio-system}
rules: [{apiGroups: [''], resources: [secrets], verbs: [get, create]}]",
    )?;
    world.put_yaml(
        "apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: authority, namespace: istio-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: authority}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: guest}]",
    )?;
    let folder = tempfile::tempdir()?;
    let starting = Starting::with(&world.server.kubeconfig_of_guest(), folder, &[])?;
    eventually("say what is missing", || {
        let log = starting.log();
        let told = log.lines().any(|line| {
            line.contains("kind=Sidecar")
                && line.contains("sidecars.networking.istio.io is forbidden")
        });
        ensure!(told, "{log}");
        Ok(())
    })?;
    ensure!(!starting.is_ready(), "it serves without Sidecars");
    world.put_yaml(&role(&format!("{most}, sidecars")))?;
    let plane = starting.ready()?;
    world.put_yaml(&service("cups", 81))?;
    let mut mirror = Mirror::join(&world, &plane, CALLER)?;
    mirror.until(|m| m.holds(Cluster, &cluster("cups")));
    Ok(())
}

fn old_version() -> Result<()> {
    let world = World::bare(&[])?;
    world.define(&definitions::only("DestinationRule", "v1alpha3"))?;
    world.put_all(NAMESPACES)?;
    world.put_yaml(&service("cups", 81))?;
    let mut old = read(&rule("cups", "v1"))?;
    old["apiVersion"] = "networking.istio.io/v1alpha3".into();
    world.put(&old)?;
    let plane = Plane::start(&world, &[])?;
    let mirror = Mirror::join(&world, &plane, CALLER)?;
    ensure!(mirror.holds(Cluster, "outbound|80|v1|cups.shop.svc.cluster.local"));
    Ok(())
}
