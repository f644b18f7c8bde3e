//! The bootstrap by which a stock Envoy joins the mesh.
//!
//! Pure: a [`Bootstrap`] in, Envoy's JSON out. Who may reach what of the pod is decided in `pages`, how the
//! control plane is reached and trusted in `upstream`. What Envoy does for the mesh comes by xDS, never from here.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::meta::Labels;
use crate::config::proxy_config::Topology;
use crate::model::proxy::{Interception, Role};
use crate::text::Str;

mod metrics;
mod pages;
mod path;
mod probes;
mod upstream;

pub use metrics::{AppMetrics, Metrics};
pub use pages::{DrainKey, DrainKeyError, NoRandomness, drain_authorization, new_drain_secret};
pub use path::{FilePath, PathError};
pub use probes::{AppProbe, AppProbes, Check, Scheme};
pub use upstream::{ControlPlane, Endpoint, EndpointError};

/// Everything that one Envoy's bootstrap says.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    pub workload: Workload,
    pub control_plane: ControlPlane,
    pub pod: Pod,
}

/// Who the workload says it is. Only its credential proves it.
#[derive(Clone, Debug)]
pub struct Workload {
    pub role: Role,
    pub name: Str,
    pub namespace: Str,
    pub service_account: Str,
    /// An address, or what the kubelet puts one in the place of.
    pub ip: Str,
    /// All of them, with commas between, or the same.
    pub ips: Str,
    pub labels: Labels,
    /// Those by which a pod chooses something of the control plane.
    pub annotations: Labels,
    /// What stands before a gateway, where that is not what the mesh says of all.
    pub topology: Option<Topology>,
    /// `<namespace>.svc.cluster.local`, as in `node.id`.
    pub dns_domain: Str,
    /// `node.cluster`: the name under which traces show the workload.
    pub cluster: Str,
    /// The Kubernetes cluster, for multi-cluster meshes.
    pub cluster_id: Str,
    pub locality: Locality,
    pub interception: Interception,
    /// The WorkloadGroup that it is to be entered into, where no object describes it.
    pub group: Option<Str>,
}

/// Where the workload runs; empty parts are unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locality {
    pub region: Str,
    pub zone: Str,
    pub sub_zone: Str,
}

/// What the pod offers besides traffic, and to whom.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Unix socket of the whole admin interface, mode 0600: the proxy's own user alone.
    pub admin_socket: FilePath,
    /// Readiness, and draining for who has the key. Other pods and the kubelet reach it.
    pub status: SocketAddr,
    /// Read-only admin pages for istioctl and Kiali.
    pub pages: Option<SocketAddr>,
    /// `/stats/prometheus` and nothing else.
    pub prometheus: Option<SocketAddr>,
    pub drain: DrainKey,
    /// How long draining is answered late: a hook that waits for the answer keeps its container meanwhile.
    pub drain_hold: Duration,
    pub probes: Option<AppProbes>,
    pub metrics: Option<Metrics>,
    /// Connections from clients in all; more are closed at once.
    pub max_connections: u32,
    /// Statistics to keep besides the usual ones, by prefix.
    pub stats: Vec<Str>,
}

/// The Istio whose configuration is followed: EnvoyFilters choose proxies by it (`proxyVersion`).
const ISTIO_VERSION: &str = "1.32.0";
/// Regular expressions up to this size are taken: the control plane refuses larger ones first.
const MAX_REGEX_PROGRAM: u32 = 32_768;
/// Connections to each page listener; they do not count against `max_connections`.
const MAX_PAGE_CONNECTIONS: u32 = 256;

impl Bootstrap {
    /// Envoy's `envoy.config.bootstrap.v3.Bootstrap` as JSON.
    pub fn render(&self) -> Value {
        let probes = self.pod.probes.as_ref();
        let metrics = self.pod.metrics.as_ref();
        let mut listeners = pages::listeners(&self.pod, self.workload.role);
        listeners.extend(probes::listener(probes, metrics));
        let mut clusters = vec![
            pages::admin_cluster(&self.pod.admin_socket),
            self.control_plane.cluster(),
        ];
        clusters.extend(probes.into_iter().flat_map(AppProbes::clusters));
        clusters.extend(metrics.and_then(Metrics::cluster));
        let needed: Vec<Str> = probes.into_iter().flat_map(AppProbes::stats).collect();
        json!({
            "node": node(&self.workload, &self.pod),
            "admin": pages::admin(&self.pod.admin_socket),
            "dynamic_resources": upstream::dynamic_resources(),
            "static_resources": {"listeners": listeners, "clusters": clusters},
            "bootstrap_extensions": [internal_listeners()],
            "layered_runtime": runtime(),
            "overload_manager": connection_limit(self.pod.max_connections),
            "stats_config": stats(self.pod.stats.iter().chain(&needed)),
        })
    }
}

