//! One ADS call: its requests to the hub, the hub's frames to the wire.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame as HttpFrame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::credentials::{self, Credentials};
use super::grpc::{Code, Status};
use super::hub::{Gauge, Message, Opened, Order, StreamId};
use super::issue::{self, Now};
use super::registrar::Registrar;
use super::session::{AT_ONCE, Ask, Credential, Refusal};
use super::wire::{Decoder, Request, WireError};
use crate::ca::authority::Authority;
use crate::clock;
use crate::config::Key;
use crate::identity::SpiffeId;
use crate::model::proxy::{Proxy, ProxyError};
use crate::model::registration::{Entrant, Refused};
use crate::text::Str;

use super::frame::Rope;

/// Who calls, and until when that holds.
#[derive(Clone, Debug)]
pub struct Caller {
    pub identity: SpiffeId,
    /// The pod that the credential is bound to.
    pub pod: Option<Str>,
    pub expires: SystemTime,
}

/// The side that reads requests. It ends the call, and tells the hub.
pub struct Reader {
    pub stream: StreamId,
    /// Absent on the plaintext port.
    pub caller: Option<Caller>,
    pub authority: Arc<Authority>,
    pub credentials: Arc<Credentials>,
    pub hub: mpsc::Sender<Message>,
    pub registrar: Registrar,
    /// What the proxy was entered as, where it came by itself.
    pub entry: Option<Box<Key>>,
    pub decoder: Decoder,
    pub requests: Incoming,
    pub orders: mpsc::Sender<Box<Order>>,
    pub asks_in: mpsc::Sender<Box<Ask>>,
    pub asks: mpsc::Receiver<Box<Ask>>,
    pub gauge: Arc<Gauge>,
    /// The connection is to end: age, or the program's stop.
    pub ending: CancellationToken,
    /// The hub gave the stream up.
    pub cut: CancellationToken,
}

/// How long the last responses may wait for a client to read them. Then its connection is closed.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// As many as a session asks for at one time; the rest is spare.
pub const ASKS: usize = 2 * AT_ONCE;

impl Reader {
    /// Runs until either side ends the call. Borrows: it would keep room for the reader twice, for as long as the
    /// stream is open.
    pub async fn run(&mut self) {
        let status = self.read().await;
        info!(stream = self.stream.0, code = ?status.code, message = status.message, "stream ended");
        // After the hub's own last word this one is not read; without room for it the connection says it.
        drop(self.orders.try_send(Box::new(Order::End(status))));
        drop(self.hub.send(Message::Closed(self.stream)).await);
        if let Some(entry) = self.entry.take() {
            self.registrar.leave(*entry).await;
        }
        let last = tokio::time::timeout(LAST_WORDS, self.orders.closed());
        if last.await.is_err() {
            self.ending.cancel();
        }
    }

    async fn read(&mut self) -> Status {
        let expires = self.caller.as_ref().map(|c| c.expires);
        let expiry = until(expires, clock::wall());
        tokio::pin!(expiry);
        let mut opened = false;
        loop {
            tokio::select! {
                data = self.requests.frame() => {
                    let Some(Ok(frame)) = data else {
                        return Status::ok();
                    };
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    if let Err(status) = self.on_data(&data, &mut opened).await {
                        return status;
                    }
                }
                Some(ask) = self.asks.recv() => self.on_ask(&ask).await,
                () = self.gauge.room() => self.tell(Message::Taken(self.stream)).await,
                () = self.orders.closed() => return Status::new(Code::Unavailable, "the client is gone"),
                () = &mut expiry => return Status::new(Code::Unauthenticated, "the credential expired"),
                () = self.cut.cancelled() => return Status::new(Code::Unavailable, "given up by the hub"),
                () = self.ending.cancelled() => return Status::ok(),
            }
        }
    }

    async fn on_data(&mut self, data: &Bytes, opened: &mut bool) -> Result<(), Status> {
        self.decoder.push(data);
        while let Some(request) = self.decoder.take()? {
            if !*opened {
                let message = self.open(&request)?;
                self.enter(&request, &message.proxy).await?;
                self.tell(Message::Open(message)).await;
                *opened = true;
            }
            self.tell(Message::Request(self.stream, Box::new(request)))
                .await;
        }
        Ok(())
    }

    /// The first request says which proxy this is; the credential says whether it may.
    fn open(&self, request: &Request) -> Result<Box<Opened>, Status> {
        let node = request
            .node
            .as_ref()
            .ok_or_else(|| Status::new(Code::InvalidArgument, "the first request names no node"))?;
        let identity = self.caller.as_ref().map(|c| c.identity.clone());
        let credential = match &identity {
            Some(_) => Credential::Proven,
            None => Credential::Absent,
        };
        let bound = self.caller.as_ref().and_then(|c| c.pod.as_deref());
        let proxy = Proxy::parse(&node.id, node.metadata_json(), identity);
        let proxy = proxy.map(|proxy| proxy.located(node.place()));
        let proxy = proxy.and_then(|p| p.bound_to(bound)).map_err(|reason| {
            info!(stream = self.stream.0, %reason, "proxy refused");
            Status::from(&reason)
        })?;
        Ok(Box::new(Opened {
            stream: self.stream,
            proxy,
            credential,
            version: node.envoy_version(),
            orders: self.orders.clone(),
            asks: self.asks_in.clone(),
            cut: self.cut.clone(),
            gauge: self.gauge.clone(),
        }))
    }

