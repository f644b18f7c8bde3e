//! Who reads, what a reader may see, and the hub's answers.

use std::sync::Arc;

use axum::http::HeaderMap;
use tokio::sync::{mpsc, oneshot};

use super::Remote;
use crate::ca::authenticate::{Authenticator, Unauthenticated};
use crate::clock;
use crate::delivery::hub::Message;
use crate::delivery::hub::report::{Inspect, Sight, StreamReport};
use crate::text::Str;
use crate::tls::Peer;

/// Who reads pages that show configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Readers {
    /// Whoever shows a valid token.
    #[default]
    Proven,
    /// Also anybody on this machine.
    Local,
}

/// Where questions are put.
#[derive(Clone)]
pub struct Desk {
    pub hub: mpsc::Sender<Message>,
    pub authenticator: Arc<Authenticator>,
    pub readers: Readers,
    /// Identities of this namespace see every proxy, others those of their own.
    pub root_namespace: Str,
}

impl Desk {
    pub(super) async fn sight(
        &self,
        headers: &HeaderMap,
        peer: Option<&Peer>,
        remote: Option<Remote>,
    ) -> Result<Sight, Unauthenticated> {
        let local = remote.is_some_and(|r| r.0.ip().to_canonical().is_loopback());
        if self.readers == Readers::Local && local {
            return Ok(Sight::All);
        }
        let proven = self
            .authenticator
            .authenticate(headers, peer, clock::wall());
        let proven = proven.await?;
        let namespace = proven.identity.namespace();
        if *namespace == self.root_namespace {
            return Ok(Sight::All);
        }
        Ok(Sight::Namespace(namespace.clone()))
    }

    /// The hub's answer, or none if it is gone.
    pub(super) async fn inspect<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Inspect,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let message = Message::Inspect(question(reply));
        self.hub.send(message).await.ok()?;
        answer.await.ok()
    }

    pub(super) async fn streams(&self, sight: Sight) -> Option<Vec<StreamReport>> {
        self.inspect(|reply| Inspect::Streams(sight, reply)).await
    }
}
