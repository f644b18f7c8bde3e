//! Connections one after another, until shutdown. Who may stay is decided elsewhere.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::backoff::Backoff;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::retries::Attempt;

/// Waits after an accept that failed.
const AGAIN: Duration = Duration::from_millis(50);
const LATEST: Duration = Duration::from_secs(1);

/// A listener that outlives its own failures.
pub struct Accepting {
    listener: TcpListener,
    stop: CancellationToken,
    metrics: Arc<Metrics>,
    backoff: Backoff,
}

impl Accepting {
    pub fn new(listener: TcpListener, stop: CancellationToken, metrics: Arc<Metrics>) -> Self {
        Self {
            listener,
            stop,
            metrics,
            backoff: Backoff::new(AGAIN, LATEST),
        }
    }

    /// The next connection; None once it is to stop. A failure (no descriptor is left) is waited out.
    pub async fn next(&mut self) -> Option<(TcpStream, SocketAddr)> {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.accept()).await
    }

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => {
                    self.backoff.reset();
                    return accepted;
                }
                Err(error) => {
                    warn!(%error, "accept a connection");
                    self.metrics.retries.of(Attempt::Accept).inc();
                    tokio::time::sleep(self.backoff.after_failure()).await;
                }
            }
        }
    }
}
