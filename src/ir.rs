//! What Envoy's resources are made of, after everything that meets has met.
//!
//! A node here is the whole input of one renderer (`xds`): equal nodes give equal bytes. Whoever joins
//! (the files below) decides names, precedence and defaults; whoever renders decides nothing.

pub mod asks;
pub mod assignments;
pub mod client;
pub mod domains;
pub mod extension;
pub mod front;
pub mod gateway_hosts;
pub mod gateway_listener;
pub mod http_actions;
pub mod http_routes;
pub mod inbound;
pub mod inbound_listener;
pub mod l4_routes;
mod listener;
pub mod outbound;
mod outbound_cluster;
pub mod outbound_listener;
pub mod patches;
pub mod relation;
pub mod scopes;
pub mod spread;
pub mod traffic_policy;

use std::net::IpAddr;

use serde::Serialize;

use crate::config::connection_pool::{
    BackendUtilization, ConnectionPool, OutlierDetection, RetryBudget, Warmup,
};
use crate::config::destination_rule::{HttpCookie, ProxyProtocolVersion};
use crate::config::http_action::{
    CorsPolicy, HeaderChanges, HttpFaultInjection, HttpRedirect, Percent, RegexRewrite,
};
use crate::config::value::Span;
use crate::config::virtual_service::{HttpMatchRequest, HttpRetry};
use crate::text::Str;

pub use self::extension::Extension;
pub use self::listener::*;
pub use crate::model::endpoints::{Address, Endpoint, Health, TlsMode};
pub use crate::model::proxy::Families;
pub use crate::model::services::Lookup;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Direction {
    Inbound,
    Outbound,
}

// ---- clusters and endpoints

