//! The set in force as text, kept over a restart. A part that cannot be read costs no other.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Acceptance;
use super::claims::Standing;
use crate::config::{Key, Kind, Object};
use crate::text::Str;

/// The set in force as it is kept over a restart.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Persisted {
    pub objects: Vec<Kept>,
    /// What was kept and cannot be read any more.
    #[serde(skip)]
    pub lost: Vec<Lost>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// Where it came from; empty for the API server.
    pub file: Str,
    pub object: Arc<Object>,
}

/// One difference between two sets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Amendment {
    Kept(Kept),
    Gone(Key),
    /// It was kept, and cannot be read any more.
    #[serde(skip)]
    Lost(Lost),
}

/// An entry that is no object of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// As far as it says which object it was.
    pub key: Option<Key>,
    pub file: Str,
    pub why: String,
}

impl Persisted {
    /// An error when the text as a whole is not what we write.
    pub fn parse(text: &[u8]) -> serde_json::Result<Self> {
        if let Ok(whole) = serde_json::from_slice(text) {
            return Ok(whole);
        }
        #[derive(Deserialize)]
        struct Entries {
            objects: Vec<Value>,
        }
        let Entries { objects } = serde_json::from_slice(text)?;
        let mut found = Self::default();
        for entry in objects {
            match Kept::deserialize(&entry) {
                Ok(kept) => found.objects.push(kept),
                Err(why) => found.lost.push(Lost::of(&entry, &why)),
            }
        }
        Ok(found)
    }
}

impl Persisted {
    /// What makes this set the later one. Cheap where little differs: what both have is not looked into.
    pub fn amendments(&self, later: &Self) -> Vec<Amendment> {
        let same = |a: &Kept, b: &Kept| Arc::ptr_eq(&a.object, &b.object) && a.file == b.file;
        let mut before = self.objects.iter().peekable();
        let mut out = Vec::new();
        for kept in &later.objects {
            let gone = |old: &&Kept| old.order() < kept.order();
            while let Some(gone) = before.next_if(gone) {
                out.push(Amendment::Gone(gone.object.key()));
            }
            let old = before.next_if(|old| old.order() == kept.order());
            if !old.is_some_and(|old| same(old, kept)) {
                out.push(Amendment::Kept(kept.clone()));
            }
        }
        out.extend(before.map(|gone| Amendment::Gone(gone.object.key())));
        out
    }

    /// The set after these, in their order.
    pub fn amended(self, amendments: Vec<Amendment>) -> Self {
        let Self { objects, mut lost } = self;
        let by_key = objects.into_iter().map(|kept| (kept.object.key(), kept));
        let mut by_key: BTreeMap<Key, Kept> = by_key.collect();
        for amendment in amendments {
            let key = match &amendment {
                Amendment::Kept(kept) => Some(kept.object.key()),
                Amendment::Gone(key) => Some(key.clone()),
                Amendment::Lost(lost) => lost.key.clone(),
            };
            if let Some(key) = &key {
                by_key.remove(key);
                lost.retain(|l| l.key.as_ref() != Some(key));
            }
            match (amendment, key) {
                (Amendment::Kept(kept), Some(key)) => drop(by_key.insert(key, kept)),
                (Amendment::Lost(entry), _) => lost.push(entry),
                (Amendment::Kept(_) | Amendment::Gone(_), _) => {}
            }
        }
        Self {
            objects: by_key.into_values().collect(),
            lost,
        }
    }
}

impl Kept {
    /// Sets are in the order of keys.
    fn order(&self) -> (Kind, &str, &str) {
        let Object { meta, spec } = &*self.object;
        (spec.kind(), &meta.namespace, &meta.name)
    }
}

impl Amendment {
    /// An object that cannot be read costs itself alone.
    pub fn parse(text: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(text).or_else(|why| {
            let value: Value = serde_json::from_slice(text)?;
            match value.get("Kept") {
                Some(entry) => Ok(Self::Lost(Lost::of(entry, &why))),
                None => Err(why),
            }
        })
    }
}

