//! What a client may have to be told of one type. Whether it must, `flush.rs` decides.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::delivery::pool::Touched;
use crate::text::Str;

/// Names to be looked at in the next flush.
#[derive(Debug, Default)]
pub struct Due {
    pub named: BTreeMap<Str, Mark>,
    /// Changed names, as all sessions were told of them: sent by a plan that sessions share.
    pub touched: Option<Touch>,
}

#[derive(Clone, Debug)]
pub struct Touch {
    pub names: Touched,
    /// `Asked` if this is a type's first request: names that are not held are answered whatever they are.
    pub mark: Mark,
}

/// Why a name is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub why: Why,
    /// When the change happened; absent for a question of the client's.
    pub since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Sent only if its version differs from the one held.
    Changed,
    /// Answered whatever its version.
    Asked,
}

impl Due {
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.touched.is_none()
    }

    /// How many names there are, where that is known.
    pub fn len(&self) -> usize {
        let touched = self.touched.as_ref().map_or(0, |touch| touch.names.len());
        self.named.len() + touched
    }

    /// When the oldest change happened that is in it.
    pub fn since(&self) -> Option<Instant> {
        let touched = self.touched.as_ref().and_then(|touch| touch.mark.since);
        let named = self.named.values().filter_map(|mark| mark.since);
        older(named.min(), touched)
    }

    pub fn ask(&mut self, name: &Str) {
        self.mark(name, Mark::ASKED);
    }

    pub fn change(&mut self, name: &Str, since: Option<Instant>) {
        self.mark(name, Mark::changed(since));
    }

    pub fn touch(&mut self, names: &Touched, mark: Mark) {
        self.touched = Some(match self.touched.take() {
            Some(before) => Touch {
                names: before.names.and(names),
                mark: before.mark.and(mark),
            },
            None => Touch {
                names: names.clone(),
                mark,
            },
        });
    }

    fn mark(&mut self, name: &Str, mark: Mark) {
        let slot = self.named.entry(name.clone()).or_insert(mark);
        *slot = slot.and(mark);
    }
}

impl Mark {
    pub const ASKED: Self = Self {
        why: Why::Asked,
        since: None,
    };

    pub fn changed(since: Option<Instant>) -> Self {
        let why = Why::Changed;
        Self { why, since }
    }

    /// The stronger reason, and the older time.
    fn and(self, other: Self) -> Self {
        Self {
            why: self.why.max(other.why),
            since: older(self.since, other.since),
        }
    }
}

pub fn older(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    a.into_iter().chain(b).min()
}
