//! What every object has: names, labels, age; selectors and exportTo.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::text::Str;

pub type Labels = BTreeMap<Str, Str>;

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
