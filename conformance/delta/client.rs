//! A delta xDS client that says what it is told to, over a real connection.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse,
};
use envoy_types::pb::google::rpc::Status as RpcStatus;
use fairlead::ca::bundle::Bundle;
use fairlead::delivery::server::Tasks;
use fairlead::tls::provider;
use fairlead::xds::ResourceType;
use futures_util::stream;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use prost::Message;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::TLS13;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

pub const DELTA: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
pub const CALLER: &str = "sidecar~10.0.0.9~caller.shop~shop.svc.cluster.local";

/// Nothing here takes long; a test that waits for what never comes fails by this.
const PATIENCE: Duration = Duration::from_secs(30);

/// hyper's own; a stream may have less.
const CONNECTION_WINDOW: u32 = 5 << 20;

pub type Credential = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// How a client comes in.
#[derive(Default)]
pub struct Call {
    pub token: Option<String>,
    pub certificate: Option<Credential>,
    pub path: Option<&'static str>,
    pub node: Option<String>,
    /// HTTP/2 flow control: how much the server may send before the client reads.
    pub window: Option<u32>,
}

pub struct Client {
    requests: mpsc::Sender<Bytes>,
    node: Option<Node>,
    pub headers: HeaderMap,
    body: Incoming,
    buffer: BytesMut,
    fences: u32,
}

/// What came next: a message, or the end.
#[derive(Debug)]
pub enum Came {
    Message(Box<DeltaDiscoveryResponse>),
    End(HeaderMap),
}

