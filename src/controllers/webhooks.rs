//! The roots by which the API server knows our webhooks: put into the webhooks' own objects, and nothing else of them.
//!
//! Charts and GitOps leave `caBundle` out, so what is written here is no drift.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use data_encoding::BASE64;
use futures_util::StreamExt;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Installed, LOOK, MANAGER, WATCH, while_leading};
use crate::ca::authority::Authority;
use crate::telemetry::metrics::Metrics;
use crate::text::Str;

/// Our webhooks' names end so; others may stand in the same object.
const OURS: &[&str] = &["sidecar-injector.istio.io", "validation.istio.io"];
const REVISION: &str = "istio.io/rev";
const ASK: Duration = Duration::from_secs(10);

/// Keeps the bundles right while this replica leads.
pub async fn run(
    installed: Installed,
    authority: Arc<Authority>,
    metrics: Arc<Metrics>,
    leading: watch::Receiver<bool>,
    stop: CancellationToken,
) -> Result<()> {
    let patcher = Patcher {
        client: installed.client.clone(),
        service: Service {
            name: installed.revised("istiod"),
            namespace: installed.namespace.clone(),
        },
        revision: installed.revision.clone(),
        authority,
        metrics,
    };
    while_leading(leading, stop, || patcher.lead()).await;
    Ok(())
}

/// Where our webhooks lead. Another control plane's, with the same label, lead elsewhere.
struct Service {
    name: String,
    namespace: Str,
}

struct Patcher {
    client: Client,
    service: Service,
    revision: Str,
    authority: Arc<Authority>,
    metrics: Arc<Metrics>,
}

impl Patcher {
    async fn lead(&self) {
        let mutating = ApiResource::erase::<MutatingWebhookConfiguration>(&());
        let validating = ApiResource::erase::<ValidatingWebhookConfiguration>(&());
        tokio::join!(self.keep(mutating), self.keep(validating));
    }

    /// The objects of one kind and our revision.
    async fn keep(&self, kind: ApiResource) {
        let api = Api::<DynamicObject>::all_with(self.client.clone(), &kind);
        let labelled = format!("{REVISION}={}", self.revision);
        let config = watcher::Config::default().timeout(WATCH).labels(&labelled);
        let mut events = watcher(api.clone(), config).default_backoff().boxed();
        let mut known: Vec<DynamicObject> = Vec::new();
        let mut look = time::interval(LOOK);
        let mut told = false;
        loop {
            tokio::select! {
                Some(event) = events.next() => match event {
                    Ok(event) => remember(&mut known, event),
                    Err(why) if !told => {
                        told = true;
                        warn!(kind = %kind.kind, %why, "webhook configurations cannot be watched; it is tried again");
                    }
                    Err(_) => {}
                },
                _ = look.tick() => {}
            }
            let bundle = BASE64.encode(self.authority.bundle().pem().as_bytes());
            let mut written = Vec::new();
            for object in &known {
                if let Some(patch) = patch(&object.data, &self.service, &bundle)
                    && self.write(&api, object, patch).await
                {
                    written.push(object.name_any());
                }
            }
            // The watch tells what they are now.
            known.retain(|object| !written.contains(&object.name_any()));
        }
    }

    /// Whether it was written.
    async fn write(&self, api: &Api<DynamicObject>, object: &DynamicObject, patch: Value) -> bool {
        let name = object.name_any();
        self.metrics.webhook_patches.inc();
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let outcome = match serde_json::from_value(patch) {
            Ok(patch) => {
                let patch = Patch::<()>::Json(patch);
                match time::timeout(ASK, api.patch(&name, &params, &patch)).await {
                    Ok(written) => written.map(drop).map_err(|e| e.to_string()),
                    Err(_) => Err("no answer in time".to_owned()),
                }
            }
            Err(why) => Err(why.to_string()),
        };
        match &outcome {
            Ok(()) => info!(%name, "roots put into a webhook configuration"),
            Err(why) => {
                self.metrics.webhook_patch_failures.inc();
                warn!(%name, %why, "roots not put into a webhook configuration; it is tried again");
            }
        }
        outcome.is_ok()
    }
}

fn remember(known: &mut Vec<DynamicObject>, event: Event<DynamicObject>) {
    match event {
        Event::Init => known.clear(),
        Event::InitDone => {}
        Event::Apply(object) | Event::InitApply(object) => {
            let name = object.name_any();
            known.retain(|o| o.name_any() != name);
            known.push(object);
        }
        Event::Delete(object) => {
            let name = object.name_any();
            known.retain(|o| o.name_any() != name);
        }
    }
}

/// What makes the bundles of our webhooks right; None if they are. Each is written only if the webhook at its
/// place is still the one that was seen.
fn patch(configuration: &Value, service: &Service, bundle: &str) -> Option<Value> {
    let webhooks = configuration["webhooks"].as_array()?;
    let mut steps = Vec::new();
    for (i, webhook) in webhooks.iter().enumerate() {
        let name = webhook["name"].as_str().unwrap_or_default();
        let named = OURS.iter().any(|end| name.ends_with(end));
        let to = &webhook["clientConfig"]["service"];
        let ours =
            to["name"] == service.name.as_str() && to["namespace"] == service.namespace.as_str();
        if named && ours && webhook["clientConfig"]["caBundle"] != bundle {
            steps.push(json!({"op": "test", "path": format!("/webhooks/{i}/name"), "value": name}));
            let place = format!("/webhooks/{i}/clientConfig/caBundle");
            steps.push(json!({"op": "add", "path": place, "value": bundle}));
        }
    }
    (!steps.is_empty()).then_some(Value::Array(steps))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bundles_of_our_webhooks_that_differ_are_written() {
        let service = Service {
            name: "istiod".to_owned(),
            namespace: "istio-system".into(),
        };
        let to = |namespace: &str, name: &str, bundle: &str| {
            let service = json!({"name": "istiod", "namespace": namespace});
            json!({"name": name, "clientConfig": {"service": service, "caBundle": bundle}})
        };
        let of = |name: &str, bundle: &str| to("istio-system", name, bundle);
        let configuration = json!({"webhooks": [
            of("other.example.com", ""),
            of("namespace.sidecar-injector.istio.io", "new"),
            of("object.sidecar-injector.istio.io", "old"),
            to("elsewhere", "object.sidecar-injector.istio.io", "theirs"),
        ]});
        let steps = patch(&configuration, &service, "new").unwrap();
        assert_eq!(
            steps,
            json!([
                {"op": "test", "path": "/webhooks/2/name", "value": "object.sidecar-injector.istio.io"},
                {"op": "add", "path": "/webhooks/2/clientConfig/caBundle", "value": "new"},
            ])
        );
        assert_eq!(patch(&json!({"webhooks": []}), &service, "new"), None);
        assert_eq!(patch(&json!({}), &service, "new"), None);
    }
}
