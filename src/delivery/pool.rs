//! What sessions in equal states share: their sets, their frames, and what is to be sent next.

mod progress;

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use self::progress::Progress;
use super::frame::{Sheet, Sheets, empty};
use super::lists::Claims;
use super::roster::{Member, Name, Roster, Shelf};
use crate::text::Str;
use crate::view::{LAYERS, Layer, Names, Resources};
use crate::xds::stamp::{Key, Mark};
use crate::xds::{Encoded, ResourceType, Stamp};

/// Names of one type to be looked at. Equal ones have the same `id`.
#[derive(Clone, Debug)]
pub enum Touched {
    /// Whatever the client wants or holds.
    All,
    Names(Arc<[Name]>),
}

/// What a client asked for: everything, or some names.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    All,
    Names(&'a Roster<Name>),
}

/// What a client in some state is sent next of one layer.
#[derive(Clone, Debug)]
pub struct Plan {
    pub next: Option<Step>,
    /// Held and not in the layer: removed, or elsewhere now.
    pub leavers: Arc<[Str]>,
}

#[derive(Clone, Debug)]
pub struct Step {
    pub sheet: Arc<Sheet>,
    /// What the client holds of the layer once it was sent.
    pub after: Roster<Arc<Stamp>>,
}

/// What a scope's sessions are told of one type.
#[derive(Clone, Debug)]
pub struct Told {
    pub kind: ResourceType,
    pub touched: Touched,
    /// The names among them that stand for nothing now, or only for who asks.
    pub gone: Vec<Str>,
}

/// The first frame that answers names, whatever is held of them.
#[derive(Clone, Debug)]
pub struct Answer {
    pub sheet: Arc<Sheet>,
    pub names: Roster<Name>,
    /// What it brings, by the layer it is from; what no layer has counts as of the last.
    pub brought: Held,
    pub rest: Roster<Name>,
}

/// What a client holds of a type, by the layer it came from; no name stands in two.
pub type Held = [Roster<Arc<Stamp>>; LAYERS];

/// Where is kept what no layer has (any more).
pub const LAST: usize = LAYERS - 1;

#[derive(Debug, Default)]
pub struct Pool {
    pub stamps: Shelf<Arc<Stamp>>,
    pub names: Shelf<Name>,
    pub sheets: Sheets,
    plans: HashMap<State, Plan>,
    progress: Progress,
    /// By the size of a frame, too.
    answers: HashMap<(Question, usize), Answer>,
    brought: HashMap<Brought, Held>,
    absent: HashMap<Question, Arc<[Str]>>,
    /// No short ways: what a test compares them with.
    pub name_by_name: bool,
}

/// All that a plan depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    kind: ResourceType,
    layer: Mark,
    held: Mark,
    wanted: Option<Key>,
    touched: Option<Key>,
    frame_bytes: usize,
}

/// All that what is said of some names depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Question {
    kind: ResourceType,
    layers: [Mark; LAYERS],
    names: Key,
}

impl Question {
    fn of(kind: ResourceType, names: &Roster<Name>, view: Resources<'_>) -> Self {
        Self {
            kind,
            layers: view.layers().map(|layer| layer.digest(kind).content),
            names: names.digest(),
        }
    }
}

/// All that decides what a client which brings versions holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Brought {
    pub kind: ResourceType,
    pub layers: [Mark; LAYERS],
    pub on_demand: Mark,
    /// None: everything.
    pub wanted: Option<Key>,
    pub claims: Claims,
}

/// Past so many plans all are forgotten: they are made again at the cost of one session's share.
const PLANS: usize = 4096;
/// Of more names than these, each is looked at.
const FEW: usize = 256;

impl Pool {
    /// Everything of a type in a layer, as held.
    pub fn whole(&mut self, layer: &Layer, kind: ResourceType) -> Roster<Arc<Stamp>> {
        if let Some(known) = self.stamps.find(layer.digest(kind).content) {
            return known;
        }
        let all = layer.of(kind).map(|encoded| encoded.stamp.clone());
        self.stamps.edit(&Roster::EMPTY, all, [])
    }

