//! Which listeners and scopes wait until the client has a route table.
//!
//! Envoy asks for a scope's table only when it has the scope, and answers 404 till the table comes. A scope that is
//! new hurts nobody by that; one that leaves a table does, and so does a listener that comes to scopes in use.

use std::time::Instant;

use super::{Session, Turn};
use crate::delivery::pool::Touched;
use crate::text::Str;
use crate::view::Resources;
use crate::xds::{Encoded, Ref, ResourceType, Stamp};

impl Session {
    /// Whether requests would be led to a table that the client lacks, and may still get in time.
    pub(super) fn waits_for_table(
        &self,
        encoded: &Encoded,
        (view, now): (Resources<'_>, Instant),
    ) -> bool {
        !self.tables_are_late(now) && self.lacks_table(encoded, view)
    }

    /// Whether one of these may wait.
    pub(super) fn may_lack_table(
        &self,
        kind: ResourceType,
        names: &Touched,
        turn: &mut Turn<'_>,
    ) -> bool {
        if !self.has_scopes() || self.tables_are_late(turn.now) {
            return false;
        }
        let view = turn.view;
        let entries = |name: &Str| view.get(kind, name);
        match (kind, names) {
            (ResourceType::Listener | ResourceType::ScopedRoute, Touched::Names(names)) => {
                let mut entries = names.iter().filter_map(|name| entries(&name.text));
                entries.any(|entry| self.lacks_table(entry, view))
            }
            (ResourceType::Listener, Touched::All) => self.watch(kind).count() > 0,
            // Only a scope that the client has in another version may leave a table.
            (ResourceType::ScopedRoute, Touched::All) => {
                let held = &self.watch(kind).held;
                let mut layers = std::iter::zip(view.layers(), held);
                layers.any(|(layer, held)| turn.pool.is_outdated(kind, layer, held))
            }
            (
                ResourceType::Cluster
                | ResourceType::Endpoint
                | ResourceType::Route
                | ResourceType::Secret,
                _,
            ) => false,
        }
    }

    /// Sets or ends the wait, after a flush.
    pub(super) fn await_tables(&mut self, view: Resources<'_>, now: Instant) {
        let lacking = |kind: ResourceType| {
            let due = self.watch(kind).due.named.keys();
            let mut entries = due.filter_map(|name| view.get(kind, name));
            entries.any(|entry| self.lacks_table(entry, view))
        };
        let waits = lacking(ResourceType::Listener) || lacking(ResourceType::ScopedRoute);
        let until = self.tables_by.unwrap_or(now + self.limits.warm);
        self.tables_by = waits.then_some(until);
    }

    fn tables_are_late(&self, now: Instant) -> bool {
        self.tables_by.is_some_and(|until| until <= now)
    }

    /// The first listener with scopes needs no care: it warms until it has them and their tables.
    fn has_scopes(&self) -> bool {
        let scopes = self.watch(ResourceType::ScopedRoute);
        scopes.opened && scopes.wildcard
    }

    fn lacks_table(&self, encoded: &Encoded, view: Resources<'_>) -> bool {
        if !self.has_scopes() {
            return false;
        }
        let tables = self.watch(ResourceType::Route);
        let lacks = |table: &Str| tables.held(table).is_none();
        let watch = self.watch(encoded.kind);
        let held = watch.held(&encoded.name);
        match encoded.kind {
            ResourceType::ScopedRoute => {
                let leaves = held.is_some_and(|h| h.version != encoded.version);
                leaves && table_of(encoded).is_some_and(lacks)
            }
            ResourceType::Listener => {
                let before = held.and_then(|stamp| watch.refs(stamp));
                let before = before.as_deref().unwrap_or_default();
                let is_new = |r: &&Ref| r.kind == ResourceType::ScopedRoute && !before.contains(r);
                let named = encoded.refs.as_deref().unwrap_or_default();
                let scopes = named.iter().filter(is_new);
                let scopes = scopes.filter_map(|scope| view.get(scope.kind, &scope.name));
                let mut tables = scopes.filter_map(|scope| table_of(scope));
                tables.any(lacks)
            }
            ResourceType::Cluster
            | ResourceType::Endpoint
            | ResourceType::Route
            | ResourceType::Secret => false,
        }
    }
}

fn table_of(scope: &Stamp) -> Option<&Str> {
    let refs = scope.refs.as_deref().unwrap_or_default();
    let table = refs.iter().find(|r| r.kind == ResourceType::Route);
    table.map(|r| &r.name)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::testing::*;
    use super::*;
    use crate::xds::Encoded;

    const S: ResourceType = ResourceType::ScopedRoute;

    fn leading(kind: ResourceType, name: &str, version: &str, to: (ResourceType, &str)) -> Encoded {
        let to = Ref {
            kind: to.0,
            name: to.1.into(),
        };
        let stamp = Stamp::new(kind, name.into(), version.into(), Some([to].into()));
        Encoded {
            stamp: Arc::new(stamp),
            ..resource(kind, name, version)
        }
    }

    /// A client with a listener on port 80, its fallback, and the host a.
    fn scoped() -> World {
        let mut w = World::new();
        w.put(leading(L, "l80", "1", (S, "80/*")));
        for name in ["80/*", "80/a"] {
            w.put(leading(S, name, "1", (R, name)));
            w.put(resource(R, name, "1"));
        }
        for (kind, names) in [
            (C, vec![]),
            (L, vec![]),
            (S, vec![]),
            (R, vec!["80/*", "80/a"]),
        ] {
            let did = w.subscribe(kind, &names);
            for got in &did.frames {
                assert!(w.ack(got).frames.is_empty());
            }
        }
        w
    }

    #[test]
    fn the_first_scope_request_without_names_means_all() {
        let mut w = World::new();
        w.put(leading(S, "80/*", "1", (R, "80/*")));
        assert_eq!(w.subscribe(S, &[]).sent(), ["srds 80/*=1"]);
        assert_eq!(
            w.change(leading(S, "80/a", "1", (R, "80/a"))).sent(),
            ["srds 80/a=1"]
        );
    }

    #[test]
    fn a_new_scope_goes_at_once_and_its_table_when_it_is_asked_for() {
        let mut w = scoped();
        w.put(resource(R, "80/b", "1"));
        w.put(leading(S, "80/b", "1", (R, "80/b")));
        let did = w.touched(&[(R, "80/b"), (S, "80/b")]);
        assert_eq!(did.sent(), ["srds 80/b=1"]);
        assert_eq!(w.subscribe(R, &["80/b"]).sent(), ["rds 80/b=1"]);
    }

    #[test]
    fn a_scope_leaves_its_table_only_for_one_that_the_client_has() {
        let mut w = scoped();
        w.put(resource(R, "80/b", "1"));
        w.put(leading(S, "80/b", "1", (R, "80/b")));
        w.put(leading(S, "80/a", "2", (R, "80/b")));
        let did = w.touched(&[(S, "80/a"), (S, "80/b"), (R, "80/b")]);
        assert_eq!(did.sent(), ["srds 80/b=1"]);
        let did = w.subscribe(R, &["80/b"]);
        assert_eq!(did.sent(), ["rds 80/b=1", "srds 80/a=2"]);
    }

    #[test]
    fn a_listener_comes_to_scopes_in_use_when_the_client_has_its_fallback() {
        let mut w = scoped();
        w.put(leading(L, "l81", "1", (S, "81/*")));
        w.put(leading(S, "81/*", "1", (R, "81/*")));
        w.put(resource(R, "81/*", "1"));
        let did = w.touched(&[(L, "l81"), (S, "81/*"), (R, "81/*")]);
        assert_eq!(did.sent(), ["srds 81/*=1"]);
        let did = w.subscribe(R, &["81/*"]);
        assert_eq!(did.sent(), ["rds 81/*=1", "lds l81=1"]);
    }

    #[test]
    fn nothing_waits_for_a_table_longer_than_for_a_cluster() {
        let mut w = scoped();
        w.put(leading(L, "l81", "1", (S, "81/*")));
        w.put(leading(S, "81/*", "1", (R, "81/*")));
        w.put(leading(S, "80/a", "2", (R, "80/b")));
        let did = w.touched(&[(L, "l81"), (S, "81/*"), (S, "80/a")]);
        assert_eq!(did.sent(), ["srds 81/*=1"]);
        assert!(w.after(Duration::from_secs(4)).sent().is_empty());
        let did = w.after(Duration::from_secs(1));
        assert_eq!(did.sent(), ["lds l81=1", "srds 80/a=2"]);
    }

    #[test]
    fn a_scope_goes_before_its_table_and_its_cluster_after_both() {
        let mut w = scoped();
        w.put(static_cluster("c", "1"));
        w.touched(&[(C, "c")]);
        w.drop(S, "80/a").drop(R, "80/a").drop(C, "c");
        let did = w.touched(&[(C, "c"), (R, "80/a"), (S, "80/a")]);
        assert_eq!(did.sent(), ["srds -80/a", "rds -80/a", "cds -c"]);
    }
}
