//! Clients inside a pod: HTTP/1.1, HTTP/2, gRPC, plain TCP.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::network::{Namespace, User};
use super::pki::Tls;

/// A client that is not answered by then gives up.
const DEADLINE: Duration = Duration::from_secs(20);

/// Where a client connects to.
#[derive(Clone, Debug)]
pub enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
    Grpc,
}

/// One request, as it will be sent.
#[derive(Clone, Debug)]
pub struct Call {
    pub target: Target,
    pub protocol: Protocol,
    pub method: Method,
    pub authority: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    /// None is plaintext.
    pub tls: Option<Tls>,
    /// Of a gRPC call it is not sent.
    pub body: Bytes,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

impl Call {
    pub fn get(target: Target, authority: &str, path: &str) -> Self {
        Self {
            target,
            protocol: Protocol::Http1,
            method: Method::GET,
            authority: authority.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            tls: None,
            body: Bytes::new(),
        }
    }

    pub fn within(self, tls: Tls) -> Self {
        Self {
            tls: Some(tls),
            ..self
        }
    }

    pub fn method(self, method: Method) -> Self {
        Self { method, ..self }
    }

    pub fn over(self, protocol: Protocol) -> Self {
        let method = match protocol {
            Protocol::Grpc => Method::POST,
            Protocol::Http1 | Protocol::Http2 => self.method,
        };
        Self {
            protocol,
            method,
            ..self
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends it from inside `from`, as `user`, on a connection of its own.
    pub fn send(&self, from: &Namespace, user: User) -> Result<Reply> {
        from.inside(user, || block_on(self.exchange()))?
    }

    /// Sends it from where the test runs: the node.
    pub fn send_from_node(&self) -> Result<Reply> {
        block_on(self.exchange())
    }

    async fn exchange(&self) -> Result<Reply> {
        match &self.target {
            Target::Tcp(address) => {
                let stream = connect(*address).await?;
                let alpn: &[u8] = match self.protocol {
                    Protocol::Http1 => b"http/1.1",
                    Protocol::Http2 | Protocol::Grpc => b"h2",
                };
                match &self.tls {
                    None => self.over_stream(stream).await,
                    Some(tls) => self.over_stream(tls.over(stream, alpn).await?).await,
                }
            }
            Target::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                let stream = stream.with_context(|| format!("connect to {}", path.display()))?;
                self.over_stream(stream).await
            }
        }
    }

    async fn over_stream(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Reply> {
        let io = TokioIo::new(stream);
        let request = self.request()?;
        match self.protocol {
            Protocol::Http1 => {
                let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
                answered(
                    async move { sender.send_request(request).await },
                    connection,
                )
                .await
            }
            Protocol::Http2 | Protocol::Grpc => {
                let (mut sender, connection) =
                    hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
                answered(
                    async move { sender.send_request(request).await },
                    connection,
                )
                .await
            }
        }
    }

    pub(super) fn request(&self) -> Result<Request<Full<Bytes>>> {
        let Self {
            authority, path, ..
        } = self;
        let uri = match self.protocol {
            Protocol::Http1 => path.clone(),
            Protocol::Http2 | Protocol::Grpc => format!("http://{authority}{path}"),
        };
        let mut request = Request::builder().method(&self.method).uri(uri);
        if self.protocol == Protocol::Http1 {
            request = request.header("host", authority);
        }
        for (name, value) in &self.headers {
            request = request.header(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
        }
        let body = if self.protocol == Protocol::Grpc {
            request = request
                .header("content-type", "application/grpc")
                .header("te", "trailers");
            empty_message()
        } else {
            self.body.clone()
        };
        Ok(request.body(Full::new(body))?)
    }
}

/// A gRPC message without fields.
fn empty_message() -> Bytes {
    let mut message = BytesMut::new();
    message.put_u8(0);
    message.put_u32(0);
    message.freeze()
}

pub(super) async fn reply(response: http::Response<Incoming>) -> Result<Reply> {
    let (head, body) = response.into_parts();
    let body = body.collect().await.context("read the answer's body")?;
    Ok(Reply {
        status: head.status.as_u16(),
        headers: head.headers,
        trailers: body.trailers().cloned().unwrap_or_default(),
        body: body.to_bytes(),
    })
}

/// The connection may end before the answer that it brought is read.
async fn answered(
    response: impl Future<Output = hyper::Result<http::Response<Incoming>>>,
    connection: impl Future<Output = hyper::Result<()>>,
) -> Result<Reply> {
    let answer = async { reply(response.await?).await };
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = connection => answer.await.with_context(|| format!("the connection ended: {ended:?}")),
    }
}

pub(super) async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).await;
    let stream = stream.with_context(|| format!("connect to {address}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub(super) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    runtime()?.block_on(in_time(work))
}

/// For work of any length that bounds its own steps by [`in_time`].
pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    Ok(runtime.enable_all().build()?)
}

/// One exchange, or a connection being made.
pub(super) async fn in_time<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let done = tokio::time::timeout(DEADLINE, work).await;
    done.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {DEADLINE:?}")))
}

impl Reply {
    /// The text of what was found; another status than 200 is an error that shows it.
    pub fn found(self, path: &str) -> Result<String> {
        let text = self.text();
        anyhow::ensure!(self.status == 200, "{path}: {} {text}", self.status);
        Ok(text)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or("")
    }

