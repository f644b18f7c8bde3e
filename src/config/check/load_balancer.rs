//! Load balancers of a DestinationRule: what excludes each other, tables, durations.

use super::{fault, locality, span};
use crate::config::connection_pool::BackendUtilization;
use crate::config::decode::reader::Fault;
use crate::config::destination_rule::{ConsistentHash, LoadBalancer};
use crate::config::locality::ZoneAwareLb;
use crate::config::value::Decimal;
use crate::diagnostic::Code;

/// Envoy's bound on a Maglev table.
const MAX_MAGLEV: u64 = 5_000_011;

/// `path` is the balancer's own.
pub(super) fn faults(path: &str, lb: &LoadBalancer) -> Vec<Fault> {
    let ways = [
        lb.simple.is_some(),
        lb.consistent_hash.is_some(),
        lb.backend_utilization.is_some(),
    ];
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
    if let Some(zones) = &lb.zone_aware_lb_setting {
        let path = format!("{path}.zoneAwareLbSetting");
        out.extend(zone_aware(&path, zones));
        out.extend(unweighed(path, zones));
    }
    if let Some(load) = &lb.backend_utilization {
        out.extend(utilization(&format!("{path}.backendUtilization"), load));
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

fn zone_aware(path: &str, zones: &ZoneAwareLb) -> Vec<Fault> {
    let mut out = locality::regions(path, &zones.failover);
    out.extend(locality::labels(path, &zones.failover_priority));
    if zones.min_cluster_size == Some(0) {
        let message = "a cluster has 1 endpoint at least";
        out.push(fault(format!("{path}.minClusterSize"), message));
    }
    out
}

/// Envoy weighs zones by where the client's own workload is, which the proxies are not told.
fn unweighed(path: String, zones: &ZoneAwareLb) -> Option<Fault> {
    let (code, at) = match zones.min_cluster_size {
        Some(_) => (Code::NotYetInEffect, format!("{path}.minClusterSize")),
        None => (Code::InvalidValue, path),
    };
    let message = "regions are called one after another; within one all zones are called alike, for no proxy \
                   knows yet where else its workload is, as in Istio without ENABLE_SELF_DISCOVERY";
    let is_on = zones.enabled.unwrap_or(true);
    is_on.then(|| Fault::warning(code, at, message))
}

fn utilization(path: &str, load: &BackendUtilization) -> Vec<Fault> {
    let mut out = Vec::new();
    let names = load.metric_names_for_computing_utilization.iter();
    for (i, _) in names.enumerate().filter(|(_, name)| name.is_empty()) {
        let at = format!("{path}.metricNamesForComputingUtilization[{i}]");
        out.push(fault(at, "a metric has a name"));
    }
    for (name, value) in [
        ("weightExpirationPeriod", load.weight_expiration_period),
        (
            "weightStabilizationPeriod",
            load.weight_stabilization_period,
        ),
        ("weightUpdatePeriod", load.weight_update_period),
    ] {
        out.extend(span(&format!("{path}.{name}"), value));
    }
    out
}
