//! The laws of the push core, as properties over random meshes and edits.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "laws/mesh.rs"]
mod mesh;
#[path = "laws/packing.rs"]
mod packing;

use std::collections::BTreeMap;

use fairlead::config::{Change, Key};
use fairlead::model::Settings;
use fairlead::text::Str;
use fairlead::view::{Engine, ProxyId};
use fairlead::xds::{Encoded, ResourceType};
use proptest::prelude::*;

/// Everything there is for a proxy: type and name to version, and whether it comes to who asks for all.
type Held = BTreeMap<(ResourceType, Str), (Str, bool)>;

fn held(engine: &Engine, id: u64) -> Held {
    let scope = engine.scope_of(ProxyId(id)).unwrap();
    let resources = engine.resources(scope).unwrap();
    let entries = ResourceType::ALL
        .into_iter()
        .flat_map(|kind| resources.of(kind));
    let unasked = |e: &Encoded| resources.unasked(e.kind, &e.name).is_some();
    entries
        .map(|e| ((e.kind, e.name.clone()), (e.version.clone(), unasked(e))))
        .collect()
}

fn attach_all(engine: &mut Engine) {
    for (id, proxy) in mesh::proxies().into_iter().enumerate() {
        engine.attach(ProxyId(id as u64), proxy);
    }
}

fn all_held(engine: &Engine) -> Vec<Held> {
    (0..mesh::proxies().len() as u64)
        .map(|id| held(engine, id))
        .collect()
}

fn last_of_each(changes: &[Change]) -> Vec<Change> {
    let mut last: BTreeMap<Key, Change> = BTreeMap::new();
    for change in changes {
        last.insert(change.key.clone(), change.clone());
    }
    last.into_values().filter(|c| c.object.is_some()).collect()
}

fn from_scratch(changes: &[Change]) -> Engine {
    let mut engine = Engine::new(Settings::default());
    engine.apply(changes);
    attach_all(&mut engine);
    engine
}

