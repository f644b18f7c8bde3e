//! ConfigMap `istio-ca-root-cert` in every namespace: the roots by which workloads know the control plane.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Installed, LOOK, MANAGER, WATCH, named};
use crate::ca::authority::Authority;

/// Istio's name and key.
pub const CONFIG_MAP: &str = "istio-ca-root-cert";
const KEY: &str = "root-cert.pem";
/// A namespace that could not be written is tried again with all others after this time.
const AGAIN: Duration = LOOK;
const ASK: Duration = Duration::from_secs(10);

/// Keeps every namespace's ConfigMap right while this replica leads.
pub async fn run(
    installed: Installed,
    authority: Arc<Authority>,
    mut leading: watch::Receiver<bool>,
    stop: CancellationToken,
) -> Result<()> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            led = leading.wait_for(|leads| *leads) => if led.is_err() {
                return Ok(());
            },
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = leading.wait_for(|leads| !*leads) => {}
            () = lead(&installed.client, &authority) => {}
        }
    }
}

async fn lead(client: &Client, authority: &Authority) {
    let namespaces = Api::<PartialObjectMeta<Namespace>>::all(client.clone());
    let maps = Api::<ConfigMap>::all(client.clone());
    let config = watcher::Config::default().timeout(WATCH);
    let mut namespaces = watcher(namespaces, config).default_backoff().boxed();
    let mut maps = watcher(maps, named(CONFIG_MAP)).default_backoff().boxed();
    let mut keeper = Keeper::default();
    let mut look = time::interval(AGAIN);
    loop {
        tokio::select! {
            Some(event) = namespaces.next() => keeper.on_namespace(event),
            Some(event) = maps.next() => keeper.on_map(event),
            _ = look.tick() => keeper.on_look(authority.bundle().pem()),
        }
        for namespace in keeper.due() {
            let written = write(client, &namespace, keeper.roots()).await;
            keeper.on_written(namespace, written);
        }
    }
}

async fn write(client: &Client, namespace: &str, roots: &str) -> Result<(), String> {
    let api = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CONFIG_MAP, "labels": {"istio.io/config": "true"}},
        "data": {KEY: roots},
    });
    let apply = PatchParams::apply(MANAGER).force();
    let patch = Patch::Apply(&map);
    match time::timeout(ASK, api.patch(CONFIG_MAP, &apply, &patch)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// What there is, and what ought to be.
#[derive(Debug, Default)]
struct Keeper {
    roots: String,
    namespaces: Listed<()>,
    /// What each namespace's ConfigMap says.
    held: Listed<String>,
    /// Not tried again before the next look.
    failed: BTreeSet<String>,
    told: bool,
}

/// Objects by namespace. Nothing is known before a first listing is complete.
#[derive(Debug)]
struct Listed<T> {
    objects: BTreeMap<String, T>,
    next: Option<BTreeMap<String, T>>,
    complete: bool,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            next: None,
            complete: false,
        }
    }
}

impl<T> Listed<T> {
    /// `read` gives what is kept of an object; None for one that counts as gone.
    fn on<K>(&mut self, event: Event<K>, read: impl Fn(K) -> (String, Option<T>)) {
        match event {
            Event::Init => self.next = Some(BTreeMap::new()),
            Event::InitApply(object) => {
                if let (name, Some(kept)) = read(object) {
                    self.next.get_or_insert_default().insert(name, kept);
                }
            }
            Event::InitDone => {
                self.objects = self.next.take().unwrap_or_default();
                self.complete = true;
            }
            Event::Apply(object) => match read(object) {
                (name, Some(kept)) => drop(self.objects.insert(name, kept)),
                (name, None) => drop(self.objects.remove(&name)),
            },
            Event::Delete(object) => drop(self.objects.remove(&read(object).0)),
        }
    }
}

type Watched<K> = Result<Event<K>, watcher::Error>;

