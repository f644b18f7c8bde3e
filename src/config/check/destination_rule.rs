//! DestinationRule: host, subsets, the blocks of a traffic policy.

use std::collections::BTreeSet;

use super::{
    NotYet, connection_pool, export_to, fault, host, is_label, locality, port, selector, span,
};
use crate::config::connection_pool::{ConnectionPool, OutlierDetection};
use crate::config::decode::reader::Fault;
use crate::config::destination_rule::{
    ClientTls, ConsistentHash, DestinationRule, LoadBalancer, PortTrafficPolicy, TlsMode,
    TrafficPolicy,
};
use crate::config::value::Decimal;
use crate::diagnostic::Code;

/// Envoy's bound on a Maglev table.
const MAX_MAGLEV: u64 = 5_000_011;

pub(super) fn faults(spec: &DestinationRule, namespace: &str, not_yet: &NotYet) -> Vec<Fault> {
    let mut out = Vec::new();
    out.extend(host("spec.host", &spec.host));
    out.extend(
        spec.traffic_policy
            .iter()
            .flat_map(|p| policy("spec.trafficPolicy", p, not_yet)),
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
        out.extend(policies.flat_map(|p| policy(&format!("{path}.trafficPolicy"), p, not_yet)));
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

/// Whether some field below `path` was set without being in effect yet.
fn sets_below(not_yet: &NotYet, path: &str) -> bool {
    let prefix = format!("{path}.");
    not_yet
        .range(prefix.clone()..)
        .next()
        .is_some_and(|p| p.starts_with(&prefix))
}

fn policy(path: &str, policy: &TrafficPolicy, not_yet: &NotYet) -> Vec<Fault> {
    let TrafficPolicy {
        load_balancer,
        connection_pool,
        outlier_detection,
        tls,
        port_level_settings,
        retry_budget,
    } = policy;
    let mut out = Vec::new();
    if *policy == TrafficPolicy::default() && !sets_below(not_yet, path) {
        out.push(fault(path, "a traffic policy must say something"));
    }
    out.extend(
        load_balancer
            .iter()
            .flat_map(|lb| balancer(&format!("{path}.loadBalancer"), lb, not_yet)),
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
    if let Some(percent) = retry_budget.as_ref().and_then(|b| b.percent)
        && percent > Decimal(100_000)
    {
        let message = format!("{} is no percentage from 0 to 100", percent.value());
        out.push(fault(format!("{path}.retryBudget.percent"), message));
    }
    for (i, one) in port_level_settings.iter().enumerate() {
        out.extend(port_policy(
            &format!("{path}.portLevelSettings[{i}]"),
            one,
            not_yet,
        ));
    }
    out
}

fn port_policy(path: &str, one: &PortTrafficPolicy, not_yet: &NotYet) -> Vec<Fault> {
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
    if load_balancer.is_none() && tls.is_none() && !limited && !sets_below(not_yet, path) {
        out.push(fault(path, "the settings of a port must say something"));
    }
    out.extend(
        load_balancer
            .iter()
            .flat_map(|lb| balancer(&format!("{path}.loadBalancer"), lb, not_yet)),
    );
    out.extend(
        tls.iter()
            .flat_map(|t| client_tls(&format!("{path}.tls"), t)),
    );
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
    }
    out
}

fn balancer(path: &str, lb: &LoadBalancer, not_yet: &NotYet) -> Vec<Fault> {
    let other = not_yet.contains(&format!("{path}.backendUtilization"));
    let ways = [lb.simple.is_some(), lb.consistent_hash.is_some(), other];
    let mut out = Vec::new();
    if ways.iter().filter(|set| **set).count() > 1 {
        let message = "only one of simple, consistentHash, backendUtilization may be set";
        out.push(fault(path, message));
    }
    out.extend(warmup(path, lb));
    if let Some(setting) = &lb.locality_lb_setting {
        out.extend(locality::faults(
            &format!("{path}.localityLbSetting"),
            setting,
        ));
    }
    if let Some(hash) = &lb.consistent_hash {
        out.extend(consistent_hash(&format!("{path}.consistentHash"), hash));
    }
    out
}

fn warmup(path: &str, lb: &LoadBalancer) -> Vec<Fault> {
    let mut out = Vec::new();
    out.extend(span(
        &format!("{path}.warmupDurationSecs"),
        lb.warmup_duration_secs,
    ));
    if let Some(warmup) = &lb.warmup {
        let path = format!("{path}.warmup");
        out.extend(span(&format!("{path}.duration"), warmup.duration));
        if warmup.duration.is_none() {
            out.push(fault(
                format!("{path}.duration"),
                "a warm-up needs a duration",
            ));
        }
        let percent = warmup.minimum_percent.filter(|p| *p > Decimal(100_000));
        out.extend(percent.map(|p| {
            let message = format!("{} is no percentage from 0 to 100", p.value());
            fault(format!("{path}.minimumPercent"), message)
        }));
        let aggression = warmup.aggression.filter(|a| *a < Decimal(1000));
        out.extend(
            aggression.map(|_| fault(format!("{path}.aggression"), "the aggression is at least 1")),
        );
    }
    out
}

fn consistent_hash(path: &str, hash: &ConsistentHash) -> Vec<Fault> {
    let mut out = Vec::new();
    let keys = [
        hash.http_header_name.is_some(),
        hash.http_cookie.is_some(),
        hash.use_source_ip.is_some(),
        hash.http_query_parameter_name.is_some(),
    ];
    if keys.iter().filter(|set| **set).count() > 1 {
        let message = "only one of httpHeaderName, httpCookie, useSourceIp, httpQueryParameterName may be set";
        out.push(fault(path, message));
    }
    if hash.http_cookie.as_ref().is_some_and(|c| c.name.is_empty()) {
        out.push(fault(
            format!("{path}.httpCookie.name"),
            "a cookie needs a name",
        ));
    }
    let tables = [
        hash.ring_hash.is_some(),
        hash.maglev.is_some(),
        hash.minimum_ring_size.is_some_and(|n| n > 0),
    ];
    if tables.iter().filter(|set| **set).count() > 1 {
        out.push(fault(
            path,
            "only one of ringHash, maglev, minimumRingSize may be set",
        ));
    }
    if let Some(size) = hash.maglev.as_ref().map(|m| m.table_size.unwrap_or(0))
        && (size >= MAX_MAGLEV || !is_prime(size))
    {
        let message = format!("`{size}` is no prime below {MAX_MAGLEV}");
        out.push(fault(format!("{path}.maglev.tableSize"), message));
    }
    out
}

/// Envoy's own test, in which 1 passes.
fn is_prime(n: u64) -> bool {
    let odd_factors = (3u64..).step_by(2).take_while(|f| f * f <= n);
    match n {
        0 => false,
        1..4 => true,
        _ => !n.is_multiple_of(2) && odd_factors.into_iter().all(|f| !n.is_multiple_of(f)),
    }
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