/// `envoy.config.cluster.v3.Cluster`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cluster {
    /// `outbound|<port>|<subset>|<host>`, `inbound|<port>||`, or one of Istio's fixed names.
    pub name: Str,
    pub discovery: Discovery,
    pub protocol: UpstreamProtocol,
    pub connect_timeout: Span,
    pub load_balancer: LoadBalancer,
    pub tls: UpstreamTls,
    /// `metadata.filter_metadata.istio`, read by istioctl and Kiali; absent for the fixed clusters.
    pub origin: Option<Origin>,
    /// What few clusters have: bounds of their use, and how connections begin.
    pub limits: Option<Box<Limits>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    pub pool: ConnectionPool,
    pub outliers: Option<OutlierDetection>,
    pub retry_budget: Option<RetryBudget>,
    pub warmup: Option<Warmup>,
    /// Whether localities have shares (`locality_weighted_lb_config`).
    pub shared_out: bool,
    /// Whether Envoy is to weigh the client's zone against the others (`zone_aware_lb_config`), where it knows its own.
    pub zones: Option<Zones>,
    /// Connections begin with where they came from.
    pub proxy_protocol: Option<ProxyProtocolVersion>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Zones {
    /// None is Envoy's 6.
    pub min_cluster_size: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Discovery {
    /// EDS over ADS, `service_name` equal to the cluster's name.
    Eds,
    /// Names that Envoy looks up: STRICT_DNS, or LOGICAL_DNS of exactly one.
    Dns(Lookup, Families, Box<LoadAssignment>),
    /// To where the connection was going; `sources` are the addresses it may leave from, by family (127.0.0.6 inbound).
    OriginalDst {
        sources: Vec<IpAddr>,
        /// Another port than the connection was going to.
        port: Option<u16>,
    },
    /// Fixed endpoints; none of them is a black hole. It leaves from `source`.
    Static {
        endpoints: Vec<Address>,
        source: Option<IpAddr>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum UpstreamProtocol {
    Http1,
    Http2,
    /// What the client speaks (`use_downstream_protocol_config`).
    Downstream,
    Tcp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum LoadBalancer {
    LeastRequest,
    RoundRobin,
    Random,
    RingHash {
        minimum_size: u64,
    },
    /// `None` is Envoy's default table size.
    Maglev {
        table_size: Option<u64>,
    },
    /// The cluster decides (original destination).
    ClusterProvided,
    /// By the load that endpoints report.
    Utilization(Box<BackendUtilization>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum UpstreamTls {
    Off,
    /// mTLS to endpoints whose `tlsMode` is `istio`, plaintext to the others (`transport_socket_matches`).
    Auto(MutualTls),
    /// Istio mTLS to all of them.
    Mutual(MutualTls),
    /// TLS with the user's own files.
    Originate(Origination),
}

/// Certificate `default` and roots `ROOTCA` over SDS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MutualTls {
    pub sni: Str,
    /// Exact URI SANs of which the server's must be one; empty accepts every one that ROOTCA signed.
    pub subject_alt_names: Vec<Str>,
    pub alpn: Vec<Str>,
}

/// DestinationRule `tls` mode SIMPLE or MUTUAL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Origination {
    /// Empty takes the request's host (`auto_sni`).
    pub sni: Str,
    pub subject_alt_names: Vec<Str>,
    pub roots: Roots,
    pub client: Option<Certificates>,
    pub alpn: Vec<Str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Roots {
    System,
    /// Roots, and the list of what was revoked, which may be empty.
    Files(Str, Str),
    /// An SDS name.
    Secret(Str),
    /// `insecureSkipVerify`.
    Unverified,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Origin {
    pub host: Str,
    pub name: Str,
    pub namespace: Str,
    /// Empty without a subset.
    pub subset: Str,
    /// `/apis/networking.istio.io/v1/namespaces/<ns>/destination-rule/<name>`; empty without one.
    pub config: Str,
}

/// `envoy.config.endpoint.v3.ClusterLoadAssignment`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct LoadAssignment {
    pub cluster: Str,
    /// Ordered by locality.
    pub localities: Vec<LocalityEndpoints>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct LocalityEndpoints {
    /// region, zone, subzone.
    pub locality: [Str; 3],
    /// 0 is the first that is called.
    pub priority: u32,
    /// Of a hundred requests so many, where that is told; else by the endpoints' weights.
    pub share: Option<u32>,
    pub endpoints: Vec<Endpoint>,
}

// ---- routes

/// The head of an `envoy.config.route.v3.RouteConfiguration`; virtual hosts are encoded apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteTable {
    pub name: Str,
    pub reached: Reached,
}

/// How a request comes to a route table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Reached {
    /// Its listener names it.
    ByListener,
    /// By a scope, whose header ends here.
    ByScope,
    /// By the scopes of its only host: whoever comes is the host's.
    ByOwnScopes,
}

/// `envoy.config.route.v3.ScopedRouteConfiguration`: requests for this name have this table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteScope {
    /// `<port>/<name>`, which is the key too, so that no two scopes can have one key.
    pub key: Str,
    pub table: Str,
    /// When a client asks for the table.
    pub loading: Loading,
}

/// `envoy.config.route.v3.VirtualHost`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VirtualHost {
    pub name: Str,
    /// No domain stands in two hosts of a table: one duplicate would NACK the port for all.
    pub domains: Vec<Str>,
    pub routes: Vec<Route>,
    /// Whether plaintext is led to HTTPS (`require_tls`).
    pub redirects: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    pub name: Str,
    /// None matches all. Its source and gateway conditions are decided before, and cleared.
    pub matches: Option<HttpMatchRequest>,
    pub action: Action,
    /// `metadata.filter_metadata.istio.config`; empty without a VirtualService.
    pub config: Str,
    /// The name of the traced operation.
    pub operation: Str,
    pub also: Option<Box<Also>>,
}

/// What becomes of a request besides, whatever its action; few routes have any of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Also {
    /// The rule's, then its only destination's.
    pub headers: Vec<HeaderChanges>,
    pub fault: Option<HttpFaultInjection>,
    pub cors: Option<CorsPolicy>,
    /// Of the route's own statistics; empty for none.
    pub stat_prefix: Str,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Action {
    Forward(Forward),
    Redirect(Box<Redirect>),
    /// A response of Envoy itself.
    Respond(Response),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Forward {
    /// Never empty; weights as written, zero ones left out.
    pub targets: Vec<HttpTarget>,
    /// 0 is none; always written, for Envoy's own default is 15 s.
    pub timeout: Span,
    pub retries: Option<HttpRetry>,
    pub hash: Vec<HashPolicy>,
    pub rewrite: Option<Box<Rewrite>>,
    pub mirrors: Vec<Mirror>,
}

/// One way of several that requests share, with what is changed of their headers on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct HttpTarget {
    pub cluster: Str,
    pub weight: u32,
    pub headers: Option<Box<HeaderChanges>>,
}

impl HttpTarget {
    pub fn only(cluster: Str) -> Self {
        Self {
            cluster,
            weight: 1,
            headers: None,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rewrite {
    /// Instead of the part of the path that was matched; empty leaves it.
    pub prefix: Str,
    pub regex: Option<RegexRewrite>,
    /// Empty leaves the host.
    pub authority: Str,
}

/// Copies of requests, whose answers nobody waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mirror {
    pub cluster: Str,
    pub share: Percent,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Redirect {
    pub spec: HttpRedirect,
    /// None leaves it to Envoy, which takes that of the scheme.
    pub port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Response {
    pub status: u16,
    pub body: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Target {
    pub cluster: Str,
    pub weight: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum HashPolicy {
    Header(Str),
    Cookie(HttpCookie),
    SourceIp,
    QueryParameter(Str),
}
