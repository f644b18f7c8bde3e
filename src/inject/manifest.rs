//! Manifests that make pods, injected where they stand: `fairlead inject`, as `istioctl kube-inject` does.

use serde_json::Value;

use super::{InjectError, Injection, Outcome, Request, child, inject};

/// Where a kind that makes pods keeps the pod, as a JSON pointer.
const TEMPLATES: &[(&str, &str)] = &[
    ("Pod", ""),
    ("Deployment", "/spec/template"),
    ("StatefulSet", "/spec/template"),
    ("DaemonSet", "/spec/template"),
    ("ReplicaSet", "/spec/template"),
    ("ReplicationController", "/spec/template"),
    ("Job", "/spec/template"),
    ("CronJob", "/spec/jobTemplate/spec/template"),
    ("DeploymentConfig", "/spec/template"),
    ("Rollout", "/spec/template"),
];

/// Where the pod of a manifest is, if it makes one.
pub fn pod_template(manifest: &Value) -> Option<&'static str> {
    let kind = manifest["kind"].as_str()?;
    let found = TEMPLATES.iter().find(|(name, _)| *name == kind);
    found.map(|(_, pointer)| *pointer)
}

/// The manifest with its pod injected; each item of a `List` by itself. None where nothing was to be done.
pub fn inject_manifest(
    manifest: &Value,
    injection: &Injection,
    drain_secret: &str,
) -> Result<Option<Value>, InjectError> {
    if let (Some("List"), Some(items)) = (manifest["kind"].as_str(), manifest["items"].as_array()) {
        let mut done = manifest.clone();
        let mut any = false;
        for (i, item) in items.iter().enumerate() {
            if let Some(injected) = inject_manifest(item, injection, drain_secret)? {
                done["items"][i] = injected;
                any = true;
            }
        }
        return Ok(any.then_some(done));
    }
    let Some(pointer) = pod_template(manifest) else {
        return Ok(None);
    };
    let Some(template) = manifest.pointer(pointer) else {
        return Ok(None);
    };
    // The name of what makes the pod is its workload's.
    let mut pod = template.clone();
    for (value, field) in [(&pod, pointer), (&pod["metadata"], "metadata")] {
        if !value.is_object() && !value.is_null() {
            return Err(InjectError::pod(field, "this is no object"));
        }
    }
    let named = pod["metadata"]["name"].is_string();
    if !named {
        child(&mut pod, "metadata").insert("name".to_owned(), manifest["metadata"]["name"].clone());
    }
    let namespace = manifest["metadata"]["namespace"].as_str();
    let request = Request {
        pod: &pod,
        namespace: namespace.unwrap_or("default"),
        drain_secret,
    };
    match inject(request, injection)? {
        Outcome::Skipped(_) => Ok(None),
        Outcome::Injected(mut injected) => {
            if !named {
                let meta = injected["metadata"].as_object_mut();
                meta.map(|fields| fields.remove("name"));
            }
            let mut done = manifest.clone();
            if let Some(place) = done.pointer_mut(pointer) {
                *place = injected;
            }
            Ok(Some(done))
        }
    }
}
