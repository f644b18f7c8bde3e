//! ConfigMap `istio-ca-root-cert` in every namespace: the roots by which workloads know the control plane.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::{StreamExt, stream};
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
use tracing::{debug, info, warn};

use super::{Installed, LOOK, MANAGER, WATCH, named, while_leading};
use crate::backoff::Backoff;
use crate::ca::authority::Authority;
use crate::ca::bundle::Bundle;
use crate::ca::pem;
use crate::clock;
use crate::text::Str;

/// Istio's name and key.
pub const CONFIG_MAP: &str = "istio-ca-root-cert";
const KEY: &str = "root-cert.pem";
/// A namespace where writing fails, or where somebody writes something else, is left alone for up to this time.
const LONGEST: Duration = Duration::from_secs(300);
const AT_ONCE: usize = 16;
const ASK: Duration = Duration::from_secs(10);

/// Keeps every namespace's ConfigMap right while this replica leads.
pub async fn run(
    installed: Installed,
    authority: Arc<Authority>,
    leading: watch::Receiver<bool>,
    stop: CancellationToken,
) -> Result<()> {
    let work = || lead(&installed.client, &authority);
    while_leading(leading, stop, work).await;
    Ok(())
}

async fn lead(client: &Client, authority: &Authority) {
    let namespaces = Api::<PartialObjectMeta<Namespace>>::all(client.clone());
    let maps = Api::<ConfigMap>::all(client.clone());
    let config = watcher::Config::default().timeout(WATCH);
    let mut namespaces = watcher(namespaces, config).default_backoff().boxed();
    let mut maps = watcher(maps, named(CONFIG_MAP)).default_backoff().boxed();
    let mut keeper = Keeper::default();
    let mut look = time::interval(LOOK);
    loop {
        tokio::select! {
            Some(event) = namespaces.next() => keeper.on_namespace(event),
            Some(event) = maps.next() => keeper.on_map(event),
            _ = look.tick() => keeper.on_look(authority.bundle()),
        }
        let due = keeper.due(clock::mono());
        let roots = keeper.pem();
        let writes = due.into_iter().map(|namespace| async {
            let written = write(client, &namespace, &roots).await;
            (namespace, written)
        });
        let mut writes = stream::iter(writes).buffer_unordered(AT_ONCE);
        while let Some((namespace, written)) = writes.next().await {
            keeper.on_written(namespace, written, clock::mono());
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
#[derive(Default)]
struct Keeper {
    roots: Option<Bundle>,
    namespaces: Listed<()>,
    /// Which roots each namespace's ConfigMap holds, however they are written; none if it is no list of certificates.
    held: Listed<Option<Str>>,
    /// When a namespace is written again at the earliest: after a failure, and after a write, for somebody else may
    /// write something else there.
    resting: BTreeMap<String, Rest>,
    told: bool,
}

struct Rest {
    until: Instant,
    backoff: Backoff,
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
                (namespace, Some(version(&said.unwrap_or_default())))
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

    fn on_look(&mut self, roots: Bundle) {
        if self.roots.as_ref().map(Bundle::version) != Some(roots.version()) {
            self.resting.clear();
        }
        self.roots = Some(roots);
    }

    fn pem(&self) -> String {
        self.roots.as_ref().map(Bundle::pem).unwrap_or_default()
    }

    /// Namespaces whose ConfigMap is absent or holds other roots.
    fn due(&self, now: Instant) -> Vec<String> {
        let Some(roots) = &self.roots else {
            return Vec::new();
        };
        if !self.namespaces.complete || !self.held.complete {
            return Vec::new();
        }
        let wrong = |name: &&String| {
            let held = self.held.objects.get(*name).and_then(Option::as_ref);
            let rests = self.resting.get(*name).is_some_and(|rest| now < rest.until);
            held != Some(roots.version()) && !rests
        };
        self.namespaces
            .objects
            .keys()
            .filter(wrong)
            .cloned()
            .collect()
    }

    fn on_written(&mut self, namespace: String, written: Result<(), String>, now: Instant) {
        let rest = self
            .resting
            .entry(namespace.clone())
            .or_insert_with(|| Rest {
                until: now,
                backoff: Backoff::new(LOOK, LONGEST),
            });
        // Over and over the same news is none.
        let is_first = rest.until == now;
        rest.until = now + rest.backoff.after_failure();
        match written {
            Ok(()) => {
                info!(%namespace, "{CONFIG_MAP} written");
                let version = self.roots.as_ref().map(|roots| roots.version().clone());
                self.held.objects.insert(namespace, version);
            }
            Err(why) if is_first => {
                warn!(%namespace, %why, "{CONFIG_MAP} not written; it is tried again");
            }
            Err(why) => debug!(%namespace, %why, "{CONFIG_MAP} not written"),
        }
    }
}

/// Which roots a text holds.
fn version(text: &str) -> Option<Str> {
    let roots = pem::certificates(text.as_bytes()).ok()?;
    Some(Bundle::new(roots).ok()?.version().clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::testing::{authority, now};

    fn namespace(name: &str) -> PartialObjectMeta<Namespace> {
        serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
    }

    fn map(namespace: &str, roots: &str) -> ConfigMap {
        let map =
            json!({"metadata": {"name": CONFIG_MAP, "namespace": namespace}, "data": {KEY: roots}});
        serde_json::from_value(map).unwrap()
    }

    fn keeper(roots: &Bundle) -> Keeper {
        let mut keeper = Keeper::default();
        keeper.on_look(roots.clone());
        for event in [
            Event::Init,
            Event::InitApply(namespace("a")),
            Event::InitApply(namespace("b")),
        ] {
            keeper.on_namespace(Ok(event));
        }
        assert!(
            keeper.due(clock::mono()).is_empty(),
            "before the listings are complete"
        );
        keeper.on_namespace(Ok(Event::InitDone));
        keeper.on_map(Ok(Event::Init));
        // As another control plane of the same authority may write it.
        keeper.on_map(Ok(Event::InitApply(map(
            "b",
            &format!("# roots\n{}\n\n", roots.pem()),
        ))));
        keeper.on_map(Ok(Event::InitDone));
        keeper
    }

    #[test]
    fn what_is_absent_changed_or_deleted_is_written() {
        let mut keeper = keeper(&authority(now()).bundle());
        let at = clock::mono();
        assert_eq!(keeper.due(at), ["a"]);
        keeper.on_written("a".to_owned(), Ok(()), at);
        assert!(keeper.due(at).is_empty());
        keeper.on_map(Ok(Event::Apply(map("b", "other"))));
        keeper.on_map(Ok(Event::Delete(map("a", "roots"))));
        let later = at + 3 * LOOK;
        assert_eq!(keeper.due(later), ["a", "b"]);
        let going = json!({"metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        keeper.on_namespace(Ok(Event::Apply(serde_json::from_value(going).unwrap())));
        assert_eq!(keeper.due(later), ["b"]);
    }

    #[test]
    fn whoever_writes_something_else_is_answered_ever_more_seldom() {
        let mut keeper = keeper(&authority(now()).bundle());
        let mut at = clock::mono();
        let mut waits = Vec::new();
        for _ in 0..4 {
            keeper.on_written("a".to_owned(), Ok(()), at);
            keeper.on_map(Ok(Event::Apply(map("a", "theirs"))));
            let before = at;
            while keeper.due(at).is_empty() {
                at += Duration::from_secs(1);
            }
            waits.push(at - before);
        }
        assert!(waits.is_sorted() && waits[3] >= 4 * waits[0], "{waits:?}");
    }

    #[test]
    fn new_roots_go_everywhere_at_once() {
        let mut keeper = keeper(&authority(now()).bundle());
        let at = clock::mono();
        keeper.on_written("a".to_owned(), Err("forbidden".to_owned()), at);
        assert!(keeper.due(at).is_empty());
        keeper.on_look(authority(now()).bundle());
        assert_eq!(keeper.due(at), ["a", "b"]);
    }
}
