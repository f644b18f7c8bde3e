//! DestinationRule: host, subsets, the blocks of a traffic policy. Load balancers are in `load_balancer`.

use std::collections::BTreeSet;

use super::{
    connection_pool, export_to, fault, host, is_label, load_balancer, port, selector, span,
};
use crate::config::connection_pool::{ConnectionPool, OutlierDetection, RetryBudget};
use crate::config::decode::reader::Fault;
use crate::config::destination_rule::{
    ClientTls, DestinationRule, PortTrafficPolicy, TlsMode, TrafficPolicy, Tunnel,
};
use crate::config::value::Decimal;
use crate::diagnostic::Code;
use crate::text::Hostname;

pub(super) fn faults(spec: &DestinationRule, namespace: &str) -> Vec<Fault> {
    let mut out = Vec::new();
    out.extend(host("spec.host", &spec.host));
    out.extend(
        spec.traffic_policy
            .iter()
            .flat_map(|p| policy("spec.trafficPolicy", p)),
    );
    let mut names = BTreeSet::new();
    for (i, subset) in spec.subsets.iter().enumerate() {
        let path = format!("spec.subsets[{i}]");
        if !is_label(&subset.name) {
            out.push(fault(
                format!("{path}.name"),
                format!("`{}` is no subset name", subset.name),
            ));
        } else if !names.insert(&subset.name) {
            let message = format!("subset `{}` stands here twice", subset.name);
            out.push(fault(format!("{path}.name"), message));
        }
        let policies = subset.traffic_policy.iter();
        out.extend(policies.flat_map(|p| policy(&format!("{path}.trafficPolicy"), p)));
    }
    out.extend(export_to("spec.exportTo", namespace, &spec.export_to));
    if let Some(workloads) = &spec.workload_selector {
        out.extend(selector(
            "spec.workloadSelector.matchLabels",
            &workloads.match_labels,
        ));
        if spec.export_to.iter().any(|e| e != "." && e != namespace) {
            let message = "a rule for selected workloads is seen in its own namespace only";
            out.push(fault("spec.exportTo", message));
        }
    }
    out
}

fn policy(path: &str, policy: &TrafficPolicy) -> Vec<Fault> {
    let TrafficPolicy {
        load_balancer,
        connection_pool,
        outlier_detection,
        tls,
        port_level_settings,
        retry_budget,
        proxy_protocol: _,
        tunnel,
    } = policy;
    let mut out = Vec::new();
    if *policy == TrafficPolicy::default() {
        out.push(fault(path, "a traffic policy must say something"));
    }
    out.extend(
        load_balancer
            .iter()
            .flat_map(|lb| load_balancer::faults(&format!("{path}.loadBalancer"), lb)),
    );
    if outlier_detection.is_none()
        && let Some(setting) = load_balancer
            .as_ref()
            .and_then(|lb| lb.locality_lb_setting.as_ref())
        && !(setting.failover.is_empty() && setting.failover_priority.is_empty())
    {
        let message = "without outlierDetection beside it there is no failover, as in Istio";
        let path = format!("{path}.loadBalancer.localityLbSetting");
        out.push(Fault::warning(Code::InvalidValue, path, message));
    }
    out.extend(
        tls.iter()
            .flat_map(|t| client_tls(&format!("{path}.tls"), t)),
    );
    out.extend(limits(
        path,
        connection_pool.as_deref(),
        outlier_detection.as_deref(),
    ));
    out.extend(
        retry_budget
            .iter()
            .flat_map(|b| budget(&format!("{path}.retryBudget"), b)),
    );
    out.extend(
        tunnel
            .iter()
            .flat_map(|t| tunnelled(&format!("{path}.tunnel"), t)),
    );
    for (i, one) in port_level_settings.iter().enumerate() {
        out.extend(port_policy(&format!("{path}.portLevelSettings[{i}]"), one));
    }
    out
}

fn port_policy(path: &str, one: &PortTrafficPolicy) -> Vec<Fault> {
    let PortTrafficPolicy {
        port: selector,
        load_balancer,
        connection_pool,
        outlier_detection,
        tls,
    } = one;
    let mut out = Vec::new();
    out.extend(port(&format!("{path}.port.number"), selector.number));
    out.extend(limits(
        path,
        connection_pool.as_deref(),
        outlier_detection.as_deref(),
    ));
    let limited = connection_pool.is_some() || outlier_detection.is_some();
    if load_balancer.is_none() && tls.is_none() && !limited {
        out.push(fault(path, "the settings of a port must say something"));
    }
    out.extend(
        load_balancer
            .iter()
            .flat_map(|lb| load_balancer::faults(&format!("{path}.loadBalancer"), lb)),
    );
    out.extend(
        tls.iter()
            .flat_map(|t| client_tls(&format!("{path}.tls"), t)),
    );
    out
}

