//! How objects stand, counted: for metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Acceptance, Topic};
use crate::config::{Key, Kind, Object};
use crate::diagnostic::{Diagnostic, Level};

/// Counts of all objects together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub accepted: usize,
    /// Objects and documents whose present form has a fault.
    pub rejected: usize,
    /// Versions and deletions that wait.
    pub held: usize,
}

/// Counts of the objects of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfKind {
    pub in_force: u64,
    /// The present form has a fault; whether another is in force or none.
    pub rejected: u64,
    /// The present form, or the deletion, waits for a partner.
    pub held: u64,
    /// In force only because the file cannot be read as a whole.
    pub kept: u64,
    /// Forms rejected since the start.
    pub rejections: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    pub kinds: BTreeMap<Kind, OfKind>,
    /// Files with a document that does not say which object it is.
    pub unreadable: u64,
}

pub(super) fn is_faulty(found: &[Diagnostic]) -> bool {
    found.iter().any(|d| d.level == Level::Error)
}

impl Acceptance {
    /// The object in force of this key.
    pub fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        self.force.get(key).map(|version| &version.object)
    }

    pub fn counts(&self) -> Counts {
        let faulty = |found: &&Vec<Diagnostic>| is_faulty(found);
        Counts {
            accepted: self.force.len(),
            rejected: self.findings.values().filter(faulty).count(),
            held: self.held.len(),
        }
    }

    /// Every kind, also those of which there is nothing.
    pub fn census(&self) -> Census {
        let mut kinds: BTreeMap<Kind, OfKind> = BTreeMap::new();
        for kind in Kind::ALL {
            let rejections = self.rejections.get(kind).copied().unwrap_or_default();
            let none = OfKind::default();
            kinds.insert(*kind, OfKind { rejections, ..none });
        }
        let mut count = |key: &Key, of: fn(&mut OfKind) -> &mut u64| {
            *of(kinds.entry(key.kind).or_default()) += 1;
        };
        self.force
            .keys()
            .for_each(|k| count(k, |of| &mut of.in_force));
        self.held.keys().for_each(|k| count(k, |of| &mut of.held));
        self.kept.keys().for_each(|k| count(k, |of| &mut of.kept));
        for (topic, _) in self.findings.iter().filter(|(_, found)| is_faulty(found)) {
            match topic {
                Topic::Object(key) => count(key, |of| &mut of.rejected),
                Topic::File(_) => {}
            }
        }
        let unclear = |file: &&crate::text::Str| self.claims.is_unclear(file);
        Census {
            unreadable: self.claims.files().filter(unclear).count() as u64,
            kinds,
        }
    }
}
