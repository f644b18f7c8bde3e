//! Which waiting versions may come into force together without breaking a reference that holds.
//!
//! All are tried at once; whoever breaks one is set back, until nothing breaks. Pure, over `Links`.

use std::collections::{BTreeMap, BTreeSet};

use super::links::{Links, Part, Ref};
use crate::config::Key;

/// Waiting versions' parts, over those in force.
pub(super) struct Proposal<'l> {
    force: &'l Links,
    next: Links,
    taken: BTreeSet<Key>,
}

/// A reference that would hold no more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Break {
    pub(super) user: Key,
    pub(super) on: Ref,
}

impl<'l> Proposal<'l> {
    pub(super) fn new(force: &'l Links, candidates: BTreeMap<Key, Part>) -> Self {
        let taken = candidates.keys().cloned().collect();
        let mut next = Links::default();
        for (key, part) in candidates {
            next.set(key, part);
        }
        Self { force, next, taken }
    }

    /// The candidates that come into force.
    pub(super) fn settle(mut self) -> BTreeSet<Key> {
        let all = self.taken.clone();
        let touched = self.touched(&all);
        loop {
            let broken = self.breaks(&touched);
            let culprits: BTreeSet<Key> = broken.iter().flat_map(|b| self.culprits(b)).collect();
            if culprits.is_empty() {
                break;
            }
            self.taken.retain(|key| !culprits.contains(key));
        }
        self.readmit(&all);
        self.taken
    }

    /// What breaks if all candidates come into force.
    pub(super) fn all_breaks(&self) -> BTreeSet<Break> {
        self.breaks(&self.touched(&self.taken))
    }

    /// Setting back at once may set back too many: one that fits alone comes in after all.
    fn readmit(&mut self, all: &BTreeSet<Key>) {
        loop {
            let before = self.taken.len();
            for key in all {
                if self.taken.insert(key.clone())
                    && !self
                        .breaks(&self.touched(&BTreeSet::from([key.clone()])))
                        .is_empty()
                {
                    self.taken.remove(key);
                }
            }
            if self.taken.len() == before {
                return;
            }
        }
    }

    /// The VirtualServices whose references `keys` could change.
    fn touched(&self, keys: &BTreeSet<Key>) -> BTreeSet<Key> {
        let mut out = BTreeSet::new();
        for key in keys {
            match self.next.part(key) {
                None => {}
                Some(Part::Uses(_)) => drop(out.insert(key.clone())),
                Some(Part::Offers(_)) => {
                    let hosts = [self.force.offer(key), self.next.offer(key)];
                    for offer in hosts.into_iter().flatten() {
                        out.extend(self.force.users(&offer.host).cloned());
                        out.extend(self.next.users(&offer.host).cloned());
                    }
                }
            }
        }
        out
    }

    fn breaks(&self, users: &BTreeSet<Key>) -> BTreeSet<Break> {
        let mut out = BTreeSet::new();
        for user in users {
            // What is new as a whole breaks nothing: it takes effect as in Istio.
            let Some(before) = self.force.uses(user) else {
                continue;
            };
            for on in self.uses(user) {
                let held = !before.contains(on) || self.force.definers(on).next().is_some();
                if held && !self.resolves(on) {
                    out.insert(Break {
                        user: user.clone(),
                        on: on.clone(),
                    });
                }
            }
        }
        out
    }

    fn uses(&self, user: &Key) -> &BTreeSet<Ref> {
        const NONE: &BTreeSet<Ref> = &BTreeSet::new();
        let links = if self.taken.contains(user) {
            &self.next
        } else {
            self.force
        };
        links.uses(user).unwrap_or(NONE)
    }

    fn resolves(&self, on: &Ref) -> bool {
        self.next.definers(on).any(|key| self.taken.contains(key))
            || self.force.definers(on).any(|key| !self.taken.contains(key))
    }

    /// Who made the break: the user, if it is its new version that names the subset, else the rules
    /// whose new versions define it no more.
    fn culprits(&self, broken: &Break) -> BTreeSet<Key> {
        let Break { user, on } = broken;
        let named_before = self.force.uses(user).is_some_and(|refs| refs.contains(on));
        if self.taken.contains(user) && !named_before {
            return BTreeSet::from([user.clone()]);
        }
        self.force
            .definers(on)
            .filter(|key| self.taken.contains(*key))
            .cloned()
            .collect()
    }
}
