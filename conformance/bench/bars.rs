//! Rows are judged at one size alone.

use super::push::bars::judge;
use super::push::report::{Row, Setting};

fn setting(proxies: usize) -> Setting {
    Setting {
        services: 1000,
        proxies,
        ..Setting::here()
    }
}

fn judged(proxies: usize, row: Row) -> Vec<bool> {
    let mut rows = [row];
    judge(&setting(proxies), &mut rows);
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
