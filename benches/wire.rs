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

/// A `Resource`: name, version, and the message inside its `Any`.
pub struct Packed<'a> {
    pub kind: ResourceType,
    pub name: &'a str,
    pub version: &'a str,
    pub body: &'a [u8],
}

impl<'a> Packed<'a> {
    /// None for what is no resource of a known type.
    pub fn scan(resource: &'a [u8]) -> Option<Self> {
        let (mut name, mut version, mut any) = ("", "", &[][..]);
        for (tag, field) in Fields(resource) {
            match (tag, field) {
                (1, Field::Bytes(text)) => version = str(text)?,
                (2, Field::Bytes(inner)) => any = inner,
                (3, Field::Bytes(text)) => name = str(text)?,
                _ => {}
            }
        }
        let (mut kind, mut body) = (None, &[][..]);
        for (tag, field) in Fields(any) {
            match (tag, field) {
                (1, Field::Bytes(url)) => kind = ResourceType::from_type_url(str(url)?),
                (2, Field::Bytes(value)) => body = value,
                _ => {}
            }
        }
        Some(Self {
            kind: kind?,
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

/// What the bytes of a stream of gRPC messages turn out to be, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A length-delimited field of the message: its number and its content.
    Field(u64, &'a [u8]),
    /// The message ended; so many bytes it had, prefix included.
    End(usize),
}

/// Cuts a stream into messages and these into their top-level fields. Holds one unfinished field at the most.
#[derive(Default)]
pub struct Intake {
    prefix: Vec<u8>,
    length: usize,
    /// Bytes of the message still to come.
    left: usize,
    field: Vec<u8>,
}

/// The stream is none of gRPC messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no protobuf message")]
pub struct Malformed;

impl Intake {
    /// A field that came whole in one chunk is not copied.
    pub fn push(
        &mut self,
        mut chunk: &[u8],
        mut on: impl FnMut(Item<'_>),
    ) -> Result<(), Malformed> {
        while !chunk.is_empty() {
            if self.left == 0 {
                chunk = self.begin(chunk, &mut on);
                continue;
            }
            let mine = &chunk[..chunk.len().min(self.left)];
            let used = if self.field.is_empty() {
                self.fresh(mine, &mut on)?
            } else {
                self.rest(mine, &mut on)?
            };
            self.left -= used;
            chunk = &chunk[used..];
            if self.left == 0 {
                if !self.field.is_empty() {
                    return Err(Malformed);
                }
                self.field = Vec::new();
                on(Item::End(self.length + PREFIX));
            }
        }
        Ok(())
    }

    fn begin<'a>(&mut self, chunk: &'a [u8], on: &mut impl FnMut(Item<'_>)) -> &'a [u8] {
        let (head, rest) = chunk.split_at(chunk.len().min(PREFIX - self.prefix.len()));
        self.prefix.extend_from_slice(head);
        if let Some([_, length @ ..]) = self.prefix.first_chunk::<PREFIX>() {
            self.length = u32::from_be_bytes(*length) as usize;
            self.left = self.length;
            self.prefix.clear();
            if self.left == 0 {
                on(Item::End(PREFIX));
            }
        }
        rest
    }

    fn fresh(&mut self, mine: &[u8], on: &mut impl FnMut(Item<'_>)) -> Result<usize, Malformed> {
        let Some(size) = extent(mine)?.filter(|size| *size <= mine.len()) else {
            self.field.extend_from_slice(mine);
            return Ok(mine.len());
        };
        emit(&mine[..size], on);
        Ok(size)
    }

    fn rest(&mut self, mine: &[u8], on: &mut impl FnMut(Item<'_>)) -> Result<usize, Malformed> {
        let need = extent(&self.field)?.map_or(1, |size| size - self.field.len());
        let used = need.min(mine.len());
        self.field.extend_from_slice(&mine[..used]);
        if extent(&self.field)? == Some(self.field.len()) {
            emit(&self.field, on);
            self.field.clear();
        }
        Ok(used)
    }
}

fn emit(field: &[u8], on: &mut impl FnMut(Item<'_>)) {
    if let Some((number, Field::Bytes(content))) = Fields(field).next() {
        on(Item::Field(number, content));
    }
}

/// The size of the first field, key included; None while too little of it is there to tell.
fn extent(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let mut rest = Fields(bytes);
    let Some(key) = rest.varint() else {
        return too_short(bytes);
    };
    let key_size = bytes.len() - rest.0.len();
    let size = match key & 7 {
        0 => match rest.varint() {
            Some(_) => bytes.len() - rest.0.len(),
            None => return too_short(&bytes[key_size..]),
        },
        1 => key_size + 8,
        2 => match rest.varint() {
            Some(length) => {
                let length = usize::try_from(length).map_err(|_| Malformed)?;
                bytes.len() - rest.0.len() + length
            }
            None => return too_short(&bytes[key_size..]),
        },
        5 => key_size + 4,
        _ => return Err(Malformed),
    };
    Ok(Some(size))
}

/// No number is longer than ten bytes.
fn too_short(varint: &[u8]) -> Result<Option<usize>, Malformed> {
    if varint.len() >= 10 {
        return Err(Malformed);
    }
    Ok(None)
}