fn budget(path: &str, budget: &RetryBudget) -> Vec<Fault> {
    let mut out = Vec::new();
    if let Some(percent) = budget.percent.filter(|p| *p > Decimal(100_000)) {
        let message = format!("{} is no percentage from 0 to 100", percent.value());
        out.push(fault(format!("{path}.percent"), message));
    }
    out.extend(span(
        &format!("{path}.budgetInterval"),
        budget.budget_interval,
    ));
    out
}

fn tunnelled(path: &str, tunnel: &Tunnel) -> Vec<Fault> {
    let mut out = Vec::new();
    if !matches!(tunnel.protocol.as_str(), "" | "CONNECT" | "POST") {
        let message = format!("`{}` is neither CONNECT nor POST", tunnel.protocol);
        out.push(fault(format!("{path}.protocol"), message));
    }
    let host = tunnel.target_host.as_str();
    let is_name = Hostname::parse(host).is_ok_and(|name| !name.is_wildcard());
    if !is_name && host.parse::<std::net::IpAddr>().is_err() {
        let message = format!("`{host}` is neither a host name nor an IP address");
        out.push(fault(format!("{path}.targetHost"), message));
    }
    out.extend(port(&format!("{path}.targetPort"), tunnel.target_port));
    out
}

fn limits(
    path: &str,
    pool: Option<&ConnectionPool>,
    outliers: Option<&OutlierDetection>,
) -> Vec<Fault> {
    let mut out = Vec::new();
    if let Some(pool) = pool {
        out.extend(connection_pool::faults(
            &format!("{path}.connectionPool"),
            pool,
        ));
    }
    if let Some(outliers) = outliers {
        let path = format!("{path}.outlierDetection");
        out.extend(span(&format!("{path}.interval"), outliers.interval));
        out.extend(span(
            &format!("{path}.baseEjectionTime"),
            outliers.base_ejection_time,
        ));
        for (name, percent) in [
            ("maxEjectionPercent", outliers.max_ejection_percent),
            ("minHealthPercent", outliers.min_health_percent),
        ] {
            if percent > 100 {
                let message = format!("{percent} is no percentage from 0 to 100");
                out.push(fault(format!("{path}.{name}"), message));
            }
        }
        let codes = outliers.outlier_detection_http_error_codes.iter();
        for (i, code) in codes.enumerate().filter(|(_, c)| !(100..600).contains(*c)) {
            let message = format!("{code} is no status from 100 to 599");
            let at = format!("{path}.outlierDetectionHttpErrorCodes[{i}]");
            out.push(fault(at, message));
        }
    }
    out
}

fn client_tls(path: &str, tls: &ClientTls) -> Vec<Fault> {
    let by_name = !tls.credential_name.is_empty();
    let mut out = Vec::new();
    let files = [
        ("clientCertificate", &tls.client_certificate),
        ("privateKey", &tls.private_key),
        ("caCertificates", &tls.ca_certificates),
    ];
    match tls.mode {
        TlsMode::Simple | TlsMode::Mutual if by_name => {
            for (name, _) in files.iter().filter(|(_, file)| !file.is_empty()) {
                out.push(fault(
                    format!("{path}.{name}"),
                    "credentialName already names it",
                ));
            }
        }
        TlsMode::Disable | TlsMode::Simple => {}
        TlsMode::Mutual => {
            for (name, _) in files[..2].iter().filter(|(_, file)| file.is_empty()) {
                out.push(fault(
                    format!("{path}.{name}"),
                    format!("mode MUTUAL needs {name}"),
                ));
            }
        }
        TlsMode::IstioMutual => {
            for (name, _) in files.iter().filter(|(_, file)| !file.is_empty()) {
                let message = "mode ISTIO_MUTUAL uses the mesh's own certificates, not this one";
                out.push(Fault::warning(
                    Code::InvalidValue,
                    format!("{path}.{name}"),
                    message,
                ));
            }
        }
    }
    if tls.insecure_skip_verify == Some(true)
        && matches!(tls.mode, TlsMode::Simple | TlsMode::Mutual)
        && (!tls.ca_certificates.is_empty() || !tls.subject_alt_names.is_empty())
    {
        let message = "caCertificates and subjectAltNames mean nothing with insecureSkipVerify";
        out.push(fault(path, message));
    }
    out
}
