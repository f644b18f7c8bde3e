//! Fields that the type of a kind does not have: MeshConfig's that are not in effect yet, Kubernetes' own, and nobody's.
//!
//! A field of MeshConfig that comes into effect is added to its struct and taken from its table here. Of Istio's other
//! kinds `config::api` has every field.

use super::kubernetes;
use super::lines::camel;
use crate::config::Kind;

/// What a field that the spec's type does not have is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Istio's; it and all below it have no effect yet.
    NotYet,
    /// Istio's once; it has no effect there either.
    Retired,
    /// Nobody's.
    Unknown,
    /// Of a Kubernetes kind, of which only some fields are read.
    Dropped,
    /// Of a Kubernetes kind, and not one of the fields known to be there.
    Foreign,
}

/// `path` starts at the object, such as `spec.http[0].fault`.
pub(super) fn standing(kind: Kind, path: &str) -> Standing {
    let bare = without_indexes(path);
    if !kind.is_strict() {
        return if kubernetes::lacks(kind, &bare) {
            Standing::Foreign
        } else {
            Standing::Dropped
        };
    }
    let bare = camel(&bare).unwrap_or(bare);
    let field = bare.strip_prefix("spec.").unwrap_or(&bare);
    if table(kind).iter().any(|row| covers(row, field)) {
        Standing::NotYet
    } else if retired(kind).iter().any(|row| covers(row, field)) {
        Standing::Retired
    } else {
        Standing::Unknown
    }
}

/// A row covers itself and what is below it; `*.` at its start stands for any parents.
fn covers(row: &str, field: &str) -> bool {
    let below = |rest: &str| rest.is_empty() || rest.starts_with('.');
    match row.strip_prefix("*.") {
        None => field.strip_prefix(row).is_some_and(below),
        Some(tail) => field.match_indices(tail).any(|(at, _)| {
            (at == 0 || field[..at].ends_with('.')) && below(&field[at + tail.len()..])
        }),
    }
}

fn without_indexes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((head, tail)) = rest.split_once('[') {
        out.push_str(head);
        let (inside, after) = tail.split_once(']').unwrap_or((tail, ""));
        if !inside.bytes().all(|b| b.is_ascii_digit()) {
            out.push('.');
            out.push_str(inside);
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

fn table(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Namespace
        | Kind::Node
        | Kind::Service
        | Kind::EndpointSlice
        | Kind::Pod
        | Kind::WorkloadEntry
        | Kind::WorkloadGroup
        | Kind::ServiceEntry
        | Kind::VirtualService
        | Kind::DestinationRule
        | Kind::Sidecar
        | Kind::Gateway
        | Kind::ProxyConfig
        | Kind::TrafficExtension
        | Kind::Ingress
        | Kind::IngressClass
        | Kind::EnvoyFilter
        | Kind::Secret
        | Kind::PeerAuthentication => &[],
        Kind::MeshConfig => MESH_CONFIG,
    }
}

/// Whether a field of Istio's that the type does not have has no effect in Istio either.
pub(super) fn is_retired(kind: Kind, path: &str) -> bool {
    let bare = without_indexes(path);
    let bare = camel(&bare).unwrap_or(bare);
    let field = bare.strip_prefix("spec.").unwrap_or(&bare);
    retired(kind).iter().any(|row| covers(row, field))
}

fn retired(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Namespace
        | Kind::Node
        | Kind::Service
        | Kind::EndpointSlice
        | Kind::Pod
        | Kind::WorkloadEntry
        | Kind::WorkloadGroup
        | Kind::ServiceEntry
        | Kind::PeerAuthentication
        | Kind::ProxyConfig
        | Kind::TrafficExtension
        | Kind::Ingress
        | Kind::IngressClass
        | Kind::EnvoyFilter
        | Kind::Secret => &[],
        Kind::VirtualService => &[
            "http.websocketUpgrade",
            "http.fault.abort.http2Error",
            "http.fault.delay.exponentialDelay",
            "tcp.match.sourceSubnet",
        ],
        Kind::DestinationRule => &["*.outlierDetection.consecutiveErrors"],
        Kind::Sidecar => &["ingress.port.targetPort", "egress.port.targetPort"],
        Kind::Gateway => &["servers.defaultEndpoint", "servers.port.targetPort"],
        Kind::MeshConfig => RETIRED_MESH_CONFIG,
    }
}

