//! One response as a rope: shared chunks and ten bytes per session. What goes in is `session`'s matter.

use std::collections::HashMap;
use std::io::IoSlice;
use std::sync::{Arc, Weak};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::roster::{Name, Roster, Shelf};
use super::wire::{Nonce, PREFIX};
use crate::text::Str;
use crate::view::LAYERS;
use crate::xds::encode::encode_with_version;
use crate::xds::stamp::{Key, Mark, key_of};
use crate::xds::{Encoded, ResourceType, Stamp, Warming};

/// One `DeltaDiscoveryResponse`, gRPC prefix included, as one session is sent it.
#[derive(Clone, Debug)]
pub struct Frame {
    pub nonce: Nonce,
    sheets: Parts,
}

/// A response is made of at most one sheet a layer: joined, serialized messages are one message.
type Parts = [Option<Arc<Sheet>>; LAYERS];

/// A part of a response: equal for all sessions that are told the same.
#[derive(Debug)]
pub struct Sheet {
    pub roll: Arc<Roll>,
    pub len: usize,
    /// The resources, then type and removals.
    chunks: Box<[Bytes]>,
}

/// What a response says, without its bytes: it outlives them, until the response is answered.
#[derive(Debug)]
pub struct Roll {
    pub kind: ResourceType,
    pub stamps: Box<[Arc<Stamp>]>,
    pub removed: Box<[Str]>,
    /// Of clusters: the load assignments they take with them.
    pub eds: Roster<Name>,
    /// Of clusters: all of them.
    pub clusters: Roster<Name>,
    /// Of clusters: what some warm on besides, and which.
    pub warming: Box<[(Warming, Roster<Name>)]>,
    /// The stamps' keys, ordered.
    keys: Box<[Key]>,
}

/// Field 5 (`nonce`): key, length, eight characters. It goes last, and any order is valid protobuf.
const TAIL: usize = 2 + Nonce::LEN;

impl Frame {
    pub fn new(sheet: Arc<Sheet>, nonce: Nonce) -> Self {
        Self::joined([sheet], nonce)
    }

    /// `sheets` are of one type, at least one, and at most one a layer.
    pub fn joined(sheets: impl IntoIterator<Item = Arc<Sheet>>, nonce: Nonce) -> Self {
        let mut sheets = sheets.into_iter();
        let sheets = std::array::from_fn(|_| sheets.next());
        Self { nonce, sheets }
    }

    pub fn sheets(&self) -> impl Iterator<Item = &Sheet> {
        self.sheets.iter().flatten().map(|sheet| &**sheet)
    }

    /// Length of the whole framed message.
    pub fn bytes(&self) -> usize {
        PREFIX + self.sheets().map(|sheet| sheet.len).sum::<usize>() + TAIL
    }

    pub fn into_rope(self) -> Rope {
        let left = self.bytes();
        // Frames are cut far below 4 GiB; one resource of that size has been refused long before.
        let body = u32::try_from(left - PREFIX).unwrap_or(u32::MAX);
        let mut prefix = [0; PREFIX];
        prefix[1..].copy_from_slice(&body.to_be_bytes());
        let mut tail = [0; TAIL];
        tail[0] = 5 << 3 | WireType::LengthDelimited as u8;
        tail[1] = Nonce::LEN as u8;
        tail[2..].copy_from_slice(self.nonce.to_string().as_bytes());
        Rope {
            prefix,
            sheets: self.sheets,
            tail,
            piece: 0,
            offset: 0,
            left,
        }
    }
}

impl Sheet {
    /// What is large is chained, not copied.
    pub fn new(
        kind: ResourceType,
        entries: &[Arc<Encoded>],
        removed: &[Str],
        names: &mut Shelf<Name>,
    ) -> Self {
        let url = kind.type_url();
        let closing = field_len(4, url.len())
            + removed
                .iter()
                .map(|name| field_len(6, name.len()))
                .sum::<usize>();
        let mut end = BytesMut::with_capacity(closing);
        put_field(&mut end, 4, url);
        for name in removed {
            put_field(&mut end, 6, name);
        }
        let resources = entries.iter().flat_map(|e| e.chunks.iter().cloned());
        let chunks: Vec<Bytes> = resources.chain([end.freeze()]).collect();
        Self {
            roll: Arc::new(Roll::new(kind, entries, removed, names)),
            len: entries.iter().map(|e| e.len).sum::<usize>() + closing,
            chunks: match kind {
                // Keys are never copied.
                ResourceType::Secret => chunks.into(),
                _ => joined(&chunks),
            },
        }
    }
}

