//! One simulated proxy with its connection, and what is measured on it. When it reads is decided in `crew.rs`.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use fairlead::xds::ResourceType;
use memchr::memmem::Finder;
use rustls::ClientConfig;

use super::catalogue::{Catalogue, Item, Name};
use super::channel::{Channel, Drain};
use super::http2::Http2;
use super::order::{Arrivals, Recruit, Target, Volume};
use super::proxy::{Delivery, Ground, Least, Phrases, Proxy};
use super::stamp::Stamp;
use super::wire::{Intake, PREFIX, Packed, put, seal};

const PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// What all seats of a process share; one thread has it.
#[derive(Default)]
pub struct Shared {
    pub catalogue: Catalogue,
    pub phrases: Phrases,
    pub aim: Aim,
    pub trail: Option<Trail>,
    pub volume: Volume,
}

/// What a seat is watched for.
pub enum Aim {
    Whole(Least),
    Markers(Vec<(ResourceType, Finder<'static>)>),
}

impl Default for Aim {
    fn default() -> Self {
        Self::Markers(Vec::new())
    }
}

/// Endpoints that are events.
pub struct Trail {
    pub finder: Finder<'static>,
    pub arrivals: Arrivals,
}

#[derive(Default)]
struct Link {
    http2: Option<Http2>,
    channel: Option<Channel>,
    intake: Intake,
    message: Message,
    heard: bool,
}

/// Responses as they came, for the null server.
#[derive(Default)]
pub struct Tape {
    message: BytesMut,
    pub messages: Vec<u8>,
}

impl Tape {
    fn add(&mut self, item: &super::wire::Item<'_>) {
        if self.message.is_empty() {
            self.message.put_bytes(0, PREFIX);
        }
        match item {
            super::wire::Item::Field(tag, content) => {
                put(
                    &mut self.message,
                    u8::try_from(*tag).unwrap_or_default(),
                    content,
                );
            }
            super::wire::Item::End(_) => {
                let message = std::mem::take(&mut self.message);
                self.messages.extend_from_slice(&seal(message));
            }
        }
    }
}

/// The response under way.
#[derive(Default)]
struct Message {
    kind: Option<ResourceType>,
    nonce: Vec<u8>,
    items: Vec<Item>,
    /// Names, until the type is known.
    removed: Vec<String>,
    /// Which markers it showed, as bits.
    found: u32,
}

pub struct Seat {
    pub proxy: Proxy,
    token: Option<String>,
    link: Link,
    pub stalled: bool,
    /// It waits for its turn to read.
    pub queued: bool,
    /// Part of the goal.
    pub aimed: bool,
    seen: u32,
    pub reached: Option<Stamp>,
    events: Vec<bool>,
    /// Responses are kept here while there is such a place.
    pub tape: Option<Tape>,
}

impl Seat {
    pub fn new(recruit: Recruit) -> Self {
        let Recruit {
            node,
            secrets,
            opening,
            token,
        } = recruit;
        Self {
            proxy: Proxy::new(node.into(), secrets, opening),
            token,
            link: Link::default(),
            stalled: false,
            queued: false,
            aimed: true,
            seen: 0,
            reached: None,
            events: Vec::new(),
            tape: None,
        }
    }

    /// The goal is another one now.
    pub fn aim(&mut self, aimed: bool) {
        self.aimed = aimed;
        self.seen = 0;
        self.reached = None;
    }

    /// Those of an earlier trail, which had the same numbers.
    pub fn forget_events(&mut self) {
        self.events.clear();
    }

    /// A new connection, its first requests waiting in it.
    pub fn connect(
        &mut self,
        target: &Target,
        from: Ipv4Addr,
        tls: Option<&Arc<ClientConfig>>,
        shared: &mut Shared,
    ) -> io::Result<&mut Channel> {
        let mut http2 = Http2::client(PATH, &target.address.to_string(), self.token.as_deref());
        let mut ground = Ground {
            catalogue: &mut shared.catalogue,
            phrases: &mut shared.phrases,
        };
        for request in self.proxy.open(&mut ground) {
            http2.send(request);
        }
        let mut channel = Channel::connect(from, target.address, tls)?;
        channel.push(http2.take());
        self.link = Link {
            http2: Some(http2),
            channel: None,
            ..Link::default()
        };
        Ok(self.link.channel.insert(channel))
    }

    pub fn channel(&mut self) -> Option<&mut Channel> {
        self.link.channel.as_mut()
    }

    /// Whether a response came over this connection.
    pub fn heard(&self) -> bool {
        self.link.heard
    }

    pub fn disconnect(&mut self) {
        self.link = Link::default();
    }

    /// Reads once. Replies wait until [`Self::flush`].
    pub fn read(&mut self, buffer: &mut [u8], shared: &mut Shared) -> io::Result<Drain> {
        let Some(mut link) = self.take_link() else {
            return Ok(Drain::Empty);
        };
        let (Some(channel), Some(http2)) = (&mut link.channel, &mut link.http2) else {
            return Ok(Drain::Empty);
        };
        let mut replies = Vec::new();
        let (intake, message, heard) = (&mut link.intake, &mut link.message, &mut link.heard);
        let outcome = channel.read(buffer, |plain| {
            let now = Stamp::now();
            let mut broken = None;
            let received = http2.receive(plain, |data| {
                *heard = true;
                let cut = intake.push(data, |item| {
                    self.on_item(item, message, now, shared, &mut replies);
                });
                broken = broken.or(cut.err());
            });
            received.map_err(io::Error::other)?;
            broken.map_or(Ok(()), |e| Err(io::Error::other(e)))
        });
        for reply in replies {
            http2.send(reply);
        }
        channel.push(http2.take());
        self.link = link;
        outcome
    }

    fn take_link(&mut self) -> Option<Link> {
        self.link.channel.as_ref()?;
        Some(std::mem::take(&mut self.link))
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.channel().map_or(Ok(()), Channel::flush)
    }

    fn on_item(
        &mut self,
        item: super::wire::Item<'_>,
        message: &mut Message,
        now: Stamp,
        shared: &mut Shared,
        replies: &mut Vec<Bytes>,
    ) {
        use super::wire::Item::{End, Field};
        if let Some(tape) = &mut self.tape {
            tape.add(&item);
        }
        match item {
            Field(2, content) => self.on_resource(content, message, now, shared),
            Field(4, url) => {
                let url = std::str::from_utf8(url).unwrap_or_default();
                message.kind = ResourceType::from_type_url(url);
            }
            Field(5, nonce) => message.nonce = nonce.to_vec(),
            Field(6, name) => {
                message.removed.push(String::from_utf8_lossy(name).into());
                message.found |= found(&shared.aim, message.kind, name);
            }
            Field(..) => {}
            End(size) => {
                let whole = std::mem::take(message);
                self.on_message(&whole, size, now, shared, replies);
            }
        }
    }

    fn on_resource(
        &mut self,
        content: &[u8],
        message: &mut Message,
        now: Stamp,
        shared: &mut Shared,
    ) {
        let Some(packed) = Packed::scan(content) else {
            return;
        };
        message.items.push(shared.catalogue.item(&packed));
        message.found |= found(&shared.aim, Some(packed.kind), content);
        if let Some(trail) = &mut shared.trail
            && packed.kind == ResourceType::Endpoint
        {
            trail.follow(packed.body, &mut self.events, now);
        }
    }

    fn on_message(
        &mut self,
        message: &Message,
        size: usize,
        now: Stamp,
        shared: &mut Shared,
        replies: &mut Vec<Bytes>,
    ) {
        let Some(kind) = message.kind else {
            return;
        };
        let names = message.removed.iter();
        let removed: Vec<Name> = names.map(|n| shared.catalogue.name(kind, n)).collect();
        let delivery = Delivery {
            kind,
            nonce: &message.nonce,
            items: &message.items,
            removed: &removed,
        };
        let mut ground = Ground {
            catalogue: &mut shared.catalogue,
            phrases: &mut shared.phrases,
        };
        replies.extend(self.proxy.on_delivery(&delivery, &mut ground));
        let volume = &mut shared.volume;
        volume.messages += 1;
        volume.resources += message.items.len() as u64;
        volume.bytes[kind as usize] += size as u64;
        if message.found != 0 {
            volume.marked += size as u64;
        }
        if !self.aimed {
            volume.elsewhere += size as u64;
        }
        self.seen |= message.found;
        if self.aimed && self.reached.is_none() && self.is_there(&shared.aim) {
            self.reached = Some(now);
        }
    }

    fn is_there(&self, aim: &Aim) -> bool {
        match aim {
            Aim::Whole(least) => self.proxy.is_whole(*least),
            Aim::Markers(markers) => self.seen == (1 << markers.len()) - 1 && self.proxy.is_warm(),
        }
    }
}

/// Which markers these bytes show. Where the type is not known yet, it is the one that the marker says.
fn found(aim: &Aim, kind: Option<ResourceType>, bytes: &[u8]) -> u32 {
    let Aim::Markers(markers) = aim else {
        return 0;
    };
    let mut found = 0;
    for (bit, (of, finder)) in markers.iter().enumerate() {
        if kind.is_none_or(|kind| kind == *of) && finder.find(bytes).is_some() {
            found |= 1 << bit;
        }
    }
    found
}

impl Trail {
    /// An event is `<prefix>a.b`: number 256 a + b.
    fn follow(&mut self, assignment: &[u8], seen: &mut Vec<bool>, now: Stamp) {
        seen.resize(self.arrivals.seats.len(), false);
        for at in self.finder.find_iter(assignment) {
            let rest = &assignment[at + self.finder.needle().len()..];
            let Some(event) = event(rest) else { continue };
            if let Some(seen) = seen.get_mut(event).filter(|seen| !**seen) {
                *seen = true;
                self.arrivals.seats[event] += 1;
                self.arrivals.last[event] = Some(now);
            }
        }
    }
}

fn event(text: &[u8]) -> Option<usize> {
    let end = text
        .iter()
        .position(|b| !(b.is_ascii_digit() || *b == b'.'));
    let text = std::str::from_utf8(&text[..end.unwrap_or(text.len())]).ok()?;
    let (a, b) = text.split_once('.')?;
    Some(256 * a.parse::<usize>().ok()? + b.parse::<usize>().ok()?)
}
