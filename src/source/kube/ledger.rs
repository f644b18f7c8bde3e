//! Which objects each watch told of, so that a listing says what is gone. Pure; watching is in `watch`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use crate::config::decode::Outcome;
use crate::config::event::Event;
use crate::config::{Key, Kind};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::watching::Happened;
use crate::text::Str;

/// What a watch says of its kind.
#[derive(Debug)]
pub(super) enum Said {
    /// A listing begins; what it does not name until it is done is gone.
    Init,
    Apply(Key, Box<Outcome>),
    Delete(Key),
    InitDone,
}

#[derive(Debug)]
pub(super) struct Told {
    pub(super) kind: Kind,
    pub(super) said: Said,
    pub(super) seen: Instant,
}

pub(super) struct Ledger {
    sheets: BTreeMap<Kind, Sheet>,
    stage: Stage,
    metrics: Arc<Metrics>,
}

/// What is known of one kind.
#[derive(Default)]
struct Sheet {
    known: BTreeSet<Name>,
    /// While it is listed: what the listing has not named so far.
    unseen: Option<BTreeSet<Name>>,
    listed: bool,
}

type Name = (Str, Str);

enum Stage {
    /// Not everything was listed once. The newest form of each object waits for that.
    Listing {
        objects: BTreeMap<Key, Event>,
        files: Vec<Event>,
        awaits_file: bool,
    },
    Live,
}

impl Ledger {
    /// `awaits_file`: a file tells objects, too.
    pub(super) fn new(kinds: &[Kind], awaits_file: bool, metrics: Arc<Metrics>) -> Self {
        Self {
            sheets: kinds.iter().map(|kind| (*kind, Sheet::default())).collect(),
            stage: Stage::Listing {
                objects: BTreeMap::new(),
                files: Vec::new(),
                awaits_file,
            },
            metrics,
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        matches!(self.stage, Stage::Live)
    }

    pub(super) fn len(&self) -> usize {
        self.sheets.values().map(|sheet| sheet.known.len()).sum()
    }

    /// What is waited for.
    pub(super) fn incomplete(&self) -> Vec<&'static str> {
        let open = self.sheets.iter().filter(|(_, sheet)| !sheet.listed);
        open.map(|(kind, _)| kind.name()).collect()
    }

    pub(super) fn on(&mut self, kind: Kind, said: Said) -> Vec<Event> {
        let sheet = self.sheets.entry(kind).or_default();
        let metrics = &self.metrics;
        let count = |happened| {
            metrics.registry_events.count(kind, happened);
            metrics.config_events.count(kind, happened);
        };
        match said {
            Said::Init => {
                sheet.unseen = Some(sheet.known.clone());
                Vec::new()
            }
            Said::Apply(key, outcome) => {
                count(sheet.apply(&key));
                let event = match *outcome {
                    Ok(object) => Event::Apply(object),
                    Err(rejected) => {
                        metrics.faulty_objects.of(kind).inc();
                        Event::Refuse(rejected)
                    }
                };
                self.stage.put(key, event)
            }
            Said::Delete(key) => {
                count(Happened::Delete);
                sheet.delete(&key);
                self.stage.drop(key)
            }
            Said::InitDone => {
                let gone = sheet.done();
                let mut events = Vec::new();
                for (namespace, name) in gone {
                    count(Happened::Delete);
                    events.extend(self.stage.drop(Key {
                        kind,
                        namespace,
                        name,
                    }));
                }
                events.extend(self.complete());
                events
            }
        }
    }

    /// The events of a file's own source; None before there is anything to tell.
    pub(super) fn on_file(&mut self, events: Vec<Event>) -> Option<Vec<Event>> {
        let mark = |event: &Event| matches!(event, Event::Init | Event::InitDone);
        let told: Vec<Event> = events.into_iter().filter(|e| !mark(e)).collect();
        let events = match &mut self.stage {
            Stage::Live => told,
            Stage::Listing {
                files, awaits_file, ..
            } => {
                files.extend(told);
                *awaits_file = false;
                self.complete()
            }
        };
        (!events.is_empty()).then_some(events)
    }