impl Roll {
    fn new(
        kind: ResourceType,
        entries: &[Arc<Encoded>],
        removed: &[Str],
        names: &mut Shelf<Name>,
    ) -> Self {
        let eds = entries.iter().filter(|e| e.eds);
        let eds = eds.map(|e| Name::new(ResourceType::Endpoint, e.name.clone()));
        let mut keys: Box<[Key]> = entries.iter().map(|e| e.key()).collect();
        keys.sort_unstable();
        Self {
            kind,
            keys,
            stamps: entries.iter().map(|e| e.stamp.clone()).collect(),
            removed: removed.into(),
            eds: names.edit(&Roster::EMPTY, eds, []),
            clusters: match kind {
                ResourceType::Cluster => names.edit(&Roster::EMPTY, entries.iter().map(named), []),
                _ => Roster::EMPTY,
            },
            warming: warming(entries, names),
        }
    }

    /// Whether it brings a resource of this name.
    pub fn has(&self, key: Key) -> bool {
        self.keys.binary_search(&key).is_ok()
    }

    /// Whether one of its resources has a namesake there.
    pub fn meets(&self, held: &Roster<Arc<Stamp>>) -> bool {
        if held.len() < self.keys.len() {
            held.iter().any(|stamp| self.has(stamp.key()))
        } else {
            self.keys.iter().any(|key| held.has(*key))
        }
    }
}

fn named(entry: &Arc<Encoded>) -> Name {
    Name::new(entry.kind, entry.name.clone())
}

/// The entries by what they warm on, plain ones left out.
fn warming(entries: &[Arc<Encoded>], names: &mut Shelf<Name>) -> Box<[(Warming, Roster<Name>)]> {
    let mut groups: Vec<(Warming, Vec<Name>)> = Vec::new();
    for entry in entries.iter().filter(|e| e.warming != Warming::Plain) {
        // Whole meshes warm on the same two secrets: there are few groups.
        match groups.iter_mut().find(|(why, _)| *why == entry.warming) {
            Some((_, clusters)) => clusters.push(named(entry)),
            None => groups.push((entry.warming.clone(), vec![named(entry)])),
        }
    }
    let shared = |(why, clusters)| (why, names.edit(&Roster::EMPTY, clusters, []));
    groups.into_iter().map(shared).collect()
}

/// Version of the empty resource that answers a name nothing stands behind.
pub const ABSENT: Str = Str::new_static("absent");

/// A resource with nothing but its name: field 1 of Cluster, ClusterLoadAssignment and RouteConfiguration.
pub fn empty(kind: ResourceType, name: &str) -> Arc<Encoded> {
    let mut body = vec![0x0a];
    encode_varint(name.len() as u64, &mut body);
    body.extend_from_slice(name.as_bytes());
    Arc::new(encode_with_version(kind, &Str::new(name), ABSENT, &body))
}

/// Smaller chunks than this are joined: once for all sessions, where each would hand the socket every one.
const SMALL: usize = 4096;

fn joined(chunks: &[Bytes]) -> Box<[Bytes]> {
    let is_small = |chunk: &Bytes| chunk.len() < SMALL;
    let runs = chunks.chunk_by(|a, b| is_small(a) && is_small(b));
    let join = |run: &[Bytes]| match run {
        [single] => single.clone(),
        many => many.concat().into(),
    };
    runs.map(join).collect()
}

fn put_field(out: &mut BytesMut, tag: u32, text: &str) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(text.len() as u64, out);
    out.put_slice(text.as_bytes());
}

fn field_len(tag: u32, len: usize) -> usize {
    key_len(tag) + encoded_len_varint(len as u64) + len
}

/// Sheets still held by some frame, so that a thousand sessions in one state make one.
///
/// Keyed by content (names and versions), never by address.
#[derive(Debug, Default)]
pub struct Sheets {
    known: HashMap<Mark, Weak<Sheet>>,
    sweep_at: usize,
}

impl Sheets {
    pub fn get(
        &mut self,
        kind: ResourceType,
        entries: &[Arc<Encoded>],
        removed: &[Str],
        names: &mut Shelf<Name>,
    ) -> Arc<Sheet> {
        let key = key(kind, entries, removed);
        if let Some(known) = self.known.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        if self.known.len() >= self.sweep_at {
            self.known.retain(|_, sheet| sheet.strong_count() > 0);
            self.sweep_at = 64 + 2 * self.known.len();
        }
        let sheet = Arc::new(Sheet::new(kind, entries, removed, names));
        self.known.insert(key, Arc::downgrade(&sheet));
        sheet
    }
}

/// The sum of what is in it: any order says the same.
fn key(kind: ResourceType, entries: &[Arc<Encoded>], removed: &[Str]) -> Mark {
    let entries = entries.iter().map(|e| e.mark());
    let removed = removed.iter().map(|name| !key_of(kind, name));
    let nothing = key_of(kind, "");
    entries.chain(removed).fold(nothing, Mark::wrapping_add)
}

