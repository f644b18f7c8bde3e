//! The patches of EnvoyFilters that one side of a proxy gets, and which of them a resource may meet.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use super::front::Front;
use crate::config::envoy_filter::{
    ApplyTo, ClusterMatch, Context, ListenerMatch, RouteConfigurationMatch,
};
use crate::text::Str;

pub use crate::model::envoy_filters::Patch;

/// Patches in the order in which they act. Equal sets of two proxies are one; an empty one costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Patches(Option<Arc<Set>>);

#[derive(Debug)]
struct Set {
    list: Vec<Arc<Patch>>,
    /// Of all of it: what is said, and where it stands.
    identity: u128,
}

impl PartialEq for Patches {
    fn eq(&self, other: &Self) -> bool {
        let identity = |p: &Self| p.0.as_ref().map(|set| set.identity);
        identity(self) == identity(other)
    }
}

impl Eq for Patches {}

impl Hash for Patches {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_ref().map(|set| set.identity).hash(state);
    }
}

/// What stands under these names in every proxy.
const VIRTUAL: [&str; 2] = ["virtualInbound", "virtualOutbound"];

impl Patches {
    /// For what a sidecar's workload calls, with all that is added to the proxy: of two resources with one name the
    /// first would count, whichever side it is for.
    pub fn outbound(all: &[Arc<Patch>]) -> Self {
        Self::of(all, |patch| match patch.spec.matches.context {
            Context::Any | Context::SidecarOutbound => true,
            Context::SidecarInbound => adds_resource(patch),
            Context::Gateway | Context::Waypoint => false,
        })
    }

    pub fn inbound(all: &[Arc<Patch>]) -> Self {
        Self::of(all, |patch| match patch.spec.matches.context {
            Context::Any | Context::SidecarInbound => !adds_resource(patch),
            Context::SidecarOutbound | Context::Gateway | Context::Waypoint => false,
        })
    }

    pub fn gateway(all: &[Arc<Patch>]) -> Self {
        Self::of(all, |patch| match patch.spec.matches.context {
            Context::Any | Context::Gateway => true,
            Context::SidecarInbound | Context::SidecarOutbound | Context::Waypoint => false,
        })
    }

    fn of(all: &[Arc<Patch>], is_for: impl Fn(&Patch) -> bool) -> Self {
        let list: Vec<Arc<Patch>> = all.iter().filter(|p| is_for(p)).cloned().collect();
        if list.is_empty() {
            return Self::default();
        }
        let each = list.iter().map(|p| p.identity());
        let bytes: Vec<u8> = each.flat_map(u128::to_le_bytes).collect();
        Self(Some(Arc::new(Set {
            list,
            identity: xxh3_128(&bytes),
        })))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<Patch>> {
        self.0.iter().flat_map(|set| &set.list)
    }

    /// Whether a route table may meet one.
    pub fn are_of_routes(&self) -> bool {
        self.iter().any(|p| p.spec.apply_to.is_of_routes())
    }

    /// Those that add clusters and listeners.
    pub fn added(&self) -> impl Iterator<Item = &Arc<Patch>> {
        self.iter().filter(|patch| adds_resource(patch))
    }

    /// `service` is the host whose port an inbound cluster leads to.
    pub fn of_cluster(&self, name: &str, service: &str) -> Vec<Arc<Patch>> {
        self.meeting(|patch| {
            patch.spec.apply_to == ApplyTo::Cluster
                && !adds_resource(patch)
                && matches_cluster(patch.spec.matches.cluster.as_ref(), name, service)
        })
    }

    /// With those of the routes that stand inside it, where they do.
    pub fn of_listener(&self, name: &str, routes: Inline) -> Vec<Arc<Patch>> {
        let mut met = self.meeting(|patch| {
            let apply = patch.spec.apply_to;
            let inline = routes == Inline::Routes && apply.is_of_routes();
            let own = apply.is_of_listeners() && !adds_resource(patch);
            inline || own && matches_listener(patch.spec.matches.listener.as_ref(), name, apply)
        });
        if !met.is_empty() {
            // Only a filter of another patch's names one.
            met.extend(self.meeting(|p| p.spec.apply_to == ApplyTo::ExtensionConfig));
        }
        met
    }

    pub fn of_table(&self, name: &str, front: Option<&Front>) -> Vec<Arc<Patch>> {
        self.meeting(|patch| {
            let wanted = patch.spec.matches.route_configuration.as_ref();
            patch.spec.apply_to.is_of_routes() && matches_table(wanted, name, front)
        })
    }

    fn meeting(&self, meets: impl Fn(&Patch) -> bool) -> Vec<Arc<Patch>> {
        self.iter().filter(|patch| meets(patch)).cloned().collect()
    }
}

/// Whether a listener has its routes inside itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inline {
    Routes,
    Nothing,
}

impl Patch {
    /// Of what it says and where it stands.
    pub fn identity(&self) -> u128 {
        let place = format!("{} {}", self.source.key, self.source.field);
        self.content ^ xxh3_128(place.as_bytes())
    }
}

/// Whether it makes a resource of its own. Of what is no list, inserting is adding.
fn adds_resource(patch: &Patch) -> bool {
    let whole = match patch.spec.apply_to {
        ApplyTo::Cluster | ApplyTo::Listener => true,
        ApplyTo::Invalid
        | ApplyTo::ExtensionConfig
        | ApplyTo::FilterChain
        | ApplyTo::NetworkFilter
        | ApplyTo::HttpFilter
        | ApplyTo::RouteConfiguration
        | ApplyTo::VirtualHost
        | ApplyTo::HttpRoute
        | ApplyTo::Bootstrap
        | ApplyTo::ListenerFilter => false,
    };
    whole && patch.spec.patch.operation.inserts()
}

