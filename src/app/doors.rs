//! Every listener: bound first, all together; then given what it serves.

use std::sync::Arc;

use anyhow::Result;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ports::Ports;
use super::tasks::{Tasks, unfailing};
use crate::cli::settings::Settings;
use crate::debug::{self, Pages, listen, monitoring};
use crate::delivery::server::{Door, Server};
use crate::tls::{self, Live};

/// Listeners that accept already, though nobody answers yet.
pub struct Doors {
    pub ports: Ports,
    streams: Vec<(&'static str, TcpListener, Door)>,
    pages: Option<TcpListener>,
    monitoring: Option<TcpListener>,
}

impl Doors {
    pub async fn bind(settings: &Settings, live: Arc<Live>) -> Result<Self> {
        let mut ports = Ports::default();
        let mut streams = Vec::new();
        let secure = ports
            .bind("secure-grpc", settings.secure_grpc_addr.address())
            .await?;
        if let Some(listener) = secure {
            streams.push((
                "secure-grpc",
                listener,
                Door::Proven(tls::server_config(live)?),
            ));
        }
        if let Some(listener) = ports.bind("grpc", settings.grpc_addr.address()).await? {
            streams.push(("grpc", listener, Door::Open));
        }
        let pages = ports.bind("http", settings.http_addr.address()).await?;
        let monitoring = ports
            .bind("monitoring", settings.monitoring_addr.address())
            .await?;
        Ok(Self {
            ports,
            streams,
            pages,
            monitoring,
        })
    }

    /// Streams are taken until `stop`; pages answer until it is `over`, so that readiness can say no.
    pub fn open(
        self,
        tasks: &mut Tasks,
        server: &Arc<Server>,
        pages: Pages,
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
        if let Some(listener) = self.pages {
            let router = debug::router(pages.clone());
            let metrics = pages.metrics.clone();
            let pages = listen::serve(listener, router, readers.clone(), over.clone(), metrics);
            tasks.run("http", unfailing(pages));
        }
        if let Some(listener) = self.monitoring {
            let metrics = pages.metrics.clone();
            let router = monitoring::router(pages);
            let pages = listen::serve(listener, router, readers, over.clone(), metrics);
            tasks.run("monitoring", unfailing(pages));
        }
    }
}
