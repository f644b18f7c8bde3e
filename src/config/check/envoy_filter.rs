//! EnvoyFilter: what a patch is for, where it is found, and whether its value is what Envoy takes.

use super::{fault, regex, selector};
use crate::config::decode::reader::Fault;
use crate::config::envoy_filter::{
    ApplyTo, ConfigPatch, Context, EnvoyFilter, FilterMatch, ObjectMatch, Operation,
};
use crate::diagnostic::Code;
use crate::schema::{self, Extent, Unfit};
use crate::text::Str;

/// As far as Istio takes a regular expression of a proxy's version.
const MAX_VERSION: usize = 1024;

const MANAGER: &[&str] = &[
    "envoy.filters.network.http_connection_manager",
    "envoy.http_connection_manager",
];

/// Clusters that stand in every proxy's bootstrap, and what else is not to be made by a patch.
const RESERVED_CLUSTERS: &[&str] = &["admin", "agent", "prometheus_stats", "sds-grpc", "xds-grpc"];

/// Filters that only istio-proxy has, and what happens to a patch beside one.
const ISTIO_ONLY: &[(&str, &str)] = &[
    ("envoy.filters.http.alpn", FRONT),
    ("envoy.filters.http.stats", END),
    ("envoy.filters.network.metadata_exchange", FRONT),
    ("istio.alpn", FRONT),
    ("istio.metadata_exchange", FRONT),
    ("istio.stats", END),
    ("istio_authn", FRONT),
];
const FRONT: &str = "what is inserted beside it goes first";
const END: &str = "what is inserted beside it goes right before the last filter";

pub(super) fn faults(spec: &EnvoyFilter) -> Vec<Fault> {
    let mut out = Vec::new();
    if let Some(workloads) = &spec.workload_selector {
        out.extend(selector("spec.workloadSelector.labels", &workloads.labels));
        if !spec.target_refs.is_empty() {
            let message = "an EnvoyFilter has a workloadSelector or targetRefs, not both";
            out.push(fault("spec.targetRefs", message));
        }
    }
    for (i, target) in spec.target_refs.iter().enumerate() {
        let path = format!("spec.targetRefs[{i}]");
        if target.name.is_empty() {
            out.push(fault(format!("{path}.name"), "a target has a name"));
        }
        if !target.namespace.is_empty() {
            let message = "a target is in the EnvoyFilter's own namespace";
            out.push(fault(format!("{path}.namespace"), message));
        }
        if target.kind != "Gateway" || target.group != "gateway.networking.k8s.io" {
            let message = "there are no waypoints: of targets only Gateways of gateway.networking.k8s.io are patched";
            out.push(idle(format!("{path}.kind"), message));
        }
    }
    for (i, patch) in spec.config_patches.iter().enumerate() {
        out.extend(of_patch(&format!("spec.configPatches[{i}]"), patch));
    }
    out
}

fn idle(path: impl Into<String>, message: impl Into<String>) -> Fault {
    Fault::warning(Code::NotYetInEffect, path, message)
}

fn odd(path: impl Into<String>, message: impl Into<String>) -> Fault {
    Fault::warning(Code::InvalidValue, path, message)
}

fn of_patch(path: &str, patch: &ConfigPatch) -> Vec<Fault> {
    let ConfigPatch {
        apply_to,
        matches,
        patch: act,
    } = patch;
    let mut out = without_effect(path, patch);
    if *apply_to == ApplyTo::Invalid {
        let message = "a patch says what it applies to";
        out.push(fault(format!("{path}.applyTo"), message));
        return out;
    }
    if act.operation == Operation::Invalid {
        let message = "a patch has an operation";
        out.push(fault(format!("{path}.patch.operation"), message));
        return out;
    }
    out.extend(of_match(&format!("{path}.match"), *apply_to, matches));
    out.extend(of_operation(path, patch));
    let place = format!("{path}.patch.value");
    match (&act.value, act.operation) {
        (Some(_), Operation::Remove) => {
            out.push(fault(place, "what is removed has no value"));
        }
        (None, Operation::Remove) => {}
        (None, _) => out.push(fault(place, "this operation needs a value")),
        (Some(value), _) => out.extend(of_value(&place, patch, value)),
    }
    out
}

