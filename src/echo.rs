//! A workload for demos and tests that describes each request it gets.
//!
//! Four kinds of listener: HTTP (HTTP/1.1 and HTTP/2 by preface, gRPC by content type), TCP that answers
//! the client, TCP where the server speaks first, and the end of a tunnel. It knows nothing of the mesh.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, try_join_all};
use futures_util::stream::{FuturesUnordered, StreamExt};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use crate::text::Str;

mod answer;

use answer::Answerer;

/// How a listener talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Talk {
    /// HTTP/1.1, HTTP/2 with prior knowledge, and gRPC.
    Http,
    /// Says who it is once the client has sent something, then echoes bytes.
    TcpEcho,
    /// Says who it is at once, then echoes bytes.
    ServerFirst,
    /// The end of a tunnel: takes any `CONNECT`, and any upgrade to WebSocket, says who it is and where the client wanted
    /// to go, then echoes bytes.
    Tunnel,
}

/// Where a listener is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What the workload says of itself and how it misbehaves when asked to.
#[derive(Clone, Debug)]
pub struct Workload {
    pub name: Str,
    pub version: Str,
    /// So many attempts of each request (told apart by `x-request-id`) are answered 503.
    pub fail_first: u32,
    /// Time before each HTTP answer.
    pub delay: Duration,
}

/// Listeners that are bound but not served yet.
pub struct Echo {
    workload: Arc<Answerer>,
    listeners: Vec<(Talk, Listener)>,
}

/// More connections than this wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 1024;

impl Echo {
    /// Binds all places, or none.
    pub async fn bind(workload: Workload, places: &[(Talk, Place)]) -> io::Result<Self> {
        let mut listeners = Vec::new();
        for (talk, place) in places {
            let bound = Listener::bind(place).await;
            let named = |e: io::Error| io::Error::new(e.kind(), format!("bind {place:?}: {e}"));
            listeners.push((*talk, bound.map_err(named)?));
        }
        Ok(Self {
            workload: Arc::new(Answerer::new(workload)),
            listeners,
        })
    }

    /// The bound places, in the order they were asked for, with real port numbers.
    pub fn places(&self) -> io::Result<Vec<(Talk, Place)>> {
        self.listeners
            .iter()
            .map(|(talk, listener)| Ok((*talk, listener.place()?)))
            .collect()
    }

    /// Serves until dropped, or until a listener breaks.
    pub async fn serve(self) -> io::Result<()> {
        let Self {
            workload,
            listeners,
        } = self;
        let all = listeners
            .into_iter()
            .map(|(talk, listener)| serve(talk, listener, workload.clone()));
        try_join_all(all).await.map(drop)
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    async fn bind(place: &Place) -> io::Result<Self> {
        match place {
            Place::Tcp(address) => Ok(Self::Tcp(TcpListener::bind(address).await?)),
            Place::Unix(path) => {
                remove_stale_socket(path)?;
                Ok(Self::Unix(UnixListener::bind(path)?, path.clone()))
            }
        }
    }

    fn place(&self) -> io::Result<Place> {
        match self {
            Self::Tcp(listener) => Ok(Place::Tcp(listener.local_addr()?)),
            Self::Unix(_, path) => Ok(Place::Unix(path.clone())),
        }
    }

    async fn accept(&self) -> io::Result<(Box<dyn Stream>, Str)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Box::new(stream), Str::new(peer.to_string())))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Box::new(stream), Str::new("unix")))
            }
        }
    }
}

/// A socket file outlives the process that bound it; only a socket is ever removed.
fn remove_stale_socket(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) | Err(_) => Ok(()),
    }
}

async fn serve(talk: Talk, listener: Listener, workload: Arc<Answerer>) -> io::Result<()> {
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(()) = connections.next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                // A client that is gone before it was accepted is no fault of the listener.
                if let Ok((stream, peer)) = accepted {
                    connections.push(converse(talk, stream, peer, workload.clone()));
                }
            }
        }
    }
}

/// One connection to its end. How it ends concerns only the client, which sees it.
fn converse(
    talk: Talk,
    stream: Box<dyn Stream>,
    peer: Str,
    workload: Arc<Answerer>,
) -> BoxFuture<'static, ()> {
    let greeting = workload.greeting(&peer);
    match talk {
        Talk::Http => async move {
            let service = hyper::service::service_fn(move |request| {
                let (workload, peer) = (workload.clone(), peer.clone());
                async move { workload.answer(&peer, request).await }
            });
            let server = auto::Builder::new(TokioExecutor::new());
            let _ended = server.serve_connection(TokioIo::new(stream), service).await;
        }
        .boxed(),
        Talk::TcpEcho => echo(stream, greeting, Greet::AfterFirstBytes)
            .map(drop)
            .boxed(),
        Talk::ServerFirst => echo(stream, greeting, Greet::AtOnce).map(drop).boxed(),
        Talk::Tunnel => tunnel(stream, workload).map(drop).boxed(),
    }
}

/// Longer requests lead nowhere.
const MAX_TUNNEL_HEAD: usize = 8 * 1024;

async fn tunnel(mut stream: Box<dyn Stream>, workload: Arc<Answerer>) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_TUNNEL_HEAD {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut words = head.split_whitespace();
    let (method, target) = (words.next(), words.next().unwrap_or_default());
    let upgrades = head.to_ascii_lowercase().contains("upgrade: websocket");
    let answer = match method {
        Some("CONNECT") => "200 OK",
        Some("GET") if upgrades => {
            "101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket"
        }
        _ => "405 Method Not Allowed\r\nconnection: close\r\ncontent-length: 0",
    };
    let head = format!("HTTP/1.1 {answer}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    if answer.starts_with("405") {
        return stream.shutdown().await;
    }
    echo(stream, workload.greeting(target), Greet::AfterFirstBytes).await
}

