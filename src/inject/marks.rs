//! Labels and annotations that an injected pod carries, for the mesh, for `istioctl` and for `kubectl`.

use serde_json::{Value, json};

use super::choices::Choices;
use super::envoy::control_plane;
use super::lists::Pod;
use super::{InjectError, Injection, Parts, child};
use crate::model::proxy::Role;
use crate::text::Str;

/// What was injected, as JSON. A pod that has it is not injected again.
pub(super) const STATUS: &str = "sidecar.istio.io/status";
/// Envoy's secret of the control plane's roots: the pod's own annotation is mounted as a file, so that it fits
/// the control plane by which the pod was injected.
pub(super) const ROOTS: &str = "fairlead.dev/control-plane-roots";

const NAME: &str = "service.istio.io/canonical-name";
const REVISION: &str = "service.istio.io/canonical-revision";
/// The longest value of a label.
const MAX_LABEL: usize = 63;

/// Pairs to add. A label that the pod has already is the pod's.
pub(super) struct Marks {
    labels: Vec<(&'static str, Str)>,
    annotations: Vec<(Str, Str)>,
}

impl Marks {
    pub(super) fn of(
        pod: &Pod<'_>,
        choices: &Choices,
        injection: &Injection,
        parts: &Parts,
    ) -> Result<Self, InjectError> {
        let revision = match injection.revision.as_str() {
            "" => Str::new_static("default"),
            _ => injection.revision.clone(),
        };
        let roots = control_plane(choices, injection)?.root_secret().to_string();
        let mut annotations = vec![
            (Str::new_static("istio.io/rev"), revision.clone()),
            (Str::new_static(ROOTS), Str::new(roots)),
            (
                Str::new_static(STATUS),
                Str::new(status(parts, &revision).to_string()),
            ),
        ];
        if let Some(first) = pod.containers.first() {
            for tool in ["default-container", "default-logs-container"] {
                let key = Str::new(format!("kubectl.kubernetes.io/{tool}"));
                if pod.annotation(&key).is_none() {
                    annotations.push((key, Str::new(first.name)));
                }
            }
        }
        let usual = injection.injector.injected_annotations.iter();
        annotations.extend(usual.map(|(k, v)| (k.clone(), v.clone())));
        let mut labels = vec![
            (NAME, canonical_name(pod)),
            (REVISION, canonical_revision(pod)),
        ];
        match choices.role {
            Role::Sidecar => labels.push(("security.istio.io/tlsMode", Str::new_static("istio"))),
            // What it takes is its Gateways' to say, port by port.
            Role::Router => {}
        }
        Ok(Self {
            labels,
            annotations,
        })
    }

    pub(super) fn put_into(self, pod: &mut Value) {
        child(pod, "metadata");
        let labels = child(&mut pod["metadata"], "labels");
        for (key, value) in self.labels {
            labels.entry(key).or_insert_with(|| json!(value));
        }
        let annotations = child(&mut pod["metadata"], "annotations");
        for (key, value) in self.annotations {
            annotations.insert(key.to_string(), json!(value));
        }
    }
}

/// The name under which metrics and traces group a workload.
pub(super) fn canonical_name(pod: &Pod<'_>) -> Str {
    let labels = [NAME, "app.kubernetes.io/name", "app"];
    let said = labels.iter().find_map(|key| pod.labels.get(key));
    let name: String = said
        .unwrap_or(&pod.workload)
        .chars()
        .take(MAX_LABEL)
        .collect();
    // No label ends with a dash or a dot, as a name that was cut may.
    Str::new(name.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()))
}

fn canonical_revision(pod: &Pod<'_>) -> Str {
    let labels = [REVISION, "app.kubernetes.io/version", "version"];
    let said = labels.iter().find_map(|key| pod.labels.get(key));
    said.cloned().unwrap_or(Str::new_static("latest"))
}

fn status(parts: &Parts, revision: &str) -> Value {
    let name = |v: &Value| v["name"].clone();
    let sidecar = parts.proxy["restartPolicy"] == "Always";
    let proxy = [name(&parts.proxy)];
    let mut init: Vec<Value> = parts.capture.iter().map(name).collect();
    let mut containers = Vec::new();
    match sidecar {
        true => init.extend(proxy),
        false => containers.extend(proxy),
    }
    json!({
        "initContainers": init,
        "containers": containers,
        "volumes": parts.volumes.iter().map(name).collect::<Vec<_>>(),
        "imagePullSecrets": parts.pull_secrets,
        "revision": revision,
    })
}
