//! MeshConfig: durations, trust domain, retry policy.

use std::time::Duration;

use super::virtual_service::retry;
use super::{export_to, fault, namespace, span};
use crate::config::decode::reader::Fault;
use crate::config::mesh::MeshConfig;
use crate::config::value::Span;

const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(3600);

pub(super) fn faults(mesh: &MeshConfig) -> Vec<Fault> {
    let mut out = Vec::new();
    out.extend(span("connectTimeout", Some(mesh.connect_timeout)));
    if mesh.connect_timeout.0 > MAX_CONNECT_TIMEOUT {
        out.push(fault("connectTimeout", "a connect timeout is at most 1h"));
    }
    let detection = Some(mesh.protocol_detection_timeout).filter(|s| *s != Span(Duration::ZERO));
    out.extend(span("protocolDetectionTimeout", detection));
    if mesh.trust_domain.is_empty() || mesh.trust_domain.contains('/') {
        out.push(fault(
            "trustDomain",
            format!("`{}` is no trust domain", mesh.trust_domain),
        ));
    }
    out.extend(
        namespace(&mesh.root_namespace)
            .err()
            .map(|e| fault("rootNamespace", e)),
    );
    for (name, list) in [
        ("defaultServiceExportTo", &mesh.default_service_export_to),
        (
            "defaultVirtualServiceExportTo",
            &mesh.default_virtual_service_export_to,
        ),
        (
            "defaultDestinationRuleExportTo",
            &mesh.default_destination_rule_export_to,
        ),
    ] {
        out.extend(export_to(name, ".", list));
    }
    out.extend(
        mesh.default_http_retry_policy
            .iter()
            .flat_map(|r| retry("defaultHttpRetryPolicy", r)),
    );
    out
}