    /// One that says which WorkloadGroup it is of is entered before anything is sent to it, or refused.
    async fn enter(&mut self, request: &Request, proxy: &Proxy) -> Result<(), Status> {
        let node = request.node.as_ref();
        let Some(group) = node.and_then(|node| node.registers()) else {
            return Ok(());
        };
        let entrant = Entrant {
            group: Str::new(group),
            proxy: proxy.clone(),
        };
        match self.registrar.enter(entrant).await {
            Ok(entry) => self.entry = Some(Box::new(entry)),
            Err(reason) => {
                info!(stream = self.stream.0, %reason, "proxy not entered");
                return Err(Status::from(&reason));
            }
        }
        Ok(())
    }

    async fn on_ask(&self, ask: &Ask) {
        let Some(caller) = &self.caller else {
            // Without identity a session asks for nothing.
            return;
        };
        let now = Now {
            wall: clock::wall(),
            mono: clock::mono(),
        };
        let of_user = credentials::named(&ask.name).is_some() || credentials::is_file(&ask.name);
        let answer = match of_user {
            true => {
                let credentials = &self.credentials;
                credentials.answer(&caller.identity, ask, now.mono).await
            }
            false => issue::answer(&self.authority, &caller.identity, ask, now),
        };
        self.tell(Message::Secret(self.stream, ask.name.clone(), answer))
            .await;
    }

    /// A full queue makes this stream wait, and no other. A hub that is gone ends the connection soon.
    async fn tell(&self, message: Message) {
        if self.hub.send(message).await.is_err() {
            debug!(stream = self.stream.0, "the hub is gone");
            self.ending.cancel();
        }
    }
}

async fn until(at: Option<SystemTime>, now: SystemTime) {
    match at {
        // Far ahead is far enough: no stream lives for a day.
        Some(at) => {
            let wait = at.duration_since(now).unwrap_or_default();
            tokio::time::sleep(wait.min(Duration::from_secs(86_400))).await;
        }
        None => std::future::pending().await,
    }
}

impl From<WireError> for Status {
    fn from(error: WireError) -> Self {
        let code = match error {
            WireError::Compressed => Code::Unimplemented,
            WireError::TooLong { .. } => Code::ResourceExhausted,
            WireError::Malformed => Code::InvalidArgument,
        };
        Self::new(code, error.to_string())
    }
}

impl From<&ProxyError> for Status {
    fn from(error: &ProxyError) -> Self {
        let code = match error {
            ProxyError::Namespace { .. } | ProxyError::Pod { .. } => Code::PermissionDenied,
            ProxyError::Id(_)
            | ProxyError::Role(_)
            | ProxyError::Metadata(_)
            | ProxyError::Label(_)
            | ProxyError::Labels(_) => Code::InvalidArgument,
        };
        Self::new(code, error.to_string())
    }
}

impl From<&Refused> for Status {
    fn from(refused: &Refused) -> Self {
        let code = match refused {
            Refused::NoIdentity(_) | Refused::Account { .. } | Refused::Another(..) => {
                Code::PermissionDenied
            }
            Refused::Address(_) => Code::InvalidArgument,
            Refused::NoGroup { .. } | Refused::Taken(_) | Refused::Elsewhere => {
                Code::FailedPrecondition
            }
            Refused::Full(_) => Code::ResourceExhausted,
            Refused::Ending => Code::Unavailable,
        };
        Self::new(code, refused.to_string())
    }
}

impl From<&Refusal> for Status {
    fn from(refusal: &Refusal) -> Self {
        let code = match refusal {
            Refusal::TooManyNames { .. } | Refusal::NameTooLong { .. } => Code::InvalidArgument,
            Refusal::Stalled(_) => Code::ResourceExhausted,
        };
        Self::new(code, refusal.to_string())
    }
}

/// The side that is written. The transport polls it when it wants more.
#[derive(Debug)]
pub struct Responses {
    pub orders: mpsc::Receiver<Box<Order>>,
    pub gauge: Arc<Gauge>,
    pub ended: bool,
}

impl Body for Responses {
    type Data = Rope;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<HttpFrame<Rope>, Self::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let order = std::task::ready!(self.orders.poll_recv(cx));
        let status = match order.map(|order| *order) {
            Some(Order::Send(frame)) => {
                let rope = frame.into_rope();
                self.gauge.took(rope.remaining() as u64);
                return Poll::Ready(Some(Ok(HttpFrame::data(rope))));
            }
            Some(Order::Close(refusal)) => Status::from(&refusal),
            Some(Order::End(status)) => status,
            None => Status::new(Code::Unavailable, "the stream was closed"),
        };
        self.ended = true;
        Poll::Ready(Some(Ok(HttpFrame::trailers(status.trailers()))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}
