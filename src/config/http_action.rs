//! What a VirtualService's HTTP rule does with a request besides choosing its way: redirect, answer, rewrite, headers,
//! faults, mirrors, CORS.
//!
//! Field meaning: <https://istio.io/latest/docs/reference/config/networking/virtual-service/>.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::value::{Span, StringMatch};
use super::virtual_service::Destination;
use crate::text::Str;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRedirect {
    pub uri: Str,
    pub authority: Str,
    pub scheme: Str,
    pub prefix_rewrite: Str,
    pub port: Option<u16>,
    pub derive_port: Option<RedirectPort>,
    /// 0 is 301.
    pub redirect_code: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RedirectPort {
    #[serde(rename = "FROM_PROTOCOL_DEFAULT")]
    FromProtocolDefault,
    #[serde(rename = "FROM_REQUEST_PORT")]
    FromRequestPort,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpDirectResponse {
    pub status: u16,
    pub body: HttpBody,
}

/// One of both, or neither.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpBody {
    pub string: Str,
    /// Base64, as protobuf's JSON has it.
    pub bytes: Str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRewrite {
    /// Replaces what of the path was matched.
    pub uri: Str,
    pub authority: Str,
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegexRewrite {
    #[serde(rename = "match")]
    pub matches: Str,
    pub rewrite: Str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeaderChanges {
    pub request: HeaderOperations,
    pub response: HeaderOperations,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeaderOperations {
    pub set: BTreeMap<Str, Str>,
    pub add: BTreeMap<Str, Str>,
    pub remove: Vec<Str>,
}

impl HeaderChanges {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpFaultInjection {
    pub delay: Option<Delay>,
    pub abort: Option<Abort>,
}

/// Without a share no request is delayed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Delay {
    /// Deprecated; counts without `percentage`.
    pub percent: u32,
    pub percentage: Option<Percent>,
    pub fixed_delay: Option<Span>,
}

/// Without a share no request is aborted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Abort {
    pub percentage: Option<Percent>,
    pub http_status: Option<u16>,
    /// A name such as `UNAVAILABLE`, or its number.
    pub grpc_status: Str,
}

/// A share of requests, in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(pub u32);

impl Percent {
    pub const ALL: Self = Self(1_000_000);

    pub fn whole(percent: u32) -> Self {
        Self(percent.saturating_mul(10_000))
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct PercentForm {
    value: f64,
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() {
            let value = f64::from(self.0) / 10_000.0;
            PercentForm { value }.serialize(s)
        } else {
            self.0.serialize(s)
        }
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if !d.is_human_readable() {
            return u32::deserialize(d).map(Self);
        }
        let PercentForm { value } = PercentForm::deserialize(d)?;
        if !(0.0..=100.0).contains(&value) {
            let message = format!("{value} is no percentage from 0 to 100");
            return Err(serde::de::Error::custom(message));
        }
        Ok(Self((value * 10_000.0).round() as u32))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpMirrorPolicy {
    pub destination: Destination,
    /// Absent is all.
    pub percentage: Option<Percent>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CorsPolicy {
    /// Deprecated: exact origins, or `*`.
    pub allow_origin: Vec<Str>,
    pub allow_origins: Vec<StringMatch>,
    pub allow_methods: Vec<Str>,
    pub allow_headers: Vec<Str>,
    pub expose_headers: Vec<Str>,
    pub max_age: Option<Span>,
    pub allow_credentials: Option<bool>,
    pub unmatched_preflights: UnmatchedPreflights,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum UnmatchedPreflights {
    #[default]
    #[serde(rename = "FORWARD", alias = "UNSPECIFIED")]
    Forward,
    #[serde(rename = "IGNORE")]
    Ignore,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Delegate {
    pub name: Str,
    /// Empty is the root's.
    pub namespace: Str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_read_in_millionths_and_bounded() {
        let of = |text: &str| serde_json::from_str::<Percent>(text);
        assert_eq!(of(r#"{"value": 0.1}"#).unwrap(), Percent(1_000));
        assert_eq!(of("{}").unwrap(), Percent(0));
        assert_eq!(
            serde_json::to_string(&Percent(125_000)).unwrap(),
            r#"{"value":12.5}"#
        );
        for wrong in [r#"{"value": 101}"#, r#"{"value": -1}"#] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
        let bytes = postcard::to_stdvec(&Percent(7)).unwrap();
        assert_eq!(postcard::from_bytes::<Percent>(&bytes).unwrap(), Percent(7));
    }
}
