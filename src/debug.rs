//! HTTP pages for people and tools: readiness, who has what, metrics, version.
//!
//! Pages that show configuration need a token of the mesh (or its client certificate's equivalent here, which
//! plaintext cannot carry); loopback is no exception unless `Readers::Local` says so.

pub mod desk;
pub mod listen;
pub mod monitoring;
pub mod status;
pub mod syncz;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::desk::Desk;
use crate::ca::authenticate::Unauthenticated;
use crate::ca::authority::Authority;
use crate::delivery::hub::report::{Inspect, Sight};
use crate::delivery::server::Server;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::objects::OfKind;
use crate::xds::Entry;

/// Turns what a proxy must hold into the dump's stable shape.
pub type Render = Arc<dyn Fn(&[Entry]) -> Result<Value, String> + Send + Sync>;

/// Says whether everything that is served can be.
pub type Prepared = Arc<dyn Fn() -> bool + Send + Sync>;
/// Says how objects stand, by kind, and how many files cannot be read.
pub type Count = Arc<dyn Fn() -> (Vec<OfKind>, u64) + Send + Sync>;

/// What the pages show, and to whom.
#[derive(Clone)]
pub struct Pages {
    pub desk: Desk,
    pub authority: Arc<Authority>,
    pub server: Arc<Server>,
    pub metrics: Arc<Metrics>,
    pub render: Render,
    pub objects: Count,
    /// Whether what the webhooks answer by is there; without it a rollout goes no further.
    pub prepared: Prepared,
    /// Cancelled when the program stops: it is not ready then.
    pub stop: CancellationToken,
    pub started: Instant,
}

/// The other end of a connection, put into each request by `listen`.
#[derive(Clone, Copy, Debug)]
pub struct Remote(pub SocketAddr);

/// How a reader gets and shows a token.
pub const HOW: &str = "\
send a token of the mesh: curl -H \"Authorization: Bearer $(fairlead token --state-dir DIR --namespace NS \
--service-account NAME)\" …; one of namespace istio-system (or the root namespace of MeshConfig) sees every proxy, \
any other those of its own namespace\n";

/// Port 8080.
pub fn router(pages: Pages) -> Router {
    Router::new()
        .route("/ready", get(ready))
        .merge(guarded(&pages))
        .with_state(pages)
}

/// What needs a token, on whichever port.
fn guarded(pages: &Pages) -> Router<Pages> {
    Router::new()
        .route("/debug/syncz", get(syncz_page))
        .route("/debug/adsz", get(adsz_page))
        .route("/debug/connections", get(adsz_page))
        .route("/debug/config_dump", get(config_dump))
        .route_layer(middleware::from_fn_with_state(pages.clone(), guard))
}

async fn ready(State(pages): State<Pages>) -> Response {
    if !(pages.prepared)() {
        let text = "the injector's configuration was not read yet\n";
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    if pages.stop.is_cancelled() || pages.desk.hub.is_closed() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    }
    "ready\n".into_response()
}

async fn guard(State(pages): State<Pages>, mut request: Request, next: Next) -> Response {
    let remote = request.extensions().get::<Remote>().copied();
    match pages.desk.sight(request.headers(), None, remote).await {
        Ok(sight) => {
            request.extensions_mut().insert(sight);
            next.run(request).await
        }
        Err(reason) => {
            info!(remote = ?remote.map(|r| r.0), %reason, "debug page refused");
            let status = match reason.is_for_now() {
                true => StatusCode::SERVICE_UNAVAILABLE,
                false => StatusCode::UNAUTHORIZED,
            };
            (status, format!("{}\n{HOW}", Unauthenticated::REPLY)).into_response()
        }
    }
}

async fn syncz_page(State(pages): State<Pages>, Extension(sight): Extension<Sight>) -> Response {
    match pages.desk.streams(sight).await {
        Some(streams) => Json(syncz::items(&streams)).into_response(),
        None => gone(),
    }
}

async fn adsz_page(State(pages): State<Pages>, Extension(sight): Extension<Sight>) -> Response {
    match pages.desk.streams(sight).await {
        Some(streams) => Json(syncz::connections(&streams)).into_response(),
        None => gone(),
    }
}

#[derive(Deserialize)]
struct Wanted {
    #[serde(rename = "proxyID")]
    proxy: Option<String>,
}

async fn config_dump(
    State(pages): State<Pages>,
    Extension(sight): Extension<Sight>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let Some(wanted) = wanted.proxy else {
        let text = "say which: ?proxyID=<name>.<namespace>, or a whole node id\n";
        return (StatusCode::BAD_REQUEST, text).into_response();
    };
    let question = wanted.clone();
    let config = pages
        .desk
        .inspect(|reply| Inspect::Config(question, sight, reply));
    let Some(config) = config.await else {
        return gone();
    };
    let Some(entries) = config else {
        let text = format!("no proxy {wanted:?} is connected here\n");
        return (StatusCode::NOT_FOUND, text).into_response();
    };
    match (pages.render)(&entries) {
        Ok(dump) => Json(dump).into_response(),
        Err(reason) => {
            warn!(proxy = %wanted, %reason, "write a configuration dump");
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                "the dump could not be written\n",
            )
                .into_response()
        }
    }
}

fn gone() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response()
}

#[cfg(test)]
mod tests;
