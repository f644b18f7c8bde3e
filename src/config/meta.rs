//! What every object has: names, labels, age; selectors and exportTo.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text::Str;

/// Keys and values, ordered by key: labels, selectors, annotations.
///
/// Nearly every object has some, and few: they take as much room as they have, which a `BTreeMap` does not.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Box<[(Str, Str)]>);

impl Labels {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, key: &str) -> Option<&Str> {
        let at = self.0.binary_search_by(|(k, _)| k.as_str().cmp(key)).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Str, &Str)> + Clone {
        self.0.iter().map(|(key, value)| (key, value))
    }

    pub fn keys(&self) -> impl Iterator<Item = &Str> {
        self.iter().map(|(key, _)| key)
    }

    pub fn values(&self) -> impl Iterator<Item = &Str> {
        self.iter().map(|(_, value)| value)
    }
}

/// Of equal keys the last one counts.
impl FromIterator<(Str, Str)> for Labels {
    fn from_iter<I: IntoIterator<Item = (Str, Str)>>(pairs: I) -> Self {
        let sorted: BTreeMap<Str, Str> = pairs.into_iter().collect();
        Self(sorted.into_iter().collect())
    }
}

impl<const N: usize> From<[(Str, Str); N]> for Labels {
    fn from(pairs: [(Str, Str); N]) -> Self {
        pairs.into_iter().collect()
    }
}

impl IntoIterator for Labels {
    type Item = (Str, Str);
    type IntoIter = std::vec::IntoIter<(Str, Str)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_vec().into_iter()
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::<Str, Str>::deserialize(deserializer).map(|pairs| pairs.into_iter().collect())
    }
}

/// `metadata`, as far as it is read. Annotations are kept only where a meaning is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    pub name: Str,
    pub namespace: Str,
    pub labels: Labels,
    pub annotations: Labels,
    /// Seconds since 1970; 0 when absent (files). The oldest object wins ties, then name, then namespace.
    pub creation_timestamp: i64,
    pub generation: i64,
}

impl Meta {
    /// Istio's order between objects of a kind: creation, name, namespace.
    pub fn age(&self) -> (i64, &str, &str) {
        (self.creation_timestamp, &self.name, &self.namespace)
    }
}

/// `exportTo`: `*`, `.`, `~` and namespace names. Absent means the mesh's default.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ExportTo {
    All,
    /// Namespaces, with `.` already replaced; empty for `~`.
    Namespaces(Vec<Str>),
}

impl ExportTo {
    /// `own` is the object's namespace. `*` overrides the rest; `~` without `*` hides.
    pub fn of(values: &[Str], own: &str) -> Self {
        if values.iter().any(|v| v == "*") {
            return Self::All;
        }
        let mut names: Vec<Str> = values
            .iter()
            .filter(|v| *v != "~")
            .map(|v| if v == "." { Str::new(own) } else { v.clone() })
            .collect();
        names.sort();
        names.dedup();
        Self::Namespaces(names)
    }

    pub fn reaches(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Namespaces(names) => names.iter().any(|n| n == namespace),
        }
    }
}

/// Whether `labels` carry every pair of `selector`.
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_overrides_the_rest_and_a_tilde_hides() {
        let of = |v: &[&str]| ExportTo::of(&v.iter().map(Str::new).collect::<Vec<_>>(), "me");
        assert_eq!(of(&["~", "*"]), ExportTo::All);
        assert!(of(&["."]).reaches("me"));
        assert!(!of(&["~"]).reaches("me"));
    }
}
