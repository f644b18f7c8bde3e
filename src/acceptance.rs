//! Which version of each object is in force: history, rejections, versions that wait.
//!
//! Everything after this room is a function of the set it keeps. A version with a fault never comes
//! into force, and the form accepted before stays. A version that would break a reference between a
//! VirtualService and a DestinationRule waits for its partner. Nothing else waits. Pure: no I/O.

mod claims;
mod fixed;
#[cfg(test)]
mod laws;
mod links;
mod persisted;
mod report;
mod settle;
mod standing;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::claims::{Claims, Standing};
use self::links::{Links, Part};
use self::report::{Before, Waiting};
use self::settle::Proposal;
use self::standing::is_faulty;
use crate::config::decode::lines::Lines;
use crate::config::decode::{DecodedObject, Place, PodTemplate};
use crate::config::event::Event;
use crate::config::{Change, Key, Kind, Object};
use crate::diagnostic::Diagnostic;
use crate::text::Str;

pub use self::persisted::{Amendment, Kept, Lost, Persisted};
pub use self::standing::{Census, Counts, OfKind};
pub use self::verdict::{Outcome, Verdict};

#[derive(Clone, Debug)]
pub struct Options {
    /// Whether a version may wait for what it refers to; without, every sound version takes effect
    /// at once, as in Istio.
    pub hold_unresolved: bool,
    /// What short host names expand with, such as `cluster.local`.
    pub domain: Str,
}

/// Where the objects in force were read.
#[derive(Clone, Debug, Default)]
pub struct Places(BTreeMap<Key, Place>);

impl Places {
    pub fn find(&self, key: &Key, field: &str) -> Option<(Str, Option<u32>)> {
        locate(self.0.get(key)?, field)
    }
}

fn locate(place: &Place, field: &str) -> Option<(Str, Option<u32>)> {
    let line = Some(place.lines.line_of(field)).filter(|line| *line > 0);
    (!place.file.is_empty()).then(|| (place.file.clone(), line))
}

#[derive(Debug)]
pub struct Acceptance {
    options: Options,
    claims: Claims,
    phase: Phase,
    force: BTreeMap<Key, Version>,
    /// The references between the versions in force.
    links: Links,
    held: BTreeMap<Key, Held>,
    /// Objects in force only because their file cannot be read as a whole.
    kept: BTreeMap<Key, Str>,
    /// What the events since the last decision named.
    touched: BTreeSet<Topic>,
    findings: BTreeMap<Topic, Vec<Diagnostic>>,
    news: Vec<Diagnostic>,
    /// What the last events made look at anew.
    considered: BTreeSet<Key>,
    /// Forms rejected since the start.
    rejections: BTreeMap<Kind, u64>,
    lost: Vec<Lost>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No listing was complete yet, so nobody knows the set in force.
    Silent,
    /// A later listing; the set in force is known.
    Listing,
    Live,
}

/// What findings are about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Topic {
    File(Str),
    Object(Key),
}

impl Topic {
    /// Whether it is an object of a kind whose versions refer to each other.
    fn is_linked(&self) -> bool {
        match self {
            Self::File(_) => false,
            Self::Object(key) => links::absent(key.kind).is_some(),
        }
    }
}

#[derive(Clone, Debug)]
struct Version {
    object: Arc<Object>,
    place: Place,
}

#[derive(Debug)]
struct Held {
    /// None for a deletion.
    version: Option<Version>,
    part: Part,
}

impl Acceptance {
    pub fn new(options: Options) -> Self {
        Self::restore(options, Persisted::default())
    }

    /// Starts with the set that was in force; the first listing decides what of it is gone.
    pub fn restore(options: Options, persisted: Persisted) -> Self {
        let lines = Lines::unknown();
        let mut acceptance = Self {
            options,
            claims: Claims::default(),
            phase: Phase::Silent,
            force: BTreeMap::new(),
            links: Links::default(),
            held: BTreeMap::new(),
            kept: BTreeMap::new(),
            touched: BTreeSet::new(),
            findings: BTreeMap::new(),
            news: Vec::new(),
            considered: BTreeSet::new(),
            rejections: BTreeMap::new(),
            lost: persisted.lost,
        };
        for Kept { file, object } in persisted.objects {
            let lines = Arc::clone(&lines);
            let place = Place { file, lines };
            acceptance.put(&object.key(), Some(Version { object, place }));
        }
        acceptance
    }

