//! WorkloadEntries of proxies that came by themselves: while a stream says so, and a little longer.
//!
//! It says what is to be taken in; `intake` does it, and hands the answers on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time;

use crate::acceptance::{Acceptance, Persisted};
use crate::cli::settings::Source;
use crate::clock;
use crate::config::decode::lines::Lines;
use crate::config::decode::{DecodedObject, Place};
use crate::config::event::Event;
use crate::config::{Key, Kind, Object, Spec};
use crate::delivery::registrar::Registration;
use crate::model::registration::{self, Entrant, Refused, is_entered};
use crate::source::Batch;
use crate::text::Str;

/// For how long an entry outlives its proxy's last stream: one that comes again meanwhile was never away.
const GRACE: Duration = Duration::from_secs(10);
/// As many machines as a namespace in files has, and more: none fills the places of others.
const MOST: usize = 1_000;

#[derive(Debug)]
struct Entry {
    object: Arc<Object>,
    streams: usize,
}

/// What the intake keeps entries by, and what streams ask of it.
pub struct Entered {
    pub registry: Registry,
    pub asked: mpsc::Receiver<Registration>,
}

#[derive(Debug, Default)]
pub struct Registry {
    entries: BTreeMap<Key, Entry>,
    /// When those go whose proxies have no stream, unless they come again.
    leaving: BTreeMap<Key, Instant>,
}

impl Entered {
    /// What is to be taken in next: a batch of the source, or what comes of proxies. None when the source ends.
    pub async fn hear(
        &mut self,
        batches: &mut mpsc::Receiver<Batch>,
        acceptance: &Acceptance,
    ) -> Option<Batch> {
        loop {
            let over = self.registry.deadline();
            let over = async {
                match over {
                    Some(at) => time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let now = clock::mono;
            let events = tokio::select! {
                batch = batches.recv() => {
                    let (events, seen) = batch?;
                    return Some((self.registry.complete(events), seen));
                }
                Some(asked) = self.asked.recv() => self.registry.on(asked, acceptance, now()),
                () = over => self.registry.expire(now()),
            };
            if !events.is_empty() {
                return Some((events, now()));
            }
        }
    }
}

impl Registry {
    /// Begins with what an earlier process had entered: their proxies had no time yet to come again.
    fn resume<'o>(objects: impl Iterator<Item = &'o Arc<Object>>, now: Instant) -> Self {
        let entered = objects.filter(|object| is_entered(object)).map(|object| {
            let entry = Entry {
                object: object.clone(),
                streams: 0,
            };
            (object.key(), entry)
        });
        let entries: BTreeMap<Key, Entry> = entered.collect();
        let leaving = entries.keys().map(|key| (key.clone(), now + GRACE));
        Self {
            leaving: leaving.collect(),
            entries,
        }
    }

    fn on(&mut self, asked: Registration, acceptance: &Acceptance, now: Instant) -> Vec<Event> {
        let (entrant, reply) = match asked {
            Registration::Enter(entrant, reply) => (entrant, reply),
            Registration::Leave(key) => {
                self.leave(&key, now);
                return Vec::new();
            }
        };
        let (answer, event) = match self.enter(&entrant, acceptance) {
            Ok((key, event)) => (Ok(key), event),
            Err(refused) => (Err(refused), None),
        };
        // A stream that is gone already will not say so.
        if let Err(Ok(key)) = reply.send(answer) {
            self.leave(&key, now);
        }
        event.into_iter().collect()
    }

    /// With an API server entries are others', whoever wrote them.
    pub fn of(source: &Source, accepted: Option<&Persisted>, now: Instant) -> Self {
        match (source, accepted) {
            (Source::Files(_), Some(accepted)) => {
                Self::resume(accepted.objects.iter().map(|kept| &kept.object), now)
            }
            (Source::Files(_) | Source::Kubernetes(_), _) => Self::default(),
        }
    }

    /// Which object a proxy is entered as, or why it is not.
    fn enter(
        &mut self,
        entrant: &Entrant,
        acceptance: &Acceptance,
    ) -> Result<(Key, Option<Event>), Refused> {
        let key = registration::key(entrant);
        let group = Key {
            kind: Kind::WorkloadGroup,
            namespace: key.namespace.clone(),
            name: entrant.group.clone(),
        };
        let found = acceptance.get(&group).map(|object| &object.spec);
        let Some(Spec::WorkloadGroup(spec)) = found else {
            return Err(Refused::NoGroup {
                namespace: group.namespace,
                group: group.name,
            });
        };
        let object = Arc::new(registration::entry(spec, entrant)?);
        let beside = self.entries.keys();
        let beside = beside.filter(|other| other.namespace == key.namespace);
        let room = beside.count() < MOST;
        match self.entries.get_mut(&key) {
            Some(entry) if account(&entry.object) != account(&object) => {
                let owner = account(&entry.object).cloned().unwrap_or_default();
                return Err(Refused::Another(key, owner));
            }
            Some(entry) => {
                entry.streams += 1;
                self.leaving.remove(&key);
                if entry.object == object {
                    return Ok((key, None));
                }
                entry.object = object.clone();
            }
            None if acceptance.get(&key).is_some() => return Err(Refused::Taken(key)),
            None if !room => return Err(Refused::Full(MOST)),
            None => {
                let entry = Entry {
                    object: object.clone(),
                    streams: 1,
                };
                self.entries.insert(key.clone(), entry);
            }
        }
        Ok((key, Some(applied(object))))
    }

    fn leave(&mut self, key: &Key, now: Instant) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.streams = entry.streams.saturating_sub(1);
            if entry.streams == 0 {
                self.leaving.insert(key.clone(), now + GRACE);
            }
        }
    }

    /// When the next one goes.
    fn deadline(&self) -> Option<Instant> {
        self.leaving.values().min().copied()
    }

    /// Those whose proxies did not come again.
    fn expire(&mut self, now: Instant) -> Vec<Event> {
        let over = self.leaving.iter().filter(|(_, at)| **at <= now);
        let gone: Vec<Key> = over.map(|(key, _)| key.clone()).collect();
        for key in &gone {
            self.leaving.remove(key);
            self.entries.remove(key);
        }
        gone.into_iter().map(Event::Delete).collect()
    }

    /// A listing names what its source has: what came by itself is said again with it.
    pub fn complete(&self, events: Vec<Event>) -> Vec<Event> {
        let mut out = Vec::with_capacity(events.len());
        for event in events {
            if event == Event::InitDone {
                let all = self.entries.values();
                out.extend(all.map(|entry| applied(entry.object.clone())));
            }
            out.push(event);
        }
        out
    }
}