impl Lost {
    fn of(entry: &Value, why: &serde_json::Error) -> Self {
        let text = |value: &Value| value.as_str().map(Str::new);
        Self {
            key: key(&entry["object"]),
            file: text(&entry["file"]).unwrap_or_default(),
            why: why.to_string(),
        }
    }
}

fn key(object: &Value) -> Option<Key> {
    let (kind, _) = object["spec"].as_object()?.iter().next()?;
    let meta = |field: &str| object["meta"][field].as_str().map(Str::new);
    Some(Key {
        kind: Kind::ALL.iter().copied().find(|k| k.name() == kind)?,
        namespace: meta("namespace")?,
        name: meta("name")?,
    })
}

impl Acceptance {
    /// The objects in force of the kinds that `holds` says. Cheap: objects are shared.
    pub fn persist(&self, holds: &dyn Fn(Kind) -> bool) -> Persisted {
        let held = self.force.iter().filter(|(key, _)| holds(key.kind));
        let kept = |v: &super::Version| Kept {
            file: v.place.file.clone(),
            object: Arc::clone(&v.object),
        };
        Persisted {
            objects: held.map(|(_, version)| kept(version)).collect(),
            lost: Vec::new(),
        }
    }

    /// How many entries of what was kept could not be read.
    pub fn lost(&self) -> usize {
        self.lost.len()
    }

    /// What was lost and is neither replaced by a sound form nor deleted: its source still wants it in
    /// force, and cannot say how. Known after the first listing.
    pub fn missed(&self) -> impl Iterator<Item = &Lost> {
        self.lost.iter().filter(|lost| match &lost.key {
            None => true,
            Some(key) => match self.claims.standing(key) {
                Standing::Version(_) => false,
                Standing::Fault(_, _) => true,
                Standing::Absent => self.claims.is_unclear(&lost.file),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::*;
    use crate::config::decode;
    use crate::config::event::Event;

    const STRICT: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: \
                          strict}\nspec: {mtls: {mode: STRICT}}\n";
    const SERVICE: &str =
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n";

    fn listed(persisted: Persisted, text: &str) -> Acceptance {
        let options = Options {
            hold_unresolved: true,
            domain: Str::new_static("cluster.local"),
        };
        let mut acceptance = Acceptance::restore(options, persisted);
        let file = Event::File(decode::documents(text, "f.yaml"));
        acceptance.on(vec![Event::Init, file, Event::InitDone]);
        acceptance
    }

    /// What is kept of both, with STRICT's mode damaged.
    fn damaged() -> Persisted {
        let kept = listed(Persisted::default(), &format!("{STRICT}{SERVICE}")).persist(&|_| true);
        let text = serde_json::to_string(&kept).unwrap();
        assert!(text.contains("\"STRICT\""), "{text}");
        Persisted::parse(text.replace("\"STRICT\"", "\"STRIKT\"").as_bytes()).unwrap()
    }

    #[test]
    fn one_bad_entry_costs_no_other() {
        let found = damaged();
        let kinds = found.objects.iter().map(|k| k.object.spec.kind());
        assert_eq!(kinds.collect::<Vec<_>>(), [Kind::Service]);
        let lost = found.lost[0].key.as_ref().unwrap().to_string();
        assert_eq!(lost, "PeerAuthentication default/strict");
    }

    #[test]
    fn text_that_is_cut_off_is_an_error() {
        let text =
            serde_json::to_vec(&listed(Persisted::default(), SERVICE).persist(&|_| true)).unwrap();
        assert!(Persisted::parse(&text).is_ok());
        assert!(Persisted::parse(&text[..text.len() - 3]).is_err());
    }

    #[test]
    fn a_lost_form_is_missed_while_its_file_cannot_say_another() {
        let missed = |text: &str| listed(damaged(), text).missed().count();
        assert_eq!(missed(&format!("{STRICT}{SERVICE}")), 0);
        assert_eq!(missed(SERVICE), 0);
        assert_eq!(missed(&STRICT.replace("STRICT", "STRIKT")), 1);
        assert_eq!(missed("a: [\n"), 1);
    }
}
