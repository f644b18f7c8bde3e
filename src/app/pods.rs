//! Which pods there are, as the hub last saw.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use crate::ca::standby::{self, BoundPod};
use crate::delivery::hub::Message;
use crate::delivery::hub::report::Inspect;

/// Asks the hub.
pub struct Pods(pub mpsc::Sender<Message>);

impl standby::Pods for Pods {
    fn is_there(&self, pod: BoundPod) -> BoxFuture<'_, bool> {
        async move {
            let (reply, answer) = oneshot::channel();
            let question = Inspect::Pod(pod.namespace, pod.name, reply);
            let asked = self.0.send(Message::Inspect(question)).await;
            // A hub that is gone knows of nothing.
            let found = asked.ok().and(answer.await.ok()).flatten();
            found.is_some_and(|found| {
                found.uid == pod.uid && found.service_account == pod.service_account
            })
        }
        .boxed()
    }
}