const MESH_CONFIG: &[&str] = &[
    "accessLogEncoding",
    "ca",
    "caCertificates",
    "certificates",
    "configSources",
    "defaultConfig.binaryPath",
    "defaultConfig.caCertificatesPem",
    "defaultConfig.configPath",
    "defaultConfig.connectionSettings",
    "defaultConfig.controlPlaneAuthPolicy",
    "defaultConfig.customConfigFile",
    "defaultConfig.envoyAccessLogService",
    "defaultConfig.envoyMetricsService",
    "defaultConfig.extraStatTags",
    "defaultConfig.fileFlushInterval",
    "defaultConfig.fileFlushMinSizeKb",
    "defaultConfig.meshId",
    "defaultConfig.privateKeyProvider",
    "defaultConfig.proxyBootstrapTemplatePath",
    "defaultConfig.proxyHeaders",
    "defaultConfig.readinessProbe",
    "defaultConfig.runtimeValues",
    "defaultConfig.statNameLength",
    "defaultConfig.statsCompression",
    "defaultConfig.statsdUdpAddress",
    "defaultConfig.tracing",
    "defaultConfig.tracingServiceName",
    "defaultInboundHttpRetryPolicy",
    "defaultProviders",
    "defaultTrafficPolicy",
    "disableEnvoyListenerLog",
    "discoverySelectors",
    "dnsRefreshRate",
    "enableEnvoyAccessLogService",
    "enablePrometheusMerge",
    "enableTracing",
    "extensionProviders",
    "h2UpgradePolicy",
    "hboneIdleTimeout",
    "inboundClusterStatName",
    "inboundTrafficPolicy",
    "meshMTLS",
    "outboundClusterStatName",
    "outboundTrafficPolicy.mode",
    "outboundTrafficPolicy.tls",
    "pathNormalization",
    "proxyHttpPort",
    "proxyInboundListenPort",
    "proxyListenPort",
    "serviceEntryVisibility",
    "serviceScopeConfigs",
    "serviceSettings",
    "tcpKeepalive",
    "thriftConfig",
    "tlsDefaults",
    "verifyCertificateAtClient",
    "zoneAwareLbSetting",
];

const RETIRED_MESH_CONFIG: &[&str] = &[
    "authPolicy",
    "defaultConfig.availabilityZone",
    "defaultConfig.connectTimeout",
    "defaultConfig.discoveryRefreshDelay",
    "defaultConfig.envoyMetricsServiceAddress",
    "defaultConfig.parentShutdownDuration",
    "defaultConfig.sds",
    "defaultConfig.zipkinAddress",
    "disableMixerHttpReports",
    "disablePolicyChecks",
    "disableReportBatch",
    "enableClientSidePolicyCheck",
    "enableSdsTokenMount",
    "mixerAddress",
    "mixerCheckServer",
    "mixerReportServer",
    "policyCheckFailOpen",
    "rdsRefreshDelay",
    "reportBatchMaxEntries",
    "reportBatchMaxTime",
    "sdsRefreshDelay",
    "sdsUdsPath",
    "sdsUseK8sSaJwt",
    "sidecarToTelemetrySessionAffinity",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_istios_is_not_yet_and_a_typo_is_unknown() {
        let of = |path| standing(Kind::MeshConfig, path);
        assert_eq!(of("extensionProviders[0].name"), Standing::NotYet);
        assert_eq!(of("path_normalization"), Standing::NotYet);
        assert_eq!(of("defaultConfig.tracing"), Standing::NotYet);
        assert_eq!(of("defaultConfig.tracin"), Standing::Unknown);
        assert_eq!(of("trustDomian"), Standing::Unknown);
    }

    #[test]
    fn fields_of_kubernetes_kinds_are_dropped_and_misspelt_ones_told() {
        assert_eq!(
            standing(Kind::Service, "spec.sessionAffinity"),
            Standing::Dropped
        );
        let misspelt = standing(Kind::Service, "spec.ports[0].targetport");
        assert_eq!(misspelt, Standing::Foreign);
    }
}
