//! A pod in, the same pod with its proxy out: a sidecar, or the Envoy that a gateway's pod asks for.
//!
//! Pure: what the API server is told, and by whom, is in `admission`. Pods are JSON here, not Kubernetes' types: a
//! field that this program does not know stays as it is.
//!
//! Behaviour is Istio's (<https://istio.io/latest/docs/setup/additional-setup/sidecar-injection/>) with one
//! difference: the proxy is a stock Envoy, started by an inline bootstrap, with no agent beside it.

mod build;
mod capture;
mod choices;
mod envoy;
mod known;
mod lists;
mod manifest;
mod marks;
mod merge;
mod metrics;
mod overrides;
mod probes;
mod proxy;
mod selection;
mod sysctl;
mod values;
mod volumes;

use serde_json::{Map, Value};

use crate::config::workload_proxy::Proxies;
use crate::model::proxy::Role;
use crate::text::Str;

pub use self::known::{ANNOTATIONS, Standing};
pub use self::manifest::{inject_manifest, pod_template};
pub use self::selection::Skipped;
pub use self::values::{Injector, Values, ValuesError};

/// What decides how pods are injected, besides themselves.
#[derive(Clone, Debug, Default)]
pub struct Injection {
    /// The two keys of the ConfigMap `istio-sidecar-injector`.
    pub injector: Injector,
    pub values: Values,
    pub proxies: Proxies,
    /// The control plane's revision, as in `istio.io/rev`.
    pub revision: Str,
}

/// One pod that is about to be made.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub pod: &'a Value,
    /// Where it will be: the pod itself need not say.
    pub namespace: &'a str,
    /// What GET of `/drain` takes; a new one for each pod.
    pub drain_secret: &'a str,
}

/// What became of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Skipped(Skipped),
    Injected(Value),
}

/// Why a pod that wants a proxy cannot have one; the pod is refused, as it would be without protection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    #[error("annotation {key}: `{value}`: {why}")]
    Annotation { key: Str, value: Str, why: String },
    #[error("{field}: {why}")]
    Pod { field: String, why: String },
    #[error("template `{0}` is not among the injector's templates")]
    Template(Str),
    #[error("injection values: {0}")]
    Values(String),
}

impl InjectError {
    fn annotation(key: &'static str, value: &str, why: impl Into<String>) -> Self {
        Self::Annotation {
            key: Str::new_static(key),
            // A message of a page helps nobody.
            value: value.chars().take(200).collect(),
            why: why.into(),
        }
    }

    fn pod(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Pod {
            field: field.into(),
            why: why.into(),
        }
    }
}

/// What of a pod's annotations has no effect, each with the reason.
pub fn without_effect(request: Request<'_>) -> Vec<String> {
    let pod = lists::Pod::read(request.pod, request.namespace);
    pod.map_or(Vec::new(), |pod| known::without_effect(&pod))
}

/// Decides and, if the pod is to have a proxy, gives it one.
pub fn inject(request: Request<'_>, injection: &Injection) -> Result<Outcome, InjectError> {
    let pod = lists::Pod::read(request.pod, request.namespace)?;
    if let Some(reason) = selection::skip(&pod, injection) {
        return Ok(Outcome::Skipped(reason));
    }
    known::refuse(&pod)?;
    let choices = choices::Choices::of(&pod, injection)?;
    let (pod_value, given) = overrides::take(request.pod)?;
    let pod = lists::Pod::read(&pod_value, request.namespace)?;
    if choices.form == choices::Form::Native && pod.containers.is_empty() {
        let why = "none but the proxy; a gateway says `inject.istio.io/templates: gateway`";
        return Err(InjectError::pod("spec.containers", why));
    }
    let rewritten = probes::rewrite(&pod_value, &choices)?;
    let scraped = metrics::Scraped::of(&pod, &choices, injection)?;
    let parts = Parts {
        capture: capture::container(&choices, injection)?,
        proxy: proxy::container(
            &pod,
            &choices,
            injection,
            (&rewritten.probes, &scraped),
            request.drain_secret,
        )?,
        volumes: volumes::volumes(&choices, injection),
        pull_secrets: injection.values.global.image_pull_secrets.clone(),
    };
    let marked = marks::Marks::of(&pod, &choices, injection, &parts)?;
    let mut done = parts.put_into(rewritten.pod, &choices);
    marked.put_into(&mut done);
    scraped.put_into(&mut done);
    for template in choices.overlays(injection)? {
        merge::merge(&mut done, template);
    }
    overrides::give_back(&mut done, &given);
    Ok(Outcome::Injected(done))
}

/// What a pod gets.
struct Parts {
    /// Absent where the pod's network is captured by others, or not at all.
    capture: Option<Value>,
    proxy: Value,
    volumes: Vec<Value>,
    pull_secrets: Vec<Str>,
}

/// The names of what a pod gets, as in Istio.
const PROXY: &str = "istio-proxy";
const INIT: &str = "istio-init";
const VALIDATION: &str = "istio-validation";

impl Parts {
    fn put_into(self, mut pod: Value, choices: &choices::Choices) -> Value {
        let spec = child(&mut pod, "spec");
        match choices.form {
            // Before the pod's own init containers: those may use the mesh.
            choices::Form::Native => {
                let ours = self.capture.into_iter().chain([self.proxy]);
                array(spec, "initContainers").splice(0..0, ours);
            }
            // Behind them: as long as they run, nobody is there to take what is captured.
            choices::Form::Container => {
                let containers = array(spec, "containers");
                match choices.hold_application {
                    true => containers.insert(0, self.proxy),
                    false => containers.push(self.proxy),
                }
                if let Some(capture) = self.capture {
                    array(spec, "initContainers").push(capture);
                }
            }
        }
        if choices.role == Role::Router {
            sysctl::open_low_ports(spec);
        }
        array(spec, "volumes").splice(0..0, self.volumes);
        if !self.pull_secrets.is_empty() {
            let secrets = array(spec, "imagePullSecrets");
            for name in self.pull_secrets {
                let secret = serde_json::json!({"name": name});
                if !secrets.contains(&secret) {
                    secrets.push(secret);
                }
            }
        }
        pod
    }
}

/// A chart's `{}` stands for nothing.
fn says_something(value: &Value) -> bool {
    value.as_object().is_some_and(|fields| !fields.is_empty())
}

/// The object under a key, made if there is none.
fn child<'v>(value: &'v mut Value, key: &str) -> &'v mut Map<String, Value> {
    let object = as_object(value);
    as_object(object.entry(key).or_insert(Value::Null))
}

fn as_object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(object) => object,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            unreachable!("made an object above")
        }
    }
}

/// The list under a key, made if there is none.
fn array<'v>(object: &'v mut Map<String, Value>, key: &str) -> &'v mut Vec<Value> {
    let list = object.entry(key).or_insert(Value::Null);
    if !list.is_array() {
        *list = Value::Array(Vec::new());
    }
    match list {
        Value::Array(list) => list,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            unreachable!("made a list above")
        }
    }
}

#[cfg(test)]
mod tests;
