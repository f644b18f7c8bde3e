//! The chart is sound, and the plain manifests are what it renders.
//!
//! `UPDATE=1` writes the manifests.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

#[expect(
    clippy::disallowed_methods,
    reason = "an entry point reads the environment"
)]
fn is_to_write() -> bool {
    std::env::var_os("UPDATE").is_some()
}

const CHART: &str = "deploy/charts/fairlead";
const MANIFESTS: &str = "deploy/manifests/fairlead.yaml";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn helm(arguments: &[&str]) -> String {
    let helm: PathBuf = root().join(".cache/helm/helm");
    assert!(
        helm.exists(),
        "no {}: run `make prerequisites`",
        helm.display()
    );
    let done = Command::new(helm)
        .current_dir(root())
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{arguments:?}: {said}");
    String::from_utf8(done.stdout).unwrap()
}

fn rendered(settings: &[&str]) -> String {
    let mut arguments = vec![
        "template",
        "istiod",
        CHART,
        "--namespace",
        "istio-system",
        "--kube-version",
        "1.36.3",
    ];
    for setting in settings {
        arguments.extend(["--set", setting]);
    }
    helm(&arguments)
}

fn objects(text: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    all.into_iter().filter(|o| !o.is_null()).collect()
}

fn of<'o>(objects: &'o [Value], kind: &str) -> Vec<&'o Value> {
    objects.iter().filter(|o| o["kind"] == kind).collect()
}

#[test]
fn the_manifests_are_what_the_chart_renders() {
    let text = format!(
        "# Rendered from {CHART}: UPDATE=1 cargo test --test deploy. Make the namespace istio-system first.\n{}",
        rendered(&[])
    );
    let path = root().join(MANIFESTS);
    if is_to_write() {
        std::fs::write(&path, &text).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == text,
        "{MANIFESTS} is not what the chart renders: UPDATE=1 cargo test --test deploy"
    );
}

#[test]
fn helm_finds_nothing_wrong() {
    helm(&["lint", "--strict", "--kube-version", "1.36.3", CHART]);
}

#[test]
fn a_revision_stands_beside_the_default_one() {
    let (plain, canary) = (
        objects(&rendered(&[])),
        objects(&rendered(&[
            "revision=canary",
            "revisionTags={prod}",
            "base.enableIstioConfigCRDs=false",
        ])),
    );
    let names = |objects: &[Value]| -> Vec<String> {
        objects
            .iter()
            .map(|o| format!("{} {}", o["kind"], o["metadata"]["name"]))
            .collect()
    };
    let (plain_names, canary_names) = (names(&plain), names(&canary));
    let shared: Vec<&String> = canary_names
        .iter()
        .filter(|n| plain_names.contains(n))
        .collect();
    assert!(shared.is_empty(), "both have {shared:?}");
    let webhooks = of(&canary, "MutatingWebhookConfiguration");
    let text = webhooks.iter().map(ToString::to_string).collect::<String>();
    assert!(
        !text.contains("istio-injection\",\"operator\":\"In"),
        "a revision serves labels of the default one: {text}"
    );
    assert!(text.contains("istio-revision-tag-prod"), "{text}");
}

#[test]
fn values_of_the_control_plane_may_stand_under_pilot_or_at_the_top() {
    for settings in [
        ["pilot.replicaCount=3", "pilot.autoscaleEnabled=false"],
        ["replicaCount=3", "autoscaleEnabled=false"],
    ] {
        let objects = objects(&rendered(&settings));
        assert_eq!(
            of(&objects, "Deployment")[0]["spec"]["replicas"],
            3,
            "{settings:?}"
        );
        assert_eq!(of(&objects, "PodDisruptionBudget").len(), 1, "{settings:?}");
        assert!(
            of(&objects, "HorizontalPodAutoscaler").is_empty(),
            "{settings:?}"
        );
    }
}

#[test]
fn no_field_that_the_control_plane_writes_is_in_the_chart() {
    for object in objects(&rendered(&[])) {
        assert!(!object.to_string().contains("caBundle"), "{object}");
    }
}