fn without_effect(path: &str, patch: &ConfigPatch) -> Vec<Fault> {
    let matches = &patch.matches;
    let port_name = matches.listener.as_ref().map(|l| l.port_name.is_empty());
    let rows = [
        (
            patch.apply_to == ApplyTo::Bootstrap,
            "applyTo",
            "a proxy's bootstrap is made in its pod, before it knows the control plane; this patch changes nothing",
        ),
        (
            matches.context == Context::Waypoint,
            "match.context",
            "there are no waypoints; this patch changes nothing",
        ),
        (
            matches.waypoint.is_some(),
            "match.waypoint",
            "there are no waypoints; this patch changes nothing",
        ),
        (
            port_name == Some(false),
            "match.listener.portName",
            "this field has no effect in Istio either",
        ),
    ];
    let set = rows.into_iter().filter(|(set, _, _)| *set);
    set.map(|(_, field, message)| idle(format!("{path}.{field}"), message))
        .collect()
}

fn of_match(path: &str, apply_to: ApplyTo, matches: &ObjectMatch) -> Vec<Fault> {
    let mut out = Vec::new();
    let others = [
        (
            "listener",
            matches.listener.is_some(),
            apply_to.is_of_listeners(),
        ),
        (
            "routeConfiguration",
            matches.route_configuration.is_some(),
            apply_to.is_of_routes(),
        ),
        (
            "cluster",
            matches.cluster.is_some(),
            apply_to == ApplyTo::Cluster,
        ),
    ];
    for (field, set, own) in others {
        if set && !own {
            let message = "what this patch applies to is not found by such a match";
            out.push(fault(format!("{path}.{field}"), message));
        }
    }
    out.extend(of_proxy(path, matches));
    if let Some(listener) = &matches.listener {
        let path = format!("{path}.listener");
        out.extend(istio_only(
            &format!("{path}.listenerFilter"),
            &listener.listener_filter,
        ));
        let filter = listener
            .filter_chain
            .as_ref()
            .and_then(|c| c.filter.as_ref());
        if let Some(filter) = filter {
            out.extend(of_filter(&format!("{path}.filterChain.filter"), filter));
        }
    }
    if let Some(cluster) = &matches.cluster {
        let several = !cluster.service.is_empty() || !cluster.subset.is_empty();
        if !cluster.name.is_empty() && (several || cluster.port_number != 0) {
            let message = "with a name of the whole cluster the other fields do not count";
            out.push(odd(format!("{path}.cluster.name"), message));
        }
    }
    out
}

fn of_proxy(path: &str, matches: &ObjectMatch) -> Vec<Fault> {
    let mut out = Vec::new();
    let Some(proxy) = &matches.proxy else {
        return out;
    };
    let version = &proxy.proxy_version;
    let place = format!("{path}.proxy.proxyVersion");
    if version.len() > MAX_VERSION {
        let message = format!("this is longer than {MAX_VERSION} characters");
        out.push(fault(place, message));
    } else if !version.is_empty()
        && let Err(why) = regex::compiles(version)
    {
        out.push(fault(place, why));
    }
    for key in proxy.metadata.keys().filter(|key| key.is_empty()) {
        out.push(fault(
            super::key_path(&format!("{path}.proxy.metadata"), key),
            "a key is not empty",
        ));
    }
    out
}

fn of_filter(path: &str, filter: &FilterMatch) -> Vec<Fault> {
    let mut out = Vec::new();
    if filter.name.is_empty() {
        out.push(fault(
            format!("{path}.name"),
            "a filter is found by its name",
        ));
    }
    out.extend(istio_only(&format!("{path}.name"), &filter.name));
    if let Some(sub) = &filter.sub_filter {
        let place = format!("{path}.subFilter.name");
        if sub.name.is_empty() {
            out.push(fault(place, "a filter is found by its name"));
        } else if !MANAGER.contains(&filter.name.as_str()) {
            let message = format!("only {} has filters inside", MANAGER[0]);
            out.push(fault(format!("{path}.subFilter"), message));
        } else {
            out.extend(istio_only(&place, &sub.name));
        }
    }
    out
}

