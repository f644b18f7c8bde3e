//! What clients send: delta requests and gRPC's framing of them. Responses are in `frame.rs`.
//!
//! The messages name only the fields that are read; a decoder skips the rest, so they stay
//! wire-compatible with `envoy.service.discovery.v3`.

use std::collections::BTreeMap;
use std::fmt;

use bytes::{Buf, Bytes, BytesMut};
use envoy_types::pb::google::protobuf::{Struct, Value, value};
use prost::Message;

/// `envoy.service.discovery.v3.DeltaDiscoveryRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct DeltaRequest {
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    #[prost(string, tag = "2")]
    pub type_url: String,
    #[prost(string, repeated, tag = "3")]
    pub subscribe: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    pub unsubscribe: Vec<String>,
    /// What the client holds from an earlier stream: name to version.
    #[prost(btree_map = "string, string", tag = "5")]
    pub initial_versions: BTreeMap<String, String>,
    #[prost(string, tag = "6")]
    pub nonce: String,
    /// Present in a NACK.
    #[prost(message, optional, tag = "7")]
    pub error: Option<ErrorDetail>,
}

/// `envoy.config.core.v3.Node`, as far as it is read.
#[derive(Clone, PartialEq, Message)]
pub struct Node {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub cluster: String,
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<Struct>,
    #[prost(message, optional, tag = "8")]
    pub build: Option<Build>,
}

/// `envoy.config.core.v3.BuildVersion`.
#[derive(Clone, PartialEq, Message)]
pub struct Build {
    #[prost(message, optional, tag = "1")]
    pub version: Option<Semantic>,
}

/// `envoy.type.v3.SemanticVersion`.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Semantic {
    #[prost(uint32, tag = "1")]
    pub major: u32,
    #[prost(uint32, tag = "2")]
    pub minor: u32,
    #[prost(uint32, tag = "3")]
    pub patch: u32,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub struct ErrorDetail {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
}

impl Node {
    pub fn metadata_json(&self) -> serde_json::Value {
        self.metadata
            .as_ref()
            .map_or(serde_json::Value::Null, object)
    }

    /// Envoy's own version, such as `1.40.0`.
    pub fn envoy_version(&self) -> Option<String> {
        let Semantic {
            major,
            minor,
            patch,
        } = self.build.as_ref()?.version?;
        Some(format!("{major}.{minor}.{patch}"))
    }
}

fn object(fields: &Struct) -> serde_json::Value {
    let sorted: BTreeMap<_, _> = fields.fields.iter().map(|(k, v)| (k, json(v))).collect();
    serde_json::Value::Object(sorted.into_iter().map(|(k, v)| (k.clone(), v)).collect())
}

fn json(value: &Value) -> serde_json::Value {
    match &value.kind {
        None | Some(value::Kind::NullValue(_)) => serde_json::Value::Null,
        Some(value::Kind::NumberValue(n)) => (*n).into(),
        Some(value::Kind::StringValue(s)) => s.clone().into(),
        Some(value::Kind::BoolValue(b)) => (*b).into(),
        Some(value::Kind::StructValue(fields)) => object(fields),
        Some(value::Kind::ListValue(list)) => list.values.iter().map(json).collect(),
    }
}

/// Names one response of a stream; always eight characters, so that everything before it is shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(pub u32);

impl Nonce {
    pub const LEN: usize = 8;

    pub fn parse(text: &str) -> Option<Self> {
        let fits = text.len() == Self::LEN && text.bytes().all(|b| b.is_ascii_hexdigit());
        fits.then(|| u32::from_str_radix(text, 16).ok().map(Self))
            .flatten()
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WireError {
    #[error("the request is compressed; only plain messages are read")]
    Compressed,
    #[error("the request has {len} bytes, more than the {limit} allowed")]
    TooLong { len: usize, limit: usize },
    #[error("the request is no DeltaDiscoveryRequest")]
    Malformed,
}

/// Cuts a request stream into messages. It holds at most one message and what came with its end.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    limit: usize,
}

/// Compressed flag and length, before each gRPC message.
pub const PREFIX: usize = 5;

impl Decoder {
    pub fn new(limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            limit,
        }
    }

