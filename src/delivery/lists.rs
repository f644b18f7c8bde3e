//! Lists of names as clients send them: what is counted of them before they are looked through, once for all who send the same.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::wire::WILDCARD;
use crate::xds::ResourceType;
use crate::xds::stamp::{Key, Mark, key_of, key_of_bytes, mark_of};

/// Those of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    pub subscribe: Listed,
    pub unsubscribe: Listed,
    /// What the client holds from an earlier stream.
    pub claims: Claims,
}

/// What is known of a list of names before it is looked through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    pub count: usize,
    /// Bytes of the longest name.
    pub longest: usize,
    /// Sum of the names' keys, `*` left out.
    pub digest: Key,
    /// `*` is among them.
    pub wildcard: bool,
}

/// The same of names with versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Claims {
    pub count: usize,
    pub longest: usize,
    /// Sums of the names' keys and of the marks they have if their references are known.
    pub names: Key,
    pub content: Mark,
}

/// What was counted of long lists. Proxies of a namespace ask for the same thousands of names.
#[derive(Debug, Default)]
pub struct Known(Mutex<HashMap<Key, Lists>>);

/// Lists of fewer bytes are counted each time.
const LONG: usize = 4096;
/// Past so many all are forgotten.
const KEPT: usize = 512;

impl Known {
    /// Names these bytes of a request of this type, if they are worth it.
    pub fn key(&self, kind: ResourceType, lists: &[u8]) -> Option<Key> {
        (lists.len() >= LONG).then(|| key_of_bytes(kind, lists))
    }

    pub fn get(&self, key: Key) -> Option<Lists> {
        self.all().get(&key).copied()
    }

    pub fn keep(&self, key: Key, lists: Lists) {
        let mut all = self.all();
        if all.len() >= KEPT {
            all.clear();
        }
        all.insert(key, lists);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Key, Lists>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listed {
    pub fn add(&mut self, kind: ResourceType, name: &str) {
        self.count += 1;
        self.longest = self.longest.max(name.len());
        if name == WILDCARD {
            self.wildcard = true;
        } else {
            self.digest = self.digest.wrapping_add(key_of(kind, name));
        }
    }
}

impl Claims {
    pub fn add(&mut self, kind: ResourceType, name: &str, version: &str) {
        let key = key_of(kind, name);
        self.count += 1;
        self.longest = self.longest.max(name.len());
        self.names = self.names.wrapping_add(key);
        self.content = self.content.wrapping_add(mark_of(key, version));
    }
}
