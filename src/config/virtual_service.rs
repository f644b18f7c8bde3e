//! VirtualService: HTTP routes, their matches and destinations.
//!
//! Field meaning: <https://istio.io/latest/docs/reference/config/networking/virtual-service/>.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::meta::Labels;
use super::value::{Span, StringMatch};
use crate::text::Str;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualService {
    pub hosts: Vec<Str>,
    pub gateways: Vec<Str>,
    pub http: Vec<Arc<HttpRoute>>,
    pub export_to: Vec<Str>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRoute {
    pub name: Str,
    #[serde(rename = "match")]
    pub matches: Vec<HttpMatchRequest>,
    pub route: Vec<HttpRouteDestination>,
    pub timeout: Option<Span>,
    pub retries: Option<HttpRetry>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpMatchRequest {
    pub name: Str,
    pub uri: Option<StringMatch>,
    pub ignore_uri_case: bool,
    pub scheme: Option<StringMatch>,
    pub method: Option<StringMatch>,
    pub authority: Option<StringMatch>,
    pub headers: BTreeMap<Str, HeaderMatch>,
    pub without_headers: BTreeMap<Str, HeaderMatch>,
    pub query_params: BTreeMap<Str, HeaderMatch>,
    pub port: Option<u16>,
    pub source_labels: Labels,
    pub source_namespace: Str,
    pub gateways: Vec<Str>,
}

/// A `StringMatch` where an empty object means "present".
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HeaderMatch {
    Present,
    Value(StringMatch),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteDestination {
    pub destination: Destination,
    pub weight: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Destination {
    pub host: Str,
    pub subset: Str,
    pub port: Option<PortSelector>,
}

#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(default)]
pub struct PortSelector {
    pub number: u16,
}

/// `attempts` 0 turns retries off; an absent `retries` means the mesh's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRetry {
    pub attempts: u32,
    pub per_try_timeout: Option<Span>,
    pub retry_on: Str,
    pub retry_remote_localities: Option<bool>,
    pub retry_ignore_previous_hosts: Option<bool>,
    pub backoff: Option<Span>,
}

impl HttpRetry {
    /// Istio's default without `retries`: twice, on failures that reached no app, on another host.
    pub fn standard() -> Self {
        Self {
            attempts: 2,
            retry_on: Str::new_static(
                "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
            ),
            retry_ignore_previous_hosts: Some(true),
            ..Self::default()
        }
    }
}
