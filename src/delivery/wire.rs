//! What clients send: delta requests and gRPC's framing of them. Responses are in `frame.rs`.
//!
//! A request's lists of names may be long: they stay in the bytes that came, and are read in place.

use std::collections::BTreeMap;
use std::fmt;
use std::str::from_utf8;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use envoy_types::pb::google::protobuf::{Struct, Value, value};
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};

use super::lists::{Known, Lists};
use crate::text::Str;
use crate::xds::ResourceType;

/// `envoy.service.discovery.v3.DeltaDiscoveryRequest`, as far as it is read.
#[derive(Clone, Debug)]
pub struct Request {
    /// The first of a stream says who calls.
    pub node: Option<Box<Node>>,
    /// A type nobody serves is given by the start of its URL.
    pub kind: Result<ResourceType, Str>,
    /// The frame it answers. `Err` is a nonce that no frame of ours ever had.
    pub answers: Option<Result<Nonce, ()>>,
    /// Why the client rejected that frame, cut to a bound.
    pub error: Option<Arc<str>>,
    pub lists: Lists,
    body: Bytes,
}

/// All resources of a type.
pub const WILDCARD: &str = "*";

/// Envoy's error detail is kept up to this many bytes.
const MESSAGE: usize = 2048;
/// So is the name of a type nobody serves.
const TYPE_URL: usize = 256;

// Fields of the request. `google.rpc.Status.message` and the parts of a map's entry are below them.
const NODE: u32 = 1;
const URL: u32 = 2;
const SUBSCRIBE: u32 = 3;
const UNSUBSCRIBE: u32 = 4;
const INITIAL_VERSIONS: u32 = 5;
const NONCE: u32 = 6;
const ERROR: u32 = 7;

impl Request {
    pub fn parse(body: Bytes, known: &Known) -> Result<Self, WireError> {
        let mut request = Self {
            node: None,
            kind: Err(Str::default()),
            answers: None,
            error: None,
            lists: Lists::default(),
            body: Bytes::new(),
        };
        // Fields come in the order of their numbers from all who write protobuf, and in any from who does not.
        let mut early = false;
        let mut long = None;
        let mut fields = Fields(&body);
        loop {
            let left = fields.0;
            let Some(field) = fields.next() else { break };
            let (tag, bytes) = field?;
            early |= if tag == URL {
                request.kind.is_ok()
            } else {
                tag > URL && request.kind.is_err()
            };
            if matches!(tag, SUBSCRIBE..=INITIAL_VERSIONS)
                && let Ok(kind) = request.kind
                && long.is_none()
            {
                let key = *long.insert(known.key(kind, left));
                if let Some(lists) = key.and_then(|key| known.get(key)) {
                    request.lists = lists;
                    break;
                }
            }
            request.read(tag, bytes)?;
        }
        if early {
            request.recount(&body)?;
        } else if request.answers.is_none()
            && request.error.is_none()
            && let Some(key) = long.flatten()
        {
            // Nothing but lists: whoever sends the same says the same.
            known.keep(key, request.lists);
        }
        request.body = body;
        Ok(request)
    }

    fn read(&mut self, tag: u32, bytes: &[u8]) -> Result<(), WireError> {
        match tag {
            NODE => {
                let node = Node::decode(bytes).map_err(|_| WireError::Malformed)?;
                self.node = Some(Box::new(node));
            }
            URL => {
                let url = text(bytes)?;
                let unknown = || Str::new(cut(url, TYPE_URL));
                self.kind = ResourceType::from_type_url(url).ok_or_else(unknown);
            }
            NONCE => {
                let nonce = Some(text(bytes)?).filter(|n| !n.is_empty());
                self.answers = nonce.map(|n| Nonce::parse(n).ok_or(()));
            }
            ERROR => {
                let error = ErrorDetail::decode(bytes).map_err(|_| WireError::Malformed)?;
                self.error = Some(cut(&error.message, MESSAGE).into());
            }
            _ => {
                if let Ok(kind) = self.kind {
                    self.count(kind, tag, bytes)?;
                }
            }
        }
        Ok(())
    }

