//! Each rule of acceptance, on files as a user has them.

use super::*;
use crate::config::Spec;
use crate::config::decode::{self, Decoded};
use crate::diagnostic::Code;

/// What a batch of events came to.
pub(super) struct Outcome {
    pub(super) changes: Vec<Change>,
    news: Vec<Diagnostic>,
}

impl Acceptance {
    pub(super) fn take(&mut self, events: impl IntoIterator<Item = Event>) -> Outcome {
        let changes = self.on(events.into_iter().collect());
        let news = self.news().to_vec();
        Outcome { changes, news }
    }
}

pub(super) fn options() -> Options {
    Options {
        hold_unresolved: true,
        domain: Str::new_static("cluster.local"),
    }
}

pub(super) fn route(name: &str, host: &str, subset: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, \
         namespace: shop}}\nspec:\n  hosts: [{name}]\n  http:\n  - route:\n    - destination: {{host: \
         {host}, subset: {subset}}}\n"
    )
}

pub(super) fn rule(name: &str, host: &str, subsets: &[&str]) -> String {
    let subsets: Vec<String> = subsets.iter().map(|s| format!("{{name: {s}}}")).collect();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, \
         namespace: shop}}\nspec:\n  host: {host}\n  subsets: [{}]\n",
        subsets.join(", ")
    )
}

fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n")
}

pub(super) fn file(name: &str, text: &str) -> Event {
    Event::File(decode::documents(text, name))
}

fn gone(name: &str) -> Event {
    file(name, "")
}

/// A listing of `files`.
pub(super) fn start(files: &[(&str, &str)]) -> Acceptance {
    let mut acceptance = Acceptance::new(options());
    listing(&mut acceptance, files);
    acceptance
}

fn listing(acceptance: &mut Acceptance, files: &[(&str, &str)]) -> Outcome {
    let named = files.iter().map(|(name, text)| file(name, text));
    acceptance.take(
        [Event::Init]
            .into_iter()
            .chain(named)
            .chain([Event::InitDone]),
    )
}

fn names(outcome: &Outcome) -> Vec<String> {
    let sign = |c: &Change| if c.object.is_some() { "+" } else { "-" };
    outcome
        .changes
        .iter()
        .map(|c| format!("{}{}", sign(c), c.key))
        .collect()
}

fn codes(acceptance: &Acceptance) -> Vec<(Code, String)> {
    let subject = |d: &Diagnostic| d.resource.as_ref().map(ToString::to_string);
    acceptance
        .diagnostics()
        .iter()
        .map(|d| (d.code, subject(d).unwrap_or_default()))
        .collect()
}

/// The subset that `shop/<name>` routes to, in force.
fn subset(acceptance: &Acceptance, name: &str) -> String {
    let found = acceptance.objects().find_map(|o| match &o.spec {
        Spec::VirtualService(spec) if o.meta.name == name => {
            Some(spec.http[0].route[0].destination.subset.to_string())
        }
        _ => None,
    });
    found.unwrap()
}

const HOLDS: [(Code, &str); 2] = [
    (Code::Waiting, "VirtualService shop/reviews"),
    (Code::Waiting, "DestinationRule shop/reviews"),
];

fn held(n: usize) -> Vec<(Code, String)> {
    let mut list: Vec<_> = HOLDS[..n]
        .iter()
        .map(|(c, s)| (*c, (*s).to_owned()))
        .collect();
    list.sort_by_key(|(_, s)| s.contains("Destination"));
    list
}

#[test]
fn nothing_happens_before_the_listing_is_complete() {
    let mut acceptance = Acceptance::new(options());
    let early = acceptance.take([Event::Init, file("a", &namespace("a"))]);
    assert!(early.changes.is_empty());
    assert_eq!(names(&acceptance.take([Event::InitDone])), ["+Namespace a"]);
}

#[test]
fn an_edit_changes_one_object_and_an_equal_text_none() {
    let mut acceptance = start(&[("a", &namespace("a")), ("b", &rule("r", "r", &["v1"]))]);
    let edit = acceptance.take([file("b", &rule("r", "r", &["v1", "v2"]))]);
    assert_eq!(names(&edit), ["+DestinationRule shop/r"]);
    let moved = format!("# a comment\n{}", rule("r", "r", &["v1", "v2"]));
    assert!(acceptance.take([file("b", &moved)]).changes.is_empty());
    let key = edit.changes[0].key.clone();
    assert_eq!(
        acceptance.place(&key, "spec.host"),
        Some(("b".into(), Some(6)))
    );
    assert_eq!(
        names(&acceptance.take([gone("b")])),
        ["-DestinationRule shop/r"]
    );
}

