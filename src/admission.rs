//! The API server's two questions before it keeps an object: what a pod gets besides, and whether the object is valid.
//!
//! Port 15017, over TLS by the control plane's own certificate. Answers are Kubernetes' `AdmissionReview` v1; what they
//! say is decided in `inject` and `config`.

mod review;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::{Semaphore, watch};
use tracing::{info, warn};

use self::review::{Answer, Asked};
use crate::bootstrap::new_drain_secret;
use crate::clock;
use crate::config::decode::{self, Decoded, Item};
use crate::diagnostic::{Code, Diagnostic, Level};
use crate::inject::{Injection, Outcome, Request, inject, without_effect};
use crate::telemetry::metrics::Metrics;
use crate::text::Str;

/// What the webhooks answer by.
#[derive(Clone)]
pub struct Webhooks {
    /// None until the injector's ConfigMap was read.
    pub injection: watch::Receiver<Option<Arc<Injection>>>,
    pub metrics: Arc<Metrics>,
    room: Arc<Semaphore>,
}

/// The API server takes no object over 3 MB; a review holds it at most twice.
const MAX_REVIEW: usize = 8 << 20;
/// Reviews that are read and answered at once; anybody may send one, and each is a multiple of its text in memory.
const AT_ONCE: usize = 8;
/// The API server gives up after as long.
const READ: Duration = Duration::from_secs(10);

/// Port 15017. Paths below `/inject` and `/validate` are as in Istio: `/inject/cluster/<id>/net/<network>`.
pub fn router(webhooks: Webhooks) -> Router {
    Router::new()
        .route("/inject", post(inject_root))
        .route("/inject/{*place}", post(inject_placed))
        .route("/validate", post(validate))
        .route("/validate/{*place}", post(validate))
        .route("/ready", get(|| async { "ready\n" }))
        .with_state(webhooks)
}

async fn inject_root(State(webhooks): State<Webhooks>, body: Body) -> Response {
    webhooks
        .read(body, |body| webhooks.on_pod(body, &BTreeMap::new()))
        .await
}

async fn inject_placed(
    State(webhooks): State<Webhooks>,
    Path(place): Path<String>,
    body: Body,
) -> Response {
    webhooks
        .read(body, |body| webhooks.on_pod(body, &pairs(&place)))
        .await
}

/// `cluster/a/net/b` as pairs.
fn pairs(place: &str) -> BTreeMap<&str, &str> {
    let mut parts = place.split('/');
    let mut pairs = BTreeMap::new();
    while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
        pairs.insert(key, value);
    }
    pairs
}

async fn validate(State(webhooks): State<Webhooks>, body: Body) -> Response {
    webhooks.read(body, |body| webhooks.on_object(body)).await
}

impl Webhooks {
    pub fn new(injection: watch::Receiver<Option<Arc<Injection>>>, metrics: Arc<Metrics>) -> Self {
        let room = Arc::new(Semaphore::new(AT_ONCE));
        Self {
            injection,
            metrics,
            room,
        }
    }

    /// A whole review, in time and within its bound; then its answer.
    async fn read(&self, body: Body, answer: impl FnOnce(&str) -> Response) -> Response {
        let read = async {
            let room = self.room.acquire().await.ok()?;
            let body = to_bytes(body, MAX_REVIEW).await.ok()?;
            let text = std::str::from_utf8(&body).ok()?;
            let answer = answer(text);
            drop(room);
            Some(answer)
        };
        match tokio::time::timeout(READ, read).await {
            Ok(Some(answer)) => answer,
            Ok(None) => malformed("a review that is too large, or no text"),
            Err(_) => malformed("a review that did not come in time"),
        }
    }

    fn on_pod(&self, body: &str, place: &BTreeMap<&str, &str>) -> Response {
        self.metrics.injections.inc();
        let begun = clock::mono();
        let asked = match Asked::read(body) {
            Ok(asked) => asked,
            Err(why) => {
                self.metrics.injection_failures.inc();
                return malformed(&why);
            }
        };
        let answer = self.injected(&asked, place);
        let time = clock::mono().saturating_duration_since(begun);
        self.metrics.injection_time.observe(time);
        asked.answered(answer).into_response()
    }