impl Client {
    /// A connection whose only call is refused, until the other side ends it. It answers whatever HTTP/2
    /// asks of it meanwhile.
    pub async fn refused_over<I>(io: I, to: SocketAddr)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let builder = http2::Builder::new(Tasks(TaskTracker::new()));
        let (mut sender, connection) = builder.handshake(TokioIo::new(io)).await.unwrap();
        let request = Request::post(format!("http://{to}{DELTA}"));
        let request = request.body(http_body_util::Empty::<Bytes>::new()).unwrap();
        let call = async {
            let response: Response<Incoming> = sender.send_request(request).await.unwrap();
            assert_eq!(status(response.headers()), "16");
            response
        };
        let (ended, _response) = tokio::join!(connection, call);
        ended.unwrap();
    }

    /// Over a connection that is there. `to` is only what the request names.
    pub async fn over<I>(io: I, to: SocketAddr, call: Call) -> Self
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let tasks = TaskTracker::new();
        let mut builder = http2::Builder::new(Tasks(tasks.clone()));
        if let Some(window) = call.window {
            builder.initial_stream_window_size(window);
            builder.initial_connection_window_size(window.max(CONNECTION_WINDOW));
        }
        let (mut sender, connection) = builder.handshake(TokioIo::new(io)).await.unwrap();
        tasks.spawn(async move { drop(connection.await) });
        let (requests, queue) = mpsc::channel::<Bytes>(64);
        let body = StreamBody::new(Box::pin(stream::unfold(queue, |mut queue| async move {
            let bytes = queue.recv().await?;
            Some((Ok::<_, std::convert::Infallible>(Frame::data(bytes)), queue))
        })));
        let path = call.path.unwrap_or(DELTA);
        let mut request = Request::post(format!("http://{to}{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(token) = &call.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response: Response<Incoming> = sender
            .send_request(request.body(body).unwrap())
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        let (head, body) = response.into_parts();
        let node = Node {
            id: call.node.unwrap_or_else(|| CALLER.to_owned()),
            ..Node::default()
        };
        Self {
            requests,
            node: Some(node),
            headers: head.headers,
            body,
            buffer: BytesMut::new(),
            fences: 0,
        }
    }

    pub async fn send(&mut self, mut request: DeltaDiscoveryRequest) {
        request.node = self.node.take();
        self.send_raw(&request.encode_to_vec()).await;
    }

    pub async fn send_raw(&self, body: &[u8]) {
        let mut wire = BytesMut::with_capacity(body.len() + 5);
        wire.put_u8(0);
        wire.put_u32(u32::try_from(body.len()).unwrap());
        wire.put_slice(body);
        self.requests.send(wire.freeze()).await.unwrap();
    }

    pub async fn send_bytes(&self, bytes: &'static [u8]) {
        self.requests.send(Bytes::from_static(bytes)).await.unwrap();
    }

    pub fn without_node(&mut self) {
        self.node = None;
    }

    pub async fn subscribe(&mut self, kind: ResourceType, names: &[&str]) {
        self.resume(kind, names, &BTreeMap::new()).await;
    }

    pub async fn resume(
        &mut self,
        kind: ResourceType,
        names: &[&str],
        held: &BTreeMap<String, String>,
    ) {
        self.send(DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: names.iter().map(|n| (*n).to_owned()).collect(),
            initial_resource_versions: held.clone().into_iter().collect(),
            ..Default::default()
        })
        .await;
    }

    pub async fn unsubscribe(&mut self, kind: ResourceType, names: &[&str]) {
        self.send(DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names_unsubscribe: names.iter().map(|n| (*n).to_owned()).collect(),
            ..Default::default()
        })
        .await;
    }

    pub async fn ack(&mut self, response: &DeltaDiscoveryResponse) {
        self.answer(&response.type_url, &response.nonce, None).await;
    }

    pub async fn nack(&mut self, response: &DeltaDiscoveryResponse, message: &str) {
        let error = RpcStatus {
            code: 13,
            message: message.to_owned(),
            ..Default::default()
        };
        self.answer(&response.type_url, &response.nonce, Some(error))
            .await;
    }

    pub async fn answer(&mut self, type_url: &str, nonce: &str, error: Option<RpcStatus>) {
        self.send(DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            response_nonce: nonce.to_owned(),
            error_detail: error,
            ..Default::default()
        })
        .await;
    }

    /// The next message, which must be of this type.
    pub async fn next(&mut self, kind: ResourceType) -> DeltaDiscoveryResponse {
        match self.came().await {
            Came::Message(message) => {
                assert_eq!(message.type_url, kind.type_url(), "{:?}", names(&message));
                *message
            }
            Came::End(trailers) => panic!("the stream ended: {trailers:?}"),
        }
    }

    /// Nothing was sent that is not known yet: the answer to a question asked now comes next.
    pub async fn fence(&mut self) {
        self.fences += 1;
        let name = format!("fence-{}", self.fences);
        self.subscribe(ResourceType::Route, &[&name]).await;
        let message = self.next(ResourceType::Route).await;
        assert_eq!(names(&message), [name]);
        self.ack(&message).await;
    }

    /// The end: gRPC's code.
    pub async fn end(&mut self) -> String {
        loop {
            if let Came::End(trailers) = self.came().await {
                return status(&trailers).to_owned();
            }
        }
    }

    pub async fn came(&mut self) -> Came {
        let came = tokio::time::timeout(PATIENCE, self.read()).await;
        came.expect("something comes, or the stream ends")
    }

    async fn read(&mut self) -> Came {
        loop {
            if let Some(message) = self.whole() {
                return Came::Message(Box::new(message));
            }
            match self.body.frame().await {
                None => return Came::End(self.headers.clone()),
                Some(Err(error)) => panic!("{error}"),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => return Came::End(frame.into_trailers().unwrap()),
                },
            }
        }
    }

    /// The next message as it came, of a method that is not delta.
    pub async fn raw(&mut self) -> BytesMut {
        loop {
            if let Some(body) = self.whole_body() {
                return body;
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await;
            let frame = frame.expect("something comes").expect("no end").unwrap();
            self.buffer.extend_from_slice(&frame.into_data().unwrap());
        }
    }

    fn whole(&mut self) -> Option<DeltaDiscoveryResponse> {
        let body = self.whole_body()?;
        Some(DeltaDiscoveryResponse::decode(body).unwrap())
    }

    fn whole_body(&mut self) -> Option<BytesMut> {
        let (prefix, rest) = self.buffer.split_first_chunk::<5>()?;
        let [flag, len @ ..] = *prefix;
        assert_eq!(flag, 0);
        let len = u32::from_be_bytes(len) as usize;
        if rest.len() < len {
            return None;
        }
        self.buffer.advance(5);
        Some(self.buffer.split_to(len))
    }
}

pub fn status(headers: &HeaderMap) -> &str {
    headers
        .get("grpc-status")
        .map_or("none", |v| v.to_str().unwrap())
}

pub fn names(message: &DeltaDiscoveryResponse) -> Vec<String> {
    message.resources.iter().map(|r| r.name.clone()).collect()
}

pub fn versions(message: &DeltaDiscoveryResponse) -> BTreeMap<String, String> {
    let pairs = message.resources.iter();
    pairs.map(|r| (r.name.clone(), r.version.clone())).collect()
}

pub fn trusting(bundle: &Bundle, credential: Option<&Credential>) -> rustls::ClientConfig {
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(bundle.store().unwrap());
    let mut config = match credential {
        Some((chain, key)) => builder
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}