#[test]
fn a_faulty_form_leaves_the_form_before_it() {
    let good = rule("r", "r", &["v1"]);
    let mut acceptance = start(&[("a", &good)]);
    let bad = good.replace("host: r", "hostt: r");
    let outcome = acceptance.take([file("a", &bad)]);
    assert!(outcome.changes.is_empty());
    let unknown = outcome
        .news
        .iter()
        .find(|d| d.code == Code::UnknownField)
        .unwrap();
    assert_eq!(
        (unknown.field.as_str(), unknown.line),
        ("spec.hostt", Some(5))
    );
    assert!(
        unknown
            .message
            .ends_with("the form accepted before stays in force")
    );
    assert_eq!(acceptance.counts().accepted, 1);
    assert_eq!(acceptance.counts().rejected, 1);
    assert!(acceptance.take([file("a", &good)]).changes.is_empty());
    assert_eq!(acceptance.diagnostics().len(), 0);
}

#[test]
fn a_file_that_is_no_yaml_any_more_keeps_all_its_objects() {
    let text = format!("{}---\n{}", namespace("a"), namespace("b"));
    let mut acceptance = start(&[("f", &text)]);
    assert!(acceptance.take([file("f", "kind: [\n")]).changes.is_empty());
    let found = codes(&acceptance);
    assert!(
        found.contains(&(Code::Malformed, "Namespace a".to_owned())),
        "{found:?}"
    );
    assert_eq!(
        names(&acceptance.take([file("f", &namespace("b"))])),
        ["-Namespace a"]
    );
    assert!(acceptance.diagnostics().is_empty());
}

#[test]
fn one_broken_document_keeps_what_it_may_have_been_and_takes_its_neighbours() {
    let text = format!("{}---\n{}", namespace("a"), rule("r", "r", &["v1"]));
    let mut acceptance = start(&[("f", &text)]);
    let torn = format!("kind: [\n---\n{}", rule("r", "r", &["v1", "v2"]));
    assert_eq!(
        names(&acceptance.take([file("f", &torn)])),
        ["+DestinationRule shop/r"]
    );
    assert_eq!(acceptance.counts().accepted, 2);
}

#[test]
fn of_two_files_with_one_object_the_first_counts() {
    let (one, two) = (rule("r", "r", &["v1"]), rule("r", "r", &["v2"]));
    let mut acceptance = start(&[("b", &one), ("c", &two)]);
    assert_eq!(
        codes(&acceptance),
        [(Code::Duplicate, "DestinationRule shop/r".to_owned())]
    );
    let found: Vec<_> = acceptance.diagnostics();
    assert_eq!(
        (found[0].file.as_deref(), found[0].line),
        (Some("c"), Some(1))
    );
    assert_eq!(
        names(&acceptance.take([gone("b")])),
        ["+DestinationRule shop/r"]
    );
    assert!(acceptance.diagnostics().is_empty());
}

#[test]
fn an_object_that_moves_to_another_file_does_not_change() {
    let text = namespace("a");
    let mut acceptance = start(&[("f", &text)]);
    assert!(
        acceptance
            .take([gone("f"), file("g", &text)])
            .changes
            .is_empty()
    );
}

#[test]
fn a_file_that_leaves_keeps_its_objects_until_another_holds_them() {
    let text = format!("{}---\n{}", namespace("a"), namespace("b"));
    let mut acceptance = start(&[("f", &text)]);
    assert!(
        acceptance
            .take([Event::Leaving("f".into())])
            .changes
            .is_empty()
    );
    let moved = acceptance.take([file("g", &namespace("a"))]);
    assert!(moved.changes.is_empty() && moved.news.is_empty());
    assert_eq!(names(&acceptance.take([gone("f")])), ["-Namespace b"]);
}

#[test]
fn a_new_route_to_no_subset_takes_effect_and_is_told() {
    let mut acceptance = start(&[("v", &route("reviews", "reviews", "v9"))]);
    assert_eq!(subset(&acceptance, "reviews"), "v9");
    assert_eq!(codes(&acceptance), held(1));
    let found: Vec<_> = acceptance.diagnostics();
    assert_eq!(found[0].field, "spec.http[0].route[0].destination.subset");
    assert_eq!(found[0].line, Some(8));
    acceptance.take([file("d", &rule("reviews", "reviews", &["v9"]))]);
    assert!(acceptance.diagnostics().is_empty());
}

