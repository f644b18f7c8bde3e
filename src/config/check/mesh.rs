//! MeshConfig: durations, trust domain, retry policy.

use std::iter;
use std::time::Duration;

use super::virtual_service::retry;
use super::{export_to, fault, locality, namespace, span, workload_proxy};
use crate::config::decode::reader::Fault;
use crate::config::mesh::MeshConfig;
use crate::config::value::Span;
use crate::identity::is_trust_domain;

const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(3600);

pub(super) fn faults(mesh: &MeshConfig) -> Vec<Fault> {
    let mut out = Vec::new();
    out.extend(span("connectTimeout", Some(mesh.connect_timeout)));
    if mesh.connect_timeout.0 > MAX_CONNECT_TIMEOUT {
        out.push(fault("connectTimeout", "a connect timeout is at most 1h"));
    }
    let detection = Some(mesh.protocol_detection_timeout).filter(|s| *s != Span(Duration::ZERO));
    out.extend(span("protocolDetectionTimeout", detection));
    let aliases = mesh.trust_domain_aliases.iter().enumerate();
    let aliases = aliases.map(|(i, name)| (format!("trustDomainAliases[{i}]"), name));
    for (path, name) in iter::once(("trustDomain".to_owned(), &mesh.trust_domain)).chain(aliases) {
        if !is_trust_domain(name) {
            out.push(fault(path, format!("`{name}` is no trust domain")));
        }
    }
    out.extend(locality::faults(
        "localityLbSetting",
        &mesh.locality_lb_setting,
    ));
    let image = mesh.default_config.image.as_ref();
    out.extend(workload_proxy::image("defaultConfig.image", image));
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
        // `.` is each object's own namespace; any name stands for it here.
        out.extend(export_to(name, &mesh.root_namespace, list));
    }
    out.extend(
        mesh.default_http_retry_policy
            .iter()
            .flat_map(|r| retry("defaultHttpRetryPolicy", r)),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Str;

    fn fields(mesh: &MeshConfig) -> Vec<String> {
        faults(mesh).into_iter().map(|f| f.path).collect()
    }

    #[test]
    fn a_default_export_to_the_own_namespace_is_no_fault() {
        let own = || vec![Str::new_static(".")];
        let mesh = MeshConfig {
            default_service_export_to: own(),
            default_virtual_service_export_to: own(),
            default_destination_rule_export_to: own(),
            ..MeshConfig::default()
        };
        assert_eq!(fields(&mesh), Vec::<String>::new());
    }

    #[test]
    fn a_trust_domain_that_no_identity_can_have_is_a_fault() {
        for bad in ["my td", "a/b", "", "td:80", ".", "a*"] {
            let mesh = MeshConfig {
                trust_domain: bad.into(),
                trust_domain_aliases: vec!["old.example".into(), bad.into()],
                ..MeshConfig::default()
            };
            assert_eq!(
                fields(&mesh),
                ["trustDomain", "trustDomainAliases[1]"],
                "{bad}"
            );
        }
    }
}
