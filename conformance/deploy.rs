//! The charts are sound, and the plain manifests are what they render.
//!
//! `UPDATE=1` writes the manifests.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

#[path = "deploy/gateway.rs"]
mod gateway;

#[expect(
    clippy::disallowed_methods,
    reason = "an entry point reads the environment"
)]
fn is_to_write() -> bool {
    std::env::var_os("UPDATE").is_some()
}

/// A chart, and the release of it that stands as plain files.
struct Chart {
    folder: &'static str,
    manifests: &'static str,
    release: &'static str,
    namespace: &'static str,
}

const CONTROL_PLANE: Chart = Chart {
    folder: "deploy/charts/fairlead",
    manifests: "deploy/manifests/fairlead.yaml",
    release: "istiod",
    namespace: "istio-system",
};
const GATEWAY: Chart = Chart {
    folder: "deploy/charts/gateway",
    manifests: "deploy/manifests/gateway.yaml",
    release: "istio-ingress",
    namespace: "istio-ingress",
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn helm(arguments: &[&str]) -> Result<String, String> {
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
    match done.status.success() {
        true => Ok(String::from_utf8(done.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
    }
}

impl Chart {
    fn template(&self, settings: &[&str]) -> Result<String, String> {
        let (release, folder, namespace) = (self.release, self.folder, self.namespace);
        let mut arguments = vec!["template", release, folder, "--namespace", namespace];
        arguments.extend(["--kube-version", "1.36.3"]);
        for setting in settings {
            arguments.extend(["--set", setting]);
        }
        helm(&arguments)
    }

    fn rendered(&self, settings: &[&str]) -> String {
        self.template(settings).unwrap()
    }

    fn objects(&self, settings: &[&str]) -> Vec<Value> {
        let all: Vec<Value> = serde_saphyr::from_multiple(&self.rendered(settings)).unwrap();
        all.into_iter().filter(|o| !o.is_null()).collect()
    }
}

fn of<'o>(objects: &'o [Value], kind: &str) -> Vec<&'o Value> {
    objects.iter().filter(|o| o["kind"] == kind).collect()
}

#[test]
fn the_manifests_are_what_the_charts_render() {
    for chart in [CONTROL_PLANE, GATEWAY] {
        let (folder, manifests) = (chart.folder, chart.manifests);
        let text = format!(
            "# Rendered from {folder}: UPDATE=1 cargo test --test deploy. Make the namespace {} first.\n{}",
            chart.namespace,
            chart.rendered(&[])
        );
        let path = root().join(manifests);
        if is_to_write() {
            std::fs::write(&path, &text).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            there == text,
            "{manifests} is not what the chart renders: UPDATE=1 cargo test --test deploy"
        );
    }
}

#[test]
fn helm_finds_nothing_wrong() {
    for chart in [CONTROL_PLANE, GATEWAY] {
        helm(&["lint", "--strict", "--kube-version", "1.36.3", chart.folder]).unwrap();
    }
}

#[test]
fn a_revision_stands_beside_the_default_one() {
    let plain = CONTROL_PLANE.objects(&[]);
    let canary = CONTROL_PLANE.objects(&[
        "revision=canary",
        "revisionTags={prod}",
        "base.enableIstioConfigCRDs=false",
    ]);
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
        let objects = CONTROL_PLANE.objects(&settings);
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
    for object in CONTROL_PLANE.objects(&[]) {
        assert!(!object.to_string().contains("caBundle"), "{object}");
    }
}
