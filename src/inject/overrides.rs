//! A pod that says something of its sidecar itself: a container `istio-proxy` (or `istio-init`) of its own is
//! laid over ours, and kept in an annotation, so that it is found again in a pod that was injected.

use serde_json::{Value, json};

use super::merge::merge;
use super::{INIT, InjectError, PROXY, VALIDATION, child};

/// What the pod said, as JSON: `{"containers": […], "initContainers": […]}`.
pub(super) const OVERRIDES: &str = "proxy.istio.io/overrides";
/// The image that means "whatever is injected".
const AUTO: &str = "auto";
const LISTS: [&str; 2] = ["containers", "initContainers"];

/// Containers by which a pod changed ours.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Given {
    containers: Vec<Value>,
    init_containers: Vec<Value>,
}

/// The pod without containers of ours, and those.
pub(super) fn take(pod: &Value) -> Result<(Value, Given), InjectError> {
    let mut pod = pod.clone();
    let mut given = Given::default();
    let kept = pod["metadata"]["annotations"][OVERRIDES].as_str();
    if let Some(text) = kept {
        let wrong = |e: serde_json::Error| InjectError::annotation(OVERRIDES, text, e.to_string());
        let kept: Value = serde_json::from_str(text).map_err(wrong)?;
        let list = |key: &str| kept[key].as_array().cloned().unwrap_or_default();
        given.containers = list(LISTS[0]);
        given.init_containers = list(LISTS[1]);
    }
    for key in LISTS {
        let Some(list) = pod["spec"].get_mut(key).and_then(Value::as_array_mut) else {
            continue;
        };
        let (ours, others) = std::mem::take(list).into_iter().partition(is_ours);
        *list = others;
        match key {
            "containers" => given.containers.extend::<Vec<Value>>(ours),
            _ => given.init_containers.extend::<Vec<Value>>(ours),
        }
    }
    Ok((pod, given))
}

fn is_ours(container: &Value) -> bool {
    let name = container["name"].as_str().unwrap_or_default();
    [PROXY, INIT, VALIDATION].contains(&name)
}

/// Lays what the pod said over what it got, wherever that is now.
pub(super) fn give_back(pod: &mut Value, given: &Given) {
    if *given == Given::default() {
        return;
    }
    for container in given.containers.iter().chain(&given.init_containers) {
        let mut over = container.clone();
        if over["image"] == AUTO {
            over.as_object_mut().map(|fields| fields.remove("image"));
        }
        for key in LISTS {
            let list = pod["spec"].get_mut(key).and_then(Value::as_array_mut);
            let mut containers = list.into_iter().flatten();
            if let Some(ours) = containers.find(|c| c["name"] == over["name"]) {
                merge(ours, &over);
            }
        }
    }
    let kept = json!({"containers": given.containers, "initContainers": given.init_containers});
    child(pod, "metadata");
    child(&mut pod["metadata"], "annotations")
        .insert(OVERRIDES.to_owned(), kept.to_string().into());
}
