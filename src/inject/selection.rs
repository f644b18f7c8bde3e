//! Which pods get a sidecar: Istio's rules, in its order.
//!
//! Which pods the API server asks about at all is decided by the webhook's selectors, from the labels of namespace and pod.

use std::fmt;

use super::lists::Pod;
use super::values::{Injector, LabelSelector, Policy};
use super::{Injection, marks};
use crate::text::Str;

/// Why a pod stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// Its traffic is its node's.
    HostNetwork,
    /// A namespace of Kubernetes' own parts.
    Namespace(Str),
    /// It was injected before, as by `fairlead inject`.
    Already,
    /// By its label or annotation `sidecar.istio.io/inject`.
    Asked,
    Selector,
    Policy,
}

/// Namespaces that are never injected.
const IGNORED: &[&str] = &[
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "local-path-storage",
];
/// A pod's own word, as label or (older) annotation.
pub(super) const INJECT: &str = "sidecar.istio.io/inject";

/// None when the pod is to have a sidecar.
pub(super) fn skip(pod: &Pod<'_>, injection: &Injection) -> Option<Skipped> {
    if pod.host_network {
        return Some(Skipped::HostNetwork);
    }
    if IGNORED.contains(&pod.namespace) {
        return Some(Skipped::Namespace(Str::new(pod.namespace)));
    }
    if pod.annotation(marks::STATUS).is_some() {
        return Some(Skipped::Already);
    }
    let injector = &injection.injector;
    match (injector.policy, wish(pod, injector)) {
        (Policy::Enabled | Policy::Disabled, Some(Wish::No(reason))) => Some(reason),
        (Policy::Enabled | Policy::Disabled, Some(Wish::Yes)) | (Policy::Enabled, None) => None,
        (Policy::Disabled, None) => Some(Skipped::Policy),
    }
}

enum Wish {
    Yes,
    No(Skipped),
}

/// What the pod says, or else a selector; never before always.
fn wish(pod: &Pod<'_>, injector: &Injector) -> Option<Wish> {
    let said = pod.labels.get(INJECT).map(Str::as_str);
    let said = said.or_else(|| pod.annotation(INJECT)).unwrap_or_default();
    match said.to_lowercase().as_str() {
        "" => {}
        "y" | "yes" | "true" | "on" => return Some(Wish::Yes),
        _ => return Some(Wish::No(Skipped::Asked)),
    }
    let any = |selectors: &[LabelSelector]| selectors.iter().any(|s| s.matches(&pod.labels));
    if any(&injector.never_inject_selector) {
        return Some(Wish::No(Skipped::Selector));
    }
    any(&injector.always_inject_selector).then_some(Wish::Yes)
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostNetwork => f.write_str("it is on its node's network"),
            Self::Namespace(name) => write!(f, "namespace {name} is never injected"),
            Self::Already => write!(f, "it has been injected (annotation {})", marks::STATUS),
            Self::Asked => write!(f, "{INJECT} says no"),
            Self::Selector => f.write_str("a neverInjectSelector selects it"),
            Self::Policy => {
                f.write_str("the injector's policy is disabled, and nothing else says yes")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(meta: &Value) -> Value {
        json!({"metadata": meta, "spec": {"containers": [{"name": "app"}]}})
    }

    fn skipped(meta: &Value, injector: &str) -> Option<Skipped> {
        let injection = Injection {
            injector: Injector::parse(injector).unwrap(),
            ..Injection::default()
        };
        skip(&Pod::read(&pod(meta), "shop").unwrap(), &injection)
    }

    #[test]
    fn a_label_goes_before_an_annotation_and_both_before_the_policy() {
        let yes = json!({"labels": {INJECT: "true"}, "annotations": {INJECT: "false"}});
        assert_eq!(skipped(&yes, "policy: disabled"), None);
        let no = json!({"annotations": {INJECT: "False"}});
        assert_eq!(skipped(&no, ""), Some(Skipped::Asked));
        assert_eq!(skipped(&json!({}), ""), None);
        assert_eq!(
            skipped(&json!({}), "policy: disabled"),
            Some(Skipped::Policy)
        );
    }

    #[test]
    fn never_goes_before_always_and_the_pods_word_before_both() {
        let injector = "
policy: disabled
neverInjectSelector: [{matchExpressions: [{key: job, operator: Exists}]}]
alwaysInjectSelector: [{matchLabels: {team: a}}]
";
        let of = |labels: Value| skipped(&json!({"labels": labels}), injector);
        assert_eq!(of(json!({"team": "a"})), None);
        assert_eq!(
            of(json!({"team": "a", "job": "x"})),
            Some(Skipped::Selector)
        );
        assert_eq!(of(json!({"team": "a", "job": "x", INJECT: "yes"})), None);
        assert_eq!(of(json!({"team": "b"})), Some(Skipped::Policy));
    }

    #[test]
    fn pods_of_the_node_of_kubernetes_and_injected_ones_stay_as_they_are() {
        assert_eq!(
            skipped(&json!({"namespace": "kube-system"}), ""),
            Some(Skipped::Namespace("kube-system".into()))
        );
        let status = json!({"annotations": {marks::STATUS: "{}"}});
        assert_eq!(skipped(&status, ""), Some(Skipped::Already));
        let host = json!({"spec": {"hostNetwork": true, "containers": []}});
        let host = Pod::read(&host, "shop").unwrap();
        assert_eq!(
            skip(&host, &Injection::default()),
            Some(Skipped::HostNetwork)
        );
    }
}
