//! Acceptance over random edits: nothing that resolved stops resolving, and all partners together
//! give the latest forms.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tests::{file, route, rule};
use super::*;
use crate::config::Spec;
use crate::diagnostic::Code;
use crate::text::Hostname;

const HOSTS: [&str; 2] = ["reviews", "ratings"];
const SUBSETS: [&str; 3] = ["v1", "v2", "v3"];

/// One save of one file.
#[derive(Clone, Debug)]
enum Edit {
    Route {
        name: usize,
        to: Option<(usize, usize)>,
    },
    Rule {
        name: usize,
        host: usize,
        subsets: Option<Vec<bool>>,
    },
}

impl Edit {
    fn file(&self) -> (String, String) {
        match self {
            Self::Route { name, to } => {
                let text = to.map(|(h, s)| route(&format!("r{name}"), HOSTS[h], SUBSETS[s]));
                (format!("route{name}"), text.unwrap_or_default())
            }
            Self::Rule {
                name,
                host,
                subsets,
            } => {
                let chosen = |bits: &Vec<bool>| -> Vec<&str> {
                    SUBSETS
                        .iter()
                        .zip(bits)
                        .filter(|(_, on)| **on)
                        .map(|(s, _)| *s)
                        .collect()
                };
                let text = subsets
                    .as_ref()
                    .map(|bits| rule(&format!("d{name}"), HOSTS[*host], &chosen(bits)));
                (format!("rule{name}"), text.unwrap_or_default())
            }
        }
    }
}

fn edit() -> impl Strategy<Value = Edit> {
    let to = prop::option::weighted(0.8, (0..HOSTS.len(), 0..SUBSETS.len()));
    let subsets = prop::option::weighted(0.8, prop::collection::vec(any::<bool>(), SUBSETS.len()));
    prop_oneof![
        (0..3usize, to).prop_map(|(name, to)| Edit::Route { name, to }),
        (0..3usize, 0..HOSTS.len(), subsets).prop_map(|(name, host, subsets)| Edit::Rule {
            name,
            host,
            subsets
        }),
    ]
}

fn empty() -> Acceptance {
    let domain = Str::new_static("cluster.local");
    let mut acceptance = Acceptance::new(Options {
        hold_unresolved: true,
        domain,
    });
    acceptance.take([Event::Init, Event::InitDone]);
    acceptance
}

type Refs = BTreeSet<(Str, Hostname, Str)>;

/// The references of the routes in force, apart by whether a rule in force defines them. Written
/// without the room's own indexes.
fn references(objects: &BTreeMap<Key, Arc<Object>>) -> (Refs, Refs) {
    let host = |h: &str| Hostname::expand(h, "shop", "cluster.local").unwrap();
    let mut defined = BTreeSet::new();
    for object in objects.values() {
        if let Spec::DestinationRule(spec) = &object.spec {
            defined.extend(
                spec.subsets
                    .iter()
                    .map(|s| (host(&spec.host), s.name.clone())),
            );
        }
    }
    let mut all = BTreeSet::new();
    for object in objects.values() {
        if let Spec::VirtualService(spec) = &object.spec {
            let to = &spec.http[0].route[0].destination;
            all.insert((object.meta.name.clone(), host(&to.host), to.subset.clone()));
        }
    }
    all.into_iter()
        .partition(|(_, host, subset)| defined.contains(&(host.clone(), subset.clone())))
}

fn apply(set: &mut BTreeMap<Key, Arc<Object>>, changes: Vec<Change>) {
    for Change { key, object } in changes {
        match object {
            Some(object) => drop(set.insert(key, object)),
            None => drop(set.remove(&key)),
        }
    }
}

/// What the files say, without history.
fn latest(files: &BTreeMap<String, String>) -> BTreeMap<Key, Arc<Object>> {
    let mut acceptance = empty();
    let changes = acceptance
        .take(files.iter().map(|(n, t)| file(n, t)))
        .changes;
    let mut set = BTreeMap::new();
    apply(&mut set, changes);
    set
}

proptest! {
    /// A route whose references all resolve never comes to have one that does not, in any order of
    /// edits and however they are batched.
    #[test]
    fn no_order_of_edits_breaks_a_reference(
        batches in prop::collection::vec(prop::collection::vec(edit(), 1..4), 1..14),
    ) {
        let mut acceptance = empty();
        let mut set = BTreeMap::new();
        for batch in batches {
            let (sound, broken) = references(&set);
            let sound: BTreeSet<Str> = sound.into_iter().map(|(name, _, _)| name).collect();
            let outcome = acceptance.take(batch.iter().map(|e| {
                let (name, text) = e.file();
                file(&name, &text)
            }));
            apply(&mut set, outcome.changes);
            let (_, now) = references(&set);
            for (name, host, subset) in now.difference(&broken) {
                prop_assert!(!sound.contains(name), "{name} lost {host} {subset}");
            }
            let held: BTreeMap<Key, Arc<Object>> =
                acceptance.objects().map(|o| (o.key(), Arc::clone(o))).collect();
            prop_assert_eq!(&held, &set);
            // Nothing waits without a reason that is told.
            for key in acceptance.held.keys() {
                let found = acceptance.findings.get(&Topic::Object(key.clone()));
                let told = found.is_some_and(|f| f.iter().any(|d| d.code == Code::Waiting));
                prop_assert!(told, "{key} waits for nothing");
            }
        }
    }

    /// When the latest forms resolve among themselves, they are in force, whatever came before.
    #[test]
    fn with_all_partners_present_the_latest_forms_are_in_force(
        edits in prop::collection::vec(edit(), 1..30),
        singly in any::<bool>(),
    ) {
        let mut acceptance = empty();
        let mut set = BTreeMap::new();
        let mut files = BTreeMap::new();
        let mut events = Vec::new();
        for one in edits {
            let (name, text) = one.file();
            events.push(file(&name, &text));
            files.insert(name, text);
            if singly {
                apply(&mut set, acceptance.take(events.drain(..)).changes);
            }
        }
        apply(&mut set, acceptance.take(events).changes);
        let latest = latest(&files);
        if references(&latest).1.is_empty() {
            prop_assert_eq!(set, latest);
            prop_assert_eq!(acceptance.counts().held, 0);
        }
    }

    /// A restart at any time changes nothing.
    #[test]
    fn a_restart_leaves_the_set_in_force(edits in prop::collection::vec(edit(), 1..20)) {
        let mut acceptance = empty();
        let mut files = BTreeMap::new();
        for one in edits {
            let (name, text) = one.file();
            acceptance.take([file(&name, &text)]);
            files.insert(name, text);
        }
        let before = acceptance.persist(&|_| true);
        let mut after = Acceptance::restore(acceptance.options.clone(), before);
        let listed = files.iter().map(|(n, t)| file(n, t));
        after.take([Event::Init].into_iter().chain(listed).chain([Event::InitDone]));
        prop_assert!(acceptance.objects().eq(after.objects()));
        prop_assert_eq!(acceptance.counts(), after.counts());
    }
}