fn matches_cluster(wanted: Option<&ClusterMatch>, name: &str, service: &str) -> bool {
    let Some(wanted) = wanted else {
        return true;
    };
    if !wanted.name.is_empty() {
        return wanted.name == name;
    }
    let [direction, port, subset, host] = parts(name);
    let host = if direction == "inbound" && !service.is_empty() {
        service
    } else {
        host
    };
    (wanted.subset.is_empty() || wanted.subset == subset)
        && (wanted.service.is_empty() || wanted.service == host)
        && (wanted.port_number == 0 || port == wanted.port_number.to_string())
}

/// `direction|port|subset|host`, or the same for those who ask for it by name.
fn parts(name: &str) -> [&str; 4] {
    let split = |by: &'static str| {
        let mut parts = name.splitn(4, by);
        [(); 4].map(|()| parts.next().unwrap_or_default())
    };
    match name.contains('|') {
        true => split("|"),
        false if name.starts_with("outbound_.") => split("_."),
        false => [""; 4],
    }
}

fn matches_listener(wanted: Option<&ListenerMatch>, name: &str, apply: ApplyTo) -> bool {
    let Some(wanted) = wanted else {
        return true;
    };
    if !wanted.name.is_empty() && wanted.name != name {
        return false;
    }
    // There the port is one of the chains'.
    let of_chains = apply != ApplyTo::Listener && VIRTUAL.contains(&name);
    wanted.port_number == 0 || of_chains || port_of(name) == Some(wanted.port_number)
}

/// By Istio's names, which listeners have everywhere.
fn port_of(listener: &str) -> Option<u32> {
    match listener {
        "virtualInbound" => Some(super::inbound_listener::INBOUND_PORT.into()),
        "virtualOutbound" => Some(super::outbound_listener::OUTBOUND_PORT.into()),
        name => name.rsplit_once('_')?.1.parse().ok(),
    }
}

/// As `routeConfiguration` means it: the port of a sidecar's table is its name, that of a gateway's the server's.
pub fn matches_table(
    wanted: Option<&RouteConfigurationMatch>,
    name: &str,
    front: Option<&Front>,
) -> bool {
    let Some(wanted) = wanted else {
        return true;
    };
    if !wanted.name.is_empty() && wanted.name != name {
        return false;
    }
    let Some(front) = front else {
        let port = match parts(name) {
            ["inbound", port, ..] => port.parse(),
            _ => name.parse(),
        };
        return wanted.port_number == 0 || port == Ok(wanted.port_number);
    };
    let fields: Vec<&str> = name.split('.').collect();
    let (port, port_name, gateway) = match fields[..] {
        ["http", port, ..] => (port, "", String::new()),
        ["https", port, name, gateway, namespace, ..] => {
            (port, name, format!("{namespace}/{gateway}"))
        }
        _ => ("", "", String::new()),
    };
    let port: u16 = port.parse().unwrap_or_default();
    (wanted.port_number == 0 || front.serves(port, wanted.port_number))
        && (wanted.port_name.is_empty() || wanted.port_name == port_name)
        && (wanted.gateway.is_empty() || wanted.gateway == gateway)
}

/// Istio's older names of Envoy's own extensions, which EnvoyFilters still use.
const FORMER_NAMES: &[(&str, &str)] = &[
    ("envoy.cors", "envoy.filters.http.cors"),
    ("envoy.fault", "envoy.filters.http.fault"),
    ("envoy.ext_authz", "envoy.filters.http.ext_authz"),
    ("envoy.grpc_web", "envoy.filters.http.grpc_web"),
    ("envoy.lua", "envoy.filters.http.lua"),
    ("envoy.rate_limit", "envoy.filters.http.ratelimit"),
    ("envoy.router", "envoy.filters.http.router"),
    (
        "envoy.http_connection_manager",
        "envoy.filters.network.http_connection_manager",
    ),
    ("envoy.mongo_proxy", "envoy.filters.network.mongo_proxy"),
    ("envoy.redis_proxy", "envoy.filters.network.redis_proxy"),
    ("envoy.tcp_proxy", "envoy.filters.network.tcp_proxy"),
    (
        "envoy.listener.http_inspector",
        "envoy.filters.listener.http_inspector",
    ),
    (
        "envoy.listener.original_dst",
        "envoy.filters.listener.original_dst",
    ),
    (
        "envoy.listener.tls_inspector",
        "envoy.filters.listener.tls_inspector",
    ),
];

/// The name that a filter has in what is sent.
pub fn current_name(name: &str) -> &str {
    let found = FORMER_NAMES.iter().find(|(former, _)| *former == name);
    found.map_or(name, |(_, current)| *current)
}

/// The host of the port that an inbound cluster leads to, by the cluster's name.
pub fn service_of<'p>(
    ports: impl Iterator<Item = &'p super::inbound::InboundPort>,
    cluster: &str,
) -> Str {
    let [direction, port, ..] = parts(cluster);
    let port: Option<u16> = port.parse().ok().filter(|_| direction == "inbound");
    let mut ports = ports.filter(|p| Some(p.port) == port);
    ports.next().map(|p| p.host.clone()).unwrap_or_default()
}
