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
use super::authority::{Authority, Refused};
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
                match reason.is_for_now() {
                    true => Status::unavailable(Unauthenticated::REPLY),
                    false => Status::unauthenticated(Unauthenticated::REPLY),
                }
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
        CsrError::Refused(Refused::Rate) => Status::resource_exhausted(reason.to_string()),
        CsrError::Refused(Refused::Ca(_) | Refused::Name(_)) => {
            Status::internal("the certificate could not be signed")
        }
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

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};
    use prost::Message;
    use rcgen::{CertificateParams, KeyPair};
    use tonic::Code;
    use tower::Service;

    use super::*;
    use crate::ca::authenticate::Verifier;
    use crate::ca::testing::{authority, token_issuer};
    use crate::ca::token::{AUDIENCE, Bearer, ISSUER};
    use crate::ca::verify::LocalVerifier;

    fn service() -> (CertificateService, String) {
        let issuer = token_issuer();
        let td = "cluster.local";
        let local = LocalVerifier::new(&issuer.jwks(), ISSUER, &[AUDIENCE], td).unwrap();
        let bearer = Bearer {
            namespace: "shop",
            service_account: "reviews",
            pod: None,
        };
        let life = std::time::Duration::from_secs(600);
        let token = issuer.issue(bearer, AUDIENCE, life, clock::wall()).unwrap();
        let service = CertificateService::new(
            Arc::new(authority(clock::wall())),
            Arc::new(Authenticator::new(Verifier::of_own(local), td)),
        );
        (service, token)
    }

    fn request() -> CertificateRequest {
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default().serialize_request(&key);
        CertificateRequest {
            csr: csr.unwrap().pem().unwrap(),
            validity_duration: 3600,
            metadata: None,
        }
    }

    /// One call as it comes from the wire: path, optional token, message.
    async fn call(
        service: &CertificateService,
        path: &str,
        token: Option<&str>,
        message: &CertificateRequest,
    ) -> Result<CertificateResponse, Code> {
        let body = message.encode_to_vec();
        let mut frame = vec![0];
        frame.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(&body);
        let mut request = http::Request::post(path)
            .header("content-type", "application/grpc")
            .body(Full::<bytes::Bytes>::from(frame))
            .unwrap();
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.headers_mut().insert("authorization", value);
        }
        let response = Service::call(&mut service.clone(), request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().cloned().unwrap_or_default();
        let status = trailers
            .get("grpc-status")
            .or(parts.headers.get("grpc-status"))
            .map(|s| Code::from_bytes(s.as_bytes()));
        match status {
            Some(Code::Ok) => Ok(CertificateResponse::decode(&body.to_bytes()[5..]).unwrap()),
            other => Err(other.unwrap()),
        }
    }

    #[tokio::test]
    async fn an_authenticated_caller_is_signed_its_own_certificate() {
        let (service, token) = service();
        let response = call(&service, METHOD, Some(&token), &request())
            .await
            .unwrap();
        assert_eq!(response.cert_chain.len(), 2);
        assert_eq!(response.cert_chain[1], service.authority.bundle().pem());
        assert_eq!(service.authority.issued(), 1);
    }

    #[tokio::test]
    async fn without_a_credential_nothing_is_signed() {
        let (service, _) = service();
        for token in [None, Some("x.y.z")] {
            let got = call(&service, METHOD, token, &request()).await;
            assert_eq!(got, Err(Code::Unauthenticated));
        }
        assert_eq!(service.authority.issued(), 0);
    }

    #[tokio::test]
    async fn nobody_is_signed_somebody_elses_certificate() {
        let (service, token) = service();
        let asking_for = |text: Option<&str>| CertificateRequest {
            metadata: Some(Metadata {
                fields: BTreeMap::from([(
                    "ImpersonatedIdentity".to_owned(),
                    MetadataValue {
                        text: text.map(str::to_owned),
                    },
                )]),
            }),
            ..request()
        };
        for other in [Some("spiffe://cluster.local/ns/shop/sa/ratings"), None] {
            let got = call(&service, METHOD, Some(&token), &asking_for(other)).await;
            assert_eq!(got, Err(Code::PermissionDenied));
        }
        let own = asking_for(Some("spiffe://cluster.local/ns/shop/sa/reviews"));
        assert!(call(&service, METHOD, Some(&token), &own).await.is_ok());
        assert_eq!(service.authority.issued(), 1);
    }

    #[tokio::test]
    async fn bad_requests_and_paths_are_answered_so() {
        let (service, token) = service();
        let bad = CertificateRequest {
            csr: "garbage".into(),
            ..request()
        };
        let got = call(&service, METHOD, Some(&token), &bad).await;
        assert_eq!(got, Err(Code::InvalidArgument));
        let huge = CertificateRequest {
            csr: "x".repeat(MAX_MESSAGE + 1),
            ..request()
        };
        let got = call(&service, METHOD, Some(&token), &huge).await;
        assert_eq!(got, Err(Code::OutOfRange));
        let path = "/istio.v1.auth.IstioCertificateService/Other";
        let got = call(&service, path, Some(&token), &request()).await;
        assert_eq!(got, Err(Code::Unimplemented));
    }
}
