//! A small HTTP/1.1 client: one connection, one request at a time, deadlines.

use std::fmt::Display;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::clock;

/// Longer than any answer that the demo waits for.
const DEADLINE: Duration = Duration::from_secs(10);
const MAX_BODY: usize = 32 << 20;

#[derive(Clone, Debug)]
pub enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What is asked: `GET` of a path of a host, with headers.
#[derive(Clone, Debug)]
pub struct Call {
    pub host: String,
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
}

impl Call {
    pub fn new(host: &str, path: &str) -> Self {
        Self {
            host: host.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
        }
    }

    pub fn header(mut self, name: &'static str, value: impl Display) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
    pub took: Duration,
}

impl Answer {
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        serde_json::from_slice(&self.body).map_err(|e| CallError::Body(e.to_string()))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("connect: {0}")]
    Connect(std::io::Error),
    /// The connection was closed while idle: not one byte of the request was sent.
    #[error("the connection was closed before the request")]
    NotSent,
    #[error("{0}")]
    Exchange(hyper::Error),
    #[error("read the body: {0}")]
    Body(String),
    #[error("no answer within {DEADLINE:?}")]
    Deadline,
    #[error("build the request: {0}")]
    Request(http::Error),
}

type Driver = Pin<Box<dyn Future<Output = ()>>>;

/// An open connection. Dropping it closes it, even in the middle of a request.
pub struct Connection {
    sender: http1::SendRequest<Empty<Bytes>>,
    /// Absent once the connection ended.
    driver: Option<Driver>,
}

impl Connection {
    pub async fn open(place: &Place) -> Result<Self, CallError> {
        let opening = async {
            match place {
                Place::Tcp(address) => {
                    let stream = TcpStream::connect(address)
                        .await
                        .map_err(CallError::Connect)?;
                    stream.set_nodelay(true).map_err(CallError::Connect)?;
                    shake(TokioIo::new(stream)).await
                }
                Place::Unix(path) => {
                    let stream = UnixStream::connect(path)
                        .await
                        .map_err(CallError::Connect)?;
                    shake(TokioIo::new(stream)).await
                }
            }
        };
        timeout(DEADLINE, opening)
            .await
            .map_err(|_| CallError::Deadline)?
    }

    pub async fn call(&mut self, call: &Call) -> Result<Answer, CallError> {
        let exchange = timeout(DEADLINE, exchange(&mut self.sender, call));
        drive(&mut self.driver, exchange)
            .await
            .map_err(|_| CallError::Deadline)?
    }

    /// Whether another request may be sent; also lets a close by the peer be noticed.
    pub async fn is_open(&mut self) -> bool {
        drive(&mut self.driver, tokio::task::yield_now()).await;
        self.driver.is_some() && !self.sender.is_closed()
    }
}

/// A connection for one request.
pub async fn once(place: &Place, call: &Call) -> Result<Answer, CallError> {
    Connection::open(place).await?.call(call).await
}

async fn shake<T>(io: T) -> Result<Connection, CallError>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(io).await.map_err(CallError::Exchange)?;
    Ok(Connection {
        sender,
        driver: Some(Box::pin(async {
            // How it ended is told by the request that saw it.
            let _ended = connection.await;
        })),
    })
}

/// Runs `work` to its end, and the connection beside it.
async fn drive<F: Future>(driver: &mut Option<Driver>, work: F) -> F::Output {
    let mut work = pin!(work);
    loop {
        let Some(running) = driver.as_mut() else {
            return work.await;
        };
        tokio::select! {
            () = running => *driver = None,
            done = &mut work => return done,
        }
    }
}

async fn exchange(
    sender: &mut http1::SendRequest<Empty<Bytes>>,
    call: &Call,
) -> Result<Answer, CallError> {
    let mut request = Request::get(&call.path).header(HOST, &call.host);
    for (name, value) in &call.headers {
        request = request.header(*name, value);
    }
    let request = request.body(Empty::new()).map_err(CallError::Request)?;
    sender.ready().await.map_err(|_| CallError::NotSent)?;
    let begin = clock::mono();
    let response = sender.send_request(request).await.map_err(|error| {
        if error.is_canceled() {
            CallError::NotSent
        } else {
            CallError::Exchange(error)
        }
    })?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await;
    let body = body.map_err(|e| CallError::Body(e.to_string()))?.to_bytes();
    Ok(Answer {
        status: head.status,
        body,
        took: clock::mono() - begin,
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Serves one connection: reads a request, writes `answer`, closes.
    async fn served<T>(answer: &str, client: impl AsyncFnOnce(Place) -> T) -> T {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = Place::Tcp(listener.local_addr().unwrap());
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1024];
            assert!(stream.read(&mut buffer).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        tokio::join!(serve, client(place)).1
    }

    #[tokio::test]
    async fn an_answer_counts_even_when_the_connection_ends_with_it() {
        let text = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
        served(text, async |place| {
            let mut connection = Connection::open(&place).await.unwrap();
            let answer = connection.call(&Call::new("a", "/")).await.unwrap();
            assert_eq!(answer.status, StatusCode::OK);
            let again = connection.call(&Call::new("a", "/")).await.unwrap_err();
            assert!(matches!(again, CallError::NotSent), "{again}");
            assert!(!connection.is_open().await);
        })
        .await;
    }

    #[tokio::test]
    async fn an_answer_cut_short_is_a_failure() {
        let text = "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{}";
        let got = served(text, async |place| once(&place, &Call::new("a", "/")).await).await;
        assert!(matches!(got, Err(CallError::Body(_))), "{got:?}");
    }
}
