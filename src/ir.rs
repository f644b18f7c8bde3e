//! What Envoy's resources are made of, after everything that meets has met.
//!
//! A node here is the whole input of one renderer (`xds`): equal nodes give equal bytes. Whoever joins
//! (the files below) decides names, precedence and defaults; whoever renders decides nothing.

pub mod assignments;
pub mod client;
pub mod domains;
pub mod front;
pub mod gateway_hosts;
pub mod gateway_listener;
pub mod http_actions;
pub mod http_routes;
pub mod inbound;
pub mod inbound_listener;
pub mod l4_routes;
pub mod outbound;
mod outbound_cluster;
pub mod outbound_listener;
pub mod relation;
pub mod scopes;
pub mod spread;
pub mod traffic_policy;

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::config::connection_pool::{ConnectionPool, OutlierDetection, RetryBudget, Warmup};
use crate::config::destination_rule::HttpCookie;
use crate::config::gateway::TlsVersion;
use crate::config::http_action::{
    CorsPolicy, HeaderChanges, HttpFaultInjection, HttpRedirect, Percent, RegexRewrite,
};
use crate::config::proxy_config::ForwardClientCert;
use crate::config::value::Span;
use crate::config::virtual_service::{HttpMatchRequest, HttpRetry};
use crate::text::Str;

pub use crate::model::endpoints::{Address, Endpoint, Health, TlsMode};
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
    /// What bounds its use; few clusters have any.
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
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Discovery {
    /// EDS over ADS, `service_name` equal to the cluster's name.
    Eds,
    /// Names that Envoy looks up: STRICT_DNS, or LOGICAL_DNS of exactly one.
    Dns(Lookup, Box<LoadAssignment>),
    /// To where the connection was going; `source` is the address it leaves from (127.0.0.6 inbound).
    OriginalDst { source: Option<IpAddr> },
    /// Fixed endpoints; none of them is a black hole. `source` as above.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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

// ---- listeners

/// `envoy.config.listener.v3.Listener`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listener {
    pub name: Str,
    pub address: Address,
    pub socket: Socket,
    pub direction: Direction,
    pub capture: Capture,
    /// Whether each connection begins with where it came from (`topology.proxyProtocol`).
    pub proxy_protocol: bool,
    pub tls_inspector: Inspector,
    pub http_inspector: Inspector,
    /// `listener_filters_timeout`; 0 waits for ever.
    pub detection_timeout: Span,
    pub chains: Vec<FilterChain>,
    pub default_chain: Option<FilterChain>,
    /// Logs connections that no chain took.
    pub access_log: Option<AccessLog>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Socket {
    /// Binds its own port.
    Bound,
    /// `bind_to_port: false`: gets connections from the capturing listener by original destination.
    Virtual,
}

/// How a listener learns where a connection was going.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Capture {
    None,
    /// `use_original_dst`: hands over to the listener of that address (virtualOutbound).
    HandOver,
    /// The original_dst listener filter, and chains by destination port (virtualInbound).
    Restore,
}

/// Whether a listener filter reads the first bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Inspector {
    Off,
    On,
    /// Off for connections to these ports, where a server that speaks first would hang.
    ExceptPorts(Vec<u16>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FilterChain {
    pub name: Str,
    pub matches: ChainMatch,
    /// None is plaintext.
    pub tls: Option<DownstreamTls>,
    pub filter: NetworkFilter,
}

/// `envoy.config.listener.v3.FilterChainMatch`; empty parts match all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChainMatch {
    pub destination_port: Option<u16>,
    pub destinations: Vec<IpNet>,
    pub server_names: Vec<Str>,
    pub transport: Option<TransportProtocol>,
    pub alpn: Vec<Str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum TransportProtocol {
    Tls,
    RawBuffer,
}

/// What a connection must be to come through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum DownstreamTls {
    Mesh(InboundTls),
    Server(Box<ServerTls>),
}

