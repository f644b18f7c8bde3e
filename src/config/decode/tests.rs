//! What documents become, from text to outcome.

use super::*;
use crate::config::core::TargetPort;
use crate::config::destination_rule::{SimpleLb, TlsMode};
use crate::config::peer_authentication::MtlsMode;
use crate::config::sidecar::OutboundMode;
use crate::config::value::{Span, StringMatch};
use crate::config::virtual_service::HeaderMatch;
use crate::config::{Kind, Spec};

fn one(text: &str) -> Item {
    let decoded = documents(text, "f.yaml");
    assert_eq!(decoded.items.len(), 1, "{:?}", decoded.items);
    decoded.items.into_iter().next().unwrap()
}

fn object(text: &str) -> DecodedObject {
    match one(text) {
        Item::Object(object) => object,
        other => panic!("{other:?}"),
    }
}

fn rejected(text: &str) -> Rejected {
    match one(text) {
        Item::Rejected(rejected) => rejected,
        other => panic!("{other:?}"),
    }
}

/// A VirtualService whose first route starts at line 8.
fn virtual_service(route: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: reviews\n  \
         namespace: shop\nspec:\n  hosts: [reviews]\n  http:\n  - route:\n    - destination: \
         {{host: reviews}}\n{route}"
    )
}

fn fault(text: &str) -> (Code, String, u32) {
    let d = rejected(text)
        .diagnostics
        .into_iter()
        .find(|d| d.level == Level::Error)
        .unwrap();
    (d.code, d.field.to_string(), d.line.unwrap())
}

#[test]
fn a_virtual_service_is_read_whole() {
    let text = virtual_service(
        "      weight: 90\n    timeout: 1.5s\n    retries: {attempts: '3', per_try_timeout: 30ms}\n    \
         match:\n    - uri: {prefix: /a}\n      headers: {x-user: {}, y: {regex: 'a.*'}}\n      \
         port: 80\n",
    );
    let found = object(&text);
    assert!(found.warnings.is_empty());
    let Spec::VirtualService(spec) = &found.object.spec else {
        panic!()
    };
    let route = &spec.http[0];
    assert_eq!(route.route[0].weight, 90);
    assert_eq!(route.timeout, Some(Span::parse("1500ms").unwrap()));
    let retries = route.retries.as_ref().unwrap();
    assert_eq!(
        (
            retries.attempts,
            retries.per_try_timeout.unwrap().0.as_millis()
        ),
        (3, 30)
    );
    assert_eq!(route.matches[0].uri, Some(StringMatch::Prefix("/a".into())));
    assert_eq!(route.matches[0].headers["x-user"], HeaderMatch::Present);
}

#[test]
fn a_negative_weight_a_bad_regex_and_an_unknown_field_say_where() {
    let weight = virtual_service("      weight: -1\n");
    assert_eq!(
        fault(&weight),
        (
            Code::InvalidValue,
            "spec.http[0].route[0].weight".into(),
            11
        )
    );
    let message = &rejected(&weight).diagnostics[0].message;
    assert_eq!(message, "`-1` is negative; it must be 0 or more");
    assert_eq!(
        fault(&virtual_service(
            "    match:\n    - uri:\n        regex: '(a'\n"
        )),
        (
            Code::InvalidValue,
            "spec.http[0].match[0].uri.regex".into(),
            13
        )
    );
    assert_eq!(
        fault(&virtual_service("    timeuot: 1s\n")),
        (Code::UnknownField, "spec.http[0].timeuot".into(), 11)
    );
    assert_eq!(
        fault(&virtual_service("specs: {}\n")),
        (Code::UnknownField, "specs".into(), 11)
    );
}

#[test]
fn one_mistake_does_not_hide_the_others_nor_make_new_ones() {
    let text = virtual_service(
        "      weight: -1\n    timeuot: 1s\n    match: [{uri: {regex: '(a'}, port: x}]\n",
    );
    let all = rejected(&text).diagnostics;
    let mut fields: Vec<&str> = all.iter().map(|d| d.field.as_str()).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "spec.http[0].match[0].port",
            "spec.http[0].match[0].uri.regex",
            "spec.http[0].route[0].weight",
            "spec.http[0].timeuot",
        ]
    );
    let typo = virtual_service("").replace("http:", "htpp:");
    assert_eq!(rejected(&typo).diagnostics.len(), 1);
}

#[test]
fn a_rejected_object_still_says_which_it_is() {
    let key = rejected(&virtual_service("    timeuot: 1s\n")).key.unwrap();
    assert_eq!(key.to_string(), "VirtualService shop/reviews");
}

