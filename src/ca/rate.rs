//! How many certificates one identity may have made: a burst, then so many a second.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::identity::SpiffeId;

/// A Deployment's pods share an identity and may all come at once, after the CA has changed; after
/// that, this many a second keep one gone wild at a few percent of a processor.
const BURST: f64 = 10_000.0;
const EACH_SECOND: f64 = 100.0;
/// Identities that are remembered. Over it those at rest are forgotten, which costs them nothing.
const KNOWN: usize = 1024;

/// What each identity has left.
#[derive(Debug, Default)]
pub struct Rates {
    left: Mutex<BTreeMap<SpiffeId, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: SystemTime,
}

impl Rates {
    /// Takes one certificate of this identity's share; false when nothing is left of it now.
    pub fn take(&self, identity: &SpiffeId, now: SystemTime) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if left.len() >= KNOWN && !left.contains_key(identity) {
            left.retain(|_, bucket| bucket.at(now) < BURST);
        }
        let fresh = Bucket {
            left: BURST,
            at: now,
        };
        let bucket = left.entry(identity.clone()).or_insert(fresh);
        let have = bucket.at(now);
        let enough = have >= 1.0;
        *bucket = Bucket {
            left: if enough { have - 1.0 } else { have },
            at: now,
        };
        enough
    }
}

impl Bucket {
    /// What is left at a later time. A clock that is set back gives nothing and takes nothing.
    fn at(&self, now: SystemTime) -> f64 {
        let passed = now.duration_since(self.at).unwrap_or(Duration::ZERO);
        passed
            .as_secs_f64()
            .mul_add(EACH_SECOND, self.left)
            .min(BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::testing::{after, id, now};

    fn taken(rates: &Rates, who: &str, at: SystemTime) -> usize {
        (0..20_000).filter(|_| rates.take(&id(who), at)).count()
    }

    #[test]
    fn an_identity_has_a_burst_and_then_its_rate_and_takes_nothing_from_another() {
        let rates = Rates::default();
        assert_eq!(taken(&rates, "wild", now()), 10_000);
        assert!(!rates.take(&id("wild"), now()));
        assert!(rates.take(&id("reviews"), now()));
        assert_eq!(taken(&rates, "wild", after(10)), 1_000);
        assert_eq!(taken(&rates, "wild", after(1_000)), 10_000);
    }

    #[test]
    fn a_clock_set_back_gives_nothing() {
        let rates = Rates::default();
        assert_eq!(taken(&rates, "wild", after(100)), 10_000);
        assert!(!rates.take(&id("wild"), now()));
    }

    #[test]
    fn identities_at_rest_are_forgotten() {
        let rates = Rates::default();
        for i in 0..KNOWN {
            assert!(rates.take(&id(&format!("a{i}")), now()));
        }
        assert!(rates.take(&id("b"), after(10)));
        assert_eq!(rates.left.lock().unwrap().len(), 1);
    }
}
