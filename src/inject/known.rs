//! Istio's annotations of pods: what is done about each. What has no effect is told to whoever makes the pod.

use super::InjectError;
use super::lists::Pod;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Honoured,
    /// Why it is not.
    NoEffect(&'static str),
    /// A pod that has it is refused: without it, it would not be what it seems.
    Refused(&'static str),
}

use Standing::{Honoured, NoEffect, Refused};

const NO_AGENT: &str = "it is of Istio's agent, and there is none";
const STATISTICS: &str =
    "statistics are chosen by proxyStatsMatcher.inclusionPrefixes of proxy.istio.io/config alone";
const BOOTSTRAP: &str =
    "Envoy's bootstrap is made without it; see sidecar.istio.io/bootstrapOverride";
const BRIDGES: &str = "traffic of virtual machines behind a bridge of the pod is not captured";

/// In the order of their names.
pub const ANNOTATIONS: &[(&str, Standing)] = &[
    (
        "ambient.istio.io/redirection",
        NoEffect("there is no ambient mode"),
    ),
    ("inject.istio.io/templates", Honoured),
    ("istio.io/reroute-virtual-interfaces", Refused(BRIDGES)),
    ("istio.io/rev", Honoured),
    (
        "networking.istio.io/tunnel",
        NoEffect("sidecars do not speak HBONE"),
    ),
    ("prometheus.istio.io/merge-metrics", Honoured),
    (
        "prometheus.istio.io/scrape-targets",
        NoEffect("one page of the application's is merged"),
    ),
    (
        "prometheus.istio.io/secure-port",
        NoEffect("the merged page is plaintext"),
    ),
    ("proxy.istio.io/config", Honoured),
    ("proxy.istio.io/overrides", Honoured),
    (
        "readiness.status.sidecar.istio.io/applicationPorts",
        NoEffect(NO_AGENT),
    ),
    (
        "readiness.status.sidecar.istio.io/failureThreshold",
        Honoured,
    ),
    (
        "readiness.status.sidecar.istio.io/initialDelaySeconds",
        Honoured,
    ),
    ("readiness.status.sidecar.istio.io/periodSeconds", Honoured),
    ("sidecar.istio.io/agentLogLevel", NoEffect(NO_AGENT)),
    ("sidecar.istio.io/bootstrapOverride", Honoured),
    ("sidecar.istio.io/capNetBindService", Honoured),
    ("sidecar.istio.io/componentLogLevel", Honoured),
    (
        "sidecar.istio.io/controlPlaneAuthPolicy",
        NoEffect("the control plane is reached by TLS alone"),
    ),
    (
        "sidecar.istio.io/discoveryAddress",
        NoEffect("say discoveryAddress in proxy.istio.io/config"),
    ),
    ("sidecar.istio.io/enableCoreDump", NoEffect(BOOTSTRAP)),
    ("sidecar.istio.io/extraStatTags", NoEffect(STATISTICS)),
    ("sidecar.istio.io/inject", Honoured),
    ("sidecar.istio.io/interceptionMode", Honoured),
    ("sidecar.istio.io/logLevel", Honoured),
    ("sidecar.istio.io/nativeSidecar", Honoured),
    ("sidecar.istio.io/proxyCPU", Honoured),
    ("sidecar.istio.io/proxyCPULimit", Honoured),
    ("sidecar.istio.io/proxyImage", Honoured),
    ("sidecar.istio.io/proxyImageType", Honoured),
    ("sidecar.istio.io/proxyMemory", Honoured),
    ("sidecar.istio.io/proxyMemoryLimit", Honoured),
    ("sidecar.istio.io/rewriteAppHTTPProbers", Honoured),
    ("sidecar.istio.io/statsCompression", NoEffect(STATISTICS)),
    (
        "sidecar.istio.io/statsHistogramBuckets",
        NoEffect(STATISTICS),
    ),
    (
        "sidecar.istio.io/statsInclusionPrefixes",
        NoEffect(STATISTICS),
    ),
    (
        "sidecar.istio.io/statsInclusionRegexps",
        NoEffect(STATISTICS),
    ),
    (
        "sidecar.istio.io/statsInclusionSuffixes",
        NoEffect(STATISTICS),
    ),
    ("sidecar.istio.io/status", Honoured),
    ("sidecar.istio.io/userVolume", Honoured),
    ("sidecar.istio.io/userVolumeMount", Honoured),
    ("status.sidecar.istio.io/port", Honoured),
    ("traffic.sidecar.istio.io/excludeInboundPorts", Honoured),
    ("traffic.sidecar.istio.io/excludeInterfaces", Honoured),
    ("traffic.sidecar.istio.io/excludeOutboundIPRanges", Honoured),
    ("traffic.sidecar.istio.io/excludeOutboundPorts", Honoured),
    ("traffic.sidecar.istio.io/includeInboundPorts", Honoured),
    ("traffic.sidecar.istio.io/includeOutboundIPRanges", Honoured),
    ("traffic.sidecar.istio.io/includeOutboundPorts", Honoured),
    (
        "traffic.sidecar.istio.io/kubevirtInterfaces",
        Refused(BRIDGES),
    ),
];

fn of<'p>(pod: &'p Pod<'_>) -> impl Iterator<Item = (&'static str, &'p str, Standing)> {
    ANNOTATIONS.iter().filter_map(|(key, standing)| {
        let value = pod.annotation(key).filter(|value| !value.is_empty())?;
        Some((*key, value, *standing))
    })
}

pub(super) fn refuse(pod: &Pod<'_>) -> Result<(), InjectError> {
    let refused = of(pod).find_map(|(key, value, standing)| match standing {
        Refused(why) => Some(InjectError::annotation(key, value, why)),
        Honoured | NoEffect(_) => None,
    });
    refused.map_or(Ok(()), Err)
}

/// One line for each annotation of the pod that has no effect.
pub(super) fn without_effect(pod: &Pod<'_>) -> Vec<String> {
    let lines = of(pod).filter_map(|(key, _, standing)| match standing {
        NoEffect(why) => Some(format!("annotation {key} has no effect: {why}")),
        Honoured | Refused(_) => None,
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_list_is_ordered_and_names_each_once() {
        let names = ANNOTATIONS.iter().map(|(name, _)| name);
        assert!(names.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn what_has_no_effect_is_told_and_what_would_deceive_is_refused() {
        let pod = |key: &str| json!({"metadata": {"annotations": {key: "x"}}, "spec": {"containers": []}});
        for (key, standing) in ANNOTATIONS {
            let value = pod(key);
            let pod = Pod::read(&value, "shop").unwrap();
            let (told, refused) = (without_effect(&pod), refuse(&pod));
            assert_eq!(refused.is_err(), matches!(standing, Refused(_)), "{key}");
            assert_eq!(
                told.len(),
                usize::from(matches!(standing, NoEffect(_))),
                "{key}"
            );
        }
    }
}
