//! Where objects come from, as events in the words of Kubernetes' watches. What is valid is not decided here.

pub mod file;

use crate::config::Key;
use crate::config::decode::{DecodedObject, PodTemplate, Rejected};
use crate::diagnostic::Diagnostic;
use crate::text::Str;

/// One step of a source. Between `Init` and `InitDone` everything that exists is listed once; what is not
/// listed then is gone.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Init,
    Apply(DecodedObject),
    /// A version with faults: the last accepted one stays.
    Reject(Rejected),
    Delete(Key),
    /// What is to be said of a file besides its objects; replaces what was said before.
    Notices {
        file: Str,
        notices: Vec<Diagnostic>,
        templates: Vec<PodTemplate>,
    },
    InitDone,
}
