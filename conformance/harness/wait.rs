//! Waiting for something to become true, with a deadline.

use std::time::Duration;

use anyhow::{Context as _, Result};
use fairlead::clock;

/// What on a loaded machine takes long, but never this long.
pub const PATIENCE: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(20);

/// Tries until it succeeds; the last fault if it has not by `PATIENCE`.
pub fn eventually<T>(what: &str, attempt: impl FnMut() -> Result<T>) -> Result<T> {
    within(PATIENCE, what, attempt)
}

pub fn within<T>(limit: Duration, what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = clock::mono() + limit;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(fault) if clock::mono() >= deadline => {
                return Err(fault).with_context(|| format!("{what}: not within {limit:?}"));
            }
            Err(_) => pause(),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "between two attempts, not instead of one"
)]
fn pause() {
    std::thread::sleep(PAUSE);
}
