//! Istio's API in full: every kind and every field, as types. What is in effect of it stands in the kind's own file.
//!
//! Every object of Istio's is read into its type here first, so that a wrong value or name is told even where the field
//! is not in effect yet; CustomResourceDefinitions are made of the same types.

pub mod common;
pub mod definition;
pub mod destination_rule;
pub mod envoy_filter;
pub mod extensions;
pub mod gateway;
pub mod security;
pub mod service_entry;
pub mod shapes;
pub mod sidecar;
pub mod telemetry;
pub mod virtual_service;
pub mod workload;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use self::shapes::{Anything, Base64, List, Map, Text};
use super::decode::reader::{self, Reading};
use super::decode::yaml::{self, Node};

/// A kind of Istio's, as its users and the API server know it.
#[derive(Clone, Copy)]
pub struct ApiKind {
    pub group: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub short: Option<&'static str>,
    /// All of them served with one schema; the first is stored.
    pub versions: &'static [&'static str],
    pub columns: &'static [Column],
    read: fn(&Node) -> Reading<()>,
    schema: fn(&mut SchemaGenerator) -> Schema,
}

/// A column of `kubectl get`: name, JSON path, type.
pub type Column = (&'static str, &'static str, &'static str);

pub const AGE: Column = ("Age", ".metadata.creationTimestamp", "date");
const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";
const TELEMETRY: &str = "telemetry.istio.io";
const EXTENSIONS: &str = "extensions.istio.io";
const THREE: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const TWO: &[&str] = &["v1", "v1beta1"];

/// One line a kind.
pub const KINDS: &[ApiKind] = &[
    kind::<virtual_service::VirtualService>(NETWORKING, "VirtualService", "virtualservices", THREE)
        .short("vs")
        .columns(&[
            ("Gateways", ".spec.gateways", "string"),
            ("Hosts", ".spec.hosts", "string"),
            AGE,
        ]),
    kind::<destination_rule::DestinationRule>(
        NETWORKING,
        "DestinationRule",
        "destinationrules",
        THREE,
    )
    .short("dr")
    .columns(&[("Host", ".spec.host", "string"), AGE]),
    kind::<gateway::Gateway>(NETWORKING, "Gateway", "gateways", THREE).short("gw"),
    kind::<service_entry::ServiceEntry>(NETWORKING, "ServiceEntry", "serviceentries", THREE)
        .short("se")
        .columns(&[
            ("Hosts", ".spec.hosts", "string"),
            ("Location", ".spec.location", "string"),
            ("Resolution", ".spec.resolution", "string"),
            AGE,
        ]),
    kind::<workload::WorkloadEntry>(NETWORKING, "WorkloadEntry", "workloadentries", THREE)
        .short("we")
        .columns(&[AGE, ("Address", ".spec.address", "string")]),
    kind::<workload::WorkloadGroup>(NETWORKING, "WorkloadGroup", "workloadgroups", THREE)
        .short("wg")
        .columns(&[AGE]),
    kind::<sidecar::Sidecar>(NETWORKING, "Sidecar", "sidecars", THREE),
    kind::<envoy_filter::EnvoyFilter>(NETWORKING, "EnvoyFilter", "envoyfilters", &["v1alpha3"]),
    kind::<workload::ProxyConfig>(NETWORKING, "ProxyConfig", "proxyconfigs", &["v1beta1"]),
    kind::<security::AuthorizationPolicy>(
        SECURITY,
        "AuthorizationPolicy",
        "authorizationpolicies",
        TWO,
    )
    .short("ap")
    .columns(&[("Action", ".spec.action", "string"), AGE]),
    kind::<security::PeerAuthentication>(
        SECURITY,
        "PeerAuthentication",
        "peerauthentications",
        TWO,
    )
    .short("pa")
    .columns(&[("Mode", ".spec.mtls.mode", "string"), AGE]),
    kind::<security::RequestAuthentication>(
        SECURITY,
        "RequestAuthentication",
        "requestauthentications",
        TWO,
    )
    .short("ra"),
    kind::<telemetry::Telemetry>(TELEMETRY, "Telemetry", "telemetries", &["v1alpha1", "v1"])
        .short("telemetry")
        .columns(&[AGE]),
    kind::<extensions::WasmPlugin>(EXTENSIONS, "WasmPlugin", "wasmplugins", &["v1alpha1"])
        .columns(&[AGE]),
    kind::<extensions::TrafficExtension>(
        EXTENSIONS,
        "TrafficExtension",
        "trafficextensions",
        &["v1alpha1"],
    )
    .columns(&[AGE]),
];

const fn kind<T: for<'de> Deserialize<'de> + JsonSchema>(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    versions: &'static [&'static str],
) -> ApiKind {
    ApiKind {
        group,
        kind,
        plural,
        short: None,
        versions,
        columns: &[],
        read: read::<T>,
        schema: T::json_schema,
    }
}

impl ApiKind {
    const fn short(self, name: &'static str) -> Self {
        Self {
            short: Some(name),
            ..self
        }
    }

    const fn columns(self, columns: &'static [Column]) -> Self {
        Self { columns, ..self }
    }

    pub fn find(group: &str, kind: &str) -> Option<&'static Self> {
        KINDS.iter().find(|k| k.kind == kind && k.group == group)
    }

    /// The first value of `spec` that its field does not take, and the fields that nobody knows.
    pub fn read(&self, object: &Node) -> Reading<()> {
        (self.read)(object)
    }
}

fn read<T: for<'de> Deserialize<'de>>(object: &Node) -> Reading<()> {
    const ABSENT: &Node = &Node {
        line: 0,
        value: yaml::Value::Null,
    };
    reader::read::<Option<T>>(object.get("spec").unwrap_or(ABSENT), "spec").map(drop)
}
