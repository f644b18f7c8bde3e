//! Small values that several kinds share. Whole objects are in the files beside this one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::text::Str;

/// Istio's `StringMatch`: exactly one way to match.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StringMatch {
    Exact(Str),
    Prefix(Str),
    /// RE2, full match.
    Regex(Str),
}

/// A `google.protobuf.Duration` as Istio's users write it: `1.5s`, `10ms`, `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

// Filled in with decoding: text form of `Span`.
impl Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(s)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Duration::deserialize(d).map(Span)
    }
}
