//! Serves a router over plain HTTP, every wait and number bounded.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::Remote;
use crate::delivery::server::Tasks;

/// Connections over this are dropped: these pages are for a few readers.
const CONNECTIONS: usize = 256;
const HEADERS: Duration = Duration::from_secs(10);
/// Nobody needs a page for longer.
const LIFE: Duration = Duration::from_secs(300);

/// Accepts until `stop`; a request that is being answered then still is.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    tasks: TaskTracker,
    stop: CancellationToken,
) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let (socket, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            continue;
        };
        let router = router.clone().layer(Extension(Remote(remote)));
        let (stop, executor) = (stop.clone(), Tasks(tasks.clone()));
        tasks.spawn(async move {
            connection(socket, remote, router, executor, stop).await;
            drop(permit);
        });
    }
}

async fn connection(
    socket: TcpStream,
    remote: SocketAddr,
    router: Router,
    executor: Tasks,
    stop: CancellationToken,
) {
    let mut protocol = hyper_util::server::conn::auto::Builder::new(executor);
    protocol
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(16);
    let service = TowerToHyperService::new(router);
    let connection = protocol.serve_connection(TokioIo::new(socket), service);
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(LIFE) => {}
            }
        } => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(HEADERS, connection.as_mut()).await {
                Ok(outcome) => outcome,
                Err(_) => Ok(()),
            }
        }
    };
    if let Err(error) = outcome {
        debug!(%remote, %error, "connection");
    }
}