    /// The first frame of what is touched, wanted, and not held in the layer's version.
    pub fn plan(
        &mut self,
        kind: ResourceType,
        layer: &Layer,
        held: &Roster<Arc<Stamp>>,
        (wanted, touched): (Wanted<'_>, &Touched),
        frame_bytes: usize,
    ) -> Plan {
        let state = State {
            kind,
            layer: layer.digest(kind).content,
            held: held.digest(),
            wanted: wanted.id(),
            touched: touched.id(),
            frame_bytes,
        };
        if let Some(known) = self.plans.get(&state) {
            return known.clone();
        }
        let reached = self.progress.reached(&state);
        let after = reached.map(|reached| reached.name.as_str());
        let next = next((kind, layer, after), held, (wanted, touched), frame_bytes);
        let leavers = match reached {
            Some(reached) => reached.leavers.clone(),
            None => leavers(kind, layer, held, touched),
        };
        let plan = Plan {
            next: self.step(kind, held, &next),
            leavers,
        };
        self.progress.planned(state, (held, touched), &plan, &next);
        keep(&mut self.plans, state, plan.clone());
        plan
    }

    /// Whether something held stands in the layer in another version.
    pub fn is_outdated(
        &mut self,
        kind: ResourceType,
        layer: &Layer,
        held: &Roster<Arc<Stamp>>,
    ) -> bool {
        self.progress.is_outdated(kind, layer, held)
    }

    fn step(
        &mut self,
        kind: ResourceType,
        held: &Roster<Arc<Stamp>>,
        entries: &[Arc<Encoded>],
    ) -> Option<Step> {
        if entries.is_empty() {
            return None;
        }
        let stamps = entries.iter().map(|e| e.stamp.clone());
        Some(Step {
            after: self.stamps.edit(held, stamps, []),
            sheet: self.sheets.get(kind, entries, &[], &mut self.names),
        })
    }

    pub fn sheet(
        &mut self,
        kind: ResourceType,
        entries: &[Arc<Encoded>],
        removed: &[Str],
    ) -> Arc<Sheet> {
        self.sheets.get(kind, entries, removed, &mut self.names)
    }

    /// The first frame that answers these names, be they in the view or not.
    pub fn answer(
        &mut self,
        kind: ResourceType,
        names: &Roster<Name>,
        view: Resources<'_>,
        frame_bytes: usize,
    ) -> Answer {
        let question = (Question::of(kind, names, view), frame_bytes);
        if let Some(known) = self.answers.get(&question) {
            return known.clone();
        }
        let (all, answered) = self.progress.sorted(names);
        let sorted = &all[answered..];
        let mut bytes = 0;
        let mut entries = Vec::new();
        let mut brought: [Vec<Arc<Stamp>>; LAYERS] = Default::default();
        for name in sorted {
            if bytes >= frame_bytes {
                break;
            }
            let (layer, encoded) = match view.find(kind, &name.text) {
                Some((layer, encoded)) => (layer, encoded.clone()),
                None => (LAST, empty(kind, &name.text)),
            };
            bytes += encoded.len;
            brought[layer].push(encoded.stamp.clone());
            entries.push(encoded);
        }
        let now = sorted[..entries.len()].iter().cloned();
        let now = self.names.edit(&Roster::EMPTY, now, []);
        let answer = Answer {
            sheet: self.sheet(kind, &entries, &[]),
            brought: brought.map(|stamps| self.stamps.edit(&Roster::EMPTY, stamps, [])),
            rest: self.names.rest(names, &now),
            names: now,
        };
        if !answer.rest.is_empty() {
            let answered = answered + entries.len();
            self.progress.answered(&answer.rest, &all, answered);
        }
        keep(&mut self.answers, question, answer.clone());
        answer
    }

    /// Names that nothing stands behind, or nothing that goes to all.
    pub fn absent(
        &mut self,
        kind: ResourceType,
        names: &Roster<Name>,
        view: Resources<'_>,
    ) -> Arc<[Str]> {
        if names.digest() == view.digest(kind).names {
            return Arc::default();
        }
        let question = Question::of(kind, names, view);
        if let Some(known) = self.absent.get(&question) {
            return known.clone();
        }
        let texts = names.iter().map(|name| &name.text);
        let absent = texts.filter(|name| view.unasked(kind, name).is_none());
        let absent: Arc<[Str]> = absent.cloned().collect();
        keep(&mut self.absent, question, absent.clone());
        absent
    }

    /// What clients hold who brought the same, worked out once.
    pub fn brought(
        &mut self,
        what: Brought,
        work_out: impl FnOnce(&mut Shelf<Arc<Stamp>>) -> Held,
    ) -> Held {
        if let Some(known) = self.brought.get(&what) {
            return known.clone();
        }
        let held = work_out(&mut self.stamps);
        keep(&mut self.brought, what, held.clone());
        held
    }

    pub fn has_plans(&self) -> bool {
        let planned = !(self.plans.is_empty() && self.answers.is_empty());
        let planned = planned || !self.progress.is_empty();
        let known = !(self.brought.is_empty() && self.absent.is_empty());
        planned || known || self.names.keeps_any() || self.stamps.keeps_any()
    }

    /// The view is another one: what was planned for the old one is not asked for again.
    pub fn forget_plans(&mut self) {
        self.plans.clear();
        self.answers.clear();
        self.progress = Progress::default();
        self.brought.clear();
        self.absent.clear();
        self.names.let_go();
        self.stamps.let_go();
    }
}

fn keep<K: Eq + Hash, V>(known: &mut HashMap<K, V>, key: K, value: V) {
    if known.len() >= PLANS {
        known.clear();
    }
    known.insert(key, value);
}

/// Of the layer, what stands behind a name, if there is one.
fn next(
    (kind, layer, after): (ResourceType, &Layer, Option<&str>),
    held: &Roster<Arc<Stamp>>,
    (wanted, touched): (Wanted<'_>, &Touched),
    frame_bytes: usize,
) -> Vec<Arc<Encoded>> {
    let mut entries = Vec::new();
    if layer.digest(kind).content == held.digest() {
        return entries;
    }
    let mut bytes = 0;
    let mut take = |encoded: &Arc<Encoded>| {
        let old = held.get(encoded.key());
        let current = old.is_some_and(|stamp| stamp.version == encoded.version);
        if bytes < frame_bytes && !current && wanted.has(encoded.key()) {
            bytes += encoded.len;
            entries.push(encoded.clone());
        }
    };
    match touched {
        Touched::All => layer.behind(kind, after).for_each(&mut take),
        Touched::Names(names) => {
            let named = names.iter();
            named
                .filter_map(|name| layer.get(kind, &name.text))
                .for_each(take);
        }
    }
    entries
}

fn leavers(
    kind: ResourceType,
    layer: &Layer,
    held: &Roster<Arc<Stamp>>,
    touched: &Touched,
) -> Arc<[Str]> {
    let whole = layer.digest(kind).content == held.digest();
    if whole || matches!(touched, Touched::Names(_)) {
        return Arc::default();
    }
    let gone = held.iter().filter(|s| layer.get(kind, &s.name).is_none());
    gone.map(|stamp| stamp.name.clone()).collect()
}

impl Wanted<'_> {
    fn id(self) -> Option<Key> {
        match self {
            Self::All => None,
            Self::Names(names) => Some(names.digest()),
        }
    }

    pub fn has(self, key: Key) -> bool {
        match self {
            Self::All => true,
            Self::Names(names) => names.has(key),
        }
    }
}

impl Told {
    pub fn of(names: &Names, view: Resources<'_>) -> Vec<Self> {
        let names: Vec<_> = names.iter().collect();
        let mut all = Vec::new();
        for of_kind in names.chunk_by(|a, b| a.0 == b.0) {
            let kind = of_kind[0].0;
            let names = of_kind.iter().map(|(_, name)| name.clone());
            let (there, gone): (Vec<_>, _) = names.partition(|n| view.unasked(kind, n).is_some());
            all.push(Self {
                kind,
                touched: Touched::names(kind, there),
                gone,
            });
        }
        all
    }
}

impl Touched {
    pub fn names(kind: ResourceType, names: impl IntoIterator<Item = Str>) -> Self {
        let names = names.into_iter().map(|text| Name::new(kind, text));
        Self::Names(names.collect())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many names, where that is known.
    pub fn len(&self) -> usize {
        match self {
            Self::All => 1,
            Self::Names(names) => names.len(),
        }
    }

    fn id(&self) -> Option<Key> {
        match self {
            Self::All => None,
            Self::Names(names) => Some(names.iter().map(Member::key).fold(0, Key::wrapping_add)),
        }
    }

    /// Both, or more than both.
    pub fn and(&self, other: &Self) -> Self {
        let (Self::Names(ours), Self::Names(theirs)) = (self, other) else {
            return Self::All;
        };
        if self.id() == other.id() {
            return self.clone();
        }
        if ours.len() + theirs.len() > FEW {
            return Self::All;
        }
        let new = theirs.iter().filter(|name| !ours.contains(name));
        let mut both: Vec<Name> = ours.iter().chain(new).cloned().collect();
        both.sort_by(|a, b| a.text.cmp(&b.text));
        Self::Names(both.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::encode::encode_with_version;

    const KIND: ResourceType = ResourceType::Cluster;
    /// Some three resources.
    const FRAME: usize = 200;

    fn layer(count: usize) -> Layer {
        let mut layer = Layer::default();
        for n in 0..count {
            let name = Str::new(format!("cluster-{n:03}"));
            let version = Str::new_static("1");
            layer.insert(Arc::new(encode_with_version(KIND, &name, version, b"")));
        }
        layer
    }

    #[test]
    fn a_plan_that_goes_on_behind_another_is_what_it_is_alone() {
        let layer = layer(100);
        let mut pool = Pool::default();
        let mut held = Roster::EMPTY;
        let mut steps = 0;
        loop {
            let task = || (Wanted::All, &Touched::All);
            let alone = Pool::default().plan(KIND, &layer, &held, task(), FRAME);
            let plan = pool.plan(KIND, &layer, &held, task(), FRAME);
            let names = |plan: &Plan| -> Vec<Str> {
                let stamps = plan.next.iter().flat_map(|step| &step.sheet.roll.stamps);
                stamps.map(|stamp| stamp.name.clone()).collect()
            };
            assert_eq!(names(&plan), names(&alone));
            let Some(step) = plan.next else { break };
            held = step.after;
            steps += 1;
        }
        assert_eq!(held.len(), 100);
        assert!(steps > 20, "{steps}");
        assert_eq!(pool.progress.len(), steps);
    }

    #[test]
    fn answers_go_on_in_the_order_of_names() {
        let (own, shared, none) = (layer(0), layer(100), Layer::default());
        let view = Resources::new(&own, &shared, &none);
        let mut pool = Pool::default();
        let names = (0..100).map(|n| Name::new(KIND, Str::new(format!("cluster-{n:03}"))));
        let mut rest = pool.names.edit(&Roster::EMPTY, names, []);
        let mut answered = Vec::new();
        while !rest.is_empty() {
            let answer = pool.answer(KIND, &rest, view, FRAME);
            assert!(!answer.names.is_empty());
            answered.extend(answer.sheet.roll.stamps.iter().map(|s| s.name.clone()));
            rest = answer.rest;
        }
        assert_eq!(answered.len(), 100);
        assert!(answered.is_sorted());
    }
}
