//! Istio's fields that Fairlead reads over so far: a warning, where any other field is a fault.
//!
//! A field that comes into effect is added to its struct and taken from its table here.

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
        | Kind::Service
        | Kind::EndpointSlice
        | Kind::Pod
        | Kind::WorkloadEntry
        | Kind::PeerAuthentication => &[],
        Kind::VirtualService => VIRTUAL_SERVICE,
        Kind::DestinationRule => DESTINATION_RULE,
        Kind::Sidecar => SIDECAR,
        Kind::MeshConfig => MESH_CONFIG,
    }
}

fn retired(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Namespace
        | Kind::Service
        | Kind::EndpointSlice
        | Kind::Pod
        | Kind::WorkloadEntry
        | Kind::PeerAuthentication
        | Kind::DestinationRule
        | Kind::Sidecar => &[],
        Kind::VirtualService => &["http.websocketUpgrade"],
        Kind::MeshConfig => RETIRED_MESH_CONFIG,
    }
}

const VIRTUAL_SERVICE: &[&str] = &[
    "http.corsPolicy",
    "http.delegate",
    "http.directResponse",
    "http.fault",
    "http.headers",
    "http.match.statPrefix",
    "http.mirror",
    "http.mirrorPercent",
    "http.mirrorPercentage",
    "http.mirrors",
    "http.redirect",
    "http.rewrite",
    "http.route.headers",
    "tcp",
    "tls",
];

const DESTINATION_RULE: &[&str] = &[
    "*.loadBalancer.backendUtilization",
    "*.loadBalancer.consistentHash.httpCookie.attributes",
    "*.loadBalancer.localityLbSetting",
    "*.loadBalancer.warmup",
    "*.loadBalancer.warmupDurationSecs",
    "*.loadBalancer.zoneAwareLbSetting",
    "*.portLevelSettings.connectionPool",
    "*.portLevelSettings.outlierDetection",
    "*.tls.caCrl",
    "*.tls.credentialName",
    "*.trafficPolicy.connectionPool",
    "*.trafficPolicy.outlierDetection",
    "*.trafficPolicy.proxyProtocol",
    "*.trafficPolicy.retryBudget",
    "*.trafficPolicy.tunnel",
];

const SIDECAR: &[&str] = &[
    "inboundConnectionPool",
    "ingress.connectionPool",
    "ingress.tls",
    "outboundTrafficPolicy.egressProxy",
];

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
    "defaultConfig.gatewayTopology",
    "defaultConfig.image",
    "defaultConfig.meshId",
    "defaultConfig.privateKeyProvider",
    "defaultConfig.proxyBootstrapTemplatePath",
    "defaultConfig.proxyHeaders",
    "defaultConfig.readinessProbe",
    "defaultConfig.runtimeValues",
    "defaultConfig.statNameLength",
    "defaultConfig.statsCompression",
    "defaultConfig.statsdUdpAddress",
    "defaultConfig.terminationDrainDuration",
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
    "ingressClass",
    "ingressControllerMode",
    "ingressSelector",
    "ingressService",
    "localityLbSetting",
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
        let of = |path| standing(Kind::VirtualService, path);
        assert_eq!(of("spec.http[0].fault"), Standing::NotYet);
        assert_eq!(of("spec.http[3].route[1].headers"), Standing::NotYet);
        assert_eq!(of("spec.http[0].mirror_percent"), Standing::NotYet);
        assert_eq!(of("spec.http[0].timeuot"), Standing::Unknown);
        assert_eq!(of("spec.fault"), Standing::Unknown);
        assert_eq!(of("spec.http[0].faults"), Standing::Unknown);
    }

    #[test]
    fn a_policy_field_is_known_at_each_of_its_places_and_nowhere_else() {
        let of = |path| standing(Kind::DestinationRule, path);
        assert_eq!(of("spec.trafficPolicy.connectionPool"), Standing::NotYet);
        assert_eq!(
            of("spec.subsets[1].trafficPolicy.outlierDetection"),
            Standing::NotYet
        );
        assert_eq!(
            of("spec.trafficPolicy.portLevelSettings[0].loadBalancer.warmup"),
            Standing::NotYet
        );
        assert_eq!(of("spec.subsets[1].connectionPool"), Standing::Unknown);
        assert_eq!(
            of("spec.trafficPolicy.loadBalancer.warmups"),
            Standing::Unknown
        );
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
