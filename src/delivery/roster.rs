//! Sets that many sessions share: equal ones are one, and their digests tell them apart.
//!
//! A set is cut into buckets by its members' keys, and two sets share the buckets that are equal in both.
//! Which sets there are is up to `session`.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::text::Str;
use crate::xds::stamp::{Key, Mark, key_of};
use crate::xds::{ResourceType, Stamp};

/// An immutable set of members with distinct keys. A clone is a pointer; the empty set is none.
#[derive(Clone, Debug)]
pub struct Roster<T>(Option<Arc<Full<T>>>);

#[derive(Debug)]
struct Full<T> {
    digest: Mark,
    len: usize,
    buckets: Box<[Arc<Bucket<T>>]>,
}

/// Ordered by key.
#[derive(Debug)]
struct Bucket<T> {
    digest: Mark,
    members: Box<[T]>,
}

pub trait Member: Clone {
    fn key(&self) -> Key;
    /// Tells it apart from another member with its key, too.
    fn mark(&self) -> Mark;
}

impl Member for Arc<Stamp> {
    fn key(&self) -> Key {
        Stamp::key(self)
    }

    fn mark(&self) -> Mark {
        Stamp::mark(self)
    }
}

/// A name of some type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub text: Str,
    key: Key,
}

impl Name {
    pub fn new(kind: ResourceType, text: Str) -> Self {
        let key = key_of(kind, &text);
        Self { text, key }
    }
}

impl Member for Name {
    fn key(&self) -> Key {
        self.key
    }

    fn mark(&self) -> Mark {
        self.key
    }
}

/// Sets that are kept though nobody may hold them: more than sessions of some scopes pass through together.
const KEPT: usize = 512;

/// Members to a bucket, about: what a lookup passes, and what a change copies.
const BUCKET: usize = 8;

impl<T> Roster<T> {
    pub const EMPTY: Self = Self(None);

    /// Sum of its members' marks.
    pub fn digest(&self) -> Mark {
        self.0.as_ref().map_or(0, |full| full.digest)
    }

    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |full| full.len)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// In no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let buckets = self.0.iter().flat_map(|full| &full.buckets);
        buckets.flat_map(|bucket| &bucket.members)
    }
}

impl<T: Member> Roster<T> {
    pub fn get(&self, key: Key) -> Option<&T> {
        let full = self.0.as_ref()?;
        let members = &full.buckets[place(key, full.buckets.len())].members;
        let at = members.binary_search_by_key(&key, T::key).ok()?;
        members.get(at)
    }

    pub fn has(&self, key: Key) -> bool {
        self.get(key).is_some()
    }
}

impl<T> Default for Roster<T> {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// Equal digests are equal sets.
impl<T> PartialEq for Roster<T> {
    fn eq(&self, other: &Self) -> bool {
        self.digest() == other.digest()
    }
}

/// All sets of one sort that somebody still holds.
#[derive(Debug)]
pub struct Shelf<T> {
    full: HashMap<Mark, Weak<Full<T>>>,
    buckets: HashMap<Mark, Weak<Bucket<T>>>,
    /// What two of them made together, and what is left of one without the other. Kept for a while: sessions that do
    /// the same one after another pass through sets that none of them keeps.
    unions: HashMap<(Mark, Mark), Roster<T>>,
    rests: HashMap<(Mark, Mark), Roster<T>>,
    sweep_at: usize,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self {
            full: HashMap::new(),
            buckets: HashMap::new(),
            unions: HashMap::new(),
            rests: HashMap::new(),
            sweep_at: 0,
        }
    }
}

impl<T: Member> Shelf<T> {
    /// The set of this digest, if it is known.
    pub fn find(&self, digest: Mark) -> Option<Roster<T>> {
        if digest == 0 {
            return Some(Roster::EMPTY);
        }
        let full = self.full.get(&digest)?.upgrade()?;
        Some(Roster(Some(full)))
    }

    /// `from` with `puts` in place of their namesakes, and without `drops`. The last word on a key holds.
    pub fn edit(
        &mut self,
        from: &Roster<T>,
        puts: impl IntoIterator<Item = T>,
        drops: impl IntoIterator<Item = Key>,
    ) -> Roster<T> {
        let drops = drops.into_iter().map(|key| (key, None));
        let puts = puts.into_iter().map(|member| (member.key(), Some(member)));
        let edits = settled(from, drops.chain(puts).collect());
        let mut digest = from.digest();
        let mut len = from.len();
        for (key, put) in &edits {
            if let Some(old) = from.get(*key) {
                digest = digest.wrapping_sub(old.mark());
                len -= 1;
            }
            if let Some(new) = put {
                digest = digest.wrapping_add(new.mark());
                len += 1;
            }
        }
        if edits.is_empty() {
            return from.clone();
        }
        if let Some(known) = self.find(digest) {
            return known;
        }
        let buckets = self.rebuilt(from, edits, len.div_ceil(BUCKET).next_power_of_two());
        let full = Arc::new(Full {
            digest,
            len,
            buckets,
        });
        self.sweep();
        self.full.insert(digest, Arc::downgrade(&full));
        Roster(Some(full))
    }

