//! Serves a router over HTTP or HTTPS, every wait and number bounded.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::Remote;
use crate::delivery::accept::Accepting;
use crate::delivery::server::Tasks;
use crate::delivery::strangers::Strangers;
use crate::telemetry::metrics::Metrics;

/// Connections over this are dropped: these pages are for a few readers.
const CONNECTIONS: usize = 256;
/// Of which one address has at most so many: it cannot keep others from asking whether we are ready.
const FROM_ONE_ADDRESS: usize = 32;
/// Whoever connects asks for something within this time. (The protocol's own bound on headers starts
/// only when bytes have shown which protocol it is.)
const FIRST: Duration = Duration::from_secs(5);
const HEADERS: Duration = Duration::from_secs(10);
/// A client that has asked comes back within this time, or connects anew: its place is for others meanwhile.
const IDLE: Duration = Duration::from_secs(30);
/// Nobody needs a page for longer.
const LIFE: Duration = Duration::from_secs(300);

/// How a listener speaks.
#[derive(Clone)]
pub enum Door {
    Plain,
    Tls(Arc<ServerConfig>),
}

/// Accepts until `stop`; a request that is being answered then still is.
pub async fn serve(
    listener: TcpListener,
    door: Door,
    router: Router,
    tasks: TaskTracker,
    stop: CancellationToken,
    metrics: Arc<Metrics>,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let callers = Arc::new(Strangers::default());
    let mut accepting = Accepting::new(listener, stop.clone(), metrics);
    while let Some((socket, remote)) = accepting.next().await {
        let Some(caller) = callers.admit(remote, FROM_ONE_ADDRESS) else {
            continue;
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            continue;
        };
        let router = router.clone().layer(Extension(Remote(remote)));
        let (stop, executor) = (stop.clone(), Tasks(tasks.clone()));
        let door = door.clone();
        tasks.spawn(async move {
            welcome(socket, remote, door, (router, executor, stop)).await;
            drop((permit, caller));
        });
    }
}

async fn welcome(
    socket: TcpStream,
    remote: SocketAddr,
    door: Door,
    (router, executor, stop): (Router, Tasks, CancellationToken),
) {
    let (first, idle) = (FIRST, IDLE);
    match door {
        Door::Plain => {
            let caught = Caught {
                socket,
                remote,
                first,
                idle,
            };
            connection(caught, router, executor, stop).await;
        }
        Door::Tls(config) => {
            let handshake = TlsAcceptor::from(config).accept(socket);
            match tokio::time::timeout(first, Box::pin(handshake)).await {
                Ok(Ok(socket)) => {
                    let caught = Caught {
                        socket,
                        remote,
                        first,
                        idle,
                    };
                    connection(caught, router, executor, stop).await;
                }
                Ok(Err(error)) => debug!(%remote, %error, "TLS handshake"),
                Err(_) => debug!(%remote, "TLS handshake took too long"),
            }
        }
    }
}

/// One connection, and how long it may be silent.
struct Caught<S> {
    socket: S,
    remote: SocketAddr,
    first: Duration,
    idle: Duration,
}

async fn connection<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    Caught {
        socket,
        remote,
        first,
        idle,
    }: Caught<S>,
    router: Router,
    executor: Tasks,
    stop: CancellationToken,
) {
    let mut protocol = hyper_util::server::conn::auto::Builder::new(executor);
    protocol
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(16);
    let pages = TowerToHyperService::new(router);
    let asked = CancellationToken::new();
    let says = asked.clone();
    let (answering, answered) = watch::channel(0_usize);
    let service = service_fn(move |request| {
        says.cancel();
        let answer = Answering::begin(&answering);
        let page = pages.call(request);
        async move {
            let page = page.await;
            drop(answer);
            page
        }
    });
    let connection = protocol.serve_connection(TokioIo::new(socket), service);
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = silent(&asked, first) => {
            debug!(%remote, "a connection without a request is closed");
            return;
        }
        () = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = unused(&asked, answered, idle) => {}
                () = tokio::time::sleep(LIFE) => {}
            }
        } => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(HEADERS, connection.as_mut()).await {
                Ok(outcome) => outcome,
                Err(_) => Ok(()),
            }
        }
    };
    if let Err(error) = outcome {
        debug!(%remote, %error, "connection");
    }
}

