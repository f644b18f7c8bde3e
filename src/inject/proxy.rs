//! The container `istio-proxy`: a stock Envoy.

use serde_json::{Value, json};

use super::choices::{Choices, Form, LowPorts};
use super::envoy::{
    INSTANCE_IP, INSTANCE_IPS, POD_INFO, POD_NAME, POD_NAMESPACE, PROMETHEUS_PORT, ROOTS, RUN,
    SERVICE_ACCOUNT, STATUS_PORT, TOKENS, bootstrap,
};
use super::lists::Pod;
use super::metrics::Scraped;
use super::{InjectError, Injection, PROXY, says_something};
use crate::bootstrap::{AppProbe, drain_authorization};
use crate::config::proxy_config::InterceptionMode;
use crate::model::proxy::Role;

/// Envoy's user and group: what they send is not captured.
pub(super) const USER: u32 = 1337;
/// How many threads Envoy works with: the processors that its container may use.
const CPU_LIMIT: &str = "ISTIO_CPU_LIMIT";
const OVERRIDE: &str = "/etc/istio/custom-bootstrap";

pub(super) fn container(
    pod: &Pod<'_>,
    choices: &Choices,
    injection: &Injection,
    pages: (&[AppProbe], &Scraped),
    drain_secret: &str,
) -> Result<Value, InjectError> {
    let values = &injection.values.global;
    let text = bootstrap(pod, choices, injection, pages, drain_secret)?;
    let mut container = json!({
        "name": PROXY,
        "image": choices.image,
        "args": args(choices, text),
        "env": env(choices),
        "ports": [
            // By the end of this name Istio's own scrape configuration finds proxies.
            {"name": "http-envoy-prom", "containerPort": PROMETHEUS_PORT, "protocol": "TCP"},
            {"name": "http-status", "containerPort": STATUS_PORT, "protocol": "TCP"},
        ],
        "lifecycle": lifecycle(drain_secret),
        "securityContext": security_context(choices, injection),
        "volumeMounts": mounts(choices),
    });
    if !choices.resources.is_null() {
        container["resources"] = choices.resources.clone();
    }
    if !values.image_pull_policy.is_empty() {
        container["imagePullPolicy"] = json!(values.image_pull_policy);
    }
    if says_something(&values.proxy.lifecycle) {
        container["lifecycle"] = values.proxy.lifecycle.clone();
    }
    if choices.form == Form::Native {
        container["restartPolicy"] = json!("Always");
    }
    // As in Istio: without a status port nothing says that a sidecar is ready, and nobody asks.
    if choices.status_port != 0 || choices.role == Role::Router {
        put_probes(&mut container, choices, injection);
    }
    Ok(container)
}

fn put_probes(container: &mut Value, choices: &Choices, injection: &Injection) {
    let ready = json!({"path": "/healthz/ready", "port": STATUS_PORT, "scheme": "HTTP"});
    let startup = &injection.values.global.proxy.startup_probe;
    // A sidecar that is an init container holds the others till it has started, so it says when that is.
    if startup.enabled || choices.form == Form::Native {
        container["startupProbe"] = json!({
            "httpGet": ready,
            "initialDelaySeconds": 0,
            "periodSeconds": 1,
            "timeoutSeconds": 3,
            "failureThreshold": startup.failure_threshold,
        });
    }
    let readiness = &choices.readiness;
    container["readinessProbe"] = json!({
        "httpGet": ready,
        "initialDelaySeconds": readiness.initial_delay,
        "periodSeconds": readiness.period,
        "timeoutSeconds": 3,
        "failureThreshold": readiness.failures,
    });
}

