//! Which pods there are, as the hub last saw.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use crate::ca::standby;
use crate::delivery::hub::Message;
use crate::delivery::hub::report::Inspect;
use crate::text::Str;

/// Asks the hub.
pub struct Pods(pub mpsc::Sender<Message>);

impl standby::Pods for Pods {
    fn is_there<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, bool> {
        async move {
            let (reply, answer) = oneshot::channel();
            let question = Inspect::Pod(Str::new(namespace), Str::new(name), reply);
            // A hub that is gone knows of nothing.
            self.0.send(Message::Inspect(question)).await.is_ok() && answer.await.unwrap_or(false)
        }
        .boxed()
    }
}
