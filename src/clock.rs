//! The only place that asks for the time; everything else is given it.

use std::time::{Instant, SystemTime};

/// Wall time now, for certificates, tokens and logs.
#[expect(clippy::disallowed_methods, reason = "the one source of wall time")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Monotonic time now, for deadlines and latencies.
#[expect(
    clippy::disallowed_methods,
    reason = "the one source of monotonic time"
)]
pub fn mono() -> Instant {
    Instant::now()
}
