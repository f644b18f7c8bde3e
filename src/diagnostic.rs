//! What a user must know about an object: which, where, what is wrong, what was kept.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::text::Str;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Error,
    Warning,
    Info,
}

/// Stable codes of our own checks; tools match on these, people read the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Code {
    /// The document is no YAML, or no object of Kubernetes' shape.
    Malformed,
    /// A field that its kind does not have.
    UnknownField,
    /// A value that its field does not take.
    InvalidValue,
    /// A kind that is neither Istio's nor one we read.
    UnknownKind,
    /// A kind or field of Istio's that Fairlead reads but does not act on yet.
    NotYetInEffect,
    /// A version that waits until what it refers to exists.
    Waiting,
    /// A version that the running program cannot follow; it waits for the next start.
    RestartNeeded,
    /// A reference that nothing resolves; it takes effect as in Istio.
    Unresolved,
    /// Two objects with the same kind, namespace and name.
    Duplicate,
    /// What cannot take effect beside something else: the older of two objects does, and Envoy's own.
    Conflict,
    /// What was told before is mended.
    Recovered,
    /// A rule that no request can reach: what stands before it takes all of it.
    Unreachable,
    /// A Deployment (or another pod template) whose Service has no endpoints from it.
    NoEndpoints,
}

/// The object a diagnostic is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subject {
    pub kind: Str,
    pub namespace: Str,
    pub name: Str,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// One finding. `resource` is absent when the document names no object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Diagnostic {
    pub level: Level,
    pub code: Code,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<Subject>,
    /// Path inside the object, such as `spec.http[0].route[1].weight`; empty for the whole.
    #[serde(default)]
    pub field: Str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<Str>,
    /// 1-based line of `field` in `file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    pub message: String,
}

impl fmt::Display for Diagnostic {
    /// `shop.yaml:12: error: VirtualService shop/reviews: spec.http[0]: …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
            if let Some(line) = self.line {
                write!(f, "{line}:")?;
            }
            f.write_str(" ")?;
        }
        let level = match self.level {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Info => "info",
        };
        write!(f, "{level}: ")?;
        if let Some(subject) = &self.resource {
            write!(f, "{subject}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}