    /// Both; of namesakes the one in `with`.
    pub fn union(&mut self, from: &Roster<T>, with: &Roster<T>) -> Roster<T> {
        let key = (from.digest(), with.digest());
        match (&from.0, &with.0) {
            (_, None) => return from.clone(),
            (None, _) => return with.clone(),
            (Some(_), Some(_)) => {}
        }
        if let Some(known) = self.unions.get(&key) {
            return known.clone();
        }
        let union = self.edit(from, with.iter().cloned(), []);
        self.make_room();
        self.unions.insert(key, union.clone());
        union
    }

    /// Those whose keys are not in `without`.
    pub fn rest(&mut self, from: &Roster<T>, without: &Roster<T>) -> Roster<T> {
        if from.is_empty() || without.is_empty() {
            return from.clone();
        }
        if from == without {
            return Roster::EMPTY;
        }
        let key = (from.digest(), without.digest());
        if let Some(known) = self.rests.get(&key) {
            return known.clone();
        }
        // The smaller one is gone through.
        let drops: Vec<Key> = if from.len() < without.len() {
            let keys = from.iter().map(T::key);
            keys.filter(|key| without.has(*key)).collect()
        } else {
            let keys = without.iter().map(T::key);
            keys.filter(|key| from.has(*key)).collect()
        };
        let rest = self.edit(from, [], drops);
        self.make_room();
        self.rests.insert(key, rest.clone());
        rest
    }

    fn make_room(&mut self) {
        self.sweep();
        if self.unions.len() + self.rests.len() >= KEPT {
            self.let_go();
        }
    }

    /// Whether anything is kept that nobody may hold.
    pub fn keeps_any(&self) -> bool {
        !(self.unions.is_empty() && self.rests.is_empty())
    }

    pub fn let_go(&mut self) {
        self.unions.clear();
        self.rests.clear();
    }

    fn rebuilt(
        &mut self,
        from: &Roster<T>,
        mut edits: Vec<(Key, Option<T>)>,
        count: usize,
    ) -> Box<[Arc<Bucket<T>>]> {
        let Some(full) = from.0.as_ref().filter(|f| f.buckets.len() == count) else {
            let dropped = |m: &&T| edits.binary_search_by_key(&m.key(), |e| e.0).is_err();
            let kept = from.iter().filter(dropped).cloned();
            let mut sorted: Vec<Vec<T>> = Vec::new();
            sorted.resize_with(count, Vec::new);
            for member in kept.chain(edits.iter().filter_map(|(_, put)| put.clone())) {
                sorted[place(member.key(), count)].push(member);
            }
            return sorted.into_iter().map(|m| self.bucket(m)).collect();
        };
        let mut buckets = full.buckets.clone();
        edits.sort_by_key(|(key, _)| place(*key, count));
        for group in edits.chunk_by(|a, b| place(a.0, count) == place(b.0, count)) {
            let slot = &mut buckets[place(group[0].0, count)];
            let touched = |m: &&T| group.iter().all(|(key, _)| *key != m.key());
            let mut members: Vec<T> = slot.members.iter().filter(touched).cloned().collect();
            members.extend(group.iter().filter_map(|(_, put)| put.clone()));
            *slot = self.bucket(members);
        }
        buckets
    }

    fn bucket(&mut self, mut members: Vec<T>) -> Arc<Bucket<T>> {
        let digest = members
            .iter()
            .fold(0, |d: Mark, m| d.wrapping_add(m.mark()));
        if let Some(known) = self.buckets.get(&digest).and_then(Weak::upgrade) {
            return known;
        }
        members.sort_by_key(T::key);
        let members = members.into_boxed_slice();
        let bucket = Arc::new(Bucket { digest, members });
        self.buckets.insert(bucket.digest, Arc::downgrade(&bucket));
        bucket
    }

    fn sweep(&mut self) {
        if self.size() < self.sweep_at {
            return;
        }
        self.let_go();
        self.full.retain(|_, set| set.strong_count() > 0);
        self.buckets.retain(|_, bucket| bucket.strong_count() > 0);
        self.sweep_at = 1024 + 2 * self.size();
    }

    fn size(&self) -> usize {
        self.full.len() + self.buckets.len() + self.unions.len() + self.rests.len()
    }
}

/// The edits that change something, each key once, in order of keys.
fn settled<T: Member>(from: &Roster<T>, mut edits: Vec<(Key, Option<T>)>) -> Vec<(Key, Option<T>)> {
    if edits.len() > 1 {
        // The sort is stable: of equal keys the last one is kept.
        edits.reverse();
        edits.sort_by_key(|(key, _)| *key);
        edits.dedup_by_key(|(key, _)| *key);
    }
    edits.retain(|(key, put)| match (from.get(*key), put) {
        (Some(old), Some(new)) => old.mark() != new.mark(),
        (None, None) => false,
        (Some(_), None) | (None, Some(_)) => true,
    });
    edits
}