    fn injected(&self, asked: &Asked, place: &BTreeMap<&str, &str>) -> Answer {
        let Some(injection) = self.injection.borrow().clone() else {
            self.metrics.injection_failures.inc();
            return Answer::refused(
                503,
                "the injector's configuration was not read yet; try again",
            );
        };
        let injection = placed(injection, place);
        let outcome = new_drain_secret()
            .map_err(|e| e.to_string())
            .and_then(|secret| {
                let request = Request {
                    pod: &asked.object,
                    namespace: &asked.namespace,
                    drain_secret: &secret,
                };
                let outcome = inject(request, &injection).map_err(|e| e.to_string())?;
                Ok((outcome, without_effect(request)))
            });
        let (namespace, pod) = (&asked.namespace, asked.shown_name());
        match outcome {
            Ok((Outcome::Injected(done), told)) => {
                self.metrics.injection_successes.inc();
                info!(%namespace, %pod, "sidecar injected");
                Answer::changed(&asked.object, &done).warning(told)
            }
            Ok((Outcome::Skipped(reason), _)) => {
                self.metrics.injection_skips.inc();
                info!(%namespace, %pod, %reason, "no sidecar injected");
                Answer::allowed()
            }
            Err(why) => {
                self.metrics.injection_failures.inc();
                warn!(%namespace, %pod, %why, "pod refused: no sidecar can be injected");
                Answer::refused(400, &format!("sidecar injection: {why}"))
            }
        }
    }

    fn on_object(&self, body: &str) -> Response {
        let asked = match Asked::read(body) {
            Ok(asked) => asked,
            Err(why) => {
                self.metrics.validation_errors.inc();
                return malformed(&why);
            }
        };
        let answer = if asked.object.is_null() {
            // Whatever is deleted may be.
            Answer::allowed()
        } else {
            judged(&decode::documents(&asked.object.to_string(), ""))
        };
        let count = match answer.is_allowed() {
            true => &self.metrics.validations_passed,
            false => &self.metrics.validations_failed,
        };
        count.inc();
        asked.answered(answer).into_response()
    }
}

/// The cluster that the path names, which a webhook of another cluster says so.
fn placed(injection: Arc<Injection>, place: &BTreeMap<&str, &str>) -> Arc<Injection> {
    match place.get("cluster") {
        None => injection,
        Some(cluster) => {
            let mut placed = Injection::clone(&injection);
            placed.values.global.multi_cluster.cluster_name = Str::new(cluster);
            Arc::new(placed)
        }
    }
}

/// Errors refuse the object; everything else is told, and kept beside it by nobody.
fn judged(decoded: &Decoded) -> Answer {
    let mut errors = Vec::new();
    let mut warnings = Vec::new();
    for item in &decoded.items {
        match item {
            Item::Object(object) => warnings.extend(object.warnings.iter().map(told)),
            Item::Rejected(rejected) => errors.extend(rejected.diagnostics.iter().map(told)),
            Item::Notice(notice) if notice.code == Code::UnknownKind => {}
            Item::Notice(notice) if notice.level == Level::Error => errors.push(told(notice)),
            Item::Notice(notice) => warnings.push(told(notice)),
            Item::Template(_) => {}
        }
    }
    match errors.is_empty() {
        true => Answer::allowed().warning(warnings),
        false => Answer::refused(400, &errors.join("; ")).warning(warnings),
    }
}

/// The API server says which object it is.
fn told(found: &Diagnostic) -> String {
    match found.field.is_empty() {
        true => found.message.clone(),
        false => format!("{}: {}", found.field, found.message),
    }
}

