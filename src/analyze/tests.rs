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

/// What is told of these documents: field and Istio's code.
fn coded(documents: &[&str]) -> Vec<(String, String)> {
    let domain = Str::new_static("cluster.local");
    let mut acceptance = Acceptance::new(Options {
        hold_unresolved: true,
        domain: domain.clone(),
    });
    let file = Event::File(decode::documents(&documents.join("---\n"), "f.yaml"));
    acceptance.on(vec![Event::Init, file, Event::InitDone]);
    let code = |d: &Diagnostic| {
        let (_, code) = d.message.rsplit_once('(').unwrap_or_default();
        code.trim_end_matches(')').to_owned()
    };
    let found = findings(&acceptance, &domain);
    let found = found.iter().map(|d| (d.field.to_string(), code(d)));
    found.filter(|(_, code)| code.starts_with("IST")).collect()
}

fn virtual_service(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

fn told(field: &str, code: &str) -> (String, String) {
    (field.to_owned(), code.to_owned())
}

#[test]
fn a_rule_behind_one_that_takes_everything_is_told() {
    let spec = "{hosts: [a.example], http: [{match: [{uri: {prefix: /}}], directResponse: {status: 200}}, \
                {match: [{uri: {exact: /a}}], directResponse: {status: 201}}]}";
    let rules = virtual_service("r", spec);
    assert_eq!(coded(&[&rules]), [told("spec.http[1]", "IST0130")]);
    let narrow = rules.replace("prefix: /}", "prefix: /b}");
    assert_eq!(coded(&[&narrow]), []);
}

#[test]
fn a_match_that_stands_before_is_told_of_the_rule_or_of_itself() {
    let of = |second: &str| {
        let spec = format!(
            "{{hosts: [a.example], http: [{{name: x, match: [{{name: first, uri: {{exact: /a}}}}], directResponse: \
             {{status: 200}}}}, {{match: {second}, directResponse: {{status: 201}}}}]}}"
        );
        coded(&[&virtual_service("r", &spec)])
    };
    assert_eq!(
        of("[{uri: {exact: /a}}]"),
        [told("spec.http[1]", "IST0130")]
    );
    let partly = "[{uri: {exact: /b}}, {uri: {exact: /a}}]";
    assert_eq!(of(partly), [told("spec.http[1].match[1]", "IST0131")]);
    assert_eq!(of("[{uri: {exact: /a}, method: {exact: PUT}}]"), []);
}

#[test]
fn the_younger_of_two_virtual_services_of_a_host_is_told_unless_nobody_sees_both() {
    let of = |export: &str| {
        let spec = format!(
            "{{hosts: [a.example], exportTo: ['{export}'], http: [{{directResponse: {{status: 200}}}}]}}"
        );
        let (a, b) = (virtual_service("a", &spec), virtual_service("b", &spec));
        coded(&[&a, &b.replace(&format!("'{export}'"), "'other'")])
    };
    assert_eq!(of("*"), [told("spec.hosts[0]", "IST0109")]);
    assert_eq!(of("."), []);
}

#[test]
fn of_two_sidecars_for_the_same_the_younger_is_told() {
    let sidecar = |name: &str, selector: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: {name}}}\nspec: {{{selector}egress: \
             [{{hosts: ['*/*']}}]}}\n"
        )
    };
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {app: a, tier: b}}\nstatus: \
               {podIP: 10.0.0.1}\n";
    let all = [sidecar("a", ""), sidecar("b", "")];
    assert_eq!(coded(&[&all[0], &all[1]]), [told("", "IST0111")]);
    let some = [
        sidecar("a", "workloadSelector: {labels: {app: a}}, "),
        sidecar("b", "workloadSelector: {labels: {tier: b}}, "),
    ];
    let found = coded(&[&some[0], &some[1], pod]);
    assert_eq!(found, [told("spec.workloadSelector", "IST0110")]);
    assert_eq!(coded(&[&some[0], &some[1]]), []);
}

#[test]
fn gateways_meet_at_the_proxies_and_ports_that_they_share_however_they_say_it() {
    let gateway = |name: &str, selector: &str, number: u16, protocol: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: {name}}}\nspec: {{selector: {{{selector}}}, \
             servers: [{{port: {{number: {number}, name: x, protocol: {protocol}}}, hosts: ['*']}}]}}\n"
        )
    };
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {app: a, tier: b}}\nstatus: \
               {podIP: 10.0.0.1}\n";
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {selector: {app: a}, ports: [{port: 80, \
                   targetPort: 8080, name: http}]}\n";
    let first = gateway("a", "app: a", 80, "HTTP");
    let second = gateway("b", "tier: b", 8080, "TCP");
    assert_eq!(
        coded(&[&first, &second, pod, service]),
        [told("spec.servers[0]", "IST0145")]
    );
    let third = gateway("b", "tier: b", 9999, "TCP");
    assert_eq!(
        coded(&[&first, &third, pod, service]),
        [told("spec.servers[0].port.number", "IST0104")]
    );
    assert_eq!(coded(&[&first, &third, pod]), []);
}
