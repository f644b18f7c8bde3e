//! HTTP pages for people and tools: readiness, who has what, metrics, version.
//!
//! Pages that show configuration need a token of the mesh (or its client certificate's equivalent here, which
//! plaintext cannot carry); loopback is no exception unless `Readers::Local` says so.

pub mod desk;
pub mod listen;
pub mod monitoring;
pub mod registry;
pub mod shelf;
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
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::shelf::{PAGES, Refusal, Shelf, Wanted};
use crate::ca::authenticate::Unauthenticated;
use crate::ca::authority::Authority;
use crate::delivery::hub::report::Sight;
use crate::delivery::server::Server;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::objects::OfKind;

/// Says whether everything that is served can be.
pub type Prepared = Arc<dyn Fn() -> bool + Send + Sync>;
/// Says how objects stand, by kind, and how many files cannot be read.
pub type Count = Arc<dyn Fn() -> (Vec<OfKind>, u64) + Send + Sync>;

/// What the pages show, and to whom.
#[derive(Clone)]
pub struct Pages {
    pub shelf: Shelf,
    pub authority: Arc<Authority>,
    pub server: Arc<Server>,
    pub metrics: Arc<Metrics>,
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
    let page = |router: Router<Pages>, name: &'static str| {
        let shown = move |State(pages): State<Pages>,
                          Extension(sight): Extension<Sight>,
                          Query(wanted): Query<Wanted>| async move {
            answered(pages.shelf.answer(name, wanted, sight).await)
        };
        router.route(&format!("/debug/{name}"), get(shown))
    };
    let names = PAGES.iter().map(|page| page.name);
    names
        .fold(Router::new(), page)
        .route_layer(middleware::from_fn_with_state(pages.clone(), guard))
}

async fn ready(State(pages): State<Pages>) -> Response {
    if !(pages.prepared)() {
        let text = "the injector's configuration was not read yet\n";
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    if pages.stop.is_cancelled() || pages.shelf.desk.hub.is_closed() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    }
    "ready\n".into_response()
}

async fn guard(State(pages): State<Pages>, mut request: Request, next: Next) -> Response {
    let remote = request.extensions().get::<Remote>().copied();
    match pages
        .shelf
        .desk
        .sight(request.headers(), None, remote)
        .await
    {
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

fn answered(answer: Result<Value, Refusal>) -> Response {
    let refusal = match answer {
        Ok(shown) => return Json(shown).into_response(),
        Err(refusal) => refusal,
    };
    let status = match &refusal {
        Refusal::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::Unsaid => StatusCode::BAD_REQUEST,
        Refusal::NoProxy(_) | Refusal::NoPage(_) => StatusCode::NOT_FOUND,
        Refusal::NotForYou(_) => StatusCode::FORBIDDEN,
        Refusal::Unwritten(reason) => {
            warn!(%reason, "write a debug page");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    (status, format!("{refusal}\n")).into_response()
}

#[cfg(test)]
mod tests;
