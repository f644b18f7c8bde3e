//! The kernel setting by which a gateway's Envoy binds ports under 1024 without a privilege.

use serde_json::{Map, Value, json};

use super::{array, as_object};

/// Of the pod's own network; among those that Kubernetes calls safe.
const LOWEST_PORT: &str = "net.ipv4.ip_unprivileged_port_start";

/// A setting that the pod has already is the pod's.
pub(super) fn open_low_ports(spec: &mut Map<String, Value>) {
    let context = as_object(spec.entry("securityContext").or_insert(Value::Null));
    let sysctls = array(context, "sysctls");
    if !sysctls.iter().any(|sysctl| sysctl["name"] == LOWEST_PORT) {
        sysctls.push(json!({"name": LOWEST_PORT, "value": "0"}));
    }
}
