//! A server that only sends: recorded responses, as fast as it can. It shows what client and transport cost.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::{BufMut as _, Bytes, BytesMut};
use fairlead::xds::ResourceType;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;

use super::channel::{Channel, Drain, listen};
use super::fleet::Helper;
use super::http2::{Http2, framed};
use super::order::NullOrder;
use super::proxy::BLAST;
use super::server::Usage;
use super::wire::{Intake, Item, PREFIX, put, seal};

/// In the last message of a blast.
pub const BLAST_END: &[u8] = b"blast-end";
/// The size of a small message's body: an assignment of one endpoint.
const SMALL: usize = 300;
const BUFFER: usize = 256 << 10;
const RUNNER: Token = Token(usize::MAX);
const DOOR: Token = Token(usize::MAX - 1);

/// The null server as a process of its own.
pub struct NullServer {
    helper: Helper,
    pub address: SocketAddr,
}

impl NullServer {
    /// It speaks TLS with a certificate that it makes and writes into `roots`, if there is such a place.
    pub async fn start(roots: Option<&Path>) -> Result<Self> {
        let roots = roots.map(|p| p.display().to_string());
        let more: Vec<&str> = roots.iter().flat_map(|r| ["--roots", r]).collect();
        let mut helper = Helper::start("--null", &more).await?;
        let line = helper.answer().await?;
        let address = line.trim().parse().context("the null server's address")?;
        Ok(Self { helper, address })
    }

    /// What every client is sent of a type when it first asks for it.
    pub async fn script(&mut self, file: &Path) -> Result<()> {
        self.order(&NullOrder::Script(file.into())).await
    }

    /// Sends every client what is in a file.
    pub async fn send(&mut self, file: &Path) -> Result<()> {
        self.order(&NullOrder::Send(file.into())).await
    }

    async fn order(&mut self, order: &NullOrder) -> Result<()> {
        self.helper.tell(order).await?;
        self.helper.answer().await.map(drop)
    }

    pub fn usage(&self) -> Usage {
        self.helper.usage()
    }
}

/// Responses by type, as data frames, in the order in which they were recorded.
type Script = HashMap<String, Vec<Bytes>>;

struct Client {
    channel: Channel,
    http2: Http2,
    intake: Intake,
    request: Asked,
    begun: Vec<String>,
}

#[derive(Default)]
struct Asked {
    url: String,
    first: String,
}

struct Null {
    poll: Poll,
    runner: TcpStream,
    line: Vec<u8>,
    door: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    clients: Vec<Option<Client>>,
    script: Script,
}

/// Serves the runner at this address until it goes.
pub fn serve(runner: SocketAddr, roots: Option<&Path>) -> Result<()> {
    let poll = Poll::new()?;
    let tls = roots.map(certified).transpose()?;
    let mut door = TcpListener::from_std(listen("127.0.0.1:0".parse()?)?);
    let stream = std::net::TcpStream::connect(runner).context("reach the runner")?;
    stream.set_nonblocking(true)?;
    let mut runner = TcpStream::from_std(stream);
    let registry = poll.registry();
    registry.register(&mut runner, RUNNER, Interest::READABLE)?;
    registry.register(&mut door, DOOR, Interest::READABLE)?;
    writeln!(runner, "{}", door.local_addr()?)?;
    let null = Null {
        poll,
        runner,
        line: Vec::new(),
        door,
        tls,
        clients: Vec::new(),
        script: Script::new(),
    };
    null.run()
}