    /// Looks at an item of a list, with the type at hand.
    fn count(&mut self, kind: ResourceType, tag: u32, bytes: &[u8]) -> Result<(), WireError> {
        match tag {
            SUBSCRIBE => self.lists.subscribe.add(kind, text(bytes)?),
            UNSUBSCRIBE => self.lists.unsubscribe.add(kind, text(bytes)?),
            INITIAL_VERSIONS => {
                let (name, version) = claim(bytes)?;
                self.lists.claims.add(kind, name, version);
            }
            _ => {}
        }
        Ok(())
    }

    fn recount(&mut self, body: &[u8]) -> Result<(), WireError> {
        self.lists = Lists::default();
        let Ok(kind) = self.kind else {
            return Ok(());
        };
        for field in Fields(body) {
            let (tag, bytes) = field?;
            self.count(kind, tag, bytes)?;
        }
        Ok(())
    }

    pub fn subscribed(&self) -> impl Iterator<Item = &str> {
        self.fields(SUBSCRIBE).filter_map(|name| text(name).ok())
    }

    pub fn unsubscribed(&self) -> impl Iterator<Item = &str> {
        self.fields(UNSUBSCRIBE).filter_map(|name| text(name).ok())
    }

    /// Names and versions.
    pub fn claimed(&self) -> impl Iterator<Item = (&str, &str)> {
        let entries = self.fields(INITIAL_VERSIONS);
        entries.filter_map(|entry| claim(entry).ok())
    }

    /// `parse` has seen that all of them are well-formed.
    fn fields(&self, tag: u32) -> impl Iterator<Item = &[u8]> {
        let all = Fields(&self.body).filter_map(Result::ok);
        all.filter(move |(t, _)| *t == tag).map(|(_, bytes)| bytes)
    }
}

/// The fields with a length of a message, in order; others are passed over.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, &'a [u8]), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.0.is_empty() {
            match self.field() {
                Some((_, None)) => {}
                Some((tag, Some(bytes))) => return Some(Ok((tag, bytes))),
                None => {
                    self.0 = &[];
                    return Some(Err(WireError::Malformed));
                }
            }
        }
        None
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u32, Option<&'a [u8]>)> {
        let (tag, wire) = decode_key(&mut self.0).ok()?;
        let skip = match wire {
            WireType::Varint => {
                decode_varint(&mut self.0).ok()?;
                0
            }
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::LengthDelimited => {
                let len = usize::try_from(decode_varint(&mut self.0).ok()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(len)?;
                self.0 = rest;
                return Some((tag, Some(bytes)));
            }
            // Groups: no version of these messages has one.
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        self.0 = self.0.get(skip..)?;
        Some((tag, None))
    }
}

fn text(bytes: &[u8]) -> Result<&str, WireError> {
    from_utf8(bytes).map_err(|_| WireError::Malformed)
}

/// An entry of a map from string to string: key = 1, value = 2.
fn claim(entry: &[u8]) -> Result<(&str, &str), WireError> {
    let (mut name, mut version) = ("", "");
    for field in Fields(entry) {
        match field? {
            (1, bytes) => name = text(bytes)?,
            (2, bytes) => version = text(bytes)?,
            _ => {}
        }
    }
    Ok((name, version))
}

fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rfind(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
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
    #[prost(message, optional, tag = "4")]
    pub locality: Option<Locality>,
    #[prost(message, optional, tag = "8")]
    pub build: Option<Build>,
}

/// `envoy.config.core.v3.Locality`.
#[derive(Clone, PartialEq, Message)]
pub struct Locality {
    #[prost(string, tag = "1")]
    pub region: String,
    #[prost(string, tag = "2")]
    pub zone: String,
    #[prost(string, tag = "3")]
    pub sub_zone: String,
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

    /// The WorkloadGroup that it wants to be entered into.
    pub fn registers(&self) -> Option<&str> {
        let said = self.metadata.as_ref()?.fields.get("AUTO_REGISTER_GROUP")?;
        match &said.kind {
            Some(value::Kind::StringValue(group)) if !group.is_empty() => Some(group),
            _ => None,
        }
    }

