//! Questions about proxies over xDS, state of the world: what `istioctl proxy-status` and `version` ask.
//!
//! Proxies are served by delta alone; here they are told so.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::{Stream, StreamExt};
use serde_json::json;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, StdError};
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tracing::info;

use super::desk::Desk;
use crate::ca::authenticate::Unauthenticated;
use crate::delivery::hub::report::{Inspect, Sight, StreamReport};
use crate::delivery::session::{Standing, Subscribed};
use crate::tls::Peer;
use crate::xds::status::{
    CONFIG, DiscoveryRequest, DiscoveryResponse, PREFIX, ProxyStatus, SYNC, TypeStatus, client,
    dumps, response,
};

pub const METHOD: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
/// A question names at most one proxy.
const MAX_MESSAGE: usize = 64 << 10;

#[derive(Clone)]
pub struct StatusService {
    desk: Desk,
    identifier: Arc<str>,
}

type Answers = Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;

impl StatusService {
    /// `replica` is this process's name among the others'.
    pub fn new(desk: Desk, replica: &str) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        // The shape that istioctl reads.
        let identifier = json!({
            "Component": "istiod",
            "ID": replica,
            "Info": {"version": version, "revision": "unknown", "golang_version": "", "status": "Clean", "tag": version},
        });
        Self {
            desk,
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

    async fn answer(
        &self,
        asked: DiscoveryRequest,
        sight: Sight,
    ) -> Result<DiscoveryResponse, Status> {
        let gone = || Status::unavailable("stopping");
        let resources = match asked.type_url.as_str() {
            SYNC => {
                let streams = self.desk.streams(sight).await.ok_or_else(gone)?;
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
                let entries = self.desk.inspect(question).await.ok_or_else(gone)?;
                // None, as Istio answers for a proxy that is connected elsewhere: the next replica is asked.
                entries.map_or(Vec::new(), |entries| dumps(&entries))
            }
            other if other.starts_with(PREFIX) => {
                return Err(Status::unimplemented(format!(
                    "{SYNC} and {CONFIG} are answered here"
                )));
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
