//! What becomes of one name in one step of a flush: sent, removed, left, or kept waiting.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::Session;
use super::due::Why;
use super::flush::Stage;
use super::gate::is_newly_named;
use super::watch::Watch;
use crate::delivery::frame::{ABSENT, empty};
use crate::text::Str;
use crate::view::Resources;
use crate::xds::{Encoded, ResourceType, Stamp};

pub(super) enum Verdict {
    Send(Arc<Encoded>),
    Remove,
    /// The client has it, or never knew of it.
    Nothing,
    /// A later stage or flush decides.
    Wait,
}

/// Clusters named by routes and listeners that the client holds in a form about to be replaced.
pub(super) enum InForce {
    Named(BTreeSet<Str>),
    /// Some form came on an earlier stream and is not the current one: it may name any.
    Any,
}

impl InForce {
    pub(super) fn of(session: &Session, stage: Stage) -> Self {
        let mut named = BTreeSet::new();
        if stage != Stage::ClusterRemovals {
            return Self::Named(named);
        }
        for kind in [ResourceType::Listener, ResourceType::Route] {
            let watch = session.watch(kind);
            let replaced = watch.due.named.keys();
            for stamp in replaced.filter_map(|name| watch.held(name)) {
                let Some(refs) = watch.refs(stamp) else {
                    return Self::Any;
                };
                let clusters = refs.iter().filter(|r| r.kind == ResourceType::Cluster);
                named.extend(clusters.map(|r| r.name.clone()));
            }
        }
        Self::Named(named)
    }

    fn names(&self, cluster: &str) -> bool {
        match self {
            Self::Named(named) => named.contains(cluster),
            Self::Any => true,
        }
    }
}

impl Session {
    pub(super) fn verdict(
        &self,
        stage: Stage,
        name: &str,
        why: Why,
        (view, now, in_force): (Resources<'_>, Instant, &InForce),
    ) -> Verdict {
        let kind = stage.kind();
        let watch = self.watch(kind);
        let current = watch.sees(view, name);
        match (stage, current) {
            (Stage::Secrets, _) => Verdict::Remove,
            (Stage::Companions, current) => Verdict::Send(or_empty(current, kind, name)),
            (Stage::Scopes, Some(entry)) if self.waits_for_table(entry, (view, now)) => {
                Verdict::Wait
            }
            (Stage::Clusters | Stage::Endpoints | Stage::Scopes, Some(entry)) => {
                send(watch, entry, why)
            }
            (Stage::Clusters, None) if watch.held(name).is_some_and(is_there) => Verdict::Wait,
            (Stage::Clusters, None) if watch.demands(name) => no_cluster(watch, name, why),
            (Stage::Clusters | Stage::Listeners | Stage::ScopeRemovals, None) => {
                removal(watch, name, why)
            }
            (Stage::Endpoints, None) => self.no_endpoints(name, why, view),
            (Stage::Listeners | Stage::Routes, Some(entry)) => {
                let waits =
                    self.must_wait(watch, entry, now) || self.waits_for_table(entry, (view, now));
                if waits {
                    Verdict::Wait
                } else {
                    send(watch, entry, why)
                }
            }
            (Stage::Routes, None) => no_route(watch, name, why),
            (Stage::ScopeRemovals | Stage::ClusterRemovals, Some(_)) | (Stage::Scopes, None) => {
                Verdict::Wait
            }
            (Stage::ClusterRemovals, None) => {
                let unknown = self.removals_wait_until().is_some_and(|until| now < until);
                let waits = unknown || in_force.names(name);
                match watch.demands(name) {
                    _ if waits => Verdict::Wait,
                    true => no_cluster(watch, name, why),
                    false => removal(watch, name, why),
                }
            }
        }
    }

    /// An existing cluster is never left without an answer; one on its way out keeps what it has till then.
    fn no_endpoints(&self, name: &str, why: Why, view: Resources<'_>) -> Verdict {
        let held = self.watch(ResourceType::Endpoint).held(name);
        let cluster = view.get(ResourceType::Cluster, name);
        let clusters = self.watch(ResourceType::Cluster);
        let leaving = cluster.is_none() && clusters.held(name).is_some_and(is_there);
        let needs_answer = why == Why::Asked || cluster.is_some_and(|c| c.eds);
        match held {
            Some(_) if leaving => Verdict::Wait,
            Some(held) if held.version == ABSENT && why == Why::Changed => Verdict::Nothing,
            Some(_) | None if needs_answer => Verdict::Send(empty(ResourceType::Endpoint, name)),
            Some(_) => Verdict::Remove,
            None => Verdict::Nothing,
        }
    }

    fn must_wait(&self, watch: &Watch, entry: &Arc<Encoded>, now: Instant) -> bool {
        let refs = entry.refs.as_deref().unwrap_or_default();
        let held = watch.held(&entry.name);
        let in_force = held.and_then(|stamp| watch.refs(stamp));
        let in_force = in_force.as_deref();
        let awaited = self.routes_wait_until().is_some_and(|until| now < until);
        self.gate.holds(refs, in_force)
            || (awaited && refs.iter().any(|r| is_newly_named(r, in_force)))
    }
}

fn send(watch: &Watch, entry: &Arc<Encoded>, why: Why) -> Verdict {
    if why == Why::Changed && watch.has(entry) {
        return Verdict::Nothing;
    }
    Verdict::Send(entry.clone())
}

fn removal(watch: &Watch, name: &str, why: Why) -> Verdict {
    if why == Why::Asked || watch.held(name).is_some() {
        Verdict::Remove
    } else {
        Verdict::Nothing
    }
}

/// Envoy ignores the removal of a route table, which suits one whose listener drains; a table asked for
/// anew is answered with an empty one, or its listener would warm until a timeout.
fn no_route(watch: &Watch, name: &str, why: Why) -> Verdict {
    match watch.held(name) {
        Some(held) if held.version == ABSENT && why == Why::Changed => Verdict::Nothing,
        Some(held) if held.version != ABSENT => Verdict::Remove,
        Some(_) | None if why == Why::Asked => Verdict::Send(empty(ResourceType::Route, name)),
        Some(_) | None => Verdict::Nothing,
    }
}

/// A cluster without endpoints, which a request fails with at once.
fn no_cluster(watch: &Watch, name: &str, why: Why) -> Verdict {
    match watch.held(name) {
        held if why == Why::Asked || held.is_some_and(is_there) => {
            Verdict::Send(empty(ResourceType::Cluster, name))
        }
        Some(_) | None => Verdict::Nothing,
    }
}

fn is_there(held: &Arc<Stamp>) -> bool {
    held.version != ABSENT
}

fn or_empty(entry: Option<&Arc<Encoded>>, kind: ResourceType, name: &str) -> Arc<Encoded> {
    entry.map_or_else(|| empty(kind, name), Clone::clone)
}