    pub fn push(&mut self, data: &Bytes) {
        self.buffer.extend_from_slice(data);
    }

    /// None until a whole message is there.
    pub fn take(&mut self) -> Result<Option<DeltaRequest>, WireError> {
        let Some((prefix, rest)) = self.buffer.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let [flag, a, b, c, d] = *prefix;
        if flag != 0 {
            return Err(WireError::Compressed);
        }
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        if len > self.limit {
            return Err(WireError::TooLong {
                len,
                limit: self.limit,
            });
        }
        if rest.len() < len {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        let message = self.buffer.split_to(len);
        if self.buffer.is_empty() {
            // An idle stream keeps no buffer.
            self.buffer = BytesMut::new();
        }
        let request = DeltaRequest::decode(message).map_err(|_| WireError::Malformed)?;
        Ok(Some(request))
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

    use super::*;

    fn framed(flag: u8, body: &[u8]) -> Bytes {
        let mut out = vec![flag];
        out.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
        out.extend_from_slice(body);
        out.into()
    }

    #[test]
    fn envoys_own_message_decodes_into_ours() {
        use envoy_types::pb::envoy::config::core::v3::Node as EnvoyNode;
        let envoys = DeltaDiscoveryRequest {
            node: Some(EnvoyNode {
                id: "sidecar~1".into(),
                metadata: Some(Struct {
                    fields: [(
                        "A".into(),
                        Value {
                            kind: Some(value::Kind::BoolValue(true)),
                        },
                    )]
                    .into(),
                }),
                ..Default::default()
            }),
            type_url: "t".into(),
            resource_names_subscribe: vec!["a".into()],
            resource_names_unsubscribe: vec!["b".into()],
            initial_resource_versions: [("c".into(), "1".into())].into(),
            response_nonce: "00000001".into(),
            ..Default::default()
        };
        let ours = DeltaRequest::decode(&envoys.encode_to_vec()[..]).unwrap();
        let node = ours.node.as_ref().unwrap();
        assert_eq!(node.id, "sidecar~1");
        assert_eq!(node.metadata_json(), serde_json::json!({"A": true}));
        assert_eq!(
            (ours.subscribe, ours.unsubscribe),
            (vec!["a".into()], vec!["b".into()])
        );
        assert_eq!(ours.initial_versions["c"], "1");
        assert_eq!(Nonce::parse(&ours.nonce), Some(Nonce(1)));
    }

    #[test]
    fn messages_come_out_whole_however_the_bytes_are_cut() {
        let message = DeltaRequest {
            type_url: "t".into(),
            ..Default::default()
        };
        let wire = [framed(0, &message.encode_to_vec()), framed(0, b"")].concat();
        let mut decoder = Decoder::new(100);
        let mut got = Vec::new();
        for byte in wire {
            decoder.push(&Bytes::copy_from_slice(&[byte]));
            got.extend(decoder.take().unwrap());
        }
        assert_eq!(got, [message, DeltaRequest::default()]);
    }

    #[test]
    fn a_request_over_the_bound_is_refused_by_its_length_alone() {
        let mut decoder = Decoder::new(100);
        decoder.push(&framed(0, &[0; 101]).slice(..PREFIX));
        assert_eq!(
            decoder.take(),
            Err(WireError::TooLong {
                len: 101,
                limit: 100
            })
        );
    }

    #[test]
    fn compressed_and_malformed_requests_are_refused() {
        let mut decoder = Decoder::new(100);
        decoder.push(&framed(1, b""));
        assert_eq!(decoder.take(), Err(WireError::Compressed));
        let mut decoder = Decoder::new(100);
        decoder.push(&framed(0, b"\xff\xff"));
        assert_eq!(decoder.take(), Err(WireError::Malformed));
    }

    #[test]
    fn a_nonce_has_eight_characters_and_comes_back() {
        for n in [0, 1, 0xdead_beef, u32::MAX] {
            let text = Nonce(n).to_string();
            assert_eq!(
                (text.len(), Nonce::parse(&text)),
                (Nonce::LEN, Some(Nonce(n)))
            );
        }
        for stale in ["", "1", "+0000001", "00000001 ", "é0000001"] {
            assert_eq!(Nonce::parse(stale), None, "{stale}");
        }
    }
}