    /// What `fairlead echo` says of the request it got.
    pub fn seen(&self) -> Result<Value> {
        ensure!(
            self.status == 200,
            "status {}: {}",
            self.status,
            self.text()
        );
        // A gRPC message has five bytes before its text.
        let start = self.body.iter().position(|b| *b == b'{').unwrap_or(0);
        let text = &self.body[start..];
        serde_json::from_slice(text).with_context(|| format!("not from echo: {}", self.text()))
    }
}

/// Sends `message` over TCP and reads what `fairlead echo` says first: name, version, peer.
pub fn tcp(from: &Namespace, user: User, to: SocketAddr, message: &[u8]) -> Result<Greeting> {
    from.inside(user, || {
        block_on(async {
            let mut stream = connect(to).await?;
            stream.write_all(message).await?;
            let greeting = greeting(&mut stream).await?;
            let mut echoed = vec![0; message.len()];
            stream
                .read_exact(&mut echoed)
                .await
                .context("read the echo")?;
            ensure!(echoed == message, "another message came back");
            Ok(greeting)
        })
    })?
}

/// The same within TLS.
pub fn tls(from: &Namespace, to: SocketAddr, tls: &Tls, message: &[u8]) -> Result<Greeting> {
    from.inside(User::App, || {
        block_on(async {
            let mut stream = tls.over(connect(to).await?, b"").await?;
            stream.write_all(message).await?;
            greeting(&mut stream).await
        })
    })?
}

/// Connects over TCP and waits for the server to speak first.
pub fn server_first(from: &Namespace, user: User, to: SocketAddr) -> Result<Greeting> {
    from.inside(user, || {
        block_on(async { greeting(&mut connect(to).await?).await })
    })?
}

/// `fairlead echo`'s first line over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    pub name: String,
    pub version: String,
    pub peer: SocketAddr,
}

async fn greeting(stream: &mut (impl AsyncRead + Unpin)) -> Result<Greeting> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        ensure!(
            line.len() < 200,
            "no greeting: {}",
            String::from_utf8_lossy(&line)
        );
        line.push(stream.read_u8().await.context("read the greeting")?);
    }
    let line = String::from_utf8(line)?;
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        [name, version, peer] => Ok(Greeting {
            name: name.to_owned(),
            version: version.to_owned(),
            peer: peer.parse()?,
        }),
        _ => anyhow::bail!("not from echo: {line}"),
    }
}