#[test]
fn a_route_to_a_subset_to_come_waits_and_comes_with_it() {
    let mut acceptance = start(&[
        ("v", &route("reviews", "reviews", "v2")),
        ("d", &rule("reviews", "reviews", &["v2"])),
    ]);
    assert!(
        acceptance
            .take([file("v", &route("reviews", "reviews", "v3"))])
            .changes
            .is_empty()
    );
    assert_eq!(subset(&acceptance, "reviews"), "v2");
    assert_eq!(codes(&acceptance), held(1));
    // The rule drops v2 and adds v3: only together do they break nothing.
    let both = acceptance.take([file("d", &rule("reviews", "reviews", &["v3"]))]);
    assert_eq!(
        names(&both),
        [
            "+VirtualService shop/reviews",
            "+DestinationRule shop/reviews"
        ]
    );
    assert!(acceptance.diagnostics().is_empty());
    assert_eq!(acceptance.counts().held, 0);
}

#[test]
fn a_rule_that_drops_a_used_subset_waits_for_the_route() {
    let mut acceptance = start(&[
        ("v", &route("reviews", "reviews", "v2")),
        ("d", &rule("reviews", "reviews", &["v2"])),
    ]);
    assert!(
        acceptance
            .take([file("d", &rule("reviews", "reviews", &["v3"]))])
            .changes
            .is_empty()
    );
    let message = acceptance.diagnostics()[0].message.clone();
    assert!(
        message.contains("VirtualService shop/reviews routes to subset `v2`"),
        "{message}"
    );
    let both = acceptance.take([file("v", &route("reviews", "reviews", "v3"))]);
    assert_eq!(both.changes.len(), 2);
}

#[test]
fn the_deletion_of_a_used_rule_waits() {
    let mut acceptance = start(&[
        ("v", &route("reviews", "reviews", "v2")),
        ("d", &rule("reviews", "reviews", &["v2"])),
    ]);
    assert!(acceptance.take([gone("d")]).changes.is_empty());
    assert_eq!(
        codes(&acceptance),
        [HOLDS[1]].map(|(c, s)| (c, s.to_owned()))
    );
    let both = acceptance.take([gone("v")]);
    assert_eq!(
        names(&both),
        [
            "-VirtualService shop/reviews",
            "-DestinationRule shop/reviews"
        ]
    );
}

#[test]
fn two_halves_that_do_not_fit_are_both_told() {
    let mut acceptance = start(&[
        ("v", &route("reviews", "reviews", "v2")),
        ("d", &rule("reviews", "reviews", &["v2"])),
    ]);
    acceptance.take([
        file("v", &route("reviews", "reviews", "v4")),
        file("d", &rule("reviews", "reviews", &["v3"])),
    ]);
    assert_eq!(codes(&acceptance), held(2));
    assert_eq!(acceptance.counts().held, 2);
}

#[test]
fn a_wildcard_rule_of_another_namespace_defines_subsets_too() {
    let wide = rule("wide", "'*.cluster.local'", &["v3"]).replace("shop", "other");
    let mut acceptance = start(&[
        ("v", &route("reviews", "reviews", "v2")),
        ("d", &rule("reviews", "reviews", &["v2"])),
        ("w", &wide),
    ]);
    let edit = acceptance.take([file("v", &route("reviews", "reviews", "v3"))]);
    assert_eq!(edit.changes.len(), 1);
    assert!(acceptance.take([gone("w")]).changes.is_empty());
    assert!(!acceptance.take([gone("d")]).changes.is_empty());
}

#[test]
fn a_destination_without_traffic_refers_to_nothing() {
    let mut acceptance = start(&[
        ("v", &route("reviews", "reviews", "v2")),
        ("d", &rule("reviews", "reviews", &["v2"])),
    ]);
    let text = format!(
        "{}      weight: 100\n    - destination: {{host: reviews, subset: v9}}\n      weight: 0\n",
        route("reviews", "reviews", "v2")
    );
    assert_eq!(acceptance.take([file("v", &text)]).changes.len(), 1);
}

#[test]
fn holding_can_be_turned_off() {
    let options = Options {
        hold_unresolved: false,
        ..options()
    };
    let mut acceptance = Acceptance::new(options);
    let route = |subset| route("reviews", "reviews", subset);
    listing(
        &mut acceptance,
        &[
            ("v", &route("v2")),
            ("d", &rule("reviews", "reviews", &["v2"])),
        ],
    );
    assert_eq!(acceptance.take([file("v", &route("v3"))]).changes.len(), 1);
    assert_eq!(codes(&acceptance), held(1));
}

#[test]
fn policies_and_services_never_wait() {
    let policy = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p}\n\
                  spec: {mtls: {mode: STRICT}}\n";
    let mut acceptance = start(&[("p", policy)]);
    assert_eq!(acceptance.take([gone("p")]).changes.len(), 1);
}

