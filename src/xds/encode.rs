//! Turns rendered messages into shared bytes. What the messages say is not here.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, Weak};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use serde::Serialize;
use xxhash_rust::xxh3::Xxh3;

use super::{Encoded, Ref, Render, ResourceType, Source, Stamp, Version};
use crate::text::Str;

/// Renders what was not rendered before; equal inputs give the same `Arc`.
#[derive(Default)]
pub struct Cache {
    entries: HashMap<Version, Weak<Encoded>>,
    parts: HashMap<Version, Weak<Part>>,
    /// What whole resources of parts refer to, by what their parts do.
    refs: HashMap<Version, Weak<[Ref]>>,
    /// What patches made of a resource, or of some parts, by both.
    patched: HashMap<u128, Weak<Encoded>>,
    patched_parts: HashMap<u128, Weak<Part>>,
    /// Patches that took a resource away, which is not there to say so.
    pub removing: BTreeSet<Source>,
    /// Renders done since the start, by type: `Cluster` … `Secret`.
    pub renders: [u64; ResourceType::COUNT],
    sweep_at: usize,
}

/// One separately encoded piece of a resource (a virtual host of a route table), its field tag included.
#[derive(Debug)]
pub struct Part {
    pub version: Version,
    pub bytes: Bytes,
    /// Ordered, each once.
    pub refs: Box<[Ref]>,
    /// Equal for equal `refs`.
    of_refs: Version,
    /// By which EnvoyFilters.
    patched: Patched,
}

/// The patches that something was changed by; nearly always none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patched(Option<Box<[Source]>>);

impl Patched {
    pub fn by(sources: BTreeSet<Source>) -> Self {
        Self((!sources.is_empty()).then(|| sources.into_iter().collect()))
    }

    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.0.iter().flat_map(|sources| sources.iter())
    }
}

impl Cache {
    pub fn get<R: Render>(&mut self, input: &R) -> Arc<Encoded> {
        let version = version_of(R::KIND.short(), R::EPOCH, input);
        if let Some(known) = self.entries.get(&version).and_then(Weak::upgrade) {
            return known;
        }
        self.renders[R::KIND as usize] += 1;
        let name = input.name();
        let body = input.render().encode_to_vec();
        let encoded = Arc::new(Encoded {
            warming: input.warming(),
            eds: input.eds(),
            ..encode(R::KIND, &name, version, &body, input.refs().into())
        });
        self.insert(version, &encoded);
        encoded
    }

    /// A piece of a larger resource, encoded as field `tag` of its parent.
    pub fn part<T: Serialize, M: Message>(
        &mut self,
        label: &str,
        epoch: u32,
        tag: u32,
        input: &T,
        render: impl FnOnce(&T) -> (M, Vec<Ref>),
    ) -> Arc<Part> {
        let version = version_of(label, epoch, input);
        if let Some(known) = self.parts.get(&version).and_then(Weak::upgrade) {
            return known;
        }
        let (message, refs) = render(input);
        let body = message.encode_to_vec();
        let mut bytes = BytesMut::with_capacity(body.len() + 8);
        encode_key(tag, WireType::LengthDelimited, &mut bytes);
        encode_varint(body.len() as u64, &mut bytes);
        bytes.put_slice(&body);
        self.keep(version, bytes, refs, Patched::default())
    }

    /// The same of what is encoded already.
    pub fn part_of(
        &mut self,
        version: Version,
        bytes: &[u8],
        refs: impl IntoIterator<Item = Ref>,
        patched: Patched,
    ) -> Arc<Part> {
        self.keep(version, BytesMut::from(bytes), refs, patched)
    }

