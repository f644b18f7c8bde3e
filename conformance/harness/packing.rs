//! In which packing of route tables a scenario runs, and what scenarios of one packing share.

use std::cell::Cell;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Result, anyhow};
use fairlead::model::proxy::RoutePacking;

thread_local! {
    static CURRENT: Cell<RoutePacking> = const { Cell::new(RoutePacking::Rds) };
}

/// Every packing that a scenario must hold in.
pub const ALL: [RoutePacking; 3] = [
    RoutePacking::Rds,
    RoutePacking::Scoped,
    RoutePacking::OnDemand,
];

/// That of the scenario on this thread: its control plane is started with it.
pub fn current() -> RoutePacking {
    CURRENT.get()
}

/// Runs a scenario in a packing.
pub fn within<T>(packing: RoutePacking, scenario: impl FnOnce() -> T) -> T {
    CURRENT.set(packing);
    scenario()
}

/// Something dear to start: one for each packing, made when the first scenario needs it.
pub struct Shared<T> {
    each: [OnceLock<Result<Mutex<T>, String>>; ALL.len()],
}

impl<T> Shared<T> {
    pub const fn new() -> Self {
        Self {
            each: [const { OnceLock::new() }; ALL.len()],
        }
    }

    /// For one scenario at a time.
    pub fn enter(&self, start: impl FnOnce() -> Result<T>) -> Result<MutexGuard<'_, T>> {
        let place = ALL.iter().position(|packing| *packing == current());
        let one = &self.each[place.unwrap_or_default()];
        let started = || start().map(Mutex::new).map_err(|why| format!("{why:#}"));
        let shared = one
            .get_or_init(started)
            .as_ref()
            .map_err(|why| anyhow!("what scenarios share did not start: {why}"))?;
        Ok(shared.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