fn malformed(why: &str) -> Response {
    warn!(%why, "a review that cannot be read");
    (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn review(object: &Value) -> String {
        json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {"uid": "u-1", "namespace": "shop", "operation": "CREATE", "object": object},
        })
        .to_string()
    }

    fn webhooks() -> Webhooks {
        let values = crate::inject::Values::parse("global: {proxy_init: {image: f}}").unwrap();
        let injection = Injection {
            values,
            ..Injection::default()
        };
        // The sender may go: the last word stays.
        let (_, injection) = watch::channel(Some(Arc::new(injection)));
        Webhooks::new(injection, Arc::default())
    }

    async fn response(answer: Response) -> Value {
        assert_eq!(answer.status(), StatusCode::OK);
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20)
            .await
            .unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["response"]["uid"], "u-1");
        body["response"].clone()
    }

    #[tokio::test]
    async fn a_pod_is_answered_with_a_patch_that_makes_it_the_injected_one() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "app"}]}});
        let answer = response(webhooks().on_pod(&review(&pod), &BTreeMap::new())).await;
        assert_eq!(answer["allowed"], true);
        assert_eq!(answer["patchType"], "JSONPatch");
        let text = answer["patch"].as_str().unwrap();
        let patch = data_encoding::BASE64.decode(text.as_bytes()).unwrap();
        let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
        let mut done = pod;
        json_patch::patch(&mut done, &patch).unwrap();
        assert_eq!(done["spec"]["initContainers"][1]["name"], "istio-proxy");
    }

    #[tokio::test]
    async fn what_has_no_effect_of_a_pods_annotations_is_told() {
        let annotation = json!({"sidecar.istio.io/agentLogLevel": "debug"});
        let containers = json!([{"name": "app"}]);
        let pod =
            json!({"metadata": {"annotations": annotation}, "spec": {"containers": containers}});
        let answer = response(webhooks().on_pod(&review(&pod), &BTreeMap::new())).await;
        assert_eq!(answer["allowed"], true);
        let told = answer["warnings"][0].as_str().unwrap();
        assert!(told.contains("agentLogLevel has no effect"), "{told}");
    }

    #[tokio::test]
    async fn a_pod_that_cannot_be_injected_is_refused_with_the_reason() {
        let annotation = json!({"sidecar.istio.io/interceptionMode": "SOMEHOW"});
        let pod = json!({"metadata": {"annotations": annotation}, "spec": {"containers": []}});
        let answer = response(webhooks().on_pod(&review(&pod), &BTreeMap::new())).await;
        assert_eq!(answer["allowed"], false);
        let message = answer["status"]["message"].as_str().unwrap();
        assert!(
            message.contains("interceptionMode") && message.contains("SOMEHOW"),
            "{message}"
        );
    }

    #[tokio::test]
    async fn faults_refuse_an_object_with_their_fields_and_warnings_do_not() {
        let of = |spec: Value| {
            let object = json!({
                "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
                "metadata": {"name": "reviews", "namespace": "shop"}, "spec": spec,
            });
            response(webhooks().on_object(&review(&object)))
        };
        let route = |weight: i32| {
            json!({
                "hosts": ["reviews"],
                "http": [{"fault": {"abort": {"http2Error": "x"}}, "route": [{"destination": {"host": "reviews"}, "weight": weight}]}],
            })
        };
        let bad = of(route(-1)).await;
        assert_eq!(bad["allowed"], false);
        let message = bad["status"]["message"].as_str().unwrap();
        assert!(
            message.contains("spec.http[0].route[0].weight"),
            "{message}"
        );
        let good = of(route(1)).await;
        assert_eq!(good["allowed"], true);
        assert!(
            good["warnings"][0].as_str().unwrap().contains("fault"),
            "{good}"
        );
    }

    #[test]
    fn the_path_says_the_cluster() {
        let place = pairs("cluster/west/net/n1");
        let injection = placed(Arc::default(), &place);
        assert_eq!(injection.values.global.multi_cluster.cluster_name, "west");
    }
}