#[test]
fn a_restart_keeps_what_was_in_force_and_finds_what_is_gone() {
    let (a, b) = (namespace("a"), namespace("b"));
    let before = start(&[
        ("a", &a),
        ("b", &b),
        ("r", &rule("r", "r", &["v1"])),
        ("v", &route("reviews", "reviews", "v2")),
        ("d", &rule("reviews", "reviews", &["v2"])),
    ]);
    let json = serde_json::to_string(&before.persist(&|_| true)).unwrap();
    let mut after = Acceptance::restore(options(), serde_json::from_str(&json).unwrap());
    // `a` is gone, `r` broke, the rule's file is torn, the route names a subset to come.
    let outcome = listing(
        &mut after,
        &[
            ("b", &b),
            ("r", &rule("r", "r", &["v1"]).replace("host", "hostt")),
            ("v", &route("reviews", "reviews", "v3")),
            ("d", "kind: [\n"),
        ],
    );
    assert_eq!(
        names(&outcome),
        [
            "+Namespace b",
            "+VirtualService shop/reviews",
            "+DestinationRule shop/r",
            "+DestinationRule shop/reviews",
        ]
    );
    assert_eq!(subset(&after, "reviews"), "v2");
    let both = after.take([file("d", &rule("reviews", "reviews", &["v3"]))]);
    assert_eq!(both.changes.len(), 2);
}

#[test]
fn the_mesh_file_named_by_a_flag_counts_before_a_config_map() {
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n\
               data: {mesh: 'trustDomain: map'}\n";
    let mut acceptance = Acceptance::new(options());
    let mesh: Decoded = decode::decode_mesh("trustDomain: flag\n", "zzz");
    let events = [
        Event::Init,
        file("a", map),
        Event::File(mesh),
        Event::InitDone,
    ];
    let outcome = acceptance.take(events);
    assert_eq!(outcome.changes[0].key.kind, Kind::MeshConfig);
    let Spec::MeshConfig(mesh) = &outcome.changes[0].object.as_ref().unwrap().spec else {
        panic!()
    };
    assert_eq!(mesh.trust_domain, "flag");
}

#[test]
fn the_api_servers_objects_come_one_by_one() {
    let decoded = decode::documents(&namespace("a"), "");
    let decode::Item::Object(object) = decoded.items[0].clone() else {
        panic!()
    };
    let key = object.object.key();
    let mut acceptance = Acceptance::new(options());
    acceptance.take([Event::Init, Event::InitDone]);
    assert_eq!(
        names(&acceptance.take([Event::Apply(object)])),
        ["+Namespace a"]
    );
    assert_eq!(acceptance.place(&key, ""), None);
    assert_eq!(
        names(&acceptance.take([Event::Delete(key)])),
        ["-Namespace a"]
    );
}

#[test]
fn findings_are_news_once() {
    let mut acceptance = start(&[]);
    let text = route("reviews", "reviews", "v9");
    assert_eq!(acceptance.take([file("v", &text)]).news.len(), 1);
    assert_eq!(acceptance.take([file("v", &text)]).news.len(), 0);
}

#[test]
fn what_is_mended_is_told_and_what_is_deleted_is_not() {
    let sound = route("reviews", "reviews", "v1");
    let faulty = sound.replace("hosts", "hots");
    let mut mesh = start(&[("a.yaml", &faulty), ("b.yaml", "x: [\n")]);
    let recovered = |outcome: Outcome| -> Vec<String> {
        let news = outcome.news.into_iter();
        let found = news.filter(|d| d.code == Code::Recovered);
        found.map(|d| d.to_string()).collect()
    };
    let mended = mesh.take([file("a.yaml", &sound), file("b.yaml", "")]);
    assert_eq!(
        recovered(mended),
        [
            "b.yaml: info: the faults told of this file before are gone",
            "a.yaml:1: info: VirtualService shop/reviews: this form is sound; the faults told before are \
             gone",
        ]
    );
    mesh.take([file("a.yaml", &faulty)]);
    let deleted = mesh.take([gone("a.yaml")]);
    assert_eq!(recovered(deleted), [""; 0]);
}

#[test]
fn objects_are_counted_by_kind_and_standing() {
    let sound = route("reviews", "reviews", "v1");
    let faulty = sound.replace("hosts", "hots");
    let mut mesh = start(&[("a.yaml", &sound), ("c.yaml", &namespace("shop"))]);
    mesh.take([file("a.yaml", &faulty), file("c.yaml", "x: [\n")]);
    mesh.take([file("a.yaml", &faulty.replace("subset: v1", "subset: v2"))]);
    let census = mesh.census();
    let of = |kind| census.kinds[&kind];
    let routes = of(Kind::VirtualService);
    assert_eq!((routes.in_force, routes.rejected, routes.held), (1, 1, 0));
    assert_eq!(routes.rejections, 1);
    assert_eq!(of(Kind::Namespace).kept, 1);
    assert_eq!(of(Kind::Sidecar), OfKind::default());
    assert_eq!(census.unreadable, 1);
}