/// `@type` of a typed config.
fn typed(name: &str) -> String {
    format!("type.googleapis.com/{name}")
}

fn socket_address(address: SocketAddr) -> Value {
    let mut socket = json!({"address": address.ip(), "port_value": address.port()});
    // Whether `::` takes IPv4, too, is else a matter of the node's settings.
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket["ipv4_compat"] = json!(true);
    }
    json!({"socket_address": socket})
}

fn node(workload: &Workload, pod: &Pod) -> Value {
    let Workload {
        name,
        namespace,
        ip,
        ..
    } = workload;
    let mut metadata = json!({
        "NAME": name,
        "NAMESPACE": namespace,
        "SERVICE_ACCOUNT": workload.service_account,
        "LABELS": workload.labels,
        "INSTANCE_IPS": workload.ips,
        "CLUSTER_ID": workload.cluster_id,
        "ISTIO_VERSION": ISTIO_VERSION,
        "INTERCEPTION_MODE": workload.interception,
        // The control plane makes no listener on a port that is taken here.
        "ENVOY_STATUS_PORT": pod.status.port(),
    });
    if !workload.annotations.is_empty() {
        metadata["ANNOTATIONS"] = json!(workload.annotations);
    }
    if let Some(group) = &workload.group {
        metadata["AUTO_REGISTER_GROUP"] = json!(group);
    }
    if let Some(topology) = &workload.topology {
        metadata["PROXY_CONFIG"] = json!({"gatewayTopology": topology});
    }
    if let Some(prometheus) = pod.prometheus {
        metadata["ENVOY_PROMETHEUS_PORT"] = json!(prometheus.port());
    }
    let Locality {
        region,
        zone,
        sub_zone,
    } = &workload.locality;
    let role = workload.role;
    json!({
        "id": format!("{role}~{ip}~{name}.{namespace}~{}", workload.dns_domain),
        "cluster": workload.cluster,
        "locality": {"region": region, "zone": zone, "sub_zone": sub_zone},
        "metadata": metadata,
    })
}

/// Listeners inside Envoy (tunnels). The extension cannot come by xDS, so it is here from the first day.
fn internal_listeners() -> Value {
    json!({
        "name": "envoy.bootstrap.internal_listener",
        "typed_config": {
            "@type": typed("envoy.extensions.bootstrap.internal_listener.v3.InternalListener"),
        },
    })
}

fn runtime() -> Value {
    let mut layer = json!({"re2.max_program_size.error_level": MAX_REGEX_PROGRAM});
    for name in pages::NAMES {
        layer[format!("envoy.resource_limits.listener.{name}.connection_limit")] =
            json!(MAX_PAGE_CONNECTIONS);
    }
    // The admin layer stays out: nothing changes the runtime of a running proxy.
    json!({"layers": [{"name": "fairlead", "static_layer": layer}]})
}

fn connection_limit(max_connections: u32) -> Value {
    json!({"resource_monitors": [{
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": typed(
                "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
            ),
            "max_active_downstream_connections": max_connections,
        },
    }]})
}

/// Without a list, the statistics of thousands of clusters are most of a sidecar's memory.
const STATS_PREFIXES: &[&str] = &[
    "cluster.xds-grpc",
    "cluster_manager",
    "control_plane",
    "istio",
    "listener_manager",
    "overload",
    "sds",
    "server",
];
const STATS_SUFFIXES: &[&str] = &[
    "downstream_cx_active",
    "rbac.allowed",
    "rbac.denied",
    "shadow_allowed",
    "shadow_denied",
    "ssl_context_update_by_sds",
];

fn stats<'a>(asked: impl Iterator<Item = &'a Str>) -> Value {
    let prefix = |p: &str| json!({"prefix": p});
    let usual = STATS_PREFIXES.iter().map(|p| prefix(p));
    let asked = asked.map(|p| prefix(p));
    let suffixes = STATS_SUFFIXES.iter().map(|s| json!({"suffix": s}));
    let patterns: Vec<Value> = usual.chain(asked).chain(suffixes).collect();
    json!({"stats_matcher": {"inclusion_list": {"patterns": patterns}}})
}

#[cfg(test)]
mod tests;
