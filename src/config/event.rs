//! What a source says, in kube-rs's words; files come whole.

use super::Key;
use super::decode::{Decoded, DecodedObject, Rejected};
use crate::text::Str;

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The source lists anew: what it does not name before `InitDone` is gone.
    Init,
    /// All documents of one file as it stands. What it held before and holds no more is gone, unless
    /// one of its documents cannot be read; a deleted file has none.
    File(Decoded),
    /// A file is not there, perhaps for a moment only (a checkout deletes and creates). What it held
    /// stays; a file that comes to hold the same object takes it over without a word.
    Leaving(Str),
    /// One object of the API server as it stands.
    Apply(DecodedObject),
    /// One object of the API server whose form has a fault.
    Refuse(Rejected),
    Delete(Key),
    InitDone,
}