    /// Parts that follow each other, as one.
    pub fn concatenate<'p>(
        &mut self,
        parts: impl Iterator<Item = &'p Arc<Part>> + Clone,
    ) -> Arc<Part> {
        let versions: Vec<u128> = parts.clone().map(|p| p.version.0).collect();
        let version = version_of("run", 1, &versions);
        if let Some(known) = self.parts.get(&version).and_then(Weak::upgrade) {
            return known;
        }
        let mut bytes = BytesMut::with_capacity(parts.clone().map(|p| p.bytes.len()).sum());
        for part in parts.clone() {
            bytes.put_slice(&part.bytes);
        }
        let refs = parts.flat_map(|p| p.refs.iter().cloned());
        self.keep(version, bytes, refs, Patched::default())
    }

    fn keep(
        &mut self,
        version: Version,
        bytes: BytesMut,
        refs: impl IntoIterator<Item = Ref>,
        patched: Patched,
    ) -> Arc<Part> {
        let refs: BTreeSet<Ref> = refs.into_iter().collect();
        let refs: Box<[Ref]> = refs.into_iter().collect();
        let part = Arc::new(Part {
            version,
            bytes: bytes.freeze(),
            of_refs: version_of("refs", 1, &refs),
            refs,
            patched,
        });
        self.parts.insert(version, Arc::downgrade(&part));
        part
    }

    /// A resource made of a head (encoded fields) and parts that follow it: a rope, nothing is copied.
    pub fn assemble<T: Serialize>(
        &mut self,
        kind: ResourceType,
        epoch: u32,
        name: &Str,
        head: (&T, Vec<u8>),
        parts: &[Arc<Part>],
        mut patched: BTreeSet<Source>,
    ) -> Arc<Encoded> {
        let (input, head_bytes) = head;
        let versions: Vec<u128> = parts.iter().map(|p| p.version.0).collect();
        let version = version_of(kind.short(), epoch, &(input, &versions));
        if let Some(known) = self.entries.get(&version).and_then(Weak::upgrade) {
            return known;
        }
        self.renders[kind as usize] += 1;
        let tail: usize = parts.iter().map(|p| p.bytes.len()).sum();
        let first = frame(kind, name, version, &head_bytes, tail);
        let mut chunks = Vec::with_capacity(parts.len() + 1);
        chunks.push(first);
        chunks.extend(parts.iter().map(|p| p.bytes.clone()));
        let refs = self.refs_of(parts);
        let of_parts = parts.iter().flat_map(|p| p.patched.sources().cloned());
        patched.extend(of_parts);
        let encoded = Arc::new(Encoded {
            stamp: stamp(kind, name.clone(), version, refs),
            len: chunks.iter().map(Bytes::len).sum(),
            chunks: chunks.into(),
            warming: super::Warming::Plain,
            eds: false,
            patched: Patched::by(patched),
        });
        self.insert(version, &encoded);
        encoded
    }

    pub fn patched(&self, place: u128) -> Option<Arc<Encoded>> {
        self.patched.get(&place).and_then(Weak::upgrade)
    }

    pub fn keep_patched(&mut self, place: u128, encoded: &Arc<Encoded>) {
        self.patched.insert(place, Arc::downgrade(encoded));
    }

    pub fn patched_part(&self, place: u128) -> Option<Arc<Part>> {
        self.patched_parts.get(&place).and_then(Weak::upgrade)
    }

    pub fn keep_patched_part(&mut self, place: u128, part: &Arc<Part>) {
        self.patched_parts.insert(place, Arc::downgrade(part));
    }

    /// One list for all resources whose parts refer to the same: a scope's tables differ, their clusters do
    /// not.
    fn refs_of(&mut self, parts: &[Arc<Part>]) -> Arc<[Ref]> {
        let each: Vec<u128> = parts.iter().map(|p| p.of_refs.0).collect();
        let version = version_of("refs", 1, &each);
        if let Some(known) = self.refs.get(&version).and_then(Weak::upgrade) {
            return known;
        }
        let all = parts.iter().flat_map(|p| p.refs.iter().cloned());
        let all: BTreeSet<Ref> = all.collect();
        let refs: Arc<[Ref]> = all.into_iter().collect();
        self.refs.insert(version, Arc::downgrade(&refs));
        refs
    }

    fn insert(&mut self, version: Version, encoded: &Arc<Encoded>) {
        self.entries.insert(version, Arc::downgrade(encoded));
        let size = |c: &Self| {
            let patched = c.patched.len() + c.patched_parts.len();
            c.entries.len() + c.parts.len() + c.refs.len() + patched
        };
        if size(self) >= self.sweep_at {
            self.entries.retain(|_, w| w.strong_count() > 0);
            self.parts.retain(|_, w| w.strong_count() > 0);
            self.refs.retain(|_, w| w.strong_count() > 0);
            self.patched.retain(|_, w| w.strong_count() > 0);
            self.patched_parts.retain(|_, w| w.strong_count() > 0);
            self.sweep_at = 1024 + 2 * size(self);
        }
    }
}

/// A resource that waits for nothing.
pub(super) fn encode(
    kind: ResourceType,
    name: &Str,
    version: Version,
    body: &[u8],
    refs: Arc<[Ref]>,
) -> Encoded {
    let chunk = frame(kind, name, version, body, 0);
    Encoded {
        stamp: stamp(kind, name.clone(), version, refs),
        len: chunk.len(),
        chunks: Box::new([chunk]),
        warming: super::Warming::Plain,
        eds: false,
        patched: Patched::default(),
    }
}