impl Null {
    fn run(mut self) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; BUFFER];
        loop {
            match self.poll.poll(&mut events, None) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                match event.token() {
                    RUNNER => {
                        if !self.on_runner(&mut buffer)? {
                            return Ok(());
                        }
                    }
                    DOOR => self.accept()?,
                    Token(client) => self.on_client(client, &mut buffer),
                }
            }
        }
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            let tcp = match self.door.accept() {
                Ok((tcp, _)) => tcp,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e.into()),
            };
            let mut client = Client {
                channel: Channel::accept(tcp, self.tls.as_ref())?,
                http2: Http2::server(),
                intake: Intake::default(),
                request: Asked::default(),
                begun: Vec::new(),
            };
            let token = Token(self.clients.len());
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(client.channel.tcp(), token, interest)?;
            self.clients.push(Some(client));
        }
    }

    fn on_client(&mut self, at: usize, buffer: &mut [u8]) {
        let Some(client) = self.clients.get_mut(at).and_then(Option::as_mut) else {
            return;
        };
        let mut done = Ok(Drain::More);
        while matches!(done, Ok(Drain::More)) {
            done = client.read(buffer, &self.script);
        }
        // A client that leaves is no news.
        if done.and_then(|_| client.channel.flush()).is_err() {
            self.clients[at] = None;
        }
    }

    fn on_runner(&mut self, buffer: &mut [u8]) -> Result<bool> {
        loop {
            match self.runner.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => self.line.extend_from_slice(&buffer[..count]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e.into()),
            }
        }
        while let Some(end) = self.line.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            match serde_json::from_slice(&line).context("read an order")? {
                NullOrder::Script(file) => self.script = script(&file)?,
                NullOrder::Send(file) => self.send(&file)?,
            }
            self.runner.write_all(b"\n")?;
        }
        Ok(true)
    }

    fn send(&mut self, file: &Path) -> Result<()> {
        let messages: Vec<Bytes> = messages(file)?.into_iter().map(|(_, m)| m).collect();
        for place in &mut self.clients {
            let Some(client) = place else { continue };
            for message in &messages {
                client.channel.push(message.clone());
            }
            if client.channel.flush().is_err() {
                *place = None;
            }
        }
        Ok(())
    }
}

impl Client {
    fn read(&mut self, buffer: &mut [u8], script: &Script) -> io::Result<Drain> {
        let Self {
            channel,
            http2,
            intake,
            request,
            begun,
        } = self;
        let mut answers = Vec::new();
        let drain = channel.read(buffer, |plain| {
            let received = http2.receive(plain, |data| {
                // Requests of a stranger end in nothing.
                let _ = intake.push(data, |item| match item {
                    Item::Field(2, url) => request.url = text(url),
                    Item::Field(3, name) if request.first.is_empty() => request.first = text(name),
                    Item::Field(..) => {}
                    Item::End(_) => answers.extend(answer(std::mem::take(request), script, begun)),
                });
            });
            received.map_err(io::Error::other)
        })?;
        channel.push(http2.take());
        for answer in answers {
            channel.push(answer);
        }
        Ok(drain)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// All responses of a type at the first request for it; nothing for an ACK.
fn answer(asked: Asked, script: &Script, begun: &mut Vec<String>) -> Vec<Bytes> {
    if asked.url == BLAST {
        return vec![blast(asked.first.parse().unwrap_or(0))];
    }
    if begun.contains(&asked.url) {
        return Vec::new();
    }
    let responses = script.get(&asked.url).cloned().unwrap_or_default();
    begun.push(asked.url);
    responses
}

fn script(file: &Path) -> Result<Script> {
    let mut script = Script::new();
    for (url, message) in messages(file)? {
        script.entry(url).or_default().push(message);
    }
    Ok(script)
}

/// The recorded responses with their types, each as data frames.
fn messages(file: &Path) -> Result<Vec<(String, Bytes)>> {
    let bytes = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let (mut out, mut url, mut from) = (Vec::new(), String::new(), 0);
    Intake::default().push(&bytes, |item| match item {
        Item::Field(4, of) => url = text(of),
        Item::Field(..) => {}
        Item::End(size) => {
            let message = framed(&bytes[from..from + size]);
            out.push((std::mem::take(&mut url), message));
            from += size;
        }
    })?;
    Ok(out)
}

/// Messages each of which is a frame of its own, as a server sends them.
fn blast(count: usize) -> Bytes {
    let message = |name: &[u8]| {
        let mut any = BytesMut::new();
        put(&mut any, 1, ResourceType::Endpoint.type_url().as_bytes());
        put(&mut any, 2, &[0x7a; SMALL]);
        let mut resource = BytesMut::new();
        put(&mut resource, 1, &[b'v'; 32]);
        put(&mut resource, 3, name);
        put(&mut resource, 2, &any);
        let mut out = BytesMut::new();
        out.put_bytes(0, PREFIX);
        put(&mut out, 2, &resource);
        put(&mut out, 4, ResourceType::Endpoint.type_url().as_bytes());
        put(&mut out, 5, b"00000001");
        framed(&seal(out))
    };
    let mut frames = message(b"blast").repeat(count.saturating_sub(1));
    frames.extend_from_slice(&message(BLAST_END));
    frames.into()
}

/// A certificate for this machine alone, signed by itself.
fn certified(roots: &Path) -> Result<Arc<ServerConfig>> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    std::fs::write(roots, made.cert.pem()).context("write the null server's certificate")?;
    let key =
        PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(io::Error::other)?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}
