//! A pod as injection reads it: names, labels, annotations, its containers' lists.

use serde_json::Value;

use super::InjectError;
use crate::config::meta::Labels;
use crate::text::Str;

/// What is read of a pod, whatever else it has.
#[derive(Clone, Debug)]
pub(super) struct Pod<'a> {
    pub(super) namespace: &'a str,
    pub(super) labels: Labels,
    pub(super) annotations: Labels,
    pub(super) host_network: bool,
    /// The name of what makes it, as far as the pod tells.
    pub(super) workload: Str,
    pub(super) containers: Vec<Container<'a>>,
    /// Of these, those with `restartPolicy: Always` are sidecars.
    pub(super) init_containers: Vec<Container<'a>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Container<'a> {
    pub(super) name: &'a str,
    pub(super) value: &'a Value,
}

/// A pod with more containers is none that Kubernetes runs.
const MAX_CONTAINERS: usize = 256;

impl<'a> Pod<'a> {
    pub(super) fn read(pod: &'a Value, namespace: &'a str) -> Result<Self, InjectError> {
        let (meta, spec) = (&pod["metadata"], &pod["spec"]);
        if !spec.is_object() {
            return Err(InjectError::pod("spec", "a pod has one"));
        }
        let labels = texts(&meta["labels"], "metadata.labels")?;
        let own = meta["namespace"].as_str().filter(|name| !name.is_empty());
        Ok(Self {
            namespace: own.unwrap_or(namespace),
            workload: workload(meta, &labels),
            labels,
            annotations: texts(&meta["annotations"], "metadata.annotations")?,
            host_network: spec["hostNetwork"].as_bool().unwrap_or(false),
            containers: containers(spec, "containers")?,
            init_containers: containers(spec, "initContainers")?,
        })
    }

    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(Str::as_str)
    }

    /// Whose probes the kubelet runs: not those of containers that end before the others start.
    pub(super) fn lasting(&self) -> impl Iterator<Item = &Container<'a>> {
        let sidecars = self.init_containers.iter().filter(|c| c.is_sidecar());
        self.containers.iter().chain(sidecars)
    }
}

impl Container<'_> {
    pub(super) fn is_sidecar(&self) -> bool {
        self.value["restartPolicy"] == "Always"
    }
}

fn texts(value: &Value, field: &str) -> Result<Labels, InjectError> {
    if value.is_null() {
        return Ok(Labels::new());
    }
    serde_json::from_value(value.clone()).map_err(|e| InjectError::pod(field, e.to_string()))
}

fn containers<'a>(spec: &'a Value, key: &str) -> Result<Vec<Container<'a>>, InjectError> {
    let Some(list) = spec[key].as_array() else {
        return Ok(Vec::new());
    };
    if list.len() > MAX_CONTAINERS {
        return Err(InjectError::pod(
            format!("spec.{key}"),
            format!(
                "{} containers; at most {MAX_CONTAINERS} are taken",
                list.len()
            ),
        ));
    }
    let named = |(i, value): (usize, &'a Value)| {
        let missing = || InjectError::pod(format!("spec.{key}[{i}].name"), "it is missing");
        let name = value["name"].as_str().ok_or_else(missing)?;
        Ok(Container { name, value })
    };
    list.iter().enumerate().map(named).collect()
}

/// A CronJob's name: its Jobs have the minute of their run behind it.
fn without_minute(name: &str) -> Option<&str> {
    let (bare, minute) = name.rsplit_once('-')?;
    let digits = minute.bytes().all(|b| b.is_ascii_digit());
    (digits && (8..=10).contains(&minute.len())).then_some(bare)
}

/// A Deployment's name where the pod is of its ReplicaSet, the owner's or the pod's own elsewhere.
fn workload(meta: &Value, labels: &Labels) -> Str {
    let owners = meta["ownerReferences"].as_array();
    let owner = owners.and_then(|all| all.iter().find(|o| o["controller"] == true));
    let generated = meta["generateName"]
        .as_str()
        .map(|n| n.trim_end_matches('-'));
    let own = meta["name"].as_str().or(generated).unwrap_or_default();
    let name = owner.and_then(|o| o["name"].as_str()).unwrap_or(own);
    let hash = labels.get("pod-template-hash");
    let bare = hash.and_then(|h| name.strip_suffix(h.as_str())?.strip_suffix('-'));
    let of_job = owner
        .filter(|o| o["kind"] == "Job")
        .and_then(|_| without_minute(name));
    Str::new(bare.or(of_job).unwrap_or(name))
}