#[test]
fn a_field_for_later_warns_and_the_object_is_taken() {
    let found = object(&virtual_service("    fault: {abort: {http2Error: x}}\n"));
    assert_eq!(found.warnings.len(), 1);
    let warning = &found.warnings[0];
    assert_eq!(
        (warning.code, warning.level),
        (Code::NotYetInEffect, Level::Warning)
    );
    assert_eq!(
        (warning.field.as_str(), warning.line),
        ("spec.http[0].fault.abort.http2Error", Some(11))
    );
}

#[test]
fn one_bad_document_leaves_its_neighbours() {
    let good = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";
    let text = format!("{good}---\nkind: [\n---\n{good}");
    let items = documents(&text, "f.yaml").items;
    assert!(matches!(items[0], Item::Object(_)));
    let Item::Rejected(bad) = &items[1] else {
        panic!("{items:?}")
    };
    assert_eq!(
        (bad.key.as_ref(), bad.diagnostics[0].code),
        (None, Code::Malformed)
    );
    assert!(matches!(items[2], Item::Object(_)));
}

#[test]
fn a_list_expands_and_each_item_stands_alone() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Namespace\n  \
                metadata: {name: a}\n- {kind: Pod}\n";
    let items = documents(text, "f.yaml").items;
    assert!(matches!(items[0], Item::Object(_)));
    let Item::Rejected(bad) = &items[1] else {
        panic!("{items:?}")
    };
    assert_eq!(bad.diagnostics[0].line, Some(7));
}

#[test]
fn kinds_that_mean_nothing_are_silent_and_unknown_ones_are_told() {
    let of = |api: &str, kind: &str| {
        let text = format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: a}}\n");
        documents(&text, "f.yaml").items
    };
    assert!(of("v1", "LimitRange").is_empty());
    assert!(of("v1", "ConfigMap").is_empty());
    let code = |items: Vec<Item>| match &items[..] {
        [Item::Notice(d)] => d.code,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        code(of("inference.networking.k8s.io/v1", "InferencePool")),
        Code::NotYetInEffect
    );
    assert_eq!(code(of("example.com/v1", "Widget")), Code::UnknownKind);
}

#[test]
fn an_unserved_version_is_a_fault_of_that_object() {
    let text = "apiVersion: networking.istio.io/v9\nkind: Sidecar\nmetadata: {name: a}\n";
    let rejected = rejected(text);
    assert_eq!(rejected.key.unwrap().kind, Kind::Sidecar);
    assert_eq!(rejected.diagnostics[0].field, "apiVersion");
}

#[test]
fn names_numbers_and_defaults_follow_protobuf_and_kubernetes() {
    let found = object(
        "apiVersion: networking.istio.io/v1beta1\nkind: DestinationRule\nmetadata: {name: a}\n\
         spec:\n  host: a\n  traffic_policy:\n    tls: {mode: 3}\n    loadBalancer: {simple: \
         RANDOM}\n    connectionPool: null\n",
    );
    assert_eq!(found.object.meta.namespace, "default");
    let Spec::DestinationRule(spec) = &found.object.spec else {
        panic!()
    };
    let policy = spec.traffic_policy.as_ref().unwrap();
    assert_eq!(policy.tls.as_ref().unwrap().mode, TlsMode::IstioMutual);
    assert_eq!(
        policy.load_balancer.as_ref().unwrap().simple,
        Some(SimpleLb::Random)
    );
}

#[test]
fn port_modes_are_keyed_by_number_and_need_a_selector() {
    let text = |selector: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: a}}\n\
             spec:\n  portLevelMtls:\n    8080: {{mode: STRICT}}\n{selector}"
        )
    };
    let found = object(&text("  selector: {matchLabels: {app: a}}\n"));
    let Spec::PeerAuthentication(spec) = &found.object.spec else {
        panic!()
    };
    assert_eq!(spec.port_level_mtls[&8080].mode, MtlsMode::Strict);
    assert_eq!(fault(&text("")).1, "spec.portLevelMtls");
}

#[test]
fn a_service_keeps_what_is_read_and_drops_the_rest() {
    let found = object(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n  creationTimestamp: \
         2024-01-01T00:00:00Z\n  annotations:\n    networking.istio.io/exportTo: .\n    \
         other: x\nspec:\n  clusterIP: None\n  sessionAffinity: None\n  ports:\n  - {port: 80, \
         targetPort: http}\n  - {port: 81, targetPort: 8081}\n",
    );
    let Spec::Service(spec) = &found.object.spec else {
        panic!()
    };
    assert_eq!(
        spec.ports[0].target_port,
        Some(TargetPort::Name("http".into()))
    );
    assert_eq!(spec.ports[1].target_port, Some(TargetPort::Number(8081)));
    assert_eq!(found.object.meta.creation_timestamp, 1_704_067_200);
    assert_eq!(found.object.meta.annotations.len(), 1);
}