#[derive(PartialEq)]
enum Greet {
    AtOnce,
    AfterFirstBytes,
}

async fn echo(mut stream: Box<dyn Stream>, greeting: String, greet: Greet) -> io::Result<()> {
    let mut greeting = Some(greeting);
    if greet == Greet::AtOnce
        && let Some(line) = greeting.take()
    {
        stream.write_all(line.as_bytes()).await?;
    }
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return stream.shutdown().await;
        }
        if let Some(line) = greeting.take() {
            stream.write_all(line.as_bytes()).await?;
        }
        stream.write_all(&buffer[..read]).await?;
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    fn workload() -> Workload {
        Workload {
            name: "reviews".into(),
            version: "v1".into(),
            fail_first: 0,
            delay: Duration::ZERO,
        }
    }

    /// Serves `talk` on a free port while `client` talks to it.
    async fn talking<T>(talk: Talk, client: impl AsyncFnOnce(TcpStream) -> T) -> T {
        let any = Place::Tcp("127.0.0.1:0".parse().unwrap());
        let echo = Echo::bind(workload(), &[(talk, any)]).await.unwrap();
        let Place::Tcp(address) = echo.places().unwrap()[0].1.clone() else {
            panic!("a TCP place was asked for")
        };
        let client = async { client(TcpStream::connect(address).await.unwrap()).await };
        tokio::select! {
            ended = echo.serve() => panic!("the server ended: {ended:?}"),
            got = client => got,
        }
    }

    async fn read_some(stream: &mut TcpStream, end: &str) -> String {
        let mut got = String::new();
        while !got.ends_with(end) {
            let mut buffer = [0; 512];
            let n = stream.read(&mut buffer).await.unwrap();
            assert!(n > 0, "closed after {got:?}");
            got.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
        }
        got
    }

    #[tokio::test]
    async fn a_server_first_listener_speaks_before_the_client() {
        let line = talking(Talk::ServerFirst, async |mut c| {
            read_some(&mut c, "\n").await
        })
        .await;
        assert!(line.starts_with("reviews v1 127.0.0.1:"), "{line}");
    }

    #[tokio::test]
    async fn a_tcp_listener_names_itself_once_and_echoes() {
        let got = talking(Talk::TcpEcho, async |mut c| {
            c.write_all(b"one ").await.unwrap();
            let first = read_some(&mut c, "one ").await;
            c.write_all(b"two").await.unwrap();
            first + &read_some(&mut c, "two").await
        })
        .await;
        assert!(
            got.starts_with("reviews v1 ") && got.ends_with("\none two"),
            "{got}"
        );
    }

    #[tokio::test]
    async fn a_tunnel_says_where_it_was_to_lead() {
        let got = talking(Talk::Tunnel, async |mut c| {
            c.write_all(b"CONNECT 192.0.2.1:443 HTTP/1.1\r\nhost: a\r\n\r\n")
                .await
                .unwrap();
            let head = read_some(&mut c, "\r\n\r\n").await;
            c.write_all(b"hi").await.unwrap();
            head + &read_some(&mut c, "hi").await
        })
        .await;
        assert_eq!(got, "HTTP/1.1 200 OK\r\n\r\nreviews v1 192.0.2.1:443\nhi");
    }

    #[tokio::test]
    async fn one_port_answers_http1_by_default() {
        let got = talking(Talk::Http, async |mut c| {
            let request = b"GET /a?b=c HTTP/1.1\r\nhost: reviews\r\nx-one: 1\r\n\r\n";
            c.write_all(request).await.unwrap();
            read_some(&mut c, "}").await
        })
        .await;
        assert!(got.starts_with("HTTP/1.1 200"), "{got}");
        assert!(
            got.contains(r#""path":"/a?b=c""#) && got.contains(r#""x-one":"1""#),
            "{got}"
        );
    }

    #[tokio::test]
    async fn the_same_port_answers_http2_with_prior_knowledge() {
        use http_body_util::{BodyExt, Empty};
        let text = talking(Talk::Http, async |c| {
            let (mut send, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(c))
                    .await
                    .unwrap();
            let request = http::Request::get("http://reviews/two")
                .body(Empty::<bytes::Bytes>::new())
                .unwrap();
            tokio::select! {
                _ = connection => panic!("the connection ended first"),
                answer = send.send_request(request) => {
                    let body = answer.unwrap().into_body().collect();
                    body.await.unwrap().to_bytes()
                }
            }
        })
        .await;
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert!(text.contains(r#""protocol":"HTTP/2.0""#), "{text}");
        assert!(text.contains(r#""authority":"reviews""#), "{text}");
    }

    #[tokio::test]
    async fn a_stale_socket_file_is_no_obstacle_but_a_plain_file_is() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("app.sock");
        let place = [(Talk::Http, Place::Unix(socket.clone()))];
        drop(Echo::bind(workload(), &place).await.unwrap());
        assert!(socket.exists());
        Echo::bind(workload(), &place).await.unwrap();
        let plain = dir.path().join("notes");
        std::fs::write(&plain, "keep me").unwrap();
        let place = [(Talk::Http, Place::Unix(plain.clone()))];
        assert!(Echo::bind(workload(), &place).await.is_err());
        assert_eq!(std::fs::read_to_string(plain).unwrap(), "keep me");
    }
}