/// A gateway's own certificates, as its users have them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerTls {
    pub certificates: Certificates,
    /// Whether, and how, clients are to prove who they are.
    pub clients: Option<ClientProof>,
    pub alpn: Vec<Str>,
    pub least: TlsVersion,
    pub most: TlsVersion,
    /// Empty are the mesh's usual ones.
    pub cipher_suites: Vec<Str>,
    /// Empty are Envoy's.
    pub ecdh_curves: Vec<Str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Certificates {
    /// SDS names.
    Secrets(Vec<Str>),
    /// Chain and key each, as paths in the proxy's file system.
    Files(Vec<(Str, Str)>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClientProof {
    /// A client without certificate is let in all the same.
    pub optional: bool,
    pub roots: ClientRoots,
    /// Exact names of which the client's certificate must have one.
    pub subject_alt_names: Vec<Str>,
    pub certificate_spki: Vec<Str>,
    pub certificate_hash: Vec<Str>,
    /// A certificate that the roots did not sign is let in all the same.
    pub unverified: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum ClientRoots {
    /// An SDS name.
    Secret(Str),
    /// Roots, and the list of what was revoked, which may be empty.
    Files(Str, Str),
    None,
}

/// Client certificate required, from one of these trust domains; `default` and `ROOTCA` over SDS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InboundTls {
    pub alpn: Vec<Str>,
    pub trust_domains: Vec<Str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum NetworkFilter {
    Tcp(TcpProxy),
    Http(Box<HttpManager>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TcpProxy {
    pub stat_prefix: Str,
    /// One, or several by weight.
    pub targets: Vec<Target>,
    pub flow: Flow,
    /// ALPN of the upstream connection where the cluster's own is for HTTP (ports of unknown protocol):
    /// filter state `envoy.network.application_protocols` by the network filter `set_filter_state`.
    pub upstream_alpn: Option<Str>,
    pub connect: Connect,
    pub access_log: Option<AccessLog>,
}

/// When the upstream connection is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Connect {
    AtOnce,
    /// Only after the client's certificate is checked (`ON_DOWNSTREAM_TLS_HANDSHAKE`), so that a client
    /// that is refused never reaches the app.
    AfterHandshake,
}

/// What a DestinationRule says of byte streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Flow {
    /// `consistentHash.useSourceIp`.
    pub hash_source_ip: HashSourceIp,
    /// None is Envoy's hour.
    pub idle_timeout: Option<Span>,
    pub max_duration: Option<Span>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum HashSourceIp {
    #[default]
    No,
    Yes,
}

/// `envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HttpManager {
    pub direction: Direction,
    pub stat_prefix: Str,
    pub routes: Routes,
    /// When the tables and clusters come that its requests lead to.
    pub loading: Loading,
    /// At a gateway alone.
    pub edge: Option<Edge>,
    pub access_log: Option<AccessLog>,
}

/// What is believed of a client outside of the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Edge {
    /// Proxies before the gateway whose `x-forwarded-for` holds.
    pub trusted_hops: u32,
    pub client_cert: ForwardClientCert,
}

/// When a client is sent what it may never use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Loading {
    AtOnce,
    /// When a request first needs it, which waits for it.
    OnDemand,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Routes {
    /// A route table over RDS.
    Rds(Str),
    /// A small table per host, chosen by host and port: scopes over SRDS, their tables over RDS.
    Scoped(Scoping),
    /// Everything to one cluster, in a table of the cluster's name (inbound).
    Inline(InboundRoute),
}

/// How a listener finds the scope of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Scoping {
    /// The table that the scopes stand for, `80`: the first half of every key.
    pub table: Str,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InboundRoute {
    pub cluster: Str,
    /// `inbound|http|<service port>`.
    pub virtual_host: Str,
    /// `<host>:<port>/*`, the name of the traced operation.
    pub operation: Str,
    /// `reset-before-request` twice by default, off for gRPC.
    pub retries: Option<HttpRetry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct AccessLog {
    pub path: Str,
    /// Empty is Istio's default text format.
    pub format: Str,
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
