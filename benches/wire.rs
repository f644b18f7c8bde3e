//! Delta xDS on the wire: requests written, responses scanned without decoding. No sockets here.

use bytes::{BufMut, Bytes, BytesMut};
use fairlead::xds::ResourceType;

/// Compressed flag and length, before each gRPC message.
pub const PREFIX: usize = 5;

/// One field of a protobuf message: those of fixed width say nothing that is read here.
pub enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// Walks the top-level fields. Ends at the first byte that is no field.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Field<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Number(self.varint()?),
            1 => self.take(8).map(|_| Field::Fixed)?,
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                Field::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Field::Fixed)?,
            _ => return None,
        };
        Some((key >> 3, field))
    }
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for (at, byte) in self.0.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.0 = &self.0[at + 1..];
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }
}

/// A `DeltaDiscoveryResponse`, its resources still packed.
pub struct Response<'a> {
    pub kind: ResourceType,
    pub nonce: &'a [u8],
    pub resources: Vec<Packed<'a>>,
    pub removed: Vec<&'a str>,
}

/// A `Resource`: name, version, and the message inside its `Any`.
pub struct Packed<'a> {
    pub name: &'a str,
    pub version: &'a str,
    pub body: &'a [u8],
}

impl<'a> Response<'a> {
    /// None for what is no response of a known type.
    pub fn scan(message: &'a [u8]) -> Option<Self> {
        let (mut kind, mut nonce) = (None, &[][..]);
        let (mut resources, mut removed) = (Vec::new(), Vec::new());
        for (tag, field) in Fields(message) {
            match (tag, field) {
                (2, Field::Bytes(resource)) => resources.push(Packed::scan(resource)?),
                (4, Field::Bytes(url)) => kind = ResourceType::from_type_url(str(url)?),
                (5, Field::Bytes(text)) => nonce = text,
                (6, Field::Bytes(name)) => removed.push(str(name)?),
                _ => {}
            }
        }
        let kind = kind?;
        Some(Self {
            kind,
            nonce,
            resources,
            removed,
        })
    }
}

impl<'a> Packed<'a> {
    fn scan(resource: &'a [u8]) -> Option<Self> {
        let (mut name, mut version, mut any) = ("", "", &[][..]);
        for (tag, field) in Fields(resource) {
            match (tag, field) {
                (1, Field::Bytes(text)) => version = str(text)?,
                (2, Field::Bytes(inner)) => any = inner,
                (3, Field::Bytes(text)) => name = str(text)?,
                _ => {}
            }
        }
        let value = Fields(any).find_map(|(tag, field)| match (tag, field) {
            (2, Field::Bytes(value)) => Some(value),
            _ => None,
        });
        let body = value.unwrap_or_default();
        Some(Self {
            name,
            version,
            body,
        })
    }
}

/// A `DeltaDiscoveryRequest`.
pub struct Request<'a> {
    /// The encoded `Node`, in the first request of a stream alone.
    pub node: Option<&'a [u8]>,
    pub type_url: &'a str,
    pub subscribe: Vec<&'a str>,
    pub unsubscribe: Vec<&'a str>,
    pub initial: Vec<(&'a str, &'a str)>,
    pub nonce: &'a [u8],
}

impl<'a> Request<'a> {
    pub fn of(kind: ResourceType) -> Self {
        Self {
            node: None,
            type_url: kind.type_url(),
            subscribe: Vec::new(),
            unsubscribe: Vec::new(),
            initial: Vec::new(),
            nonce: &[],
        }
    }

    pub fn ack(kind: ResourceType, nonce: &'a [u8]) -> Self {
        Self {
            nonce,
            ..Self::of(kind)
        }
    }

    /// The request as a gRPC message, prefix included.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(128);
        out.put_bytes(0, PREFIX);
        if let Some(node) = self.node {
            put(&mut out, 1, node);
        }
        put(&mut out, 2, self.type_url.as_bytes());
        for name in &self.subscribe {
            put(&mut out, 3, name.as_bytes());
        }
        for name in &self.unsubscribe {
            put(&mut out, 4, name.as_bytes());
        }
        let mut entry = BytesMut::new();
        for (name, version) in &self.initial {
            entry.clear();
            put(&mut entry, 1, name.as_bytes());
            put(&mut entry, 2, version.as_bytes());
            put(&mut out, 5, &entry);
        }
        if !self.nonce.is_empty() {
            put(&mut out, 6, self.nonce);
        }
        seal(out)
    }
}

/// Writes the length into the prefix that `out` begins with.
pub fn seal(mut out: BytesMut) -> Bytes {
    let len = u32::try_from(out.len() - PREFIX).unwrap_or(u32::MAX);
    out[1..PREFIX].copy_from_slice(&len.to_be_bytes());
    out.freeze()
}

/// Puts a length-delimited field.
pub fn put(out: &mut BytesMut, tag: u8, bytes: &[u8]) {
    out.put_u8(tag << 3 | 2);
    let mut len = bytes.len();
    while len >= 0x80 {
        out.put_u8(low7(len) | 0x80);
        len >>= 7;
    }
    out.put_u8(low7(len));
    out.put_slice(bytes);
}

/// The bytes of a number as protobuf's varint has them.
pub fn varint(mut value: u32) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(low7(value as usize) | 0x80);
        value >>= 7;
    }
    out.push(low7(value as usize));
    out
}

fn low7(value: usize) -> u8 {
    u8::try_from(value & 0x7f).unwrap_or_default()
}

fn str(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// Cuts the bytes of a stream into gRPC messages.
#[derive(Default)]
pub struct Cutter {
    rest: BytesMut,
}

impl Cutter {
    /// Hands each whole message to `on`; what came whole in one chunk is not copied.
    pub fn push(&mut self, chunk: &[u8], mut on: impl FnMut(&[u8])) {
        let mut fresh = chunk;
        while !self.rest.is_empty() {
            let Some(need) = missing(&self.rest, fresh) else {
                self.rest.extend_from_slice(fresh);
                return;
            };
            let (head, tail) = fresh.split_at(need);
            self.rest.extend_from_slice(head);
            on(&self.rest[PREFIX..]);
            self.rest.clear();
            fresh = tail;
        }
        while let Some(len) = whole(fresh) {
            on(&fresh[PREFIX..len]);
            fresh = &fresh[len..];
        }
        self.rest.extend_from_slice(fresh);
    }
}

/// How much of `fresh` ends the message that `begun` began; None if it does not end in it.
fn missing(begun: &[u8], fresh: &[u8]) -> Option<usize> {
    let mut prefix = [0; PREFIX];
    let joined = begun.iter().chain(fresh).take(PREFIX);
    let known = joined.zip(&mut prefix).map(|(b, p)| *p = *b).count();
    if known < PREFIX {
        return None;
    }
    let need = length(&prefix) - begun.len();
    (need <= fresh.len()).then_some(need)
}

fn whole(bytes: &[u8]) -> Option<usize> {
    let prefix: &[u8; PREFIX] = bytes.first_chunk()?;
    Some(length(prefix)).filter(|len| *len <= bytes.len())
}

fn length(prefix: &[u8; PREFIX]) -> usize {
    let [_, a, b, c, d] = *prefix;
    PREFIX + u32::from_be_bytes([a, b, c, d]) as usize
}