    /// Everything, the first time that all of it is there.
    fn complete(&mut self) -> Vec<Event> {
        let listed = self.sheets.values().all(|sheet| sheet.listed);
        match &mut self.stage {
            Stage::Listing {
                objects,
                files,
                awaits_file: false,
            } if listed => {
                let objects = std::mem::take(objects).into_values();
                let files = std::mem::take(files);
                let whole = std::iter::once(Event::Init).chain(files).chain(objects);
                let whole = whole.chain([Event::InitDone]).collect();
                self.stage = Stage::Live;
                whole
            }
            Stage::Listing { .. } | Stage::Live => Vec::new(),
        }
    }
}

impl Sheet {
    fn apply(&mut self, key: &Key) -> Happened {
        let name = name(key);
        if let Some(unseen) = &mut self.unseen {
            unseen.remove(&name);
        }
        if self.known.insert(name) {
            Happened::Add
        } else {
            Happened::Update
        }
    }

    fn delete(&mut self, key: &Key) {
        let name = name(key);
        self.known.remove(&name);
        if let Some(unseen) = &mut self.unseen {
            unseen.remove(&name);
        }
    }

    /// What the listing did not name.
    fn done(&mut self) -> BTreeSet<Name> {
        self.listed = true;
        let gone = self.unseen.take().unwrap_or_default();
        self.known.retain(|name| !gone.contains(name));
        gone
    }
}

fn name(key: &Key) -> Name {
    (key.namespace.clone(), key.name.clone())
}

impl Stage {
    fn put(&mut self, key: Key, event: Event) -> Vec<Event> {
        match self {
            Self::Live => vec![event],
            Self::Listing { objects, .. } => {
                objects.insert(key, event);
                Vec::new()
            }
        }
    }