#[test]
fn a_label_that_is_no_string_says_so() {
    let text = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  labels:\n    x: 1\n";
    assert_eq!(
        fault(text),
        (Code::InvalidValue, "metadata.labels.x".into(), 6)
    );
    assert!(
        rejected(text).diagnostics[0]
            .message
            .contains("put it in quotes")
    );
}

#[test]
fn mesh_config_comes_from_its_config_map_with_the_lines_of_the_text() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: \
                istio-system}\ndata:\n  mesh: |\n    trustDomain: example.org\n    \
                enableTracing: true\n    outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n";
    let found = object(text);
    let Spec::MeshConfig(mesh) = &found.object.spec else {
        panic!()
    };
    assert_eq!(mesh.trust_domain, "example.org");
    assert_eq!(
        mesh.outbound_traffic_policy.mode,
        OutboundMode::RegistryOnly
    );
    assert!(mesh.enable_auto_mtls);
    assert_eq!(found.warnings[0].field, "enableTracing");
    assert_eq!(found.warnings[0].line, Some(7));
}

#[test]
fn a_mesh_file_is_mesh_config_itself_and_a_typo_there_is_a_fault() {
    let decoded = decode_mesh("trustDomain: a\ntrustDomian: b\n", "mesh.yaml");
    let [Item::Rejected(rejected)] = &decoded.items[..] else {
        panic!("{decoded:?}")
    };
    assert_eq!(rejected.key.as_ref().unwrap().kind, Kind::MeshConfig);
    assert_eq!(rejected.diagnostics[0].line, Some(2));
    let empty = decode_mesh("# nothing\n", "mesh.yaml");
    assert!(matches!(empty.items[..], [Item::Object(_)]));
}

#[test]
fn a_mode_of_istios_that_is_not_in_effect_yet_acts_as_the_nearest() {
    let text = "outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}\n";
    let decoded = decode_mesh(text, "mesh.yaml");
    let [Item::Object(found)] = &decoded.items[..] else {
        panic!("{decoded:?}")
    };
    let Spec::MeshConfig(mesh) = &found.object.spec else {
        panic!()
    };
    assert_eq!(mesh.outbound_traffic_policy.mode, OutboundMode::AllowAny);
    assert_eq!(found.warnings[0].field, "outboundTrafficPolicy.mode");
}

#[test]
fn an_empty_match_of_a_header_is_a_fault_and_never_widens_the_rule() {
    let header = |value: &str| {
        virtual_service(&format!(
            "    match: [{{headers: {{end-user: {value}}}}}]\n"
        ))
    };
    let at = "spec.http[0].match[0].headers.end-user";
    assert_eq!(fault(&header("")).1, at);
    assert_eq!(fault(&header("{prefix: ''}")).1, format!("{at}.prefix"));
    let any = virtual_service("    match: [{uri: {prefix: ''}, headers: {a: {}}}]\n");
    assert!(object(&any).warnings.is_empty());
    let labelled = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {x: }}\n";
    assert_eq!(object(labelled).object.meta.labels.get("x").unwrap(), "");
}

#[test]
fn a_deployment_leaves_its_pods_labels() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec:\n  template:\n    \
                metadata: {labels: {app: a}}\n";
    let Item::Template(template) = one(text) else {
        panic!()
    };
    assert_eq!(template.labels.get("app").unwrap(), "a");
    assert_eq!(template.subject.to_string(), "Deployment default/a");
}

#[test]
fn what_is_kept_of_an_object_survives_json() {
    let text = virtual_service(
        "      weight: 1\n    match: [{headers: {a: {}, b: {exact: c}}, uri: {regex: d}}]\n    \
         timeout: 1500ms\n",
    );
    let object = object(&text).object;
    let json = serde_json::to_string(&*object).unwrap();
    assert_eq!(serde_json::from_str::<Object>(&json).unwrap(), *object);
}

#[test]
fn a_file_over_the_bound_is_refused_whole() {
    let text = " ".repeat(MAX_FILE + 1);
    let told = &rejected(&text).diagnostics[0].message;
    assert!(told.contains("larger than the 16777216 bytes"), "{told}");
}

/// A finding as a person reads it, and whether its object is known.
fn told(text: &str) -> (String, bool) {
    let Rejected {
        key, diagnostics, ..
    } = rejected(text);
    (diagnostics[0].to_string(), key.is_some())
}

