//! One gRPC stream on one HTTP/2 connection, at either end: bytes in, bytes out. No sockets here.
//!
//! It does what both ends of a delta stream need and no more: one stream, headers written and never read,
//! data sent within the far end's windows.

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD: usize = 9;
const STREAM: u32 = 1;
/// So large that windows do not set the pace: what is allowed to come on the stream, and on the connection.
const WINDOW: u32 = 256 << 20;
/// Given back once so much has come.
const CREDIT: u32 = 64 << 20;
/// What HTTP/2 begins with.
const FIRST_WINDOW: u32 = 65_535;
const MAX_FRAME: usize = 16_384;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const INITIAL_WINDOW_SIZE: u16 = 4;
const ENABLE_PUSH: u16 = 2;
/// `:status: 200` in HPACK's static table.
const STATUS_200: u8 = 0x88;

/// Why a stream is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Over {
    #[error("the far end closed the stream")]
    Closed,
    #[error("the far end answered without status 200")]
    Refused,
    #[error("the far end reset the stream: code {0}")]
    Reset(u32),
    #[error("the far end said goodbye: code {0}")]
    Goodbye(u32),
    #[error("no HTTP/2: {0}")]
    Broken(&'static str),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

pub struct Http2 {
    side: Side,
    /// Of the preface, that a client sends first.
    preface: usize,
    head: Vec<u8>,
    /// The payload of a frame that is no data. At most what a frame may have.
    payload: Vec<u8>,
    /// Bytes of the current frame still to come.
    left: usize,
    answered: bool,
    consumed: u32,
    out: Vec<u8>,
    /// Messages that the windows do not let out yet.
    waiting: VecDeque<Bytes>,
    stream_window: i64,
    connection_window: i64,
    initial_window: i64,
}

impl Http2 {
    /// A client that has sent its request's headers.
    pub fn client(path: &str, authority: &str, authorization: Option<&str>) -> Self {
        let mut this = Self::new(Side::Client, PREFACE.to_vec());
        // POST and http of the static table; each other header with its name spelled out.
        let mut block = vec![0x83, 0x86];
        literal(&mut block, ":path", path);
        literal(&mut block, ":authority", authority);
        literal(&mut block, "content-type", "application/grpc");
        literal(&mut block, "te", "trailers");
        if let Some(text) = authorization {
            literal(&mut block, "authorization", text);
        }
        this.frame(HEADERS, END_HEADERS, STREAM, &block);
        this
    }

    /// A server; it answers the first request's headers when they come.
    pub fn server() -> Self {
        Self::new(Side::Server, Vec::new())
    }

    fn new(side: Side, out: Vec<u8>) -> Self {
        let mut this = Self {
            side,
            preface: if side == Side::Server {
                PREFACE.len()
            } else {
                0
            },
            head: Vec::new(),
            payload: Vec::new(),
            left: 0,
            answered: false,
            consumed: 0,
            out,
            waiting: VecDeque::new(),
            stream_window: i64::from(FIRST_WINDOW),
            connection_window: i64::from(FIRST_WINDOW),
            initial_window: i64::from(FIRST_WINDOW),
        };
        let mut settings = Vec::new();
        for (key, value) in [(ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, WINDOW)] {
            // A server may not speak of push.
            if side == Side::Client || key != ENABLE_PUSH {
                settings.extend_from_slice(&key.to_be_bytes());
                settings.extend_from_slice(&value.to_be_bytes());
            }
        }
        this.frame(SETTINGS, 0, 0, &settings);
        let more = WINDOW - FIRST_WINDOW;
        this.frame(WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        this
    }

    /// What is to be written now.
    pub fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.out).into()
    }

    /// Whether the far end's headers have come.
    pub fn answered(&self) -> bool {
        self.answered
    }

    /// Takes bytes in and hands over the stream's data.
    pub fn receive(&mut self, mut bytes: &[u8], mut on: impl FnMut(&[u8])) -> Result<(), Over> {
        let skipped = self.preface.min(bytes.len());
        self.preface -= skipped;
        bytes = &bytes[skipped..];
        while !bytes.is_empty() {
            if self.head.len() < HEAD {
                let (head, rest) = bytes.split_at(bytes.len().min(HEAD - self.head.len()));
                self.head.extend_from_slice(head);
                bytes = rest;
                if self.head.len() < HEAD {
                    break;
                }
                self.left =
                    u32::from_be_bytes([0, self.head[0], self.head[1], self.head[2]]) as usize;
                if self.left > MAX_FRAME {
                    return Err(Over::Broken("a frame is too long"));
                }
            }
            let (mine, rest) = bytes.split_at(bytes.len().min(self.left));
            bytes = rest;
            self.left -= mine.len();
            if self.head[3] == DATA {
                if self.head[4] & PADDED != 0 {
                    return Err(Over::Broken("padding is not understood"));
                }
                on(mine);
            } else {
                self.payload.extend_from_slice(mine);
            }
            if self.left == 0 {
                self.end_of_frame()?;
                self.head.clear();
                self.payload.clear();
            }
        }
        self.give_credit();
        Ok(())
    }

    fn end_of_frame(&mut self) -> Result<(), Over> {
        let (kind, flags) = (self.head[3], self.head[4]);
        let number = |bytes: &[u8]| bytes.first_chunk().map_or(0, |b| u32::from_be_bytes(*b));
        match kind {
            DATA => {
                self.consumed += u32::from_be_bytes([0, self.head[0], self.head[1], self.head[2]]);
            }
            HEADERS => self.on_headers()?,
            SETTINGS if flags & ACK == 0 => self.on_settings(),
            PING if flags & ACK == 0 => {
                let payload = std::mem::take(&mut self.payload);
                self.frame(PING, ACK, 0, &payload);
            }
            WINDOW_UPDATE => {
                let more = i64::from(number(&self.payload));
                match self.head[8] {
                    0 => self.connection_window += more,
                    _ => self.stream_window += more,
                }
                self.let_out();
            }
            RST_STREAM => return Err(Over::Reset(number(&self.payload))),
            GOAWAY => return Err(Over::Goodbye(self.payload.get(4..).map_or(0, number))),
            _ => {}
        }
        let ended = flags & END_STREAM != 0 && matches!(kind, DATA | HEADERS);
        if ended { Err(Over::Closed) } else { Ok(()) }
    }

    fn on_headers(&mut self) -> Result<(), Over> {
        match self.side {
            Side::Client if !self.answered && self.payload.first() != Some(&STATUS_200) => {
                return Err(Over::Refused);
            }
            Side::Server if !self.answered => {
                let mut block = vec![STATUS_200];
                literal(&mut block, "content-type", "application/grpc");
                self.frame(HEADERS, END_HEADERS, STREAM, &block);
            }
            Side::Client | Side::Server => {}
        }
        self.answered = true;
        Ok(())
    }

    fn on_settings(&mut self) {
        let payload = std::mem::take(&mut self.payload);
        for setting in payload.chunks_exact(6) {
            let [a, b, value @ ..] = setting else {
                continue;
            };
            let value = value.first_chunk().map_or(0, |v| u32::from_be_bytes(*v));
            if u16::from_be_bytes([*a, *b]) == INITIAL_WINDOW_SIZE {
                self.stream_window += i64::from(value) - self.initial_window;
                self.initial_window = i64::from(value);
            }
        }
        self.frame(SETTINGS, ACK, 0, &[]);
        self.let_out();
    }

    fn give_credit(&mut self) {
        if self.consumed < CREDIT {
            return;
        }
        let credit = std::mem::take(&mut self.consumed).to_be_bytes();
        self.frame(WINDOW_UPDATE, 0, 0, &credit);
        self.frame(WINDOW_UPDATE, 0, STREAM, &credit);
    }

    /// Sends a message as data, as far as the windows let it out.
    pub fn send(&mut self, message: Bytes) {
        self.waiting.push_back(message);
        self.let_out();
    }

    fn let_out(&mut self) {
        while let Some(first) = self.waiting.front_mut() {
            let window = self.stream_window.min(self.connection_window);
            let room = usize::try_from(window).unwrap_or(0).min(MAX_FRAME);
            if room == 0 {
                return;
            }
            let part = first.split_to(first.len().min(room));
            if !first.has_remaining() {
                self.waiting.pop_front();
            }
            let size = i64::try_from(part.len()).unwrap_or(i64::MAX);
            self.stream_window -= size;
            self.connection_window -= size;
            self.frame(DATA, 0, STREAM, &part);
        }
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.out
            .extend_from_slice(&head(payload.len(), kind, flags, stream));
        self.out.extend_from_slice(payload);
    }
}

/// A message as the data frames of the one stream, for a sender that keeps no windows.
pub fn framed(message: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(message.len() + HEAD * (message.len() / MAX_FRAME + 1));
    for part in message.chunks(MAX_FRAME) {
        out.extend_from_slice(&head(part.len(), DATA, 0, STREAM));
        out.extend_from_slice(part);
    }
    out.into()
}

fn head(len: usize, kind: u8, flags: u8, stream: u32) -> [u8; HEAD] {
    let [_, a, b, c] = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    let [d, e, f, g] = stream.to_be_bytes();
    [a, b, c, kind, flags, d, e, f, g]
}

/// HPACK: a literal that enters no table, without Huffman's code.
fn literal(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(0);
    for text in [name, value] {
        let mut len = text.len();
        if len < 127 {
            out.push(low7(len));
        } else {
            out.push(127);
            len -= 127;
            while len >= 128 {
                out.push(low7(len) | 0x80);
                len >>= 7;
            }
            out.push(low7(len));
        }
        out.extend_from_slice(text.as_bytes());
    }
}

fn low7(value: usize) -> u8 {
    u8::try_from(value & 0x7f).unwrap_or_default()
}
