//! The fields that Kubernetes' own kinds have, at the places where some are read. The rest is not ours.

use crate::config::Kind;

/// Whether Kubernetes has no such field; `bare` is a path without indexes. A newer Kubernetes may.
pub(super) fn lacks(kind: Kind, bare: &str) -> bool {
    let (parent, field) = bare.rsplit_once('.').unwrap_or(("", bare));
    places(kind)
        .iter()
        .find(|(place, _)| *place == parent)
        .is_some_and(|(_, fields)| !fields.contains(&field))
}

type Place = (&'static str, &'static [&'static str]);

fn places(kind: Kind) -> &'static [Place] {
    match kind {
        Kind::Service => SERVICE,
        Kind::EndpointSlice => ENDPOINT_SLICE,
        Kind::Pod => POD,
        Kind::Ingress => INGRESS,
        Kind::IngressClass => INGRESS_CLASS,
        Kind::Namespace
        | Kind::Node
        | Kind::WorkloadEntry
        | Kind::WorkloadGroup
        | Kind::ServiceEntry
        | Kind::VirtualService
        | Kind::DestinationRule
        | Kind::PeerAuthentication
        | Kind::Sidecar
        | Kind::Gateway
        | Kind::ProxyConfig
        | Kind::TrafficExtension
        | Kind::EnvoyFilter
        | Kind::Secret
        | Kind::MeshConfig => &[],
    }
}

const INGRESS: &[Place] = &[
    (
        "spec",
        &["defaultBackend", "ingressClassName", "rules", "tls"],
    ),
    ("spec.defaultBackend", BACKEND),
    ("spec.defaultBackend.service", &["name", "port"]),
    ("spec.defaultBackend.service.port", &["name", "number"]),
    ("spec.tls", &["hosts", "secretName"]),
    ("spec.rules", &["host", "http"]),
    ("spec.rules.http", &["paths"]),
    ("spec.rules.http.paths", &["backend", "path", "pathType"]),
    ("spec.rules.http.paths.backend", BACKEND),
    ("spec.rules.http.paths.backend.service", &["name", "port"]),
    (
        "spec.rules.http.paths.backend.service.port",
        &["name", "number"],
    ),
];

const BACKEND: &[&str] = &["resource", "service"];

const INGRESS_CLASS: &[Place] = &[("spec", &["controller", "parameters"])];

const SERVICE: &[Place] = &[
    (
        "spec",
        &[
            "allocateLoadBalancerNodePorts",
            "clusterIP",
            "clusterIPs",
            "externalIPs",
            "externalName",
            "externalTrafficPolicy",
            "healthCheckNodePort",
            "internalTrafficPolicy",
            "ipFamilies",
            "ipFamilyPolicy",
            "loadBalancerClass",
            "loadBalancerIP",
            "loadBalancerSourceRanges",
            "ports",
            "publishNotReadyAddresses",
            "selector",
            "sessionAffinity",
            "sessionAffinityConfig",
            "trafficDistribution",
            "type",
        ],
    ),
    (
        "spec.ports",
        &[
            "appProtocol",
            "name",
            "nodePort",
            "port",
            "protocol",
            "targetPort",
        ],
    ),
];

const ENDPOINT_SLICE: &[Place] = &[
    (
        "",
        &[
            "addressType",
            "apiVersion",
            "endpoints",
            "kind",
            "metadata",
            "ports",
        ],
    ),
    (
        "endpoints",
        &[
            "addresses",
            "conditions",
            "deprecatedTopology",
            "hints",
            "hostname",
            "nodeName",
            "targetRef",
            "zone",
        ],
    ),
    ("endpoints.conditions", &["ready", "serving", "terminating"]),
    ("ports", &["appProtocol", "name", "port", "protocol"]),
];

const CONTAINER: &[&str] = &[
    "args",
    "command",
    "env",
    "envFrom",
    "image",
    "imagePullPolicy",
    "lifecycle",
    "livenessProbe",
    "name",
    "ports",
    "readinessProbe",
    "resizePolicy",
    "resources",
    "restartPolicy",
    "restartPolicyRules",
    "securityContext",
    "startupProbe",
    "stdin",
    "stdinOnce",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "tty",
    "volumeDevices",
    "volumeMounts",
    "workingDir",
];

const CONTAINER_PORT: &[&str] = &["containerPort", "hostIP", "hostPort", "name", "protocol"];

const POD: &[Place] = &[
    (
        "spec",
        &[
            "activeDeadlineSeconds",
            "affinity",
            "automountServiceAccountToken",
            "containers",
            "dnsConfig",
            "dnsPolicy",
            "enableServiceLinks",
            "ephemeralContainers",
            "hostAliases",
            "hostIPC",
            "hostNetwork",
            "hostPID",
            "hostUsers",
            "hostname",
            "hostnameOverride",
            "imagePullSecrets",
            "initContainers",
            "nodeName",
            "nodeSelector",
            "os",
            "overhead",
            "preemptionPolicy",
            "priority",
            "priorityClassName",
            "readinessGates",
            "resourceClaims",
            "resources",
            "restartPolicy",
            "runtimeClassName",
            "schedulerName",
            "schedulingGates",
            "schedulingGroup",
            "securityContext",
            "serviceAccount",
            "serviceAccountName",
            "setHostnameAsFQDN",
            "shareProcessNamespace",
            "subdomain",
            "terminationGracePeriodSeconds",
            "tolerations",
            "topologySpreadConstraints",
            "volumes",
            "workloadRef",
        ],
    ),
    ("spec.containers", CONTAINER),
    ("spec.initContainers", CONTAINER),
    ("spec.containers.ports", CONTAINER_PORT),
    ("spec.initContainers.ports", CONTAINER_PORT),
];