/// The lowest bits: `count` is a power of two.
fn place(key: Key, count: usize) -> usize {
    key as usize & (count - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const KIND: ResourceType = ResourceType::Cluster;

    fn stamp(name: u8, version: u8) -> Arc<Stamp> {
        let name = Str::new(name.to_string());
        let version = Str::new(version.to_string());
        Arc::new(Stamp::new(KIND, name, version, Some([].into())))
    }

    type Plain = BTreeMap<Str, Str>;

    fn plain(roster: &Roster<Arc<Stamp>>) -> Plain {
        let pairs = roster.iter().map(|s| (s.name.clone(), s.version.clone()));
        pairs.collect()
    }

    #[derive(Clone, Debug)]
    struct Edit {
        of: usize,
        puts: Vec<(u8, u8)>,
        drops: Vec<u8>,
    }

    fn edits() -> impl Strategy<Value = Vec<Edit>> {
        let puts = prop_oneof![
            prop::collection::vec((0..6u8, 0..3u8), 0..3),
            prop::collection::vec((any::<u8>(), 0..2u8), 0..100),
        ];
        let drops = prop_oneof![
            prop::collection::vec(0..6u8, 0..3),
            prop::collection::vec(any::<u8>(), 0..100),
        ];
        let edit = (any::<prop::sample::Index>(), puts, drops);
        prop::collection::vec(edit, 1..30).prop_map(|edits| {
            let numbered = edits.into_iter().enumerate();
            let edit = |(n, (of, puts, drops)): (usize, (prop::sample::Index, _, _))| Edit {
                of: of.index(n + 1),
                puts,
                drops,
            };
            numbered.map(edit).collect()
        })
    }

    proptest! {
        #[test]
        fn rosters_behave_as_plain_maps_and_equal_ones_are_one(edits in edits()) {
            let mut shelf = Shelf::default();
            let mut all = vec![(Plain::new(), Roster::EMPTY)];
            for edit in edits {
                let (model, from) = &all[edit.of];
                let mut model = model.clone();
                for name in &edit.drops {
                    model.remove(name.to_string().as_str());
                }
                for (name, version) in &edit.puts {
                    model.insert(name.to_string().into(), version.to_string().into());
                }
                let puts = edit.puts.iter().map(|(n, v)| stamp(*n, *v));
                let drops = edit.drops.iter().map(|n| key_of(KIND, &n.to_string()));
                let roster = shelf.edit(from, puts, drops);
                prop_assert_eq!(&plain(&roster), &model);
                prop_assert_eq!(roster.len(), model.len());
                for (name, version) in &model {
                    let found = roster.get(key_of(KIND, name));
                    prop_assert_eq!(found.map(|s| &s.version), Some(version));
                }
                all.push((model, roster));
            }
            for (model, roster) in &all {
                for (other, set) in &all {
                    prop_assert_eq!(model == other, roster == set);
                    if let (true, Some(a), Some(b)) = (model == other, &roster.0, &set.0) {
                        prop_assert!(Arc::ptr_eq(a, b));
                    }
                }
                let known = shelf.find(roster.digest());
                prop_assert_eq!(known.map(|k| plain(&k)), Some(model.clone()));
            }
        }
    }

    #[test]
    fn unions_and_rests_are_those_of_plain_sets() {
        let mut shelf = Shelf::default();
        let mut of = |names: std::ops::Range<u8>, version| {
            shelf.edit(&Roster::EMPTY, names.map(|n| stamp(n, version)), [])
        };
        let (low, high, one) = (of(0..60, 0), of(40..100, 1), of(7..8, 0));
        // Asked twice: made, and remembered.
        for _ in 0..2 {
            let union = shelf.union(&low, &high);
            assert_eq!(union.len(), 100);
            let of = |n: u8| union.get(key_of(KIND, &n.to_string())).unwrap();
            assert_eq!(
                (of(39).version.as_str(), of(40).version.as_str()),
                ("0", "1")
            );
            assert_eq!(shelf.rest(&union, &high).len(), 40);
            assert_eq!(shelf.rest(&low, &one).len(), 59);
            assert!(shelf.rest(&one, &low).is_empty());
            assert_eq!(shelf.union(&low, &one), low);
            assert_eq!(shelf.rest(&low, &Roster::EMPTY), low);
        }
    }

    #[test]
    fn sets_that_differ_in_one_member_share_the_rest() {
        let mut shelf = Shelf::default();
        let many = shelf.edit(&Roster::EMPTY, (0..=255).map(|n| stamp(n, 0)), []);
        let other = shelf.edit(&many, [stamp(7, 1)], []);
        let buckets = |r: &Roster<_>| r.0.as_ref().unwrap().buckets.clone();
        let pairs = std::iter::zip(buckets(&many), buckets(&other));
        let differing = pairs.filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
        assert_eq!(differing, 1);
        assert!(buckets(&many).len() >= 32);
    }

    #[test]
    fn what_nobody_holds_is_forgotten() {
        let mut shelf = Shelf::default();
        for n in 0..5000_u32 {
            let stamp = Stamp::new(KIND, n.to_string().into(), Str::default(), None);
            drop(shelf.edit(&Roster::EMPTY, [Arc::new(stamp)], []));
        }
        assert!(shelf.full.len() + shelf.buckets.len() < 3000);
    }
}
