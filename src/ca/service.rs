//! `IstioCertificateService`: certificate requests over gRPC. What is signed is decided in `csr`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use tonic::body::Body;
use tonic::codegen::{BoxFuture, StdError};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tracing::{info, warn};

use super::authenticate::{Authenticator, Unauthenticated};
use super::authority::Authority;
use super::csr::{self, CsrError};
use crate::clock;
use crate::identity::SpiffeId;
use crate::tls::Peer;

/// `proto/certificates.proto`, by hand.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateRequest {
    #[prost(string, tag = "1")]
    pub csr: String,
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<Metadata>,
}

/// The part of a `google.protobuf.Struct` that is read: its texts.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Metadata {
    #[prost(btree_map = "string, message", tag = "1")]
    pub fields: BTreeMap<String, MetadataValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct MetadataValue {
    #[prost(string, optional, tag = "3")]
    pub text: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateResponse {
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

pub const METHOD: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
/// A request is a few kilobytes.
const MAX_MESSAGE: usize = 64 << 10;

/// A tower service for one path prefix. The listener puts the connection's `Peer`, if there is one, into
/// the request's extensions.
#[derive(Clone)]
pub struct CertificateService {
    authority: Arc<Authority>,
    authenticator: Arc<Authenticator>,
}

impl CertificateService {
    pub fn new(authority: Arc<Authority>, authenticator: Arc<Authenticator>) -> Self {
        Self {
            authority,
            authenticator,
        }
    }

    pub async fn create(
        &self,
        request: Request<CertificateRequest>,
        now: SystemTime,
    ) -> Result<Response<CertificateResponse>, Status> {
        let peer = request.extensions().get::<Peer>();
        let headers = request.metadata().as_ref();
        let caller = self
            .authenticator
            .authenticate(headers, peer, now)
            .await
            .map_err(|reason| {
                info!(%reason, "certificate request refused");
                Status::unauthenticated(Unauthenticated::REPLY)
            })?;
        let request = request.get_ref();
        if let Some(other) = impersonated(request, &caller.identity) {
            warn!(caller = %caller.identity, %other, "certificate request for somebody else refused");
            return Err(Status::permission_denied(
                "a certificate is issued to the caller alone",
            ));
        }
        let seconds = request.validity_duration;
        let chain = csr::sign(&self.authority, &caller, &request.csr, seconds, now);
        let cert_chain = chain.map_err(|reason| {
            warn!(caller = %caller.identity, %reason, "certificate request not signed");
            status(&reason)
        })?;
        Ok(Response::new(CertificateResponse { cert_chain }))
    }
}

/// Node proxies may ask for others in Istio; here nobody may.
fn impersonated<'a>(request: &'a CertificateRequest, caller: &SpiffeId) -> Option<&'a str> {
    let fields = &request.metadata.as_ref()?.fields;
    let wanted = fields.get("ImpersonatedIdentity")?.text.as_deref();
    let wanted = wanted.unwrap_or("a value that is no text");
    (!wanted.is_empty() && *wanted != caller.to_string()).then_some(wanted)
}

fn status(reason: &CsrError) -> Status {
    match reason {
        CsrError::Ca(_) => Status::internal("the certificate could not be signed"),
        CsrError::TooLarge
        | CsrError::Pem
        | CsrError::Malformed
        | CsrError::Key
        | CsrError::Signature
        | CsrError::Validity { .. } => Status::invalid_argument(reason.to_string()),
    }
}

impl NamedService for CertificateService {
    const NAME: &'static str = "istio.v1.auth.IstioCertificateService";
}

impl UnaryService<CertificateRequest> for CertificateService {
    type Response = CertificateResponse;
    type Future = BoxFuture<Response<CertificateResponse>, Status>;

    fn call(&mut self, request: Request<CertificateRequest>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { service.create(request, clock::wall()).await })
    }
}

impl<B> tower::Service<http::Request<B>> for CertificateService
where
    B: http_body::Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            if request.uri().path() != METHOD {
                return Ok(Status::unimplemented("no such method").into_http());
            }
            let codec = ProstCodec::<CertificateResponse, CertificateRequest>::default();
            let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE);
            Ok(grpc.unary(service, request).await)
        })
    }
}
