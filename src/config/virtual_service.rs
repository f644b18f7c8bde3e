//! VirtualService: HTTP routes, their matches and destinations.
//!
//! Field meaning: <https://istio.io/latest/docs/reference/config/networking/virtual-service/>.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::http_action::{
    CorsPolicy, Delegate, HeaderChanges, HttpDirectResponse, HttpFaultInjection, HttpMirrorPolicy,
    HttpRedirect, HttpRewrite, Percent,
};
use super::l4_route::{TcpRoute, TlsRoute};
use super::meta::Labels;
use super::value::{Span, StringMatch};
use crate::text::Str;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualService {
    pub hosts: Vec<Str>,
    pub gateways: Vec<Str>,
    pub http: Vec<Arc<HttpRoute>>,
    pub tls: Vec<TlsRoute>,
    pub tcp: Vec<TcpRoute>,
    pub export_to: Vec<Str>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRoute {
    pub name: Str,
    #[serde(rename = "match")]
    pub matches: Vec<HttpMatchRequest>,
    /// One of these four.
    pub route: Vec<HttpRouteDestination>,
    pub redirect: Option<HttpRedirect>,
    pub direct_response: Option<HttpDirectResponse>,
    pub delegate: Option<Delegate>,
    pub rewrite: Option<HttpRewrite>,
    pub timeout: Option<Span>,
    pub retries: Option<HttpRetry>,
    pub fault: Option<HttpFaultInjection>,
    /// Deprecated: one mirror, with its share.
    pub mirror: Option<Destination>,
    #[serde(alias = "mirror_percent")]
    pub mirror_percent: Option<u32>,
    pub mirror_percentage: Option<Percent>,
    pub mirrors: Vec<HttpMirrorPolicy>,
    pub cors_policy: Option<CorsPolicy>,
    pub headers: HeaderChanges,
}

impl HttpRoute {
    /// Where copies of requests go, each with its share; those without a share are left out.
    pub fn copies(&self) -> Vec<(&Destination, Percent)> {
        let share = match (self.mirror_percentage, self.mirror_percent) {
            (Some(share), _) => share,
            (None, Some(percent)) => Percent::whole(percent),
            (None, None) => Percent::ALL,
        };
        let single = self.mirror.iter().map(|to| (to, share));
        let several = self.mirrors.iter();
        let several = several.map(|m| (&m.destination, m.percentage.unwrap_or(Percent::ALL)));
        let all = single.chain(several);
        all.filter(|(_, share)| *share > Percent(0)).collect()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpMatchRequest {
    pub name: Str,
    #[serde(deserialize_with = "matched")]
    pub uri: Option<StringMatch>,
    pub ignore_uri_case: bool,
    #[serde(deserialize_with = "matched")]
    pub scheme: Option<StringMatch>,
    #[serde(deserialize_with = "matched")]
    pub method: Option<StringMatch>,
    #[serde(deserialize_with = "matched")]
    pub authority: Option<StringMatch>,
    pub headers: BTreeMap<Str, HeaderMatch>,
    pub without_headers: BTreeMap<Str, HeaderMatch>,
    pub query_params: BTreeMap<Str, HeaderMatch>,
    pub port: Option<u16>,
    pub source_labels: Labels,
    pub source_namespace: Str,
    pub gateways: Vec<Str>,
    pub stat_prefix: Str,
}

/// A `StringMatch` where an empty object means "present".
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HeaderMatch {
    Present,
    Value(StringMatch),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteDestination {
    pub destination: Destination,
    pub weight: u32,
    pub headers: HeaderChanges,
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

/// Istio's wire form of a match: all three keys may be absent.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct MatchForm {
    #[serde(skip_serializing_if = "Option::is_none")]
    exact: Option<Str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<Str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    regex: Option<Str>,
}

impl MatchForm {
    fn read<E: serde::de::Error>(self) -> Result<Option<StringMatch>, E> {
        let Self {
            exact,
            prefix,
            regex,
        } = self;
        match (exact, prefix, regex) {
            (None, None, None) => Ok(None),
            (Some(text), None, None) => Ok(Some(StringMatch::Exact(text))),
            (None, Some(text), None) => Ok(Some(StringMatch::Prefix(text))),
            (None, None, Some(text)) => Ok(Some(StringMatch::Regex(text))),
            (_, _, _) => Err(E::custom("only one of exact, prefix, regex may be set")),
        }
    }
}

/// A match without any key matches everything, as if it were absent.
fn matched<'de, D: Deserializer<'de>>(d: D) -> Result<Option<StringMatch>, D::Error> {
    if !d.is_human_readable() {
        return Option::deserialize(d);
    }
    Option::<MatchForm>::deserialize(d)?
        .unwrap_or_default()
        .read()
}

// For people and JSON `Present` is `{}`; where a version is hashed the two stay apart by a tag.
impl Serialize for HeaderMatch {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let value = match self {
            Self::Present => None,
            Self::Value(value) => Some(value),
        };
        match value {
            Some(value) if s.is_human_readable() => value.serialize(s),
            None if s.is_human_readable() => MatchForm::default().serialize(s),
            Some(_) | None => value.serialize(s),
        }
    }
}

impl<'de> Deserialize<'de> for HeaderMatch {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let value = if d.is_human_readable() {
            // `*` is no expression; Istio takes it for presence.
            let any = StringMatch::Regex(Str::new_static("*"));
            MatchForm::deserialize(d)?.read()?.filter(|v| *v != any)
        } else {
            Option::deserialize(d)?
        };
        Ok(value.map_or(Self::Present, Self::Value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_header_match_means_present_in_every_form() {
        let present: HeaderMatch = serde_json::from_str("{}").unwrap();
        assert_eq!(present, HeaderMatch::Present);
        assert_eq!(serde_json::to_string(&present).unwrap(), "{}");
        let star: HeaderMatch = serde_json::from_str(r#"{"regex":"*"}"#).unwrap();
        assert_eq!(star, HeaderMatch::Present);
        let exact = HeaderMatch::Value(StringMatch::Exact("a".into()));
        assert_eq!(serde_json::to_string(&exact).unwrap(), r#"{"exact":"a"}"#);
        for one in [present, exact] {
            let bytes = postcard::to_stdvec(&one).unwrap();
            assert_eq!(postcard::from_bytes::<HeaderMatch>(&bytes).unwrap(), one);
        }
    }

    #[test]
    fn two_ways_to_match_at_once_are_refused() {
        let both = r#"{"exact":"a","regex":"b"}"#;
        assert!(serde_json::from_str::<HeaderMatch>(both).is_err());
    }
}
