//! The volumes of a sidecar: its token, the roots, what it knows of its pod, and its own socket.

use serde_json::{Value, json};

use super::Injection;
use super::choices::Choices;
use super::envoy::ROOT_SECRET;
use super::marks::ROOTS;

/// As long as Istio asks; the kubelet renews the token when 80 % of it are over.
const TOKEN_SECONDS: u32 = 43_200;
/// In every namespace; the control plane keeps it right.
pub const ROOT_CONFIG_MAP: &str = "istio-ca-root-cert";

pub(super) fn volumes(choices: &Choices, injection: &Injection) -> Vec<Value> {
    let field = |path: &str, field: &str| json!({"path": path, "fieldRef": {"fieldPath": field}});
    let audience = &injection.values.global.sds.token.aud;
    let mut volumes = vec![
        // In memory: the admin socket alone is there.
        json!({"name": "istio-envoy", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}),
        json!({"name": "istio-podinfo", "downwardAPI": {"items": [
            field("labels", "metadata.labels"),
            field("annotations", "metadata.annotations"),
            field(ROOT_SECRET, &format!("metadata.annotations['{ROOTS}']")),
        ]}}),
        json!({"name": "istio-token", "projected": {"sources": [{"serviceAccountToken": {
            "path": "istio-token", "expirationSeconds": TOKEN_SECONDS, "audience": audience,
        }}]}}),
        json!({"name": "istiod-ca-cert", "configMap": {"name": ROOT_CONFIG_MAP}}),
    ];
    if let Some(name) = &choices.bootstrap_override {
        volumes.push(json!({"name": "custom-bootstrap-volume", "configMap": {"name": name}}));
    }
    volumes.extend(choices.volumes.iter().cloned());
    volumes
}