    /// Region, zone, subzone.
    pub fn place(&self) -> [&str; 3] {
        match &self.locality {
            Some(l) => [&l.region, &l.zone, &l.sub_zone],
            None => Default::default(),
        }
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
    known: Arc<Known>,
}

/// Compressed flag and length, before each gRPC message.
pub const PREFIX: usize = 5;

/// Room made for a message on its length alone.
const BELIEVED: usize = 128 << 10;

impl Decoder {
    pub fn new(limit: usize, known: Arc<Known>) -> Self {
        Self {
            buffer: BytesMut::new(),
            limit,
            known,
        }
    }

    pub fn push(&mut self, data: &Bytes) {
        self.buffer.extend_from_slice(data);
    }

    /// None until a whole message is there.
    pub fn take(&mut self) -> Result<Option<Request>, WireError> {
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
        if let Some(missing) = len.checked_sub(rest.len()).filter(|n| *n > 0) {
            // Room for the rest and no more, but never for much that is only announced.
            let believed = self.buffer.len().max(BELIEVED);
            self.buffer.reserve(missing.min(believed));
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        let message = self.buffer.split_to(len).freeze();
        if self.buffer.is_empty() {
            // An idle stream keeps no buffer.
            self.buffer = BytesMut::new();
        }
        Request::parse(message, &self.known).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

    use super::*;
    use crate::delivery::lists::Listed;
    use crate::xds::stamp::{key_of, mark_of};

    fn parse(body: Vec<u8>) -> Result<Request, WireError> {
        Request::parse(body.into(), &Known::default())
    }

    fn cutting(limit: usize) -> Decoder {
        Decoder::new(limit, Arc::default())
    }

    fn framed(flag: u8, body: &[u8]) -> Bytes {
        let mut out = vec![flag];
        out.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
        out.extend_from_slice(body);
        out.into()
    }

    #[test]
    fn envoys_own_message_decodes_into_ours() {
        use envoy_types::pb::envoy::config::core::v3::Node as EnvoyNode;
        use envoy_types::pb::google::rpc::Status;
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
            type_url: ResourceType::Cluster.type_url().into(),
            resource_names_subscribe: vec!["a".into(), "*".into()],
            resource_names_unsubscribe: vec!["b".into()],
            initial_resource_versions: [("c".into(), "1".into())].into(),
            response_nonce: "00000001".into(),
            error_detail: Some(Status {
                message: "no".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let ours = parse(envoys.encode_to_vec()).unwrap();
        let node = ours.node.as_ref().unwrap();
        assert_eq!(node.id, "sidecar~1");
        assert_eq!(node.metadata_json(), serde_json::json!({"A": true}));
        assert_eq!(ours.kind, Ok(ResourceType::Cluster));
        assert_eq!(ours.subscribed().collect::<Vec<_>>(), ["a", "*"]);
        assert_eq!(ours.unsubscribed().collect::<Vec<_>>(), ["b"]);
        assert_eq!(ours.claimed().collect::<Vec<_>>(), [("c", "1")]);
        assert_eq!(ours.answers, Some(Ok(Nonce(1))));
        assert_eq!(ours.error.as_deref(), Some("no"));
        let key = |name| key_of(ResourceType::Cluster, name);
        let subscribe = Listed {
            count: 2,
            longest: 1,
            digest: key("a"),
            wildcard: true,
        };
        assert_eq!(ours.lists.subscribe, subscribe);
        assert_eq!(ours.lists.claims.names, key("c"));
        assert_eq!(ours.lists.claims.content, mark_of(key("c"), "1"));
    }

    #[test]
    fn a_type_that_comes_late_or_twice_counts_for_all_names() {
        let field = |tag: u32, text: &str| {
            let len = u8::try_from(text.len()).unwrap();
            [&[tag as u8 * 8 + 2, len], text.as_bytes()].concat()
        };
        let [cluster, endpoint] = [ResourceType::Cluster, ResourceType::Endpoint];
        let late = [field(SUBSCRIBE, "a"), field(URL, cluster.type_url())].concat();
        let again = [field(URL, endpoint.type_url()), late.clone()].concat();
        for body in [late, again] {
            let request = parse(body).unwrap();
            assert_eq!(request.kind, Ok(cluster));
            assert_eq!(request.lists.subscribe.count, 1);
            assert_eq!(request.lists.subscribe.digest, key_of(cluster, "a"));
        }
        let unknown = [field(URL, "u"), field(SUBSCRIBE, "a")].concat();
        let last = [field(URL, cluster.type_url()), unknown].concat();
        let request = parse(last).unwrap();
        assert_eq!(
            (request.kind, request.lists.subscribe.count),
            (Err("u".into()), 0)
        );
    }

    #[test]
    fn long_lists_are_known_again_and_an_answer_beside_them_is_not() {
        let names: Vec<String> = (0..200)
            .map(|n| format!("a-rather-long-name-{n}"))
            .collect();
        let asks = DeltaDiscoveryRequest {
            type_url: ResourceType::Endpoint.type_url().into(),
            resource_names_subscribe: names,
            ..Default::default()
        };
        let answers = DeltaDiscoveryRequest {
            response_nonce: "00000007".into(),
            ..asks.clone()
        };
        let other = DeltaDiscoveryRequest {
            type_url: ResourceType::Route.type_url().into(),
            ..asks.clone()
        };
        let known = Known::default();
        for message in [&asks, &answers, &other, &asks, &answers, &other] {
            let body = message.encode_to_vec();
            let fresh = parse(body.clone()).unwrap();
            let again = Request::parse(body.into(), &known).unwrap();
            assert_eq!(again.lists, fresh.lists);
            assert_eq!((again.answers, again.kind), (fresh.answers, fresh.kind));
            assert_eq!(again.lists.subscribe.count, 200);
        }
    }

    #[test]
    fn lists_that_are_no_text_or_cut_short_are_refused() {
        let url = ResourceType::Cluster.type_url().as_bytes();
        let mut start = vec![URL as u8 * 8 + 2, url.len() as u8];
        start.extend_from_slice(url);
        for rest in [
            &[SUBSCRIBE as u8 * 8 + 2, 1, 0xff][..],
            &[UNSUBSCRIBE as u8 * 8 + 2, 1, 0xff],
            &[INITIAL_VERSIONS as u8 * 8 + 2, 3, 0x0a, 1, 0xff],
            &[INITIAL_VERSIONS as u8 * 8 + 2, 2, 0x0a, 1],
            &[SUBSCRIBE as u8 * 8 + 2, 2, b'a'],
            &[8 * 9 + 1, 0, 0],
            &[8 * 9 + 3],
        ] {
            let body = [&start, rest].concat();
            assert!(parse(body).is_err(), "{rest:?}");
        }
        assert!(parse(start).is_ok());
    }

    #[test]
    fn messages_come_out_whole_however_the_bytes_are_cut() {
        let message = DeltaDiscoveryRequest {
            type_url: "t".into(),
            ..Default::default()
        };
        let wire = [framed(0, &message.encode_to_vec()), framed(0, b"")].concat();
        let mut decoder = cutting(100);
        let mut got = Vec::new();
        for byte in wire {
            decoder.push(&Bytes::copy_from_slice(&[byte]));
            got.extend(decoder.take().unwrap());
        }
        let kinds: Vec<_> = got.into_iter().map(|r| r.kind).collect();
        assert_eq!(kinds, [Err("t".into()), Err("".into())]);
    }

    #[test]
    fn a_message_that_is_only_announced_gets_little_room() {
        let mut decoder = cutting(4 << 20);
        let announced = framed(0, &vec![0; 3 << 20]);
        decoder.push(&announced.slice(..PREFIX + 1));
        assert!(decoder.take().unwrap().is_none());
        assert!(decoder.buffer.capacity() <= 2 * BELIEVED);
    }

    #[test]
    fn a_request_over_the_bound_is_refused_by_its_length_alone() {
        let mut decoder = cutting(100);
        decoder.push(&framed(0, &[0; 101]).slice(..PREFIX));
        let (len, limit) = (101, 100);
        let refused = decoder.take().map(|_| ());
        assert_eq!(refused, Err(WireError::TooLong { len, limit }));
    }

    #[test]
    fn compressed_and_malformed_requests_are_refused() {
        let mut decoder = cutting(100);
        decoder.push(&framed(1, b""));
        assert_eq!(decoder.take().err(), Some(WireError::Compressed));
        let mut decoder = cutting(100);
        decoder.push(&framed(0, b"\xff\xff"));
        assert_eq!(decoder.take().err(), Some(WireError::Malformed));
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
