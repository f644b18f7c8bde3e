//! Questions about proxies over xDS, state of the world: what `istioctl proxy-status` and `version` ask.
//!
//! Proxies are served by delta alone; here they are told so.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::Query;
use futures_util::{Stream, StreamExt};
use http::Uri;
use serde_json::{Value, json};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, StdError};
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tracing::info;

use super::shelf::{Refusal, Shelf, Wanted};
use crate::ca::authenticate::Unauthenticated;
use crate::delivery::hub::report::{Inspect, Sight, StreamReport};
use crate::delivery::session::{Standing, Subscribed};
use crate::tls::Peer;
use crate::xds::status::{
    CONFIG, DiscoveryRequest, DiscoveryResponse, PREFIX, ProxyStatus, SYNC, TypeStatus, client,
    dumps, opaque, response,
};

pub const METHOD: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
/// A question names at most one proxy.
const MAX_MESSAGE: usize = 64 << 10;

#[derive(Clone)]
pub struct StatusService {
    shelf: Shelf,
    identifier: Arc<str>,
}

type Answers = Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;

impl StatusService {
    /// `replica` is this process's name among the others'.
    pub fn new(shelf: Shelf, replica: &str) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        // The shape that istioctl reads.
        let identifier = json!({
            "Component": "istiod",
            "ID": replica,
            "Info": {"version": version, "revision": "unknown", "golang_version": "", "status": "Clean", "tag": version},
        });
        Self {
            shelf,
            identifier: identifier.to_string().into(),
        }
    }

    async fn open(
        self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let peer = request.extensions().get::<Peer>();
        let headers = request.metadata().as_ref();
        let sight = self
            .shelf
            .desk
            .sight(headers, peer, None)
            .await
            .map_err(|reason| {
                info!(%reason, "status stream refused");
                match reason.is_for_now() {
                    true => Status::unavailable(Unauthenticated::REPLY),
                    false => Status::unauthenticated(Unauthenticated::REPLY),
                }
            })?;
        let answers = request.into_inner().then(move |asked| {
            let (service, sight) = (self.clone(), sight.clone());
            async move {
                // Whatever its nonce: istioctl's questions have one, and it acknowledges no answer.
                match asked {
                    Ok(asked) => service.answer(asked, sight).await,
                    Err(status) => Err(status),
                }
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    /// As JSON, which is what istiod answers, too.
    async fn page(&self, type_url: &str, names: &[String], sight: Sight) -> Result<Value, Status> {
        let page = named(type_url, names)?;
        let invalid = |_| Status::invalid_argument("a page is named as in its address");
        let address: Uri = format!("/debug/{page}").parse().map_err(invalid)?;
        let Query(wanted) = Query::<Wanted>::try_from_uri(&address)
            .map_err(|_| Status::invalid_argument("the question after `?` cannot be read"))?;
        let name = address.path().trim_start_matches("/debug/");
        let answer = self.shelf.answer(name, wanted, sight).await;
        answer.map_err(|refusal| {
            let text = refusal.to_string();
            match refusal {
                Refusal::Stopping => Status::unavailable(text),
                Refusal::Unsaid => Status::invalid_argument(text),
                Refusal::NoProxy(_) | Refusal::NoPage(_) => Status::not_found(text),
                Refusal::NotForYou(_) => Status::permission_denied(text),
                Refusal::Unwritten(_) => Status::internal(text),
            }
        })
    }

    async fn answer(
        &self,
        asked: DiscoveryRequest,
        sight: Sight,
    ) -> Result<DiscoveryResponse, Status> {
        let gone = || Status::unavailable("stopping");
        let resources = match asked.type_url.as_str() {
            SYNC => {
                let streams = self.shelf.desk.streams(sight).await.ok_or_else(gone)?;
                streams
                    .iter()
                    .map(|stream| client(&status(stream)))
                    .collect()
            }
            CONFIG => {
                let [wanted] = &asked.resource_names[..] else {
                    return Err(Status::invalid_argument(
                        "name one proxy, as <name>.<namespace>",
                    ));
                };
                let question = |reply| Inspect::Config(wanted.clone(), sight, reply);
                let entries = self.shelf.desk.inspect(question).await.ok_or_else(gone)?;
                // None, as Istio answers for a proxy that is connected elsewhere: the next replica is asked.
                entries.map_or(Vec::new(), |entries| dumps(&entries))
            }
            other if other.starts_with(PREFIX) => {
                let page = self.page(other, &asked.resource_names, sight).await?;
                vec![opaque(PREFIX, page.to_string())]
            }
            _ => {
                return Err(Status::unimplemented(
                    "only delta xDS is served: set ads_config.api_type to DELTA_GRPC",
                ));
            }
        };
        Ok(response(
            &asked.type_url,
            resources,
            "1".to_owned(),
            &self.identifier,
        ))
    }
}

/// `istio.io/debug` with the page as its one name, as `istioctl experimental internal-debug` asks, or the page's own type.
fn named<'a>(type_url: &'a str, names: &'a [String]) -> Result<&'a str, Status> {
    let own = type_url.strip_prefix(PREFIX).unwrap_or_default();
    match (own.strip_prefix('/'), names) {
        (Some(page), []) => Ok(page),
        (None, [page]) if own.is_empty() => Ok(page),
        _ => Err(Status::invalid_argument("name one page of /debug")),
    }
}

fn status(stream: &StreamReport) -> ProxyStatus<'_> {
    let subscribed = stream
        .types
        .iter()
        .filter(|s| s.subscribed != Subscribed::No);
    ProxyStatus {
        node_id: &stream.proxy.id,
        cluster_id: "Kubernetes",
        namespace: &stream.proxy.namespace,
        version: stream.version.as_deref().unwrap_or_default(),
        types: subscribed.map(|s| (s.kind, of_type(s))).collect(),
    }
}

fn of_type(standing: &Standing) -> TypeStatus {
    if let Some((name, nack)) = standing.refusals.first() {
        return TypeStatus::Refused(format!("{name}: {}", nack.message));
    }
    match (standing.sent, standing.pending) {
        (0, 0) => TypeStatus::NotSent,
        (_, 0) => TypeStatus::Synced,
        (_, _) => TypeStatus::Stale,
    }
}

impl StreamingService<DiscoveryRequest> for StatusService {
    type Response = DiscoveryResponse;
    type ResponseStream = Answers;
    type Future = BoxFuture<Response<Answers>, Status>;

    fn call(&mut self, request: Request<Streaming<DiscoveryRequest>>) -> Self::Future {
        Box::pin(self.clone().open(request))
    }
}

impl<B> tower::Service<http::Request<B>> for StatusService
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
            let codec = ProstCodec::<DiscoveryResponse, DiscoveryRequest>::default();
            let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE);
            Ok(grpc.streaming(service, request).await)
        })
    }
}
