//! Every listener: bound first, all together; then given what it serves.

use std::sync::Arc;

use anyhow::Result;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ports::Ports;
use super::tasks::{Tasks, unfailing};
use crate::admission::{self, Webhooks};
use crate::cli::settings::{Settings, Source};
use crate::debug::{self, Pages, listen, monitoring};
use crate::delivery::server::{Door, Server};
use crate::tls::{self, Live};

/// Listeners that accept already, though nobody answers yet.
pub struct Doors {
    pub ports: Ports,
    streams: Vec<(&'static str, TcpListener, Door)>,
    pages: Option<TcpListener>,
    monitoring: Option<TcpListener>,
    webhooks: Option<(TcpListener, listen::Door)>,
}

impl Doors {
    pub fn bind(settings: &Settings, source: &Source, live: Arc<Live>) -> Result<Self> {
        let mut ports = Ports::default();
        let mut streams = Vec::new();
        let secure = ports.bind("secure-grpc", settings.secure_grpc_addr.address())?;
        if let Some(listener) = secure {
            streams.push((
                "secure-grpc",
                listener,
                Door::Proven(tls::server_config(live.clone())?),
            ));
        }
        if let Some(listener) = ports.bind("grpc", settings.grpc_addr.address())? {
            streams.push(("grpc", listener, Door::Open));
        }
        let pages = ports.bind("http", settings.http_addr.address())?;
        let monitoring = ports.bind("monitoring", settings.monitoring_addr.address())?;
        let https = settings.https(source).address();
        let webhooks = match ports.bind("https", https)? {
            Some(listener) => Some((listener, listen::Door::Tls(tls::webhook_config(live)?))),
            None => None,
        };
        Ok(Self {
            ports,
            streams,
            pages,
            monitoring,
            webhooks,
        })
    }

    /// Streams are taken until `stop`; pages answer until it is `over`, so that readiness can say no.
    pub fn open(
        self,
        tasks: &mut Tasks,
        server: &Arc<Server>,
        pages: Pages,
        webhooks: Option<Webhooks>,
        (stop, over): (&CancellationToken, &CancellationToken),
    ) {
        for (name, listener, door) in self.streams {
            tasks.run(
                name,
                unfailing(server.clone().serve(listener, door, stop.clone())),
            );
        }
        // Nobody waits for a page that is still being read at the end.
        let readers = TaskTracker::new();
        let metrics = pages.metrics.clone();
        let mut serve = |name, listener, door, router| {
            let (readers, over, metrics) = (readers.clone(), over.clone(), metrics.clone());
            let served = listen::serve(listener, door, router, readers, over, metrics);
            tasks.run(name, unfailing(served));
        };
        if let Some(listener) = self.pages {
            let router = debug::router(pages.clone());
            serve("http", listener, listen::Door::Plain, router);
        }
        if let Some(listener) = self.monitoring {
            let router = monitoring::router(pages);
            serve("monitoring", listener, listen::Door::Plain, router);
        }
        if let (Some((listener, door)), Some(webhooks)) = (self.webhooks, webhooks) {
            serve("https", listener, door, admission::router(webhooks));
        }
    }
}
