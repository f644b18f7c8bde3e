//! How long a certificate is good, and when its successor is due.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The life of one issued certificate. Whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    pub not_after: SystemTime,
    /// About half of its life; different for each certificate, so that a mesh does not renew at once.
    pub renew_at: SystemTime,
}

/// The successor is due at (500 ± 50) ‰ of the life.
const HALF: u64 = 500;
const JITTER: u64 = 50;

impl Lease {
    /// `seed` spreads the renewals; the same seed gives the same lease.
    pub fn new(issued: SystemTime, not_after: SystemTime, seed: u64) -> Self {
        let life = not_after.duration_since(issued).unwrap_or_default();
        let per_mille = HALF - JITTER + seed % (2 * JITTER + 1);
        let millis = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
        let wait = Duration::from_millis(millis / 1000 * per_mille);
        Self {
            not_after,
            renew_at: whole_seconds(issued + wait),
        }
    }

    pub fn needs_renewal(&self, now: SystemTime) -> bool {
        now >= self.renew_at
    }
}

/// Seconds since 1970; a clock before that counts as 1970.
pub fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

pub fn from_unix(seconds: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

pub fn whole_seconds(time: SystemTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(unix(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn renewal_is_due_about_half_way_and_not_for_all_at_once() {
        for life in [60, 3600, 86_400] {
            let due: std::collections::BTreeSet<u64> = (0..200)
                .map(|seed| unix(Lease::new(at(1000), at(1000 + life), seed).renew_at) - 1000)
                .collect();
            assert!(*due.first().unwrap() >= life * 45 / 100);
            assert!(*due.last().unwrap() <= life * 55 / 100);
            assert!(due.len() > 5, "{life}: {due:?}");
        }
    }

    #[test]
    fn a_lease_needs_renewal_from_its_time_on() {
        let lease = Lease::new(at(0), at(100), 7);
        assert!(!lease.needs_renewal(lease.renew_at - Duration::from_secs(1)));
        assert!(lease.needs_renewal(lease.renew_at));
        assert!(Lease::new(at(100), at(50), 7).needs_renewal(at(100)));
    }
}
