//! Listeners of the control plane: connections, TLS, who may open a stream.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, info, warn};

use super::accept::Accepting;
use super::body::Outgoing;
use super::credentials::Credentials;
use super::grpc::{CONTENT, Code, Status};
use super::hub::{Gauge, Message, StreamId, orders_capacity};
use super::lists::Known;
use super::outlet::{Cork, Outlet, Turns, gathered};
use super::registrar::Registrar;
use super::strangers::{Stranger, Strangers};
use super::stream::{ASKS, Caller, Reader, Responses};
use super::wire::Decoder;
use super::{Access, Limits};
use crate::backoff;
use crate::ca::authenticate::{Authenticator, Unauthenticated};
use crate::ca::authority::Authority;
use crate::clock;
use crate::identity::SpiffeId;
use crate::telemetry::metrics::Metrics;
use crate::tls::Peer;

/// How a listener takes its callers.
#[derive(Clone)]
pub enum Door {
    /// TLS; a stream needs a token or a client certificate.
    Proven(Arc<ServerConfig>),
    /// Neither TLS nor identity: configuration by the node's claims, never a secret.
    Open,
}

/// What all connections share.
pub struct Server {
    pub hub: mpsc::Sender<Message>,
    pub registrar: Registrar,
    pub authenticator: Arc<Authenticator>,
    pub authority: Arc<Authority>,
    pub credentials: Arc<Credentials>,
    pub limits: Limits,
    pub access: Access,
    /// Whatever else is served on the TLS port: certificate requests.
    pub others: Router,
    pub tasks: TaskTracker,
    pub streams: Streams,
    pub metrics: Arc<Metrics>,
}

/// Numbers streams, and counts them by identity.
#[derive(Debug, Default)]
pub struct Streams {
    next: AtomicU64,
    open: Mutex<BTreeMap<SpiffeId, usize>>,
    strangers: Arc<Strangers>,
    /// What was counted of the lists that they send.
    lists: Arc<Known>,
}

const DELTA: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const STATE_OF_THE_WORLD: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

/// A handshake that takes longer is no proxy's.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// What a connection may still take after it was told to end.
const LAST_WORDS: Duration = Duration::from_secs(5);
const PING: Duration = Duration::from_secs(30);
const PONG: Duration = Duration::from_secs(20);

/// One connection's own part.
#[derive(Clone)]
struct Caught {
    server: Arc<Server>,
    door: Entry,
    peer: Option<Peer>,
    remote: SocketAddr,
    ending: CancellationToken,
    /// A stream was opened, or another request answered.
    introduced: CancellationToken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Proven,
    Open,
}

impl Server {
    /// Accepts until shutdown; connections go on in `tasks` and end by themselves.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        door: Door,
        shutdown: CancellationToken,
    ) {
        // Over the bound a connection is dropped at once: its proxy tries again, maybe elsewhere.
        let room = Arc::new(Semaphore::new(self.access.connections));
        let mut accepting = Accepting::new(listener, shutdown.clone(), self.metrics.clone());
        while let Some((socket, remote)) = accepting.next().await {
            let Some(place) = self.place(&room, remote) else {
                continue;
            };
            let server = self.clone();
            let (door, shutdown) = (door.clone(), shutdown.clone());
            let connection = server.connection((socket, remote), door, shutdown, place);
            self.tasks.spawn(connection);
        }
    }

    /// A place for one more connection, if there is one.
    fn place(&self, room: &Arc<Semaphore>, remote: SocketAddr) -> Option<Place> {
        let Ok(permit) = room.clone().try_acquire_owned() else {
            warn!(%remote, "too many connections");
            return None;
        };
        let most = self.access.strangers_per_address;
        let Some(stranger) = self.streams.strangers.admit(remote, most) else {
            warn!(%remote, "too many connections without a stream from this address");
            return None;
        };
        Some(Place { permit, stranger })
    }

    async fn connection(
        self: Arc<Self>,
        (socket, remote): (TcpStream, SocketAddr),
        door: Door,
        shutdown: CancellationToken,
        Place { permit, stranger }: Place,
    ) {
        // A socket that is gone already says so soon enough.
        drop(socket.set_nodelay(true));
        let mut caught = Caught {
            server: self,
            door: Entry::Open,
            peer: None,
            remote,
            ending: CancellationToken::new(),
            introduced: CancellationToken::new(),
        };
        // Boxed: what the handshake needed is gone before the talk begins, with the room for it.
        let talk: Pin<Box<dyn Future<Output = ()> + Send>> = match door {
            Door::Open => Box::pin(caught.talk(socket, None, (stranger, shutdown))),
            Door::Proven(config) => {
                let Some(tls) = handshake(config, socket, remote).await else {
                    return;
                };
                caught.door = Entry::Proven;
                caught.peer = Peer::of(tls.get_ref().1);
                let (io, outlet) = gathered(*tls);
                Box::pin(caught.talk(io, Some(outlet), (stranger, shutdown)))
            }
        };
        talk.await;
        drop(permit);
    }

    /// Who calls. On the open door nobody is anybody, whatever they show.
    async fn caller(
        &self,
        caught: &Caught,
        headers: &HeaderMap,
    ) -> Result<Option<Caller>, Unauthenticated> {
        if caught.door == Entry::Open {
            return Ok(None);
        }
        let proven = self
            .authenticator
            .authenticate(headers, caught.peer.as_ref(), clock::wall())
            .await?;
        Ok(Some(Caller {
            identity: proven.identity,
            pod: proven.pod,
            expires: proven.expires,
        }))
    }
}