#[test]
fn documents_that_say_nothing_are_passed_over() {
    for text in ["null\n", "~\n", "---\nnull\n---\n~\n", "--- # x\n"] {
        assert_eq!(documents(text, "f.yaml").items, [], "{text}");
    }
}

#[test]
fn a_key_that_stands_twice_rejects_its_object_by_name() {
    let text = virtual_service("    timeout: 1s\n    timeout: 2s\n");
    let says = "f.yaml:12: error: VirtualService shop/reviews: spec.http[0].timeout: this key stands \
                in line 11 already; leave one of them";
    assert_eq!(told(&text), (says.to_owned(), true));
    let list = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {}",
        text.replace('\n', "\n  ")
    );
    assert!(told(&list).1);
}

#[test]
fn a_mesh_setting_that_stands_twice_rejects_the_mesh_configuration() {
    let mesh = decode_mesh("trustDomain: a\ntrustDomain: b\n", "mesh.yaml");
    let Item::Rejected(rejected) = &mesh.items[0] else {
        panic!("{mesh:?}")
    };
    let says = rejected.diagnostics[0].to_string();
    assert!(
        says.contains("mesh.yaml:2: error: MeshConfig istio-system/istio: trustDomain: this key"),
        "{says}"
    );
}

#[test]
fn a_name_that_stands_twice_leaves_the_object_unknown() {
    let text = virtual_service("").replace("  name: reviews\n", "  name: a\n  name: b\n");
    let (says, known) = told(&text);
    assert!(
        says.contains("metadata.name: this key stands in line 4 already"),
        "{says}"
    );
    assert!(!known);
}

#[test]
fn a_document_that_is_no_yaml_says_which_object_it_seems_to_be() {
    let (says, known) = told(&virtual_service("    timeout: [1s\n"));
    assert!(
        says.contains("error: VirtualService shop/reviews: "),
        "{says}"
    );
    assert!(!known);
}

#[test]
fn an_object_without_a_name_is_told_by_its_kind() {
    let nameless = virtual_service("").replace("  name: reviews\n", "");
    let says = "f.yaml:3: error: metadata.name: this VirtualService has no name";
    assert_eq!(told(&nameless), (says.to_owned(), false));
    let (says, _) = told("apiVersion: v1\nkind: Namespace\nmetadata: {name: UPPER}\n");
    assert!(
        says.contains("error: Namespace UPPER: metadata.name: "),
        "{says}"
    );
}

fn service(spec: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{{spec}}}\n")
}

/// Code and field of each warning of a sound object.
fn warned(text: &str) -> Vec<(Code, String)> {
    let warnings = object(text).warnings;
    warnings
        .into_iter()
        .map(|d| (d.code, d.field.to_string()))
        .collect()
}

#[test]
fn a_service_by_external_name_is_told_to_have_no_effect_yet() {
    let text = service("type: ExternalName, externalName: a.example, ports: [{port: 80}]");
    assert_eq!(
        warned(&text),
        [(Code::NotYetInEffect, "spec.type".to_owned())]
    );
}

#[test]
fn a_field_that_kubernetes_does_not_have_is_told() {
    let text = service("prots: [{port: 80}], ports: [{port: 80, nodePort: 30000, targetport: 1}]");
    let unknown = |field: &str| (Code::UnknownField, field.to_owned());
    assert_eq!(
        warned(&text),
        [unknown("spec.prots"), unknown("spec.ports[0].targetport")]
    );
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, ownerReferences: []}\nspec:\n  \
                nodeSelector: {a.b/c: d}\n  containers: [{image: x, prots: []}]\n  \
                serviceAcountName: x\nstatus: {hostIP: 10.0.0.1}\n";
    assert_eq!(
        warned(text),
        [
            unknown("spec.containers[0].prots"),
            unknown("spec.serviceAcountName")
        ]
    );
}

#[test]
fn ports_that_repeat_each_other_are_refused_as_kubernetes_does() {
    let of = |ports: &str| {
        let found = rejected(&service(&format!("ports: [{ports}]"))).diagnostics;
        found
            .into_iter()
            .map(|d| d.field.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        of("{name: a, port: 80}, {name: b, port: 80}"),
        ["spec.ports[1].port"]
    );
    assert_eq!(
        of("{name: a, port: 80}, {name: a, port: 81}"),
        ["spec.ports[1].name"]
    );
    object(&service(
        "ports: [{name: a, port: 53}, {name: b, port: 53, protocol: UDP}]",
    ));
}
