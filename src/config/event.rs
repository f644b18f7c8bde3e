//! What a source says, in kube-rs's words; files come whole.

use super::Key;
use super::decode::{Decoded, DecodedObject, Rejected};

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The source lists anew: what it does not name before `InitDone` is gone.
    Init,
    /// All documents of one file as it stands. What it held before and holds no more is gone, unless
    /// one of its documents cannot be read; a deleted file has none.
    File(Decoded),
    /// One object of the API server as it stands.
    Apply(DecodedObject),
    /// One object of the API server whose form has a fault.
    Refuse(Rejected),
    Delete(Key),
    InitDone,
}
