//! How long to wait before trying again: growing, bounded, and not in step with others.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// The waits between attempts at one thing. Each is about twice the one before it.
#[derive(Debug)]
pub struct Backoff {
    most: Duration,
    plan: ExponentialBuilder,
    waits: ExponentialBackoff,
}

impl Backoff {
    pub fn new(first: Duration, most: Duration) -> Self {
        let plan = ExponentialBuilder::new()
            .with_min_delay(first)
            .with_max_delay(most)
            .without_max_times()
            .with_jitter();
        Self {
            most,
            plan,
            waits: plan.build(),
        }
    }

    /// The wait that one more failure calls for.
    pub fn after_failure(&mut self) -> Duration {
        self.waits.next().unwrap_or(self.most)
    }

    /// After a success the next failure is the first again.
    pub fn reset(&mut self) {
        self.waits = self.plan.build();
    }
}

/// Between half of it and all of it, so that what failed together does not try together.
pub fn jittered(span: Duration) -> Duration {
    span.mul_f64(1.0 - chance() / 2.0)
}

/// Between 0 and 1, another each time: the standard library seeds its hashes from the system.
pub fn chance() -> f64 {
    let random = RandomState::new().hash_one(0) >> 32;
    random as f64 / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_start_anew_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for bound in [100, 200, 400, 800, 1000, 1000] {
            let bound = Duration::from_millis(bound);
            let wait = backoff.after_failure();
            assert!(bound <= wait && wait <= 2 * bound, "{wait:?} of {bound:?}");
        }
        for _ in 0..100 {
            assert!(backoff.after_failure() <= Duration::from_secs(2));
        }
        backoff.reset();
        assert!(backoff.after_failure() <= Duration::from_millis(200));
    }

    #[test]
    fn two_waits_are_hardly_ever_the_same() {
        let waits: std::collections::BTreeSet<Duration> =
            (0..8).map(|_| jittered(Duration::from_secs(5))).collect();
        assert!(waits.len() > 1);
    }
}
