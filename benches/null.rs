//! A server that only sends: recorded frames, as fast as it can. It shows what the client itself costs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write, stdin};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use anyhow::{Context, Result};
use bytes::{BufMut, Bytes, BytesMut};
use fairlead::xds::ResourceType;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, LocalSet};

use super::server::Usage;
use super::wire::{Cutter, Field, Fields, PREFIX, Response, put, seal};

/// Subscribed as a type, its name subscribed says how many small messages are wanted.
pub const BLAST: &str = "bench/blast";
/// In the last message of a blast.
pub const BLAST_END: &[u8] = b"blast-end";

/// The null server as a process of its own. It is killed when dropped.
pub struct NullServer {
    child: Child,
    pub address: SocketAddr,
}

impl NullServer {
    /// `recording` holds what a real server sent one proxy.
    pub fn start(recording: &[Bytes], file: &Path) -> Result<Self> {
        let mut out = Vec::new();
        for message in recording {
            let mut framed = BytesMut::new();
            framed.put_bytes(0, PREFIX);
            framed.put_slice(message);
            out.extend_from_slice(&seal(framed));
        }
        fs::write(file, out).context("write the recording")?;
        let program = std::env::current_exe().context("find this program")?;
        let mut command = Command::new(program);
        command.arg("--null").arg(file);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped.spawn().context("start the null server")?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let address = line.trim().parse().context("null server's address")?;
        Ok(Self { child, address })
    }

    pub fn usage(&self) -> Usage {
        Usage::of(self.child.id())
    }
}

impl Drop for NullServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Frames by type, in the order in which they were recorded.
type Script = BTreeMap<String, Vec<Bytes>>;

/// Serves until its standard input ends, as it does when the runner is gone.
pub fn serve(file: &Path) -> Result<()> {
    let mut script = Script::new();
    Cutter::default().push(&fs::read(file)?, |message| {
        if let Some(response) = Response::scan(message) {
            let mut framed = BytesMut::with_capacity(PREFIX + message.len());
            framed.put_bytes(0, PREFIX);
            framed.put_slice(message);
            let url = response.kind.type_url().to_owned();
            script.entry(url).or_default().push(seal(framed));
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let ended = runtime.spawn_blocking(|| stdin().read_to_end(&mut Vec::new()));
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
        tokio::select! {
            ended = accept(listener, Rc::new(script)) => ended,
            _ = ended => Ok(()),
        }
    })
}

async fn accept(listener: TcpListener, script: Rc<Script>) -> Result<()> {
    let mut tasks = JoinSet::new();
    loop {
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        let script = script.clone();
        tasks.spawn_local(async move {
            // A client that leaves is no news.
            let _ = converse(tcp, &script).await;
        });
    }
}

async fn converse(tcp: TcpStream, script: &Script) -> Result<()> {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(64 << 20)
        .initial_connection_window_size(64 << 20)
        .max_send_buffer_size(1 << 30);
    let mut connection = builder.handshake::<_, Bytes>(tcp).await?;
    let Some(call) = connection.accept().await else {
        return Ok(());
    };
    let (request, mut respond) = call?;
    let head = http::Response::builder().header("content-type", "application/grpc");
    let mut send = respond.send_response(head.body(())?, false)?;
    let answer = async {
        let mut body = request.into_body();
        let mut cutter = Cutter::default();
        let mut begun = Vec::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            let mut frames = Vec::new();
            cutter.push(&chunk, |m| frames.extend(reply(m, script, &mut begun)));
            for frame in frames {
                send.send_data(frame, false)?;
            }
        }
        anyhow::Ok(())
    };
    tokio::select! {
        ended = answer => ended,
        _ = connection.accept() => Ok(()),
    }
}

/// All frames of a type at the first request for it; nothing for an ACK.
fn reply(request: &[u8], script: &Script, begun: &mut Vec<String>) -> Vec<Bytes> {
    let (mut url, mut count) = (String::new(), 0);
    for field in Fields(request) {
        match field {
            (2, Field::Bytes(text)) => url = String::from_utf8_lossy(text).into_owned(),
            (3, Field::Bytes(text)) if count == 0 => {
                count = String::from_utf8_lossy(text).parse().unwrap_or(0);
            }
            _ => {}
        }
    }
    if url == BLAST {
        return blast(count);
    }
    if begun.contains(&url) {
        return Vec::new();
    }
    let frames = script.get(&url).cloned().unwrap_or_default();
    begun.push(url);
    frames
}

/// Messages of the size of a changed endpoint's assignment.
fn blast(count: usize) -> Vec<Bytes> {
    let message = |name: &[u8]| {
        let mut any = BytesMut::new();
        put(&mut any, 1, ResourceType::Endpoint.type_url().as_bytes());
        put(&mut any, 2, &[b'x'; 1200]);
        let mut resource = BytesMut::new();
        put(&mut resource, 1, &[b'v'; 32]);
        put(&mut resource, 3, name);
        put(&mut resource, 2, &any);
        let mut out = BytesMut::new();
        out.put_bytes(0, PREFIX);
        put(&mut out, 2, &resource);
        put(&mut out, 4, ResourceType::Endpoint.type_url().as_bytes());
        put(&mut out, 5, b"00000001");
        seal(out)
    };
    let mut frames = vec![message(b"blast"); count.saturating_sub(1)];
    frames.push(message(BLAST_END));
    frames
}