/// Encodes a message that no renderer made (a secret), under a version of its own.
pub fn encode_with_version(kind: ResourceType, name: &Str, version: Str, body: &[u8]) -> Encoded {
    let chunk = frame_with(kind, name, &version, body, 0);
    Encoded {
        stamp: Arc::new(Stamp::new(
            kind,
            name.clone(),
            version,
            Some(Arc::default()),
        )),
        len: chunk.len(),
        chunks: Box::new([chunk]),
        warming: super::Warming::Plain,
        eds: false,
        patched: Patched::default(),
    }
}

/// Like `encode_with_version`, but the body is carried as it is, not copied.
pub fn encode_owned(kind: ResourceType, name: &Str, version: Str, body: Bytes) -> Encoded {
    let head = frame_with(kind, name, &version, &[], body.len());
    Encoded {
        stamp: Arc::new(Stamp::new(
            kind,
            name.clone(),
            version,
            Some(Arc::default()),
        )),
        len: head.len() + body.len(),
        chunks: Box::new([head, body]),
        warming: super::Warming::Plain,
        eds: false,
        patched: Patched::default(),
    }
}

fn stamp(kind: ResourceType, name: Str, version: Version, refs: Arc<[Ref]>) -> Arc<Stamp> {
    let version = Str::new(version.to_string());
    Arc::new(Stamp::new(kind, name, version, Some(refs)))
}

pub(super) fn version_of<T: Serialize + ?Sized>(label: &str, epoch: u32, input: &T) -> Version {
    let mut hasher = HashWriter(Xxh3::new());
    hasher.0.update(label.as_bytes());
    hasher.0.update(&epoch.to_le_bytes());
    // A postcard form of plain values has no error but the writer's, and this one has none.
    let hasher = postcard::to_io(input, hasher).expect("inputs are plain values of known length");
    Version(hasher.0.digest128())
}

struct HashWriter(Xxh3);

impl io::Write for HashWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.update(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn frame(kind: ResourceType, name: &Str, version: Version, head: &[u8], tail: usize) -> Bytes {
    frame_with(kind, name, &version.to_string(), head, tail)
}

/// `resources` entry up to and including `head`; `tail` more bytes of the message follow it.
///
/// Resource{version = 1, resource = 2, name = 3}, Any{type_url = 1, value = 2}; the Any goes last,
/// so that what follows the returned bytes is the rest of the message itself.
fn frame_with(kind: ResourceType, name: &str, version: &str, head: &[u8], tail: usize) -> Bytes {
    let url = kind.type_url();
    let value = head.len() + tail;
    let any = field_len(1, url.len()) + field_len(2, value);
    let resource = field_len(1, version.len()) + field_len(3, name.len()) + field_len(2, any);
    let mut out = BytesMut::with_capacity(field_len(2, resource) - tail);
    open(&mut out, 2, resource);
    open(&mut out, 1, version.len());
    out.put_slice(version.as_bytes());
    open(&mut out, 3, name.len());
    out.put_slice(name.as_bytes());
    open(&mut out, 2, any);
    open(&mut out, 1, url.len());
    out.put_slice(url.as_bytes());
    open(&mut out, 2, value);
    out.put_slice(head);
    out.freeze()
}

fn open(out: &mut BytesMut, tag: u32, len: usize) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

fn field_len(tag: u32, len: usize) -> usize {
    key_len(tag) + encoded_len_varint(len as u64) + len
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
    use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;

    use super::*;

    #[test]
    fn a_table_assembled_from_parts_decodes_as_one_message() {
        let mut cache = Cache::default();
        let host = |n: &str| VirtualHost {
            name: n.into(),
            ..Default::default()
        };
        let parts: Vec<_> = ["a", "b"]
            .iter()
            .map(|n| cache.part("vhost", 1, 2, n, |n| (host(n), vec![])))
            .collect();
        let name = Str::new("80");
        let head = RouteConfiguration {
            name: "80".into(),
            ..Default::default()
        }
        .encode_to_vec();
        let table = cache.assemble(
            ResourceType::Route,
            1,
            &name,
            (&"80", head),
            &parts,
            BTreeSet::new(),
        );

        let wire: Vec<u8> = table.chunks.concat();
        assert_eq!(wire.len(), table.len);
        let response = DeltaDiscoveryResponse::decode(&wire[..]).unwrap();
        let resource = &response.resources[0];
        assert_eq!(
            (resource.name.as_str(), resource.version.as_str()),
            ("80", table.version.as_str())
        );
        let any = resource.resource.as_ref().unwrap();
        let decoded = RouteConfiguration::decode(&any.value[..]).unwrap();
        assert_eq!(decoded.virtual_hosts, [host("a"), host("b")]);
    }
}
