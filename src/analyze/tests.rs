use super::*;
use crate::acceptance::Options;
use crate::config::decode;
use crate::config::event::Event;

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: reviews}\nspec:\n  \
                       selector: {app: reviews}\n  ports: [{port: 80}]\n";
const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: reviews-v1}\n\
                          spec: {template: {metadata: {labels: {app: reviews, version: v1}}}}\n";

/// Code, object and line of each finding in one file.
pub(super) fn found(documents: &[&str]) -> Vec<(Code, String, Option<u32>)> {
    let domain = Str::new_static("cluster.local");
    let mut acceptance = Acceptance::new(Options {
        hold_unresolved: true,
        domain: domain.clone(),
    });
    let file = Event::File(decode::documents(&documents.join("---\n"), "f.yaml"));
    acceptance.on(vec![Event::Init, file, Event::InitDone]);
    findings(&acceptance, &domain)
        .into_iter()
        .map(|d| (d.code, d.resource.unwrap().to_string(), d.line))
        .collect()
}

#[test]
fn a_deployment_alone_leaves_its_service_without_endpoints() {
    assert_eq!(
        found(&[SERVICE, DEPLOYMENT]),
        [(
            Code::NoEndpoints,
            "Deployment default/reviews-v1".to_owned(),
            Some(8)
        )]
    );
}

#[test]
fn a_pod_a_slice_or_a_workload_entry_gives_endpoints() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {app: reviews}}\nstatus: \
               {podIP: 10.0.0.1}\n";
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a, labels: \
                 {kubernetes.io/service-name: reviews}}\nendpoints: [{addresses: [10.0.0.1]}]\n";
    let entry = "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: a}\nspec: \
                 {address: 10.0.0.1, labels: {app: reviews}}\n";
    for given in [pod, slice, entry] {
        assert_eq!(found(&[SERVICE, DEPLOYMENT, given]), []);
    }
}

#[test]
fn a_deployment_without_service_or_without_pods_is_no_finding() {
    assert_eq!(found(&[DEPLOYMENT]), []);
    let none = DEPLOYMENT.replace("spec: {", "spec: {replicas: 0, ");
    assert_eq!(found(&[SERVICE, &none]), []);
}

#[test]
fn a_route_to_a_host_without_service_is_told_by_its_field() {
    let route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: r}\nspec:\n  \
                 hosts: [reviews]\n  http:\n  - route:\n    - destination:\n        host: ratings\n";
    let told = (Code::Unresolved, "VirtualService default/r".to_owned());
    let all = found(&[route, SERVICE]);
    assert_eq!(all, [(told.0, told.1, Some(9))]);
    assert_eq!(found(&[&route.replace("ratings", "reviews"), SERVICE]), []);
}

#[test]
fn a_host_of_several_objects_is_told_of_those_that_do_not_count() {
    let entry = |name: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}}}\nspec:\n  \
             hosts: [api.example.com]\n  ports: [{{number: 80, name: http, protocol: HTTP}}]\n"
        )
    };
    let route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: r}\nspec:\n  \
                 hosts: [api.example.com]\n  http: [{route: [{destination: {host: api.example.com}}]}]\n";
    assert_eq!(found(&[&entry("a"), route]), []);
    assert_eq!(
        found(&[&entry("a"), &entry("b")]),
        [(
            Code::Conflict,
            "ServiceEntry default/b".to_owned(),
            Some(12)
        )]
    );
}

#[test]
fn a_rule_whose_delegate_is_not_there_is_told() {
    let root = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: r}\nspec:\n  \
                hosts: [reviews]\n  http: [{delegate: {name: d}}]\n";
    let delegate = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: d}\nspec:\n  \
                    http: [{directResponse: {status: 204}}]\n";
    let told = (
        Code::Unresolved,
        "VirtualService default/r".to_owned(),
        Some(6),
    );
    assert_eq!(found(&[root]), [told]);
    assert_eq!(found(&[root, delegate]), []);
}
