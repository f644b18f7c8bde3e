//! Moments that several processes of one machine agree on.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Nanoseconds of the machine's monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp(pub u64);

impl Stamp {
    /// `Instant` cannot leave its process; this can.
    pub fn now() -> Self {
        Self(nanoseconds(ClockId::Monotonic))
    }

    /// What the wall clock called so many nanoseconds since 1970, if nobody has set it since.
    pub fn of_wall(wall: u64) -> Self {
        let ahead = nanoseconds(ClockId::Realtime).saturating_sub(Self::now().0);
        Self(wall.saturating_sub(ahead))
    }

    pub fn after(self, wait: Duration) -> Self {
        let nanoseconds = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanoseconds))
    }

    /// Zero if `earlier` is the later one.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let part = |n: i64| u64::try_from(n).unwrap_or_default();
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}
