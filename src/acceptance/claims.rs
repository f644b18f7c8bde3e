//! What the source says now: which file claims which object, and whose claim counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::Key;
use crate::config::decode::{Decoded, DecodedObject, Item, PodTemplate, Rank, Rejected};
use crate::diagnostic::{Code, Diagnostic, Level};
use crate::text::Str;

/// Where a claim comes from; the least of an object's claims counts. API objects have no file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Origin {
    rank: Rank,
    file: Str,
    index: usize,
}

const API: Origin = Origin {
    rank: Rank::Named,
    file: Str::new_static(""),
    index: 0,
};

#[derive(Clone, Debug, PartialEq)]
enum Claim {
    Version(DecodedObject),
    /// Of the form of this generation.
    Fault(i64, Vec<Diagnostic>),
}

/// What counts for one object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Standing<'c> {
    Version(&'c DecodedObject),
    Fault(i64, &'c [Diagnostic]),
    Absent,
}

#[derive(Debug, Default)]
pub(super) struct Claims {
    files: BTreeMap<Str, Sheet>,
    by_key: BTreeMap<Key, Bids>,
}

/// The claims of one object in their order. Nearly always it is one, and there are as many of these as
/// objects, so it takes no more room than that.
#[derive(Debug, Default)]
struct Bids(Vec<(Origin, Claim)>);

impl Bids {
    fn find(&self, origin: &Origin) -> Result<usize, usize> {
        self.0.binary_search_by(|(at, _)| at.cmp(origin))
    }

    fn get(&self, origin: &Origin) -> Option<&Claim> {
        let at = self.find(origin).ok()?;
        self.0.get(at).map(|(_, claim)| claim)
    }

    fn insert(&mut self, origin: Origin, claim: Claim) {
        match self.find(&origin) {
            Ok(at) => self.0[at] = (origin, claim),
            Err(at) => {
                self.0.reserve_exact(1);
                self.0.insert(at, (origin, claim));
            }
        }
    }

    fn remove(&mut self, origin: &Origin) -> Option<Claim> {
        let at = self.find(origin).ok()?;
        Some(self.0.remove(at).1)
    }
}

/// What else a file gave than claims.
#[derive(Debug, Default)]
struct Sheet {
    claimed: BTreeSet<(Key, Origin)>,
    /// Faults of documents that do not say which object they are.
    unclear: Vec<Diagnostic>,
    notices: Vec<Diagnostic>,
    templates: Vec<PodTemplate>,
}

impl Claims {
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes a file's documents for those it had. Gives the objects that either names.
    pub(super) fn replace(&mut self, decoded: Decoded) -> BTreeSet<Key> {
        let Decoded { file, rank, items } = decoded;
        let mut touched = BTreeSet::new();
        for (key, origin) in self.files.remove(&file).unwrap_or_default().claimed {
            self.withdraw(&key, &origin);
            touched.insert(key);
        }
        let mut sheet = Sheet::default();
        for (index, item) in items.into_iter().enumerate() {
            let origin = Origin {
                rank,
                file: file.clone(),
                index,
            };
            let (key, claim) = match item {
                Item::Object(object) => (object.object.key(), Claim::Version(object)),
                Item::Rejected(Rejected {
                    key: Some(key),
                    generation,
                    diagnostics,
                }) => (key, Claim::Fault(generation, diagnostics)),
                Item::Rejected(Rejected {
                    key: None,
                    diagnostics,
                    ..
                }) => {
                    sheet.unclear.extend(diagnostics);
                    continue;
                }
                Item::Notice(notice) => {
                    sheet.notices.push(notice);
                    continue;
                }
                Item::Template(template) => {
                    sheet.templates.push(template);
                    continue;
                }
            };
            sheet.claimed.insert((key.clone(), origin.clone()));
            self.by_key
                .entry(key.clone())
                .or_default()
                .insert(origin, claim);
            touched.insert(key);
        }
        if !sheet.is_empty() {
            self.files.insert(file, sheet);
        }
        touched
    }

    /// Puts a file's claims behind all others.
    pub(super) fn leave(&mut self, file: &str) -> BTreeSet<Key> {
        let Some(sheet) = self.files.get_mut(file) else {
            return BTreeSet::new();
        };
        let mut touched = BTreeSet::new();
        for (key, origin) in std::mem::take(&mut sheet.claimed) {
            let later = Origin {
                rank: Rank::Leaving,
                ..origin.clone()
            };
            if let Some(claims) = self.by_key.get_mut(&key)
                && let Some(claim) = claims.remove(&origin)
            {
                claims.insert(later.clone(), claim);
            }
            sheet.claimed.insert((key.clone(), later));
            touched.insert(key);
        }
        touched
    }

    pub(super) fn apply(&mut self, mut object: DecodedObject) -> Key {
        let key = object.object.key();
        let claims = self.by_key.entry(key.clone()).or_default();
        // A listing tells again what is known: it is not held twice.
        if let Some(Claim::Version(known)) = claims.get(&API)
            && known.object == object.object
        {
            object.object = Arc::clone(&known.object);
        }
        claims.insert(API, Claim::Version(object));
        key
    }

    /// None when the fault does not say which object it is of.
    pub(super) fn refuse(&mut self, rejected: Rejected) -> Option<Key> {
        let key = rejected.key?;
        let fault = Claim::Fault(rejected.generation, rejected.diagnostics);
        self.by_key
            .entry(key.clone())
            .or_default()
            .insert(API, fault);
        Some(key)
    }

    pub(super) fn delete(&mut self, key: &Key) {
        self.withdraw(key, &API);
    }

    fn withdraw(&mut self, key: &Key, origin: &Origin) {
        if let Some(claims) = self.by_key.get_mut(key) {
            claims.remove(origin);
            if claims.0.is_empty() {
                self.by_key.remove(key);
            }
        }
    }

    pub(super) fn standing(&self, key: &Key) -> Standing<'_> {
        match self.by_key.get(key).and_then(|claims| claims.0.first()) {
            Some((_, Claim::Version(object))) => Standing::Version(object),
            Some((_, Claim::Fault(generation, found))) => Standing::Fault(*generation, found),
            None => Standing::Absent,
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.by_key.keys()
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &Str> {
        self.files.keys()
    }

    /// Whether a document of this file does not say which object it is, so that none of the file's
    /// objects can be taken for deleted.
    pub(super) fn is_unclear(&self, file: &str) -> bool {
        self.files
            .get(file)
            .is_some_and(|sheet| !sheet.unclear.is_empty())
    }

    /// Findings about a file that name no object that is read.
    pub(super) fn of_file(&self, file: &str) -> Vec<Diagnostic> {
        let sheet = self.files.get(file);
        sheet
            .into_iter()
            .flat_map(|s| s.unclear.iter().chain(&s.notices))
            .cloned()
            .collect()
    }

    /// Claims that do not count because an earlier one does.
    pub(super) fn duplicates(&self, key: &Key) -> Vec<Diagnostic> {
        let Some(claims) = self.by_key.get(key) else {
            return Vec::new();
        };
        let mut origins = claims.0.iter();
        let Some((first, _)) = origins.next() else {
            return Vec::new();
        };
        let report = |(origin, claim): &(Origin, Claim)| Diagnostic {
            level: Level::Error,
            code: Code::Duplicate,
            resource: Some(key.subject()),
            field: Str::default(),
            file: Some(origin.file.clone()),
            line: claim.line(),
            message: format!(
                "{} holds this object already, and that form counts",
                first.file
            ),
        };
        let stays = |(origin, _): &&(Origin, Claim)| origin.rank != Rank::Leaving;
        origins.filter(stays).map(report).collect()
    }

    pub(super) fn templates(&self) -> impl Iterator<Item = &PodTemplate> {
        self.files.values().flat_map(|s| &s.templates)
    }
}

impl Sheet {
    fn is_empty(&self) -> bool {
        let Self {
            claimed,
            unclear,
            notices,
            templates,
        } = self;
        claimed.is_empty() && unclear.is_empty() && notices.is_empty() && templates.is_empty()
    }
}

impl Claim {
    fn line(&self) -> Option<u32> {
        match self {
            Self::Version(object) => Some(object.place.lines.line_of("")),
            Self::Fault(_, diagnostics) => diagnostics.first().and_then(|d| d.line),
        }
    }
}