/// Whose entry it is.
fn account(object: &Object) -> Option<&Str> {
    match &object.spec {
        Spec::WorkloadEntry(spec) => Some(&spec.service_account),
        _ => None,
    }
}

fn applied(object: Arc<Object>) -> Event {
    Event::Apply(DecodedObject {
        object,
        place: Place {
            file: Str::default(),
            lines: Lines::unknown(),
        },
        warnings: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acceptance::Options;
    use crate::config::decode;
    use crate::identity::SpiffeId;
    use crate::model::proxy::Proxy;

    const GROUP: &str = "apiVersion: networking.istio.io/v1\nkind: WorkloadGroup\nmetadata: {name: db, namespace: shop}\n\
                         spec: {template: {labels: {app: db}}}\n";

    fn acceptance(text: &str) -> Acceptance {
        let mut acceptance = Acceptance::new(Options {
            hold_unresolved: true,
            domain: "cluster.local".into(),
        });
        let file = Event::File(decode::documents(text, "f.yaml"));
        acceptance.on(vec![Event::Init, file, Event::InitDone]);
        acceptance
    }

    fn entrant(group: &str, ip: &str) -> Entrant {
        let id = format!("sidecar~{ip}~vm.shop~shop.svc.cluster.local");
        let identity = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/db").unwrap();
        Entrant {
            group: group.into(),
            proxy: Proxy::parse(&id, serde_json::Value::Null, Some(identity)).unwrap(),
        }
    }

    #[test]
    fn another_account_takes_nobodys_entry() {
        let acceptance = acceptance(GROUP);
        let mut registry = Registry::default();
        let (key, _) = registry
            .enter(&entrant("db", "10.9.0.1"), &acceptance)
            .unwrap();
        let mut thief = entrant("db", "10.9.0.1");
        thief.proxy.identity = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/other").ok();
        let refused = registry.enter(&thief, &acceptance).unwrap_err();
        assert_eq!(refused, Refused::Another(key, "db".into()));
    }

    #[test]
    fn an_entry_goes_a_while_after_the_last_stream_of_its_proxy() {
        let (mut acceptance, now) = (acceptance(GROUP), crate::clock::mono());
        let mut registry = Registry::default();
        let vm = entrant("db", "10.9.0.1");
        let (key, event) = registry.enter(&vm, &acceptance).unwrap();
        assert_eq!(acceptance.on(event.into_iter().collect()).len(), 1);
        // It comes again before its first stream ended, and again in time.
        assert_eq!(
            registry.enter(&vm, &acceptance).unwrap(),
            (key.clone(), None)
        );
        registry.leave(&key, now);
        assert_eq!(registry.deadline(), None);
        registry.leave(&key, now);
        assert!(registry.expire(now).is_empty());
        assert_eq!(
            registry.enter(&vm, &acceptance).unwrap(),
            (key.clone(), None)
        );
        registry.leave(&key, now);
        let gone = registry.expire(now + GRACE);
        assert_eq!(gone, [Event::Delete(key.clone())]);
        acceptance.on(gone);
        assert!(acceptance.get(&key).is_none());
        assert_eq!(registry.deadline(), None);
    }

    #[test]
    fn who_names_no_group_or_would_take_anothers_place_is_refused() {
        let entry = "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: db-10.9.0.1, \
                     namespace: shop}\nspec: {address: 10.1.1.1}\n";
        let acceptance = acceptance(&format!("{GROUP}{entry}"));
        let mut registry = Registry::default();
        let refused = |registry: &mut Registry, entrant: &Entrant| {
            registry
                .enter(entrant, &acceptance)
                .unwrap_err()
                .to_string()
        };
        let told = refused(&mut registry, &entrant("nope", "10.9.0.2"));
        assert_eq!(told, "no WorkloadGroup shop/nope");
        let told = refused(&mut registry, &entrant("db", "10.9.0.1"));
        assert!(told.contains("db-10.9.0.1 is there already"), "{told}");
    }

    #[test]
    fn entries_outlive_a_listing_and_a_restart() {
        let (mut acceptance, now) = (acceptance(GROUP), crate::clock::mono());
        let mut registry = Registry::default();
        let (key, event) = registry
            .enter(&entrant("db", "10.9.0.1"), &acceptance)
            .unwrap();
        acceptance.on(event.into_iter().collect());
        let mut again = Registry::resume(acceptance.objects(), now);
        let file = Event::File(decode::documents(GROUP, "f.yaml"));
        let listing = again.complete(vec![Event::Init, file, Event::InitDone]);
        assert_eq!(acceptance.on(listing), []);
        assert!(acceptance.get(&key).is_some());
        assert_eq!(again.expire(now + GRACE), [Event::Delete(key)]);
    }
}
