//! How an Envoy's growth is judged: by the difference between the smallest and the largest mesh.

use super::push::growth::{Grown, judge};
use super::push::packing::Packing;

fn met(packing: Packing, small: Grown, large: Grown) -> Vec<bool> {
    let mut rows = [small, large].map(|row| Grown { packing, ..row });
    judge(&mut rows);
    assert!(rows[0].bars.is_empty());
    rows[1].bars.iter().map(|bar| bar.met).collect()
}

#[test]
fn on_demand_only_what_each_scope_more_costs_counts() {
    let small = Grown {
        scopes: 400,
        resident: 70_000_000,
        ready_cpu_s: 0.06,
        ..Grown::default()
    };
    let large = |resident, ready_cpu_s| Grown {
        scopes: 20_400,
        resident,
        ready_cpu_s,
        ..Grown::default()
    };
    let met = |large| met(Packing::OnDemand, small.clone(), large);
    assert_eq!(met(large(149_000_000, 0.29)), [true, true]);
    assert_eq!(met(large(151_000_000, 0.29)), [false, true]);
    assert_eq!(met(large(149_000_000, 0.31)), [true, false]);
    assert_eq!(met(small.clone()), [false, false]);
}

#[test]
fn with_scopes_a_change_costs_as_much_in_a_large_mesh() {
    let row = |change_ms, change_cpu_ms| Grown {
        change_ms,
        change_cpu_ms,
        ..Grown::default()
    };
    let small = row(Some(2.0), Some(0.5));
    let met = |large| met(Packing::Scoped, small.clone(), large);
    assert_eq!(met(row(Some(2.8), Some(0.8))), [true, false]);
    assert_eq!(met(row(None, Some(0.7))), [false, true]);
}

#[test]
fn a_void_row_is_judged_by_nothing() {
    let void = Grown {
        void: Some("the server ended".into()),
        ..Grown::default()
    };
    assert!(met(Packing::Scoped, Grown::default(), void).is_empty());
}