    /// The differences of the set in force, in the order of keys; they belong together. Nothing comes
    /// of events between `Init` and `InitDone` before the latter.
    pub fn on(&mut self, events: Vec<Event>) -> Vec<Change> {
        self.news.clear();
        self.considered.clear();
        let mut changes = Vec::new();
        for event in events {
            let done = event == Event::InitDone;
            self.hear(event);
            if done {
                changes.extend(self.list());
            }
        }
        if self.phase == Phase::Live && !self.touched.is_empty() {
            changes.extend(self.decide());
        }
        changes
    }

    /// Begins with the set that was in force, before any listing: the first one then tells what differs.
    pub fn resume(&mut self) -> Vec<Change> {
        self.phase = Phase::Listing;
        self.whole()
    }

    fn whole(&self) -> Vec<Change> {
        let tell = |(key, v): (&Key, &Version)| Change {
            key: key.clone(),
            object: Some(Arc::clone(&v.object)),
        };
        self.force.iter().map(tell).collect()
    }

    /// Findings that came up with the last events, as a log would tell them.
    pub fn news(&self) -> &[Diagnostic] {
        &self.news
    }

    /// All findings that stand, by file and object.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        self.findings.values().flatten().cloned().collect()
    }

    /// The objects in force.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> + Clone {
        self.force.values().map(|v| &v.object)
    }

    /// What makes pods, of all files.
    pub fn templates(&self) -> impl Iterator<Item = &PodTemplate> {
        self.claims.templates()
    }

    /// File and line of a field of an object in force; the line is absent until its file was read.
    pub fn place(&self, key: &Key, field: &str) -> Option<(Str, Option<u32>)> {
        locate(&self.force.get(key)?.place, field)
    }

    /// The same for all objects, as it is now. Cheap: what each one holds is shared.
    pub fn places(&self) -> Places {
        let place = |(key, version): (&Key, &Version)| (key.clone(), version.place.clone());
        let filed = self.force.iter().filter(|(_, v)| !v.place.file.is_empty());
        Places(filed.map(place).collect())
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Init => {
                self.claims.clear();
                if self.phase == Phase::Live {
                    self.phase = Phase::Listing;
                }
            }
            Event::File(decoded) => {
                let file = decoded.file.clone();
                let waiting = self.kept.iter().filter(|(_, f)| **f == file);
                self.touched
                    .extend(waiting.map(|(key, _)| Topic::Object(key.clone())));
                let keys = self.claims.replace(decoded);
                self.touched.extend(keys.into_iter().map(Topic::Object));
                self.touched.insert(Topic::File(file));
            }
            Event::Leaving(file) => {
                let keys = self.claims.leave(&file);
                self.touched.extend(keys.into_iter().map(Topic::Object));
            }
            Event::Apply(object) => {
                self.touched
                    .insert(Topic::Object(self.claims.apply(object)));
            }
            Event::Refuse(rejected) => {
                self.touched
                    .extend(self.claims.refuse(rejected).map(Topic::Object));
            }
            Event::Delete(key) => {
                self.claims.delete(&key);
                self.touched.insert(Topic::Object(key));
            }
            Event::InitDone => {}
        }
    }

    /// A listing is complete: every object is looked at. The first tells the whole set in force.
    fn list(&mut self) -> Vec<Change> {
        let keys = self.claims.keys().chain(self.force.keys()).cloned();
        let files = self.claims.files().cloned();
        let topics: BTreeSet<Topic> = keys
            .map(Topic::Object)
            .chain(files.map(Topic::File))
            .collect();
        self.touched.extend(topics);
        self.touched.extend(self.findings.keys().cloned());
        let mut changes = self.decide();
        if self.phase == Phase::Silent {
            changes = self.whole();
        }
        self.phase = Phase::Live;
        changes
    }

    fn decide(&mut self) -> Vec<Change> {
        let mut topics = std::mem::take(&mut self.touched);
        // What waits is looked at again only when something came that it could wait for.
        let linked = topics.iter().any(Topic::is_linked);
        if linked {
            topics.extend(self.held.keys().cloned().map(Topic::Object));
        }
        let mut ready: BTreeMap<Key, Option<Version>> = BTreeMap::new();
        for topic in &topics {
            if let Topic::Object(key) = topic {
                self.sort(key, &mut ready);
            }
        }
        if linked {
            ready.extend(self.release());
        }
        let mut changes = Vec::new();
        for (key, version) in ready {
            topics.extend(self.users_of(&key).map(Topic::Object));
            let object = version.as_ref().map(|v| Arc::clone(&v.object));
            self.put(&key, version);
            topics.extend(self.users_of(&key).map(Topic::Object));
            topics.insert(Topic::Object(key.clone()));
            changes.push(Change { key, object });
        }
        if linked {
            topics.extend(self.held.keys().cloned().map(Topic::Object));
        }
        self.report(topics);
        changes
    }

    /// Brings one object's claim to where it belongs: at once into force (`ready`), or among those
    /// that may wait, or nowhere.
    fn sort(&mut self, key: &Key, ready: &mut BTreeMap<Key, Option<Version>>) {
        let wanted = match self.claims.standing(key) {
            Standing::Version(DecodedObject { object, place, .. }) => Some(Version {
                object: Arc::clone(object),
                place: place.clone(),
            }),
            Standing::Fault(_, _) => {
                self.kept.remove(key);
                self.held.remove(key);
                return;
            }
            Standing::Absent => None,
        };
        if let (None, Some(file)) = (&wanted, self.unclear_home(key)) {
            self.kept.insert(key.clone(), file);
            self.held.remove(key);
            return;
        }
        self.kept.remove(key);
        self.held.remove(key);
        if self.restart_needed(key).is_some() {
            return;
        }
        match (&wanted, self.force.get_mut(key)) {
            (None, None) => return,
            (Some(wanted), Some(now)) if wanted.object == now.object => {
                // One copy of what is equal: the claim's.
                *now = wanted.clone();
                return;
            }
            (_, _) => {}
        }
        let part = match &wanted {
            Some(version) => links::part(&version.object, &self.options.domain),
            None => links::absent(key.kind),
        };
        match part {
            Some(part) => drop(self.held.insert(
                key.clone(),
                Held {
                    version: wanted,
                    part,
                },
            )),
            None => drop(ready.insert(key.clone(), wanted)),
        }
    }

    /// The field for which an object's present form has to wait for a restart. At the start, nothing
    /// that was set up goes by the form in force yet.
    fn restart_needed(&self, key: &Key) -> Option<&'static str> {
        if key.kind != Kind::MeshConfig || self.phase == Phase::Silent {
            return None;
        }
        let wanted = match self.claims.standing(key) {
            Standing::Version(version) => Some(&*version.object),
            Standing::Fault(_, _) => return None,
            Standing::Absent => None,
        };
        fixed::moved(self.force.get(key).map(|v| &*v.object), wanted)
    }

    /// The file of an object in force, if a document of it does not say which object it is.
    fn unclear_home(&self, key: &Key) -> Option<Str> {
        let file = &self.force.get(key)?.place.file;
        self.claims.is_unclear(file).then(|| file.clone())
    }

    /// Takes from the waiting versions those that can come into force now.
    fn release(&mut self) -> BTreeMap<Key, Option<Version>> {
        let waiting = self.held.iter();
        let taken: BTreeSet<Key> = if self.options.hold_unresolved {
            let parts = waiting.map(|(k, h)| (k.clone(), h.part.clone())).collect();
            Proposal::new(&self.links, parts).settle()
        } else {
            waiting.map(|(key, _)| key.clone()).collect()
        };
        let release = |key: Key| self.held.remove(&key).map(|held| (key, held.version));
        taken.into_iter().filter_map(release).collect()
    }

    fn put(&mut self, key: &Key, version: Option<Version>) {
        self.links.remove(key);
        match version {
            Some(version) => {
                if let Some(part) = links::part(&version.object, &self.options.domain) {
                    self.links.set(key.clone(), part);
                }
                self.force.insert(key.clone(), version);
            }
            None => drop(self.force.remove(key)),
        }
    }

    /// The VirtualServices in force that a DestinationRule in force could resolve.
    fn users_of(&self, key: &Key) -> impl Iterator<Item = Key> {
        let offer = self.links.offer(key).into_iter();
        offer
            .flat_map(|o| self.links.users(&o.host))
            .cloned()
            .collect::<Vec<_>>()
            .into_iter()
    }

    fn report(&mut self, topics: BTreeSet<Topic>) {
        let mut next = Links::default();
        for (key, held) in &self.held {
            next.set(key.clone(), held.part.clone());
        }
        let waiting: BTreeSet<Key> = self.held.keys().cloned().collect();
        for topic in topics {
            let found = match &topic {
                Topic::File(file) => report::unclear(self.claims.of_file(file)),
                Topic::Object(key) => {
                    self.considered.insert(key.clone());
                    self.findings_of(key, &next, &waiting)
                }
            };
            let before = if found.is_empty() {
                self.findings.remove(&topic)
            } else {
                self.findings.insert(topic.clone(), found.clone())
            };
            let before = before.unwrap_or_default();
            let (was, is) = (is_faulty(&before), is_faulty(&found));
            let new = found.into_iter().filter(|d| !before.contains(d));
            let new: Vec<Diagnostic> = new.collect();
            if let (Topic::Object(key), true) = (&topic, is_faulty(&new)) {
                *self.rejections.entry(key.kind).or_default() += 1;
            }
            self.news.extend(new);
            if was && !is {
                self.news.extend(self.recovery(&topic));
            }
        }
    }

    /// What to say of something whose faults are gone; nothing of what is gone itself.
    fn recovery(&self, topic: &Topic) -> Option<Diagnostic> {
        match topic {
            Topic::File(file) => Some(report::readable(file)),
            Topic::Object(key) => match self.claims.standing(key) {
                Standing::Version(version) => Some(report::sound(key, &version.place)),
                Standing::Fault(_, _) | Standing::Absent => None,
            },
        }
    }

    fn findings_of(&self, key: &Key, next: &Links, waiting: &BTreeSet<Key>) -> Vec<Diagnostic> {
        let domain = &self.options.domain;
        let force = self.force.get(key);
        let mut found = match self.claims.standing(key) {
            Standing::Version(version) => version.warnings.clone(),
            Standing::Fault(_, faults) => {
                let before = force.map_or(Before::Never, |_| Before::InForce);
                report::faults(faults, before)
            }
            Standing::Absent => Vec::new(),
        };
        if let Some(field) = self.restart_needed(key) {
            let place = match self.claims.standing(key) {
                Standing::Version(version) => Some(&version.place),
                Standing::Fault(_, _) | Standing::Absent => None,
            };
            found.push(fixed::finding(key, field, place));
        }
        found.extend(self.kept.get(key).map(|file| report::kept(key, file)));
        found.extend(self.claims.duplicates(key));
        if let Some(Held { version, part }) = self.held.get(key) {
            let object = version.as_ref().map(|v| &*v.object);
            let place = version.as_ref().map(|v| &v.place);
            let one = Waiting {
                key,
                object,
                place,
                part,
            };
            found.extend(report::waiting(one, &self.links, next, waiting, domain));
        }
        if let Some(Version { object, place }) = force {
            found.extend(report::unresolved(
                key,
                object,
                Some(place),
                &self.links,
                domain,
            ));
        }
        found
    }
}
