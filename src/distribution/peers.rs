//! Asks other replicas, as the control plane's own identity and over the mesh's TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use http::Uri;
use http::uri::PathAndQuery;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time;
use tokio_rustls::TlsConnector;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;

use super::service::{CountRequest, CountResponse, MAX_MESSAGE, METHOD, Object};
use crate::ca::authority::Authority;
use crate::ca::bundle::Bundle;
use crate::ca::key::LeafKey;
use crate::ca::lease::Lease;
use crate::clock;
use crate::identity::SpiffeId;
use crate::text::Str;
use crate::tls;

/// One question, with its connection.
const ASK: Duration = Duration::from_secs(2);
const LIFE: Duration = Duration::from_secs(3600);

pub struct Peers {
    authority: Arc<Authority>,
    identity: SpiffeId,
    /// A name that every replica's certificate has.
    server: Str,
    shown: Option<Shown>,
}

/// The certificate by which a peer knows us.
struct Shown {
    config: Arc<ClientConfig>,
    lease: Lease,
    bundle: Bundle,
}

impl Peers {
    pub fn new(authority: Arc<Authority>, identity: SpiffeId, server: Str) -> Self {
        Self {
            authority,
            identity,
            server,
            shown: None,
        }
    }

    /// Each one's answer, or why there is none.
    pub async fn ask(
        &mut self,
        peers: &[SocketAddr],
        objects: &[Object],
    ) -> Vec<Result<CountResponse>> {
        if peers.is_empty() {
            return Vec::new();
        }
        let config = match self.config() {
            Ok(config) => config,
            Err(why) => {
                let why = format!("{why:#}");
                return peers
                    .iter()
                    .map(|_| Err(anyhow::anyhow!(why.clone())))
                    .collect();
            }
        };
        let ask = |peer: &SocketAddr| {
            let (peer, config, server) = (*peer, config.clone(), self.server.clone());
            let request = CountRequest {
                objects: objects.to_vec(),
            };
            async move {
                let answer = time::timeout(ASK, ask(peer, config, &server, request)).await;
                let answer = answer.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in time")));
                answer.with_context(|| format!("ask the replica at {peer}"))
            }
        };
        futures_util::future::join_all(peers.iter().map(ask)).await
    }

    /// Issued when there is somebody to show it to, and anew at half its life or with other roots.
    fn config(&mut self) -> Result<Arc<ClientConfig>> {
        let (now, bundle) = (clock::wall(), self.authority.bundle());
        if let Some(shown) = &self.shown
            && !shown.lease.needs_renewal(now)
            && shown.bundle == bundle
        {
            return Ok(shown.config.clone());
        }
        let key = LeafKey::generate()?;
        let signed = self.authority.sign(&self.identity, &key, LIFE, now)?;
        let config = tls::client_config(signed.chain, &*key.der()?, bundle.store()?)?;
        self.shown = Some(Shown {
            config: config.clone(),
            lease: signed.lease,
            bundle,
        });
        Ok(config)
    }
}

async fn ask(
    peer: SocketAddr,
    config: Arc<ClientConfig>,
    server: &str,
    request: CountRequest,
) -> Result<CountResponse> {
    let stream = TcpStream::connect(peer).await?;
    let name = ServerName::try_from(server.to_owned())?;
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let service = tower::service_fn(move |request| {
        let mut sender = sender.clone();
        async move { sender.send_request(request).await }
    });
    let origin = Uri::builder()
        .scheme("https")
        .authority(server)
        .path_and_query("/")
        .build()?;
    let mut grpc = Grpc::with_origin(service, origin).max_decoding_message_size(MAX_MESSAGE);
    let answer = async {
        grpc.ready().await?;
        let codec = ProstCodec::<CountRequest, CountResponse>::default();
        let path = PathAndQuery::from_static(METHOD);
        let answer = grpc
            .unary(tonic::Request::new(request), path, codec)
            .await?;
        anyhow::Ok(answer.into_inner())
    };
    tokio::select! {
        biased;
        answer = answer => answer,
        ended = connection => {
            ended?;
            anyhow::bail!("the connection ended")
        }
    }
}
