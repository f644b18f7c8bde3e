//! Which kinds are read, which wait for a later release, and which are none of our business.

use crate::config::Kind;

/// What to do with a document of some apiVersion and kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Read and acted on.
    Read(Kind),
    /// A kind that is read, in a version of its group that is not.
    OtherVersion(Kind),
    /// `ConfigMap`: the mesh's configuration when it has the right name.
    ConfigMap,
    /// Makes pods; looked at only to tell Services without endpoints.
    PodTemplate,
    /// Istio's or Gateway API's, without effect so far.
    NotYet,
    /// Kubernetes' own, without meaning to a mesh.
    Ignored,
    Unknown,
}

const ISTIO_NETWORKING: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const ISTIO_SECURITY: &[&str] = &["v1", "v1beta1"];

const NOT_YET: &[(&str, &[&str])] = &[
    (
        "security.istio.io",
        &["AuthorizationPolicy", "RequestAuthentication"],
    ),
    ("telemetry.istio.io", &["Telemetry"]),
    ("extensions.istio.io", &["WasmPlugin"]),
    (
        "gateway.networking.k8s.io",
        &[
            "Gateway",
            "GatewayClass",
            "HTTPRoute",
            "GRPCRoute",
            "TLSRoute",
            "TCPRoute",
            "UDPRoute",
            "ReferenceGrant",
            "BackendTLSPolicy",
            "ListenerSet",
        ],
    ),
    (
        "gateway.networking.x-k8s.io",
        &["XBackend", "XBackendTrafficPolicy", "XMesh", "XListenerSet"],
    ),
    ("inference.networking.k8s.io", &["InferencePool"]),
    ("multicluster.x-k8s.io", &["ServiceExport", "ServiceImport"]),
    ("install.istio.io", &["IstioOperator"]),
];

const POD_TEMPLATES: &[(&str, &[&str])] = &[
    (
        "apps",
        &["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"],
    ),
    ("", &["ReplicationController"]),
];

/// Core kinds by name, so that a misspelt one is not taken for one of them.
const IGNORED_CORE: &[&str] = &[
    "Binding",
    "ComponentStatus",
    "Endpoints",
    "Event",
    "LimitRange",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "PodTemplate",
    "ResourceQuota",
    "ServiceAccount",
];

const IGNORED_GROUPS: &[&str] = &[
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "events.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "kustomize.config.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];

impl Kind {
    /// The versions of its group in which a kind is served; the schema is the same in all.
    pub fn versions(self) -> &'static [&'static str] {
        match self {
            Kind::Namespace
            | Kind::Node
            | Kind::Service
            | Kind::Pod
            | Kind::EndpointSlice
            | Kind::Ingress
            | Kind::IngressClass
            | Kind::Secret => &["v1"],
            Kind::WorkloadEntry
            | Kind::WorkloadGroup
            | Kind::ServiceEntry
            | Kind::VirtualService
            | Kind::DestinationRule
            | Kind::Sidecar
            | Kind::Gateway => ISTIO_NETWORKING,
            Kind::ProxyConfig => &["v1beta1"],
            Kind::TrafficExtension => &["v1alpha1"],
            Kind::EnvoyFilter => &["v1alpha3"],
            Kind::PeerAuthentication => ISTIO_SECURITY,
            Kind::MeshConfig => &[],
        }
    }

    /// Whether unknown fields are faults; Kubernetes' own kinds have hundreds that mean nothing here.
    pub fn is_strict(self) -> bool {
        match self {
            Kind::Namespace
            | Kind::Node
            | Kind::Service
            | Kind::Pod
            | Kind::EndpointSlice
            | Kind::Ingress
            | Kind::IngressClass
            | Kind::Secret => false,
            Kind::WorkloadEntry
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
            | Kind::MeshConfig => true,
        }
    }
}

/// Kinds without namespaces, among those that messages name.
const CLUSTER_WIDE: &[&str] = &["Namespace", "Node", "GatewayClass", "IngressClass"];

pub fn is_namespaced(kind: &str) -> bool {
    !CLUSTER_WIDE.contains(&kind)
}

pub fn classify(api_version: &str, kind: &str) -> Class {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let read = Kind::ALL.iter().copied().filter(|k| *k != Kind::MeshConfig);
    if let Some(found) = read
        .into_iter()
        .find(|k| k.name() == kind && k.group() == group)
    {
        return if found.versions().contains(&version) {
            Class::Read(found)
        } else {
            Class::OtherVersion(found)
        };
    }
    if (group, kind) == ("", "ConfigMap") {
        Class::ConfigMap
    } else if lists(POD_TEMPLATES, group, kind) {
        Class::PodTemplate
    } else if lists(NOT_YET, group, kind) {
        Class::NotYet
    } else if IGNORED_GROUPS.contains(&group) || (group.is_empty() && IGNORED_CORE.contains(&kind))
    {
        Class::Ignored
    } else {
        Class::Unknown
    }
}

fn lists(table: &[(&str, &[&str])], group: &str, kind: &str) -> bool {
    table
        .iter()
        .any(|(g, kinds)| *g == group && kinds.contains(&kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_served_version_is_read_and_others_are_told() {
        let of = |version| classify(&format!("networking.istio.io/{version}"), "VirtualService");
        for version in ["v1", "v1beta1", "v1alpha3"] {
            assert_eq!(of(version), Class::Read(Kind::VirtualService));
        }
        assert_eq!(of("v2"), Class::OtherVersion(Kind::VirtualService));
    }

    #[test]
    fn a_kind_belongs_to_its_group() {
        assert_eq!(classify("v1", "Service"), Class::Read(Kind::Service));
        assert_eq!(
            classify("serving.knative.dev/v1", "Service"),
            Class::Unknown
        );
        assert_eq!(
            classify("networking.istio.io/v1", "Gateway"),
            Class::Read(Kind::Gateway)
        );
        assert_eq!(
            classify("gateway.networking.k8s.io/v1", "Gateway"),
            Class::NotYet
        );
        assert_eq!(classify("apps/v1", "Deployment"), Class::PodTemplate);
        assert_eq!(classify("v1", "Secret"), Class::Read(Kind::Secret));
        assert_eq!(classify("v1", "LimitRange"), Class::Ignored);
        assert_eq!(classify("v1", "Servce"), Class::Unknown);
        assert_eq!(classify("mesh.istio.io/v1", "MeshConfig"), Class::Unknown);
    }
}
