//! What goes on beside serving: our own certificate renewed, and the farewell at the end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::backoff::Backoff;
use crate::ca::lease;
use crate::ca::serving::Serving;
use crate::clock;
use crate::delivery::server::Server;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::retries::Attempt;

/// Waits after a renewal that failed: half of a life is left.
const AGAIN: Duration = Duration::from_secs(10);
const LATEST: Duration = Duration::from_secs(300);
/// The wall clock may be set meanwhile: the lease is looked at this often.
const SOON: Duration = Duration::from_secs(60);

/// Keeps the control plane's own certificate good.
pub async fn renew(
    mut serving: Serving,
    stop: CancellationToken,
    metrics: Arc<Metrics>,
) -> Result<()> {
    let mut backoff = Backoff::new(AGAIN, LATEST);
    let mut soonest = AGAIN;
    loop {
        let due = serving
            .lease()
            .renew_at
            .duration_since(clock::wall())
            .unwrap_or_default();
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = time::sleep(due.min(SOON).max(soonest)) => {}
        }
        match serving.renew_if_due(clock::wall()) {
            Ok(Some(lease)) => {
                soonest = AGAIN;
                backoff.reset();
                let not_after = lease::unix(lease.not_after);
                info!(not_after, "own certificate renewed");
            }
            Ok(None) => {}
            Err(why) => {
                warn!(%why, "own certificate not renewed; it is tried again");
                metrics.retries.of(Attempt::Renew).inc();
                soonest = backoff.after_failure();
            }
        }
    }
}

/// After `stop`, gives connections this long to end; then it is `over` for what is left.
pub async fn farewell(
    server: Arc<Server>,
    grace: Duration,
    stop: CancellationToken,
    over: CancellationToken,
) {
    stop.cancelled().await;
    server.tasks.close();
    if time::timeout(grace, server.tasks.wait()).await.is_err() {
        warn!(
            tasks = server.tasks.len(),
            "connections that did not end in time are cut"
        );
    }
    over.cancel();
}
