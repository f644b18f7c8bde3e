//! What became of an object's present form, for its author.

use super::claims::Standing;
use super::{Acceptance, Topic};
use crate::config::Key;
use crate::diagnostic::{Code, Diagnostic, Level};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `metadata.generation` of the form that this is about.
    pub generation: i64,
    /// When the object was made, as far as a sound form says: one of the same name and generation may be another, without
    /// the status of the first.
    pub created: i64,
    pub outcome: Outcome,
    /// The first finding that explains it, or that goes with it.
    pub why: Option<Diagnostic>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The present form is in force.
    Accepted,
    /// It has a fault; an older form may be in force.
    Rejected,
    /// It waits for another object or for a restart, and an older form is in force.
    Waiting,
}

impl Acceptance {
    /// The objects that the last events made look at anew, in order.
    pub fn considered(&self) -> impl Iterator<Item = &Key> {
        self.considered.iter()
    }

    /// None for an object that is not there.
    pub fn verdict(&self, key: &Key) -> Option<Verdict> {
        let (generation, created, faulty) = match self.claims.standing(key) {
            Standing::Version(version) => {
                let meta = &version.object.meta;
                (meta.generation, meta.creation_timestamp, false)
            }
            Standing::Fault(generation, _) => (generation, 0, true),
            Standing::Absent => return None,
        };
        let outcome = if faulty {
            Outcome::Rejected
        } else if self.held.contains_key(key) || self.restart_needed(key).is_some() {
            Outcome::Waiting
        } else {
            Outcome::Accepted
        };
        let found = self.findings.get(&Topic::Object(key.clone()));
        let found = found.map_or(&[][..], Vec::as_slice);
        let says = |d: &&Diagnostic| match outcome {
            Outcome::Rejected => d.level == Level::Error,
            Outcome::Waiting => matches!(d.code, Code::Waiting | Code::RestartNeeded),
            Outcome::Accepted => true,
        };
        Some(Verdict {
            generation,
            created,
            outcome,
            why: found.iter().find(says).cloned(),
        })
    }
}
