//! Which revision is the cluster's default: the one that the tag `default` leads to, as `istioctl tag` sets it.

use std::collections::BTreeMap;

use anyhow::Result;
use futures_util::StreamExt;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Installed, WATCH};
use crate::text::Str;

const TAG: &str = "istio.io/tag=default";
const REVISION: &str = "istio.io/rev";
/// Where no tag says otherwise.
const DEFAULT: &str = "default";

/// Whether a revision is the default, by what the tag says.
pub fn is_default(revision: &str, tagged: Option<&Str>) -> bool {
    let revision = match revision {
        "" => DEFAULT,
        named => named,
    };
    revision == tagged.map_or(DEFAULT, Str::as_str)
}

/// Follows the tag until `stop`.
pub async fn run(
    installed: Installed,
    publish: watch::Sender<Option<Str>>,
    stop: CancellationToken,
) -> Result<()> {
    let api = Api::<MutatingWebhookConfiguration>::all(installed.client.clone());
    let config = watcher::Config::default().timeout(WATCH).labels(TAG);
    let mut events = watcher(api, config).default_backoff().boxed();
    let mut known: BTreeMap<String, Option<Str>> = BTreeMap::new();
    let mut told = false;
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(event) = events.next() => event,
        };
        match event {
            Ok(event) => remember(&mut known, event),
            Err(why) => {
                if !std::mem::replace(&mut told, true) {
                    warn!(%why, "the tag `default` cannot be watched; it is tried again");
                }
                continue;
            }
        }
        let tagged = known.values().flatten().next().cloned();
        publish.send_if_modified(|now| std::mem::replace(now, tagged.clone()) != tagged);
    }
}

fn remember(known: &mut BTreeMap<String, Option<Str>>, event: Event<MutatingWebhookConfiguration>) {
    match event {
        Event::Init => known.clear(),
        Event::Apply(object) | Event::InitApply(object) => {
            let revision = object.labels().get(REVISION).map(Str::new);
            known.insert(object.name_any(), revision);
        }
        Event::Delete(object) => drop(known.remove(&object.name_any())),
        Event::InitDone => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_says_which_revision_is_the_default_and_without_it_the_name() {
        let canary = Str::new_static("canary");
        assert!(is_default("default", None) && is_default("", None));
        assert!(!is_default("canary", None));
        assert!(is_default("canary", Some(&canary)));
        assert!(!is_default("default", Some(&canary)));
    }
}