fn args(choices: &Choices, bootstrap: String) -> Vec<String> {
    let mut args = Vec::new();
    if choices.bootstrap_override.is_some() {
        // Beneath: what stands in both is ours.
        args.extend(["-c".to_owned(), format!("{OVERRIDE}/custom_bootstrap.json")]);
    }
    args.extend(["--config-yaml".to_owned(), bootstrap]);
    let drain = choices.drain_duration().as_secs().to_string();
    let concurrency = match choices.proxy.concurrency {
        None | Some(0) => format!("$({CPU_LIMIT})"),
        Some(threads) => threads.to_string(),
    };
    let log = [
        "--log-level",
        &choices.log_level,
        "--component-log-level",
        &choices.component_log_level,
    ];
    let rest = [
        "--disable-hot-restart",
        "--concurrency",
        &concurrency,
        "--drain-time-s",
        &drain,
        "--drain-strategy",
        "immediate",
    ];
    args.extend(rest.iter().chain(&log).map(|arg| (*arg).to_owned()));
    args
}

fn env(choices: &Choices) -> Vec<Value> {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let mut env = vec![
        field(POD_NAME, "metadata.name"),
        field(POD_NAMESPACE, "metadata.namespace"),
        field(INSTANCE_IP, "status.podIP"),
        field(INSTANCE_IPS, "status.podIPs"),
        field(SERVICE_ACCOUNT, "spec.serviceAccountName"),
        json!({"name": CPU_LIMIT, "valueFrom": {"resourceFieldRef": {
            "containerName": PROXY, "resource": "limits.cpu", "divisor": "1",
        }}}),
    ];
    let said = choices.proxy.proxy_metadata.iter();
    env.extend(said.map(|(name, value)| json!({"name": name, "value": value})));
    env
}

/// Draining begins with the pod's end: open connections are finished, new ones still answered. A sidecar that is an init
/// container goes on till the application has ended; another container is ended when its hook is over, and so Envoy
/// holds the answer.
fn lifecycle(drain_secret: &str) -> Value {
    json!({"preStop": {"httpGet": {
        "path": "/drain",
        "port": STATUS_PORT,
        "scheme": "HTTP",
        "httpHeaders": [{"name": "Authorization", "value": drain_authorization(drain_secret)}],
    }}})
}

fn security_context(choices: &Choices, injection: &Injection) -> Value {
    let proxy = &injection.values.global.proxy;
    let mut add = Vec::new();
    if choices.interception == InterceptionMode::Tproxy {
        add.push("NET_ADMIN");
    }
    if choices.low_ports == LowPorts::Bound {
        add.push("NET_BIND_SERVICE");
    }
    let mut capabilities = json!({"drop": ["ALL"]});
    if !add.is_empty() {
        capabilities["add"] = json!(add);
    }
    // Capabilities are of no use to a user other than root: neither the kubelet nor Envoy's image makes them ambient.
    let user = if add.is_empty() { USER } else { 0 };
    let mut context = json!({
        "allowPrivilegeEscalation": proxy.privileged,
        "capabilities": capabilities,
        "privileged": proxy.privileged,
        "readOnlyRootFilesystem": true,
        "runAsGroup": USER,
        "runAsNonRoot": user != 0,
        "runAsUser": user,
    });
    match choices.role {
        _ if says_something(&proxy.seccomp_profile) => {
            context["seccompProfile"] = proxy.seccomp_profile.clone();
        }
        // So that namespaces which Kubernetes keeps `restricted` let it in.
        Role::Router => context["seccompProfile"] = json!({"type": "RuntimeDefault"}),
        Role::Sidecar => {}
    }
    context
}

fn mounts(choices: &Choices) -> Vec<Value> {
    let read_only =
        |name: &str, path: &str| json!({"name": name, "mountPath": path, "readOnly": true});
    let mut mounts = vec![
        read_only("istio-token", TOKENS),
        // Whole volumes: a single file of one would never be renewed.
        read_only("istiod-ca-cert", ROOTS),
        read_only("istio-podinfo", POD_INFO),
        json!({"name": "istio-envoy", "mountPath": RUN}),
    ];
    if choices.bootstrap_override.is_some() {
        mounts.push(read_only("custom-bootstrap-volume", OVERRIDE));
    }
    mounts.extend(choices.volume_mounts.iter().cloned());
    mounts
}