/// One request that is being answered.
struct Answering(watch::Sender<usize>);

impl Answering {
    fn begin(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|n| *n += 1);
        Self(count.clone())
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

/// Ends when something was asked, and then nothing for so long.
async fn unused(asked: &CancellationToken, mut answered: watch::Receiver<usize>, within: Duration) {
    asked.cancelled().await;
    while answered.wait_for(|n| *n == 0).await.is_ok() {
        let more = answered.changed();
        if tokio::time::timeout(within, more).await.is_err() {
            return;
        }
    }
    std::future::pending().await
}

/// Ends when nothing was asked in time.
async fn silent(asked: &CancellationToken, within: Duration) {
    let asked = tokio::time::timeout(within, asked.cancelled()).await;
    if asked.is_ok() {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A listener of its own, with one page, until `stop`.
    async fn running(stop: &CancellationToken) -> (SocketAddr, impl Future<Output = ()> + use<>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let router = Router::new().route("/ready", get(|| async { "ready\n" }));
        let tasks = TaskTracker::new();
        (
            at,
            serve(
                listener,
                Door::Plain,
                router,
                tasks,
                stop.clone(),
                Arc::default(),
            ),
        )
    }

    async fn answer(at: SocketAddr, from: [u8; 4]) -> String {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let mut stream = socket.connect(at).await.unwrap();
        let request = b"GET /ready HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        // A refused connection may be reset.
        drop(stream.read_to_string(&mut answer).await);
        answer
    }

    #[tokio::test]
    async fn silent_connections_of_one_address_leave_room_for_another() {
        let stop = CancellationToken::new();
        let (at, running) = running(&stop).await;
        let test = async {
            let mut silent = Vec::new();
            for _ in 0..CONNECTIONS {
                silent.push(TcpStream::connect(at).await.unwrap());
            }
            let other = answer(at, [127, 0, 0, 2]).await;
            assert!(other.ends_with("ready\n"), "{other}");
            stop.cancel();
        };
        tokio::join!(running, test);
    }

    #[tokio::test]
    async fn a_connection_that_asks_no_more_is_closed_and_one_that_asks_again_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (socket, remote) = listener.accept().await.unwrap();
        let idle = Duration::from_millis(400);
        let caught = Caught {
            socket,
            remote,
            first: FIRST,
            idle,
        };
        let router = Router::new().route("/ready", get(|| async { "ready\n" }));
        let executor = Tasks(TaskTracker::new());
        let served = connection(caught, router, executor, CancellationToken::new());
        let asks = async {
            // Longer in all than it may be idle once.
            for _each in 0..4 {
                let request = b"GET /ready HTTP/1.1\r\nhost: a\r\n\r\n";
                client.write_all(request).await.unwrap();
                let mut answer = [0; 4096];
                let n = client.read(&mut answer).await.unwrap();
                assert!(answer[..n].ends_with(b"ready\n"));
                tokio::time::sleep(idle / 2).await;
            }
            assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        };
        tokio::join!(served, asks);
    }

    #[tokio::test]
    async fn a_connection_that_asks_nothing_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut silent = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (socket, remote) = listener.accept().await.unwrap();
        let caught = Caught {
            socket,
            remote,
            first: Duration::from_millis(50),
            idle: IDLE,
        };
        let executor = Tasks(TaskTracker::new());
        connection(caught, Router::new(), executor, CancellationToken::new()).await;
        assert_eq!(silent.read(&mut [0; 8]).await.unwrap(), 0);
    }
}
