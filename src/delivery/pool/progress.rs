//! How far first sendings have come, so that each frame is looked for behind the one before it.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Plan, State, Touched, keep};
use crate::delivery::roster::{Name, Roster};
use crate::text::Str;
use crate::view::Layer;
use crate::xds::stamp::{Key, Mark};
use crate::xds::{Encoded, ResourceType, Stamp};

#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Where the search for what is next goes on, in states that a plan led to.
    reached: HashMap<State, Reached>,
    /// Whether something held stands in a layer in another version, by the digests of both.
    outdated: HashMap<(Mark, Mark), bool>,
    /// Names in order, and how many of them are answered, by the digest of the others.
    sorted: HashMap<Key, (Arc<[Name]>, usize)>,
}

/// How far a layer was gone through: up to a name, all is held or not wanted.
#[derive(Clone, Debug)]
pub(super) struct Reached {
    pub name: Str,
    /// Frames bring what is in the layer: nobody leaves or stays by them.
    pub leavers: Arc<[Str]>,
}

impl Progress {
    pub fn is_empty(&self) -> bool {
        self.reached.is_empty() && self.outdated.is_empty() && self.sorted.is_empty()
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.reached.len()
    }

    pub fn reached(&self, state: &State) -> Option<&Reached> {
        self.reached.get(state)
    }

    /// Whoever is sent this looks for what is next behind it.
    pub fn planned(
        &mut self,
        state: State,
        (held, touched): (&Roster<Arc<Stamp>>, &Touched),
        plan: &Plan,
        sent: &[Arc<Encoded>],
    ) {
        let (Some(step), Some(last)) = (&plan.next, sent.last()) else {
            return;
        };
        let after = step.after.digest();
        // What only adds to what is held leaves nothing outdated that was not.
        let before = self.outdated.get(&(state.layer, state.held));
        let clean = held.is_empty() || before == Some(&false);
        if clean && step.after.len() == held.len() + sent.len() {
            keep(&mut self.outdated, (state.layer, after), false);
        }
        if matches!(touched, Touched::All) {
            let reached = Reached {
                name: last.name.clone(),
                leavers: plan.leavers.clone(),
            };
            let then = State {
                held: after,
                ..state
            };
            keep(&mut self.reached, then, reached);
        }
    }

    /// Whether something held stands in the layer in another version.
    pub fn is_outdated(
        &mut self,
        kind: ResourceType,
        layer: &Layer,
        held: &Roster<Arc<Stamp>>,
    ) -> bool {
        let now = layer.digest(kind).content;
        if held.is_empty() || held.digest() == now {
            return false;
        }
        let state = (now, held.digest());
        if let Some(known) = self.outdated.get(&state) {
            return *known;
        }
        let current = |stamp: &Arc<Stamp>| {
            let there = layer.get(kind, &stamp.name);
            there.is_none_or(|there| there.version == stamp.version)
        };
        let outdated = !held.iter().all(current);
        keep(&mut self.outdated, state, outdated);
        outdated
    }

    /// These names are, in order, those of a list past a number of them.
    pub fn sorted(&self, names: &Roster<Name>) -> (Arc<[Name]>, usize) {
        if let Some((all, answered)) = self.sorted.get(&names.digest()) {
            return (all.clone(), *answered);
        }
        let mut all: Vec<Name> = names.iter().cloned().collect();
        all.sort_by(|a, b| a.text.cmp(&b.text));
        (all.into(), 0)
    }

    /// `rest` is what is left of a list when so many are answered.
    pub fn answered(&mut self, rest: &Roster<Name>, all: &Arc<[Name]>, answered: usize) {
        keep(&mut self.sorted, rest.digest(), (all.clone(), answered));
    }
}