async fn handshake(
    config: Arc<ServerConfig>,
    socket: TcpStream,
    remote: SocketAddr,
) -> Option<Box<TlsStream<Cork>>> {
    // Boxed: it is large, and gone soon.
    let handshake = Box::pin(TlsAcceptor::from(config).accept(Cork::open(socket)));
    match tokio::time::timeout(HANDSHAKE, handshake).await {
        Ok(Ok(tls)) => Some(Box::new(tls)),
        Ok(Err(error)) => {
            debug!(%remote, %error, "TLS handshake");
            None
        }
        Err(_) => {
            debug!(%remote, "TLS handshake took too long");
            None
        }
    }
}

impl Caught {
    /// Not itself `async`: that would keep room for the socket's state twice, for as long as it is open.
    fn talk<I>(
        self,
        io: I,
        outlet: Option<Outlet>,
        until: (Stranger, CancellationToken),
    ) -> impl Future<Output = ()>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let caught = self.clone();
        let service = service_fn(move |request| {
            let caught = caught.clone();
            async move { Ok::<_, std::convert::Infallible>(caught.answer(request).await) }
        });
        let tasks = Tasks(self.server.tasks.clone());
        let connection = protocol(tasks).serve_connection(TokioIo::new(io), service);
        self.until_told(Turns::of(connection, outlet), until)
    }

    /// Serves a connection until it ends, or is to.
    async fn until_told<C>(
        self,
        mut connection: Turns<C>,
        (stranger, shutdown): (Stranger, CancellationToken),
    ) where
        C: GracefulConnection<Error = hyper::Error>,
    {
        let server = self.server.clone();
        let ending = self.ending.clone();
        let unknown = unknown(
            stranger,
            self.introduced.clone(),
            server.access.introduction,
        );
        let remote = self.remote;
        let life = jittered(server.access.age);
        let parting = server.access.parting.mul_f64(backoff::chance());
        let told = async {
            tokio::select! {
                () = tokio::time::sleep(life) => {}
                () = ending.cancelled() => {}
                () = unknown => debug!(%remote, "a connection without a stream is closed"),
                () = async {
                    shutdown.cancelled().await;
                    // Not all at once: they all go to another replica, or come back to us.
                    tokio::time::sleep(parting).await;
                } => {}
            }
        };
        let outcome = tokio::select! {
            outcome = &mut connection => outcome,
            () = told => {
                connection.graceful_shutdown();
                ending.cancel();
                match tokio::time::timeout(LAST_WORDS, &mut connection).await {
                    Ok(outcome) => outcome,
                    Err(_) => Ok(()),
                }
            }
        };
        ending.cancel();
        if let Err(error) = outcome {
            debug!(%remote, %error, "connection");
        }
    }

    async fn answer(self, mut request: Request<Incoming>) -> Response<Outgoing> {
        match request.uri().path() {
            DELTA if request.method() == Method::POST => match self.open(request).await {
                Ok(response) => response,
                Err(status) => Outgoing::response(status.response()),
            },
            STATE_OF_THE_WORLD if self.door == Entry::Open => {
                let text = "only delta xDS is served: set ads_config.api_type to DELTA_GRPC";
                Outgoing::response(Status::new(Code::Unimplemented, text).response())
            }
            _ if self.door == Entry::Open => {
                let text = "only delta xDS is served on this port";
                Outgoing::response(Status::new(Code::Unimplemented, text).response())
            }
            _ => {
                if let Some(peer) = &self.peer {
                    request.extensions_mut().insert(peer.clone());
                }
                let router = self.server.others.clone();
                match router.oneshot(request.map(axum::body::Body::new)).await {
                    Ok(response) => {
                        // A refused call has its status among the headers, an answered one at the end.
                        if !response.headers().contains_key("grpc-status") {
                            self.introduced.cancel();
                        }
                        Outgoing::response(response)
                    }
                    Err(never) => match never {},
                }
            }
        }
    }

    /// Starts a stream, or says why not.
    async fn open(self, request: Request<Incoming>) -> Result<Response<Outgoing>, Status> {
        let caller = self.server.caller(&self, request.headers()).await;
        let caller = caller.map_err(|reason| {
            info!(remote = %self.remote, %reason, "stream refused");
            let code = match reason.is_for_now() {
                true => Code::Unavailable,
                false => Code::Unauthenticated,
            };
            Status::new(code, Unauthenticated::REPLY)
        })?;
        let server = &self.server;
        let seat = server.seat(caller.as_ref())?;
        self.introduced.cancel();
        let stream = seat.stream;
        let gauge = Arc::new(Gauge::default());
        let (orders, responses) = mpsc::channel(orders_capacity(&server.limits));
        let (asks_in, asks) = mpsc::channel(ASKS);
        let mut reader = Reader {
            stream,
            caller,
            authority: server.authority.clone(),
            credentials: server.credentials.clone(),
            hub: server.hub.clone(),
            registrar: server.registrar.clone(),
            entry: None,
            decoder: Decoder::new(server.limits.request_bytes, server.streams.lists.clone()),
            requests: request.into_body(),
            orders,
            asks_in,
            asks,
            gauge: gauge.clone(),
            ending: self.ending.clone(),
            cut: CancellationToken::new(),
        };
        server.tasks.spawn(async move {
            reader.run().await;
            drop(seat);
        });
        let responses = Responses {
            orders: responses,
            gauge,
            ended: false,
        };
        let mut response = Response::new(Outgoing::Stream(responses));
        *response.status_mut() = StatusCode::OK;
        let headers = response.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, CONTENT);
        Ok(response)
    }
}