fn istio_only(path: &str, name: &str) -> Option<Fault> {
    let (_, instead) = ISTIO_ONLY.iter().find(|(known, _)| *known == name)?;
    let message = format!(
        "only istio-proxy has `{name}`, stock Envoy has not: {instead}, and nothing else is done to it"
    );
    Some(idle(path, message))
}

/// What of an operation would be passed over in silence.
fn of_operation(path: &str, patch: &ConfigPatch) -> Vec<Fault> {
    let (apply_to, operation) = (patch.apply_to, patch.patch.operation);
    let place = format!("{path}.patch.operation");
    let mut out = Vec::new();
    let listed = matches!(
        apply_to,
        ApplyTo::HttpFilter | ApplyTo::NetworkFilter | ApplyTo::ListenerFilter
    );
    let takes = match operation {
        Operation::Invalid => true,
        Operation::Merge | Operation::MergeAndReplaceList => apply_to != ApplyTo::ExtensionConfig,
        Operation::Replace => listed || apply_to == ApplyTo::VirtualHost,
        Operation::Remove => !matches!(
            apply_to,
            ApplyTo::RouteConfiguration | ApplyTo::ExtensionConfig | ApplyTo::Bootstrap
        ),
        Operation::Add
        | Operation::InsertBefore
        | Operation::InsertAfter
        | Operation::InsertFirst => {
            !matches!(apply_to, ApplyTo::RouteConfiguration | ApplyTo::Bootstrap)
        }
    };
    if !takes {
        let message = "this operation does nothing to what the patch applies to, as in Istio";
        out.push(odd(place, message));
    } else if listed
        && matches!(operation, Operation::Replace | Operation::Remove)
        && !names_item(patch)
    {
        let message = "nothing is replaced or removed without a filter to match, as in Istio";
        out.push(odd(place, message));
    }
    out
}

fn names_item(patch: &ConfigPatch) -> bool {
    let Some(listener) = &patch.matches.listener else {
        return false;
    };
    let filter = listener
        .filter_chain
        .as_ref()
        .and_then(|c| c.filter.as_ref());
    match patch.apply_to {
        ApplyTo::ListenerFilter => !listener.listener_filter.is_empty(),
        ApplyTo::HttpFilter => filter.is_some_and(|f| f.sub_filter.is_some()),
        _ => filter.is_some(),
    }
}

fn of_value(path: &str, patch: &ConfigPatch, value: &serde_json::Value) -> Vec<Fault> {
    let below = |unfit: Unfit| {
        let place = match unfit.path.as_str() {
            "" => path.to_owned(),
            inside if inside.starts_with('[') => format!("{path}{inside}"),
            inside => format!("{path}.{inside}"),
        };
        fault(place, unfit.message)
    };
    let Some(descriptor) = patch.apply_to.message().and_then(schema::message) else {
        return vec![fault(path, "Envoy's API has no message for this")];
    };
    let message = match schema::read(descriptor, value) {
        Ok(message) => message,
        Err(unfit) => return unfit.into_iter().map(below).collect(),
    };
    let extent = match patch.patch.operation.merges() {
        true => Extent::Part,
        false => Extent::Whole,
    };
    let broken = schema::broken(&message, extent);
    let mut out: Vec<Fault> = broken.into_iter().map(below).collect();
    let name = Str::new(schema::text(&message, "name"));
    let place = format!("{path}.name");
    if out.iter().all(|fault| fault.path != place) {
        out.extend(of_name(&place, patch, &name));
    }
    out
}

/// Resources are known by their names.
fn of_name(path: &str, patch: &ConfigPatch, name: &str) -> Option<Fault> {
    let is_resource = matches!(
        patch.apply_to,
        ApplyTo::Cluster | ApplyTo::Listener | ApplyTo::RouteConfiguration
    );
    if !is_resource {
        return None;
    }
    if patch.patch.operation.merges() {
        let message = "a merge leaves the name as it is";
        return (!name.is_empty()).then(|| fault(path, message));
    }
    if name.is_empty() {
        return Some(fault(path, "what is added has a name"));
    }
    let ours = RESERVED_CLUSTERS.contains(&name)
        || name.starts_with("inbound|")
        || ["InboundPassthroughCluster", "virtualInbound"].contains(&name);
    ours.then(|| fault(path, format!("`{name}` is the proxy's own")))
}