/// Applied in batches, the changes must leave what their last forms give at once.
fn follow(changes: &[Change], batch: usize) -> Result<(), TestCaseError> {
    let mut engine = Engine::new(Settings::default());
    attach_all(&mut engine);
    for batch in changes.chunks(batch) {
        engine.apply(batch);
    }
    let fresh = from_scratch(&last_of_each(changes));
    for (id, (got, want)) in all_held(&engine).iter().zip(all_held(&fresh)).enumerate() {
        prop_assert_eq!(got, &want, "proxy {}", id);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn incremental_equals_from_scratch(
        changes in prop::collection::vec(mesh::change(), 1..40),
        batch in 1usize..5,
    ) {
        follow(&changes, batch)?;
    }

    #[test]
    fn incremental_equals_from_scratch_while_endpoints_roll(
        changes in mesh::rollout(),
        batch in 1usize..3,
    ) {
        follow(&changes, batch)?;
    }

    #[test]
    fn the_order_of_events_does_not_matter(
        (changes, shuffled) in prop::collection::vec(mesh::change(), 1..30)
            .prop_map(|c| last_of_each(&c))
            .prop_flat_map(|c| (Just(c.clone()), Just(c).prop_shuffle())),
    ) {
        let mut engine = Engine::new(Settings::default());
        attach_all(&mut engine);
        for change in &shuffled {
            engine.apply(std::slice::from_ref(change));
        }
        prop_assert_eq!(all_held(&engine), all_held(&from_scratch(&changes)));
    }

    #[test]
    fn an_update_names_all_that_differs(
        changes in prop::collection::vec(mesh::change(), 1..25),
    ) {
        let mut engine = Engine::new(Settings::default());
        attach_all(&mut engine);
        for change in &changes {
            let before = all_held(&engine);
            let update = engine.apply(std::slice::from_ref(change));
            for (id, (before, after)) in before.iter().zip(all_held(&engine)).enumerate() {
                let id = ProxyId(id as u64);
                if update.moved.contains(&id) {
                    continue;
                }
                let scope = engine.scope_of(id).unwrap();
                let named = update.scopes.get(&scope).cloned().unwrap_or_default().names;
                let keys = before.keys().chain(after.keys());
                for key in keys.filter(|k| before.get(*k) != after.get(*k)) {
                    prop_assert!(named.contains(key), "{:?} changed unnamed by {}", key, change.key);
                }
            }
        }
    }

    #[test]
    fn every_reference_to_a_table_or_assignment_resolves(
        changes in prop::collection::vec(mesh::change(), 1..40),
    ) {
        let engine = from_scratch(&last_of_each(&changes));
        for id in 0..mesh::proxies().len() as u64 {
            let resources = engine.resources(engine.scope_of(ProxyId(id)).unwrap()).unwrap();
            for kind in ResourceType::ALL {
                for entry in resources.of(kind) {
                    if entry.eds {
                        prop_assert!(resources.get(ResourceType::Endpoint, &entry.name).is_some());
                    }
                    for r in entry.refs.iter().flat_map(|refs| refs.iter()) {
                        // A rule may name a subset or host that nobody defines (503, or a closed connection, as
                        // in Istio). What is there comes to a listener without being asked for.
                        let dangling = r.kind == ResourceType::Cluster
                            && (kind == ResourceType::Route || resources.get(r.kind, &r.name).is_none());
                        let there = match kind {
                            ResourceType::Route => resources.get(r.kind, &r.name),
                            _ => resources.unasked(r.kind, &r.name),
                        };
                        prop_assert!(
                            dangling || there.is_some(),
                            "{} refers to {:?}", entry.name, r
                        );
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    /// Two clients that differ in packing alone have the same virtual hosts under the same names.
    #[test]
    fn scopes_are_another_packing_of_the_same_virtual_hosts(
        changes in prop::collection::vec(mesh::change(), 1..40),
    ) {
        let engine = from_scratch(&last_of_each(&changes));
        for (whole, scoped, demanding) in mesh::PACKED {
            // On demand differs in when things come.
            let on_demand = held(&engine, demanding);
            for (key, (version, _)) in held(&engine, scoped) {
                let same = on_demand.get(&key).is_some_and(|(v, _)| *v == version);
                let says_when = matches!(key.0, ResourceType::Listener | ResourceType::ScopedRoute);
                prop_assert!(same || says_when, "{:?}", key);
            }
            prop_assert_eq!(on_demand.len(), held(&engine, scoped).len());
            let whole = packing::of(&engine, whole);
            let scoped = packing::of(&engine, scoped);
            prop_assert_eq!(&packing::of(&engine, demanding).scopes, &scoped.scopes);
            prop_assert!(whole.scopes.is_empty());
            if scoped.scopes.is_empty() && !scoped.tables.keys().all(|t| t.contains(':')) {
                // Its tables are patched: such come whole.
                prop_assert_eq!(&whole.tables, &scoped.tables);
                continue;
            }
            for (name, table) in &whole.tables {
                if name.contains(':') {
                    prop_assert_eq!(Some(table), scoped.tables.get(name));
                    continue;
                }
                for host in table {
                    for domain in &host.domains {
                        let found = scoped.leads_to(name, domain).map(packing::without_names);
                        prop_assert_eq!(Some(packing::without_names(host)), found, "{}", domain);
                    }
                }
            }
            let known = scoped.scopes.values().chain(whole.tables.keys());
            let known: std::collections::BTreeSet<_> = known.collect();
            prop_assert!(scoped.tables.keys().all(|t| known.contains(t)), "a table that nothing leads to");
        }
    }
}

/// More where time allows: `PROPTEST_CASES`.
#[expect(
    clippy::disallowed_methods,
    reason = "where a run says how long it may take"
)]
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(64)
}