/// A connection's place: among all, and among those of its address as long as nobody knows it.
struct Place {
    permit: OwnedSemaphorePermit,
    stranger: Stranger,
}

/// Ends when a connection has not introduced itself in time.
async fn unknown(stranger: Stranger, introduced: CancellationToken, within: Duration) {
    let known = tokio::time::timeout(within, introduced.cancelled()).await;
    drop(stranger);
    if known.is_ok() {
        std::future::pending().await
    }
}

/// A stream's place among those of its identity, given back when dropped.
struct Seat {
    server: Arc<Server>,
    stream: StreamId,
    identity: Option<SpiffeId>,
}

impl Server {
    fn seat(self: &Arc<Self>, caller: Option<&Caller>) -> Result<Seat, Status> {
        let identity = caller.map(|c| c.identity.clone());
        if let Some(identity) = &identity {
            let mut open = self.streams.open();
            let count = open.entry(identity.clone()).or_default();
            if *count >= self.access.streams_per_identity {
                warn!(%identity, streams = *count, "too many streams");
                let text = "too many streams of this identity";
                return Err(Status::new(Code::ResourceExhausted, text));
            }
            *count += 1;
        }
        Ok(Seat {
            server: self.clone(),
            stream: StreamId(self.streams.next.fetch_add(1, Ordering::Relaxed)),
            identity,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(identity) = &self.identity else {
            return;
        };
        let mut open = self.server.streams.open();
        if let Some(count) = open.get_mut(identity) {
            *count -= 1;
            if *count == 0 {
                open.remove(identity);
            }
        }
    }
}

impl Streams {
    fn open(&self) -> std::sync::MutexGuard<'_, BTreeMap<SpiffeId, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hyper's own tasks run among ours, so that shutdown waits for them.
#[derive(Clone, Debug)]
pub struct Tasks(pub TaskTracker);

impl<F> Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

fn protocol(tasks: Tasks) -> http2::Builder<Tasks> {
    let mut protocol = http2::Builder::new(tasks);
    protocol
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        // An Envoy needs one for xDS; the rest is for certificate requests.
        .max_concurrent_streams(32)
        .max_header_list_size(32 << 10)
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20)
        // What a connection holds beyond its session's window.
        .max_send_buf_size(256 << 10);
    protocol
}

/// Between 90 and 100 % of it, so that what began together does not end together.
fn jittered(span: Duration) -> Duration {
    span.mul_f64(1.0 - backoff::chance() / 10.0)
}