impl Keeper {
    fn on_namespace(&mut self, event: Watched<PartialObjectMeta<Namespace>>) {
        match event {
            Ok(event) => self.namespaces.on(event, |namespace| {
                // Nothing can be made in one that is going.
                let stays = namespace.metadata.deletion_timestamp.is_none();
                (namespace.name_any(), stays.then_some(()))
            }),
            Err(why) => self.tell(&why),
        }
    }

    fn on_map(&mut self, event: Watched<ConfigMap>) {
        match event {
            Ok(event) => self.held.on(event, |map| {
                let namespace = map.namespace().unwrap_or_default();
                let said = map.data.unwrap_or_default().remove(KEY);
                (namespace, Some(said.unwrap_or_default()))
            }),
            Err(why) => self.tell(&why),
        }
    }

    fn tell(&mut self, why: &watcher::Error) {
        if !self.told {
            self.told = true;
            warn!(%why, "{CONFIG_MAP} of the namespaces cannot be watched; it is tried again");
        }
    }

    fn on_look(&mut self, roots: String) {
        self.roots = roots;
        self.failed.clear();
    }

    fn roots(&self) -> &str {
        &self.roots
    }

    /// Namespaces whose ConfigMap is absent or says something else.
    fn due(&self) -> Vec<String> {
        if self.roots.is_empty() || !self.namespaces.complete || !self.held.complete {
            return Vec::new();
        }
        let wrong = |name: &&String| {
            self.held.objects.get(*name) != Some(&self.roots) && !self.failed.contains(*name)
        };
        self.namespaces
            .objects
            .keys()
            .filter(wrong)
            .cloned()
            .collect()
    }

    fn on_written(&mut self, namespace: String, written: Result<(), String>) {
        match written {
            Ok(()) => {
                info!(%namespace, "{CONFIG_MAP} written");
                self.held.objects.insert(namespace, self.roots.clone());
            }
            Err(why) => {
                warn!(%namespace, %why, "{CONFIG_MAP} not written; it is tried again");
                self.failed.insert(namespace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(name: &str) -> PartialObjectMeta<Namespace> {
        serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
    }

    fn map(namespace: &str, roots: &str) -> ConfigMap {
        let map =
            json!({"metadata": {"name": CONFIG_MAP, "namespace": namespace}, "data": {KEY: roots}});
        serde_json::from_value(map).unwrap()
    }

    fn keeper() -> Keeper {
        let mut keeper = Keeper::default();
        keeper.on_look("roots".to_owned());
        for event in [
            Event::Init,
            Event::InitApply(namespace("a")),
            Event::InitApply(namespace("b")),
        ] {
            keeper.on_namespace(Ok(event));
        }
        assert!(keeper.due().is_empty(), "before the listings are complete");
        keeper.on_namespace(Ok(Event::InitDone));
        keeper.on_map(Ok(Event::Init));
        keeper.on_map(Ok(Event::InitApply(map("b", "roots"))));
        keeper.on_map(Ok(Event::InitDone));
        keeper
    }

    #[test]
    fn what_is_absent_changed_or_deleted_is_written() {
        let mut keeper = keeper();
        assert_eq!(keeper.due(), ["a"]);
        keeper.on_written("a".to_owned(), Ok(()));
        assert!(keeper.due().is_empty());
        keeper.on_map(Ok(Event::Apply(map("b", "other"))));
        keeper.on_map(Ok(Event::Delete(map("a", "roots"))));
        assert_eq!(keeper.due(), ["a", "b"]);
        let going = json!({"metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        keeper.on_namespace(Ok(Event::Apply(serde_json::from_value(going).unwrap())));
        assert_eq!(keeper.due(), ["b"]);
    }

    #[test]
    fn what_could_not_be_written_waits_for_the_next_look_and_new_roots_go_everywhere() {
        let mut keeper = keeper();
        keeper.on_written("a".to_owned(), Err("forbidden".to_owned()));
        assert!(keeper.due().is_empty());
        keeper.on_look("new".to_owned());
        assert_eq!(keeper.due(), ["a", "b"]);
    }
}
