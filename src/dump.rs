//! One proxy's configuration as people and tools read it: JSON, with the objects it came from.
//!
//! The shape is stable: `{typeUrl: [{name, version, resource, sources: […]}]}`, sorted by name.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::config::{Key, Source};
use crate::text::Str;
use crate::xds::json::{self, JsonError};
use crate::xds::{Entry, ResourceType};

pub type Dump = BTreeMap<&'static str, Vec<Dumped>>;

#[derive(Clone, Debug, Serialize)]
pub struct Dumped {
    pub name: Str,
    pub version: Str,
    /// Canonical proto JSON, every Any expanded.
    pub resource: Value,
    pub sources: Vec<Origin>,
}

/// An object, or a field of it, that decided (a part of) a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Origin {
    pub kind: Str,
    pub namespace: Str,
    pub name: Str,
    /// Empty for the whole object.
    pub field: Str,
    /// Where the version in force was read, if that is known.
    #[serde(flatten)]
    pub place: Option<Place>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    pub file: Str,
    /// Absent for a version that was kept over a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

/// Finds the file and line of an object's field.
pub type Locate<'l> = dyn Fn(&Key, &str) -> Option<(Str, Option<u32>)> + 'l;

/// Every type stands in the result, also an empty one.
pub fn dump<'e>(
    entries: impl Iterator<Item = &'e Entry>,
    locate: &Locate<'_>,
) -> Result<Dump, JsonError> {
    let served = ResourceType::ALL
        .into_iter()
        .filter(|t| *t != ResourceType::Secret);
    let mut types: Dump = served.map(|t| (t.type_url(), Vec::new())).collect();
    for entry in entries {
        let dumped = Dumped {
            name: entry.encoded.name.clone(),
            version: entry.encoded.version.clone(),
            resource: json::resource(&entry.encoded)?,
            sources: origins(&entry.sources, locate),
        };
        types
            .entry(entry.encoded.kind.type_url())
            .or_default()
            .push(dumped);
    }
    for list in types.values_mut() {
        list.sort_by(|a, b| a.name.cmp(&b.name));
    }
    Ok(types)
}

fn origins(sources: &[Source], locate: &Locate<'_>) -> Vec<Origin> {
    let origin = |source: &Source| Origin {
        kind: Str::new_static(source.key.kind.name()),
        namespace: source.key.namespace.clone(),
        name: source.key.name.clone(),
        field: source.field.clone(),
        place: locate(&source.key, &source.field).map(|(file, line)| Place { file, line }),
    };
    let mut origins: Vec<Origin> = sources.iter().map(origin).collect();
    origins.sort();
    origins.dedup();
    origins
}
