//! Rows are judged at one size alone.

use super::push::bars::judge;
use super::push::packing::Packing;
use super::push::report::{Row, Setting};

fn setting(proxies: usize) -> Setting {
    Setting {
        services: 1000,
        proxies,
        ..Setting::here()
    }
}

fn judged(proxies: usize, row: Row) -> Vec<bool> {
    judged_in(&setting(proxies), row)
}

fn judged_in(setting: &Setting, row: Row) -> Vec<bool> {
    let mut rows = [row];
    judge(setting, &mut rows);
    rows[0].bars.iter().map(|bar| bar.met).collect()
}

#[test]
fn a_row_is_judged_at_the_size_of_the_bars_alone() {
    let row = Row {
        last_ms: 25.0,
        server_cpu_s: 0.01,
        ..Row::of("tls", "eds-1", &[])
    };
    assert_eq!(judged(500, row.clone()), [false, true]);
    assert_eq!(judged(100, row), [false; 0]);
}

#[test]
fn a_ratio_without_its_null_row_is_not_met() {
    let row = Row::of("tls", "storm-warm", &[]);
    assert_eq!(judged(500, row), [false, false]);
}

#[test]
fn the_bars_are_those_of_the_packing() {
    let row = Row {
        last_ms: 100.0,
        server_cpu_s: 0.02,
        bytes_per_proxy: 900.0,
        ..Row::of("tls", "vs-1", &[])
    };
    assert_eq!(judged(500, row.clone()), [true, true]);
    let scoped = Setting {
        packing: Packing::Scoped,
        ..setting(500)
    };
    assert_eq!(judged_in(&scoped, row), [false, true, true]);
}
