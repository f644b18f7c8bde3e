//! What listeners are made of: sockets, filter chains, TLS, the HTTP connection manager.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::{Address, Direction, Extension, Target};
use crate::config::destination_rule::Tunnel;
use crate::config::gateway::TlsVersion;
use crate::config::proxy_config::ForwardClientCert;
use crate::config::value::Span;
use crate::config::virtual_service::HttpRetry;
use crate::text::Str;

/// `envoy.config.listener.v3.Listener`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listener {
    pub name: Str,
    pub address: Address,
    /// A second address, on the same port.
    pub also: Option<IpAddr>,
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
    /// The same with what the kernel hands over unchanged (TPROXY): the workload is spoken to from the client's address.
    Transparent,
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Flow {
    /// `consistentHash.useSourceIp`.
    pub hash_source_ip: HashSourceIp,
    /// None is Envoy's hour.
    pub idle_timeout: Option<Span>,
    pub max_duration: Option<Span>,
    /// Through an HTTP proxy.
    pub tunnel: Option<Box<Tunnel>>,
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
    /// Users' own filters, in their order.
    pub extensions: Vec<Extension>,
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
