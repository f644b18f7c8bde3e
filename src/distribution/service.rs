//! What this replica knows of its own proxies, for itself and for its peers.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{mpsc, oneshot};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, StdError};
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tracing::info;

use super::board::{Board, Posted};
use super::tally::Count;
use crate::acceptance::Outcome;
use crate::ca::authenticate::{Authenticator, Unauthenticated};
use crate::clock;
use crate::config::api::KINDS;
use crate::config::{Key, Kind};
use crate::delivery::hub::Message;
use crate::delivery::hub::report::{Inspect, Reach};
use crate::identity::SpiffeId;
use crate::text::Str;
use crate::tls::Peer;

pub const METHOD: &str = "/fairlead.v1.Distribution/Count";
/// Objects that are asked for at once.
pub const OBJECTS: usize = 512;
/// Of rejected objects that nobody asked for these are named.
const REFUSED: usize = 256;
/// Of Envoy's message, in characters.
const SAID: usize = 512;
/// Either message: `OBJECTS` names of Kubernetes' greatest length, each with what was said of it.
pub const MAX_MESSAGE: usize = 4 << 20;

/// `proto/distribution.proto`, by hand.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Object {
    #[prost(string, tag = "1")]
    pub kind: String,
    #[prost(string, tag = "2")]
    pub namespace: String,
    #[prost(string, tag = "3")]
    pub name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct CountRequest {
    #[prost(message, repeated, tag = "1")]
    pub objects: Vec<Object>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct CountResponse {
    #[prost(string, tag = "1")]
    pub replica: String,
    #[prost(uint64, tag = "2")]
    pub proxies: u64,
    #[prost(message, repeated, tag = "3")]
    pub objects: Vec<ObjectCount>,
    #[prost(message, repeated, tag = "4")]
    pub refused: Vec<Object>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ObjectCount {
    #[prost(message, optional, tag = "1")]
    pub object: Option<Object>,
    #[prost(int64, tag = "2")]
    pub generation: i64,
    #[prost(uint64, tag = "3")]
    pub current: u64,
    #[prost(uint64, tag = "4")]
    pub refusing: u64,
    #[prost(string, tag = "5")]
    pub said: String,
}

impl From<&Key> for Object {
    fn from(key: &Key) -> Self {
        Self {
            kind: key.kind.name().to_owned(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
        }
    }
}

impl Object {
    /// None for a kind that this build does not read.
    pub fn key(&self) -> Option<Key> {
        let kind = Kind::ALL.iter().find(|kind| kind.name() == self.kind)?;
        Some(Key {
            kind: *kind,
            namespace: Str::new(&self.namespace),
            name: Str::new(&self.name),
        })
    }
}

impl CountResponse {
    /// What it says of one object; `None` where it does not speak of it.
    pub fn count(&self, key: &Key) -> Option<Count> {
        let object = Object::from(key);
        let is = |o: &Option<Object>| o.as_ref() == Some(&object);
        let found = self.objects.iter().find(|one| is(&one.object))?;
        Some(Count {
            generation: found.generation,
            proxies: self.proxies,
            current: found.current,
            refusing: found.refusing,
            said: found.said.clone(),
        })
    }

    pub fn refused(&self) -> impl Iterator<Item = Key> {
        self.refused.iter().filter_map(Object::key)
    }
}

/// This replica's own counts.
#[derive(Clone)]
pub struct Own {
    pub board: Arc<Board>,
    pub hub: mpsc::Sender<Message>,
    /// This replica's name among the others'.
    pub replica: Str,
}

impl Own {
    /// None when the program ends.
    pub async fn count(&self, wanted: &[Object]) -> Option<CountResponse> {
        // Before the hub is asked: what it says then includes all that stands here.
        let posted: Vec<_> = wanted
            .iter()
            .map(|o| o.key().and_then(|key| self.board.get(&key)))
            .collect();
        let (reply, answer) = oneshot::channel();
        let question = Message::Inspect(Inspect::Reach(reply));
        self.hub.send(question).await.ok()?;
        let reach = answer.await.ok()?;
        let count = |(object, posted): (&Object, Option<Posted>)| count(object, posted, &reach);
        let named = reach.refused.iter().map(|one| &one.key);
        let named = named.filter(|key| KINDS.iter().any(|kind| kind.kind == key.kind.name()));
        Some(CountResponse {
            replica: self.replica.to_string(),
            proxies: reach.proxies as u64,
            objects: wanted.iter().zip(posted).map(count).collect(),
            refused: named.take(REFUSED).map(Object::from).collect(),
        })
    }
}

/// A form that is not in force here is held by nobody.
fn count(object: &Object, posted: Option<Posted>, reach: &Reach) -> ObjectCount {
    let in_force = posted.filter(|p| p.verdict.outcome == Outcome::Accepted);
    let key = object.key();
    let refused = reach
        .refused
        .iter()
        .find(|one| Some(&one.key) == key.as_ref());
    ObjectCount {
        object: Some(object.clone()),
        generation: in_force.as_ref().map_or(0, |p| p.verdict.generation),
        current: in_force.map_or(0, |p| reach.current(p.since) as u64),
        refusing: refused.map_or(0, |one| one.proxies as u64),
        said: refused.map_or_else(String::new, |one| one.said.chars().take(SAID).collect()),
    }
}

/// Answers peers: whoever proves to be of the control plane's own identity.
#[derive(Clone)]
pub struct DistributionService {
    pub own: Own,
    pub authenticator: Arc<Authenticator>,
    pub identity: SpiffeId,
}

impl DistributionService {
    async fn count(
        &self,
        request: Request<CountRequest>,
    ) -> Result<Response<CountResponse>, Status> {
        let peer = request.extensions().get::<Peer>();
        let headers = request.metadata().as_ref();
        let caller = self
            .authenticator
            .authenticate(headers, peer, clock::wall())
            .await;
        let caller = caller.map_err(|reason| {
            info!(%reason, "a question of a peer refused");
            Status::unauthenticated(Unauthenticated::REPLY)
        })?;
        if caller.identity != self.identity {
            info!(caller = %caller.identity, "a question of somebody who is no peer refused");
            return Err(Status::permission_denied(
                "only replicas of this control plane are answered",
            ));
        }
        let wanted = &request.get_ref().objects;
        if wanted.len() > OBJECTS {
            return Err(Status::invalid_argument(format!(
                "at most {OBJECTS} objects at once"
            )));
        }
        let counted = self.own.count(wanted).await;
        let counted = counted.ok_or_else(|| Status::unavailable("stopping"))?;
        Ok(Response::new(counted))
    }
}

impl UnaryService<CountRequest> for DistributionService {
    type Response = CountResponse;
    type Future = BoxFuture<Response<CountResponse>, Status>;

    fn call(&mut self, request: Request<CountRequest>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { service.count(request).await })
    }
}

impl<B> tower::Service<http::Request<B>> for DistributionService
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
            let codec = ProstCodec::<CountResponse, CountRequest>::default();
            let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE);
            Ok(grpc.unary(service, request).await)
        })
    }
}
