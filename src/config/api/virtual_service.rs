//! <https://istio.io/latest/docs/reference/config/networking/virtual-service/>

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::value::Span;

use super::{Base64, List, Map, Text};

use super::common::{Destination, Percent, StringMatch};

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualService {
    pub hosts: Option<List<Text>>,
    pub gateways: Option<List<Text>>,
    pub http: Option<List<HttpRoute>>,
    pub tls: Option<List<TlsRoute>>,
    pub tcp: Option<List<TcpRoute>>,
    pub export_to: Option<List<Text>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpRoute {
    pub name: Option<Text>,
    #[serde(rename = "match")]
    pub matches: Option<List<HttpMatchRequest>>,
    pub route: Option<List<HttpRouteDestination>>,
    pub redirect: Option<HttpRedirect>,
    pub direct_response: Option<HttpDirectResponse>,
    pub delegate: Option<Delegate>,
    pub rewrite: Option<HttpRewrite>,
    pub timeout: Option<Span>,
    pub retries: Option<HttpRetry>,
    pub fault: Option<HttpFaultInjection>,
    pub mirror: Option<Destination>,
    pub mirror_percent: Option<u32>,
    pub mirror_percentage: Option<Percent>,
    pub mirrors: Option<List<HttpMirrorPolicy>>,
    pub cors_policy: Option<CorsPolicy>,
    pub headers: Option<HeaderChanges>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpMatchRequest {
    pub name: Option<Text>,
    pub uri: Option<StringMatch>,
    pub scheme: Option<StringMatch>,
    pub method: Option<StringMatch>,
    pub authority: Option<StringMatch>,
    pub headers: Option<Map<StringMatch>>,
    pub port: Option<u32>,
    pub source_labels: Option<Map<Text>>,
    pub gateways: Option<List<Text>>,
    pub query_params: Option<Map<StringMatch>>,
    pub ignore_uri_case: Option<bool>,
    pub without_headers: Option<Map<StringMatch>>,
    pub source_namespace: Option<Text>,
    pub stat_prefix: Option<Text>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteDestination {
    pub destination: Option<Destination>,
    pub weight: Option<i32>,
    pub headers: Option<HeaderChanges>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderChanges {
    pub request: Option<HeaderOperations>,
    pub response: Option<HeaderOperations>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderOperations {
    pub set: Option<Map<Text>>,
    pub add: Option<Map<Text>>,
    pub remove: Option<List<Text>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpRedirect {
    pub uri: Option<Text>,
    pub authority: Option<Text>,
    pub port: Option<u32>,
    pub derive_port: Option<RedirectPort>,
    pub scheme: Option<Text>,
    pub prefix_rewrite: Option<Text>,
    pub redirect_code: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum RedirectPort {
    #[serde(rename = "FROM_PROTOCOL_DEFAULT")]
    FromProtocolDefault,
    #[serde(rename = "FROM_REQUEST_PORT")]
    FromRequestPort,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpDirectResponse {
    pub status: Option<u32>,
    pub body: Option<HttpBody>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpBody {
    pub string: Option<Text>,
    pub bytes: Option<Base64>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delegate {
    pub name: Option<Text>,
    pub namespace: Option<Text>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpRewrite {
    pub uri: Option<Text>,
    pub authority: Option<Text>,
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegexRewrite {
    #[serde(rename = "match")]
    pub matches: Option<Text>,
    pub rewrite: Option<Text>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpRetry {
    pub attempts: Option<i32>,
    pub per_try_timeout: Option<Span>,
    pub retry_on: Option<Text>,
    pub retry_remote_localities: Option<bool>,
    pub retry_ignore_previous_hosts: Option<bool>,
    pub backoff: Option<Span>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpFaultInjection {
    pub delay: Option<Delay>,
    pub abort: Option<Abort>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delay {
    pub percent: Option<i32>,
    pub fixed_delay: Option<Span>,
    pub exponential_delay: Option<Span>,
    pub percentage: Option<Percent>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Abort {
    pub http_status: Option<i32>,
    pub grpc_status: Option<Text>,
    pub http2_error: Option<Text>,
    pub percentage: Option<Percent>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpMirrorPolicy {
    pub destination: Option<Destination>,
    pub percentage: Option<Percent>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CorsPolicy {
    pub allow_origin: Option<List<Text>>,
    pub allow_origins: Option<List<StringMatch>>,
    pub allow_methods: Option<List<Text>>,
    pub allow_headers: Option<List<Text>>,
    pub expose_headers: Option<List<Text>>,
    pub max_age: Option<Span>,
    pub allow_credentials: Option<bool>,
    pub unmatched_preflights: Option<UnmatchedPreflights>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum UnmatchedPreflights {
    #[serde(rename = "UNSPECIFIED")]
    Unspecified,
    #[serde(rename = "FORWARD")]
    Forward,
    #[serde(rename = "IGNORE")]
    Ignore,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsRoute {
    #[serde(rename = "match")]
    pub matches: Option<List<TlsMatchAttributes>>,
    pub route: Option<List<RouteDestination>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsMatchAttributes {
    pub sni_hosts: Option<List<Text>>,
    pub destination_subnets: Option<List<Text>>,
    pub port: Option<u32>,
    pub source_labels: Option<Map<Text>>,
    pub gateways: Option<List<Text>>,
    pub source_namespace: Option<Text>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpRoute {
    #[serde(rename = "match")]
    pub matches: Option<List<L4MatchAttributes>>,
    pub route: Option<List<RouteDestination>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct L4MatchAttributes {
    pub destination_subnets: Option<List<Text>>,
    pub port: Option<u32>,
    pub source_subnet: Option<Text>,
    pub source_labels: Option<Map<Text>>,
    pub gateways: Option<List<Text>>,
    pub source_namespace: Option<Text>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteDestination {
    pub destination: Option<Destination>,
    pub weight: Option<i32>,
}
