//! What is wrong with an object, as an Event of its own: `kubectl describe` shows it where its author looks.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::{mpsc, watch};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::served::Served;
use super::{Installed, MANAGER};
use crate::config::api::{ApiKind, KINDS};
use crate::diagnostic::{Diagnostic, Level, Subject};

/// Findings that wait to be told; more than these stand in the log alone.
pub const WAITING: usize = 256;
/// Between two Events: a cluster has better things to store.
const PAUSE: Duration = Duration::from_millis(200);
const ASK: Duration = Duration::from_secs(10);
/// In bytes, by the API (`events.k8s.io/v1`, `note`).
const LONGEST_NOTE: usize = 1024;

/// Tells what is found while this replica leads. What was found before anybody knew who leads waits until then.
pub async fn run(
    installed: Installed,
    instance: String,
    mut found: mpsc::Receiver<Diagnostic>,
    mut leading: watch::Receiver<bool>,
    stop: CancellationToken,
) -> Result<()> {
    let mut teller = Teller {
        served: Served::new(installed.client.clone()),
        installed,
        instance,
        failing: false,
    };
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        _ = leading.changed() => {}
    }
    loop {
        let finding = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            finding = found.recv() => finding,
        };
        let Some(finding) = finding else {
            return Ok(());
        };
        if !*leading.borrow() {
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = teller.turn(&finding) => {}
        }
    }
}

struct Teller {
    installed: Installed,
    instance: String,
    served: Served,
    failing: bool,
}

impl Teller {
    async fn turn(&mut self, finding: &Diagnostic) {
        let told = time::timeout(ASK, self.tell(finding)).await;
        let told = told.unwrap_or_else(|_| bail!("no answer in time"));
        if told.is_err() {
            // Its versions may be others now.
            self.served.forget();
        }
        match told {
            Ok(()) => self.failing = false,
            Err(why) if self.failing => debug!(why = format!("{why:#}"), "Event not written"),
            Err(why) => {
                self.failing = true;
                warn!(
                    why = format!("{why:#}"),
                    "Events of objects are not written; the log has what they would say"
                );
            }
        }
        time::sleep(PAUSE).await;
    }

    async fn tell(&mut self, finding: &Diagnostic) -> Result<()> {
        let Some((kind, subject)) = of_istios(finding) else {
            return Ok(());
        };
        let resource = self.served.resource(kind).await?;
        let Some(regarding) = self.reference(&resource, subject).await? else {
            // It went meanwhile.
            return Ok(());
        };
        let reporter = Reporter {
            controller: MANAGER.to_owned(),
            instance: Some(self.instance.clone()),
        };
        // Of this one Event: what is told twice is told by different words, which a series would hide.
        let recorder = Recorder::new(self.installed.client.clone(), reporter);
        let written = recorder.publish(&event(finding), &regarding).await;
        written.context("write the Event: allow `create` of events in group events.k8s.io")
    }

    /// With its uid, by which `kubectl describe` looks for Events.
    async fn reference(
        &self,
        resource: &ApiResource,
        subject: &Subject,
    ) -> Result<Option<ObjectReference>> {
        let client = self.installed.client.clone();
        let objects = Api::<DynamicObject>::namespaced_with(client, &subject.namespace, resource);
        let one = ListParams::default().fields(&format!("metadata.name={}", subject.name));
        let found = objects.list_metadata(&one).await?;
        Ok(found
            .items
            .into_iter()
            .next()
            .map(|object| ObjectReference {
                api_version: Some(resource.api_version.clone()),
                kind: Some(resource.kind.clone()),
                namespace: object.metadata.namespace,
                name: object.metadata.name,
                uid: object.metadata.uid,
                ..ObjectReference::default()
            }))
    }
}

/// An object of Istio's in a namespace: what else has findings is nobody's who would look there.
fn of_istios(finding: &Diagnostic) -> Option<(&'static ApiKind, &Subject)> {
    let subject = finding.resource.as_ref()?;
    let kind = KINDS.iter().find(|kind| subject.kind == kind.kind)?;
    (!subject.namespace.is_empty()).then_some((kind, subject))
}

fn event(finding: &Diagnostic) -> Event {
    let mut note = match finding.field.as_str() {
        "" => finding.message.clone(),
        field => format!("{field}: {}", finding.message),
    };
    if note.len() > LONGEST_NOTE {
        let end = (0..=LONGEST_NOTE).rfind(|at| note.is_char_boundary(*at));
        note.truncate(end.unwrap_or_default());
    }
    Event {
        type_: match finding.level {
            Level::Error | Level::Warning => EventType::Warning,
            Level::Info => EventType::Normal,
        },
        reason: format!("{:?}", finding.code),
        note: Some(note),
        action: "Accept".to_owned(),
        secondary: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Code;
    use crate::text::Str;

    fn finding(kind: &'static str, namespace: &'static str, message: &str) -> Diagnostic {
        Diagnostic {
            level: Level::Error,
            code: Code::InvalidValue,
            resource: Some(Subject {
                kind: Str::new_static(kind),
                namespace: Str::new_static(namespace),
                name: Str::new_static("cups"),
            }),
            field: Str::new_static("spec.hosts"),
            file: None,
            line: None,
            message: message.to_owned(),
        }
    }

    #[test]
    fn an_event_says_where_and_why_within_its_bound() {
        let said = event(&finding("VirtualService", "shop", "it is empty"));
        assert_eq!(said.note.as_deref(), Some("spec.hosts: it is empty"));
        assert_eq!(
            (said.reason.as_str(), said.type_),
            ("InvalidValue", EventType::Warning)
        );
        let long = event(&finding("VirtualService", "shop", &"ä".repeat(2000)));
        assert!(long.note.is_some_and(|note| note.len() <= LONGEST_NOTE));
    }

    #[test]
    fn only_objects_of_istios_have_events() {
        assert!(of_istios(&finding("VirtualService", "shop", "")).is_some());
        assert!(of_istios(&finding("Service", "shop", "")).is_none());
        assert!(of_istios(&finding("VirtualService", "", "")).is_none());
    }
}
