//! When the last client answered for a batch of changes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// Batches by the time of their oldest change, and what sessions owe.
#[derive(Debug, Default)]
pub struct Settling {
    /// In order. A batch stays until nobody owes an answer as old as it.
    batches: VecDeque<Instant>,
    /// How many sessions owe no older answer than this.
    owed: BTreeMap<Instant, usize>,
}

/// While clients withhold their answers, batches beyond these are not timed.
const BATCHES: usize = 1024;

impl Settling {
    pub fn begin(&mut self, since: Instant) {
        if self.batches.len() < BATCHES {
            self.batches.push_back(since);
        }
    }

    /// One session's oldest debt is another one now.
    pub fn owes(&mut self, before: Option<Instant>, after: Option<Instant>) {
        if before == after {
            return;
        }
        if let Some(at) = after {
            *self.owed.entry(at).or_default() += 1;
        }
        let Some(at) = before else {
            return;
        };
        if let Some(count) = self.owed.get_mut(&at) {
            *count -= 1;
            if *count == 0 {
                self.owed.remove(&at);
            }
        }
    }

    /// Batches for which nobody owes an answer.
    pub fn take(&mut self) -> Vec<Instant> {
        if self.batches.is_empty() {
            return Vec::new();
        }
        let oldest = self.owed.keys().next().copied();
        let over = |at: &Instant| oldest.is_none_or(|oldest| *at < oldest);
        let count = self.batches.iter().take_while(|at| over(at)).count();
        self.batches.drain(..count).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    #[test]
    fn a_batch_is_settled_by_the_last_answer_and_not_before_an_older_one() {
        let start = clock::mono();
        let at = |s| start + Duration::from_secs(s);
        let mut settling = Settling::default();
        settling.begin(at(1));
        settling.owes(None, Some(at(1)));
        settling.owes(None, Some(at(1)));
        settling.begin(at(2));
        settling.owes(Some(at(1)), Some(at(2)));
        assert!(settling.take().is_empty());
        settling.owes(Some(at(1)), None);
        assert_eq!(settling.take(), [at(1)]);
        settling.owes(Some(at(2)), None);
        assert_eq!(settling.take(), [at(2)]);
        settling.begin(at(3));
        assert_eq!(settling.take(), [at(3)], "it concerned nobody");
    }
}