/// A frame on its way out. HTTP/2 cuts it into DATA frames and writes them without joining the chunks.
#[derive(Debug)]
pub struct Rope {
    prefix: [u8; PREFIX],
    sheets: Parts,
    tail: [u8; TAIL],
    /// The piece to go on with (prefix, chunks, tail), and how much of it is gone.
    piece: usize,
    offset: usize,
    left: usize,
}

impl Rope {
    fn piece(&self, index: usize) -> Option<&[u8]> {
        let Some(mut index) = index.checked_sub(1) else {
            return Some(&self.prefix);
        };
        for sheet in self.sheets.iter().flatten() {
            match sheet.chunks.get(index) {
                Some(chunk) => return Some(chunk),
                None => index -= sheet.chunks.len(),
            }
        }
        (index == 0).then_some(&self.tail)
    }
}

impl Buf for Rope {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        self.piece(self.piece).map_or(&[], |p| &p[self.offset..])
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        let pieces = (self.piece..).map_while(|i| self.piece(i));
        let mut offset = self.offset;
        let mut filled = 0;
        for (slot, piece) in dst.iter_mut().zip(pieces) {
            *slot = IoSlice::new(&piece[offset..]);
            offset = 0;
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.left, "advance past the end of a response");
        self.left -= count;
        while let Some(piece) = self.piece(self.piece) {
            let rest = piece.len() - self.offset;
            if count < rest {
                self.offset += count;
                return;
            }
            count -= rest;
            self.piece += 1;
            self.offset = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
    use prost::Message;

    use super::*;

    fn resource(name: &str, version: &str) -> Arc<Encoded> {
        let kind = ResourceType::Cluster;
        Arc::new(encode_with_version(
            kind,
            &name.into(),
            version.into(),
            b"\x0a\x01x",
        ))
    }

    fn drain(mut rope: Rope, step: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while rope.has_remaining() {
            let mut slots = [IoSlice::new(&[]); 3];
            let filled = rope.chunks_vectored(&mut slots);
            let joined: Vec<u8> = slots[..filled].iter().flat_map(|s| s.to_vec()).collect();
            let take = joined.len().min(step).min(rope.remaining());
            out.extend_from_slice(&joined[..take]);
            rope.advance(take);
        }
        out
    }

    #[test]
    fn a_frame_is_one_whole_grpc_message_however_it_is_cut() {
        let entries = [resource("a", "1"), resource("b", "2")];
        let sheet = Arc::new(Sheet::new(
            ResourceType::Cluster,
            &entries,
            &["gone".into()],
            &mut Shelf::default(),
        ));
        let other = [resource("c", "3")];
        let kind = ResourceType::Cluster;
        let other = Arc::new(Sheet::new(kind, &other, &[], &mut Shelf::default()));
        for step in [1, 2, 7, 1000] {
            let frame = Frame::joined([sheet.clone(), other.clone()], Nonce(0xab));
            let len = frame.bytes();
            let wire = drain(frame.into_rope(), step);
            assert_eq!(wire.len(), len);
            assert_eq!(wire[0], 0);
            assert_eq!(
                wire[1..5],
                u32::try_from(wire.len() - 5).unwrap().to_be_bytes()
            );
            let got = DeltaDiscoveryResponse::decode(&wire[5..]).unwrap();
            assert_eq!(got.type_url, ResourceType::Cluster.type_url());
            assert_eq!(got.removed_resources, ["gone"]);
            assert_eq!(got.nonce, "000000ab");
            let names: Vec<_> = got
                .resources
                .iter()
                .map(|r| (&r.name[..], &r.version[..]))
                .collect();
            assert_eq!(names, [("a", "1"), ("b", "2"), ("c", "3")]);
        }
    }

    #[test]
    fn small_chunks_are_joined_and_large_ones_shared() {
        let large = Bytes::from(vec![b'x'; SMALL]);
        let small = Bytes::from_static(b"y");
        let chunks = [&small, &small, &large, &large, &small].map(Clone::clone);
        let joined = joined(&chunks);
        assert_eq!(joined.concat(), chunks.concat());
        assert_eq!(joined.len(), 4);
        assert_eq!(joined[1].as_ptr(), large.as_ptr());
    }

    #[test]
    fn sessions_that_are_told_the_same_share_one_sheet() {
        let (mut sheets, mut names) = (Sheets::default(), Shelf::default());
        let mut get = |entries: &[_], removed: &[Str]| {
            sheets.get(ResourceType::Cluster, entries, removed, &mut names)
        };
        let first = get(&[resource("a", "1")], &[]);
        let same = get(&[resource("a", "1")], &[]);
        let newer = get(&[resource("a", "2")], &[]);
        let removal = get(&[], &["a".into(), "1".into()]);
        assert!(Arc::ptr_eq(&first, &same));
        assert!(!Arc::ptr_eq(&first, &newer) && !Arc::ptr_eq(&first, &removal));
    }
}