    fn drop(&mut self, key: Key) -> Vec<Event> {
        match self {
            Self::Live => vec![Event::Delete(key)],
            Self::Listing { objects, .. } => {
                objects.remove(&key);
                Vec::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::decode::json::Tree;
    use crate::config::decode::{self, Decoded};

    const TWO: &[Kind] = &[Kind::Namespace, Kind::Service];

    fn key(kind: Kind, name: &str) -> Key {
        let namespace = if kind == Kind::Namespace { "" } else { "shop" };
        Key {
            kind,
            namespace: Str::new(namespace),
            name: Str::new(name),
        }
    }

    fn apply(kind: Kind, name: &str) -> Said {
        let json = format!(r#"{{"metadata": {{"name": "{name}", "namespace": "shop"}}}}"#);
        let tree: Tree = serde_json::from_str(&json).unwrap();
        Said::Apply(key(kind, name), Box::new(decode::live(kind, &tree.0)))
    }

    /// `+a` came or changed, `!a` has a fault, `-a` went.
    fn brief(events: &[Event]) -> Vec<String> {
        let each = |event: &Event| match event {
            Event::Init => "init".to_owned(),
            Event::InitDone => "done".to_owned(),
            Event::Apply(object) => format!("+{}", object.object.meta.name),
            Event::Refuse(rejected) => format!("!{}", rejected.key.as_ref().unwrap().name),
            Event::Delete(key) => format!("-{}", key.name),
            Event::File(file) => file.file.to_string(),
            Event::Leaving(file) => format!("{file} leaves"),
        };
        events.iter().map(each).collect()
    }

    fn tell(ledger: &mut Ledger, kind: Kind, said: Vec<Said>) -> Vec<String> {
        let told = said.into_iter().flat_map(|said| ledger.on(kind, said));
        brief(&told.collect::<Vec<_>>())
    }

    /// A ledger that is past its start, with the Services `a` and `b`.
    fn live() -> Ledger {
        let mut ledger = Ledger::new(TWO, false, Arc::default());
        tell(
            &mut ledger,
            Kind::Namespace,
            vec![Said::Init, Said::InitDone],
        );
        let (a, b) = (apply(Kind::Service, "a"), apply(Kind::Service, "b"));
        tell(
            &mut ledger,
            Kind::Service,
            vec![Said::Init, a, b, Said::InitDone],
        );
        assert!(ledger.is_complete());
        ledger
    }

    #[test]
    fn nothing_is_told_before_every_kind_was_listed_and_then_all_of_it_at_once() {
        let mut ledger = Ledger::new(TWO, false, Arc::default());
        let shop = apply(Kind::Namespace, "shop");
        let said = vec![Said::Init, shop, Said::InitDone];
        assert!(tell(&mut ledger, Kind::Namespace, said).is_empty());
        assert_eq!(ledger.incomplete(), ["Service"]);
        let late = Said::Delete(key(Kind::Namespace, "shop"));
        assert!(tell(&mut ledger, Kind::Namespace, vec![late]).is_empty());
        let said = vec![Said::Init, apply(Kind::Service, "a"), Said::InitDone];
        assert_eq!(
            tell(&mut ledger, Kind::Service, said),
            ["init", "+a", "done"]
        );
        assert_eq!(ledger.len(), 1);
    }

    #[test]
    fn a_listing_takes_away_what_it_does_not_name_and_only_when_it_is_done() {
        let mut ledger = live();
        let said = vec![
            Said::Init,
            apply(Kind::Service, "b"),
            apply(Kind::Service, "c"),
        ];
        assert_eq!(tell(&mut ledger, Kind::Service, said), ["+b", "+c"]);
        assert_eq!(
            tell(&mut ledger, Kind::Service, vec![Said::InitDone]),
            ["-a"]
        );
        assert_eq!(ledger.len(), 2);
    }

    #[test]
    fn a_listing_that_breaks_off_takes_nothing_away() {
        let mut ledger = live();
        let b = || apply(Kind::Service, "b");
        assert_eq!(
            tell(&mut ledger, Kind::Service, vec![Said::Init, b()]),
            ["+b"]
        );
        let said = vec![Said::Init, b(), apply(Kind::Service, "a"), Said::InitDone];
        assert_eq!(tell(&mut ledger, Kind::Service, said), ["+b", "+a"]);
    }

    #[test]
    fn a_kind_that_is_not_served_any_more_has_no_objects() {
        let mut ledger = live();
        let said = vec![Said::Init, Said::InitDone];
        assert_eq!(tell(&mut ledger, Kind::Service, said), ["-a", "-b"]);
    }

    #[test]
    fn a_mesh_file_is_waited_for_and_followed() {
        let file = || {
            Event::File(Decoded {
                file: Str::new("mesh.yaml"),
                ..Decoded::default()
            })
        };
        let mut ledger = Ledger::new(&[Kind::Service], true, Arc::default());
        let said = vec![Said::Init, apply(Kind::Service, "a"), Said::InitDone];
        assert!(tell(&mut ledger, Kind::Service, said).is_empty());
        let first = ledger.on_file(vec![Event::Init, file(), Event::InitDone]);
        assert_eq!(brief(&first.unwrap()), ["init", "mesh.yaml", "+a", "done"]);
        assert_eq!(brief(&ledger.on_file(vec![file()]).unwrap()), ["mesh.yaml"]);
    }

    #[test]
    fn objects_are_counted_as_istio_counts_them() {
        let metrics = Arc::<Metrics>::default();
        let mut ledger = Ledger::new(TWO, false, metrics.clone());
        let a = || apply(Kind::Service, "a");
        let faulty: Tree = serde_json::from_str(
            r#"{"metadata": {"name": "f", "namespace": "shop"}, "spec": {"ports": [{"port": -1}]}}"#,
        )
        .unwrap();
        let fault = decode::live(Kind::Service, &faulty.0);
        let fault = Said::Apply(key(Kind::Service, "f"), Box::new(fault));
        let said = vec![Said::Init, a(), a(), fault, Said::InitDone];
        tell(&mut ledger, Kind::Service, said);
        let gone = Said::Delete(key(Kind::Service, "a"));
        tell(&mut ledger, Kind::Service, vec![gone]);
        let mut page = crate::telemetry::exposition::Page::default();
        metrics.write(&mut page);
        let text = page.finish();
        for line in [
            "pilot_k8s_reg_events{type=\"Services\",event=\"add\"} 2",
            "pilot_k8s_reg_events{type=\"Services\",event=\"update\"} 1",
            "pilot_k8s_reg_events{type=\"Services\",event=\"delete\"} 1",
            "fairlead_k8s_faulty_objects_total{type=\"Service\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }
}
