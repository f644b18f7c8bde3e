//! The short way of a flush: frames made once for all sessions in one state.
//!
//! Nothing is sent by it that the long way, name by name in `flush.rs`, would not send.

use std::time::Instant;

use super::due::{Touch, Why};
use super::flush::Stage;
use super::watch::{News, Watch};
use super::{Session, Turn};
use crate::delivery::frame::Frame;
use crate::delivery::pool::{Plan, Step, Touched};
use crate::delivery::roster::Roster;
use crate::xds::ResourceType;

impl Session {
    /// The next frame of what was touched. Names that must be looked at one by one become so.
    pub(super) fn planned(&mut self, stage: Stage, turn: &mut Turn<'_>) -> Option<Frame> {
        match stage {
            Stage::Clusters
            | Stage::Endpoints
            | Stage::Listeners
            | Stage::Routes
            | Stage::Scopes => {}
            Stage::ScopeRemovals => {
                self.look_for_removals(stage.kind(), turn);
                return None;
            }
            Stage::Companions => return self.companions(turn),
            Stage::Secrets | Stage::ClusterRemovals => return None,
        }
        let kind = stage.kind();
        let watch = self.watch(kind);
        let Touch { names, mark } = watch.due.touched.clone()?;
        let waits = self.may_wait(kind, turn.now) || self.may_lack_table(kind, &names, turn);
        if !watch.due.named.is_empty() || waits || turn.pool.name_by_name {
            self.look_at_each(kind, turn);
            return None;
        }
        let mut steps = Vec::new();
        let mut bytes = 0;
        for (at, layer) in turn.view.layers().into_iter().enumerate() {
            if layer.count(kind) == 0 && watch.held[at].is_empty() {
                continue;
            }
            let task = (watch.wanted(), &names);
            let held = &watch.held[at];
            let Plan { next, leavers } =
                turn.pool
                    .plan(kind, layer, held, task, self.limits.frame_bytes);
            if next.as_ref().is_some_and(|step| watch.elsewhere(at, step)) || !leavers.is_empty() {
                // What comes and what goes may depend on each other: two listeners of one address.
                self.look_at_each(kind, turn);
                return None;
            }
            if let Some(step) = next.filter(|_| bytes < self.limits.frame_bytes) {
                bytes += step.sheet.len;
                steps.push((at, step));
            }
        }
        if steps.is_empty() {
            self.watches[kind as usize].due.touched = None;
            return None;
        }
        Some(self.send(steps, mark.since, turn))
    }

    /// Endpoints of the clusters just sent, whatever the client holds of them.
    fn companions(&mut self, turn: &mut Turn<'_>) -> Option<Frame> {
        let kind = ResourceType::Endpoint;
        if self.companions.is_empty() || turn.pool.name_by_name {
            return None;
        }
        let frame_bytes = self.limits.frame_bytes;
        let answer = turn
            .pool
            .answer(kind, &self.companions, turn.view, frame_bytes);
        let watch = self.watch(kind);
        let roll = &answer.sheet.roll;
        let moved = |(at, here): (usize, &Roster<_>)| {
            let step = !here.is_empty() && here.len() < roll.stamps.len();
            step || (here.is_empty() && roll.meets(&watch.held[at]))
        };
        if answer.brought.iter().enumerate().any(moved) {
            // From several layers: which of them holds what now is decided name by name.
            return None;
        }
        let both = std::iter::zip(&watch.held, &answer.brought);
        let mut after = both.map(|(held, new)| turn.pool.stamps.union(held, new));
        let held = std::array::from_fn(|_| after.next().unwrap_or_default());
        let nonce = self.next_nonce();
        self.companions_sent(&answer.names, turn);
        let watch = &mut self.watches[kind as usize];
        watch.sent(nonce, (roll.clone(), News::None), held, None);
        Some(self.handed(Frame::new(answer.sheet, nonce)))
    }

    /// Whether something of this type may have to wait for a cluster.
    fn may_wait(&self, kind: ResourceType, now: Instant) -> bool {
        match kind {
            ResourceType::Cluster
            | ResourceType::Endpoint
            | ResourceType::ScopedRoute
            | ResourceType::Secret => false,
            ResourceType::Listener | ResourceType::Route => {
                !self.gate.is_open() || self.routes_wait_until().is_some_and(|until| now < until)
            }
        }
    }

    /// What is gone must be known before the plan for what comes is made.
    fn look_for_removals(&mut self, kind: ResourceType, turn: &mut Turn<'_>) {
        let watch = self.watch(kind);
        let Some(Touch { names, .. }) = watch.due.touched.clone() else {
            return;
        };
        let mut gone = false;
        for (at, layer) in turn.view.layers().into_iter().enumerate() {
            let task = (watch.wanted(), &names);
            let limit = self.limits.frame_bytes;
            let plan = turn.pool.plan(kind, layer, &watch.held[at], task, limit);
            gone |= !plan.leavers.is_empty();
        }
        if gone {
            self.look_at_each(kind, turn);
        }
    }

    /// One frame, of one sheet a layer.
    fn send(
        &mut self,
        steps: Vec<(usize, Step)>,
        since: Option<Instant>,
        turn: &mut Turn<'_>,
    ) -> Frame {
        let nonce = self.next_nonce();
        for (layer, Step { sheet, after }) in &steps {
            let roll = &sheet.roll;
            let watch = self.watch(roll.kind);
            let mut held = watch.held.clone();
            let added = after.len() - held[*layer].len();
            held[*layer] = after.clone();
            let mut news = News::None;
            if roll.kind == ResourceType::Cluster {
                news = watch.news(roll, added);
                self.clusters_sent(roll, &news, nonce, turn);
            }
            let watch = &mut self.watches[roll.kind as usize];
            watch.sent(nonce, (roll.clone(), news), held, since);
        }
        let sheets = steps.into_iter().map(|(_, step)| step.sheet);
        self.handed(Frame::joined(sheets, nonce))
    }

    /// Marks whatever was touched and wanted, or held and should not be, by its name.
    fn look_at_each(&mut self, kind: ResourceType, turn: &Turn<'_>) {
        let view = turn.view;
        let watch = &mut self.watches[kind as usize];
        let Some(Touch { names, mark }) = watch.due.touched.take() else {
            return;
        };
        if mark.why == Why::Asked {
            let names = watch.names.iter().filter(|n| watch.held(&n.text).is_none());
            let asked: Vec<_> = names.map(|name| name.text.clone()).collect();
            for name in asked {
                watch.due.ask(&name);
            }
        }
        let names: Vec<_> = match names {
            Touched::Names(names) => {
                let wanted = names.iter().filter(|name| watch.wants(&name.text));
                wanted.map(|name| name.text.clone()).collect()
            }
            Touched::All => {
                let all = view.of(kind);
                let seen = all.filter(|e| watch.wants(&e.name));
                let seen = seen.filter(|e| watch.sees(view, &e.name).is_some());
                let changed = seen.filter(|e| !watch.has(e)).map(|encoded| &encoded.name);
                let held = watch.held.iter().flat_map(|layer| layer.iter());
                let held = held.map(|stamp| &stamp.name);
                let gone = held.filter(|name| watch.sees(view, name).is_none());
                changed.chain(gone).cloned().collect()
            }
        };
        for name in names {
            watch.due.change(&name, mark.since);
        }
    }
}

impl Watch {
    /// Whether the client holds a namesake from another layer.
    fn elsewhere(&self, layer: usize, step: &Step) -> bool {
        let mut held = self.held.iter().enumerate();
        held.any(|(at, other)| at != layer && step.sheet.roll.meets(other))
    }
}
