//! A resource's identity without its bytes: name, version, what it refers to.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock};

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

use super::{Ref, ResourceType};
use crate::text::Str;

/// What a client holds of a resource, or was sent. It keeps no bytes alive, and all who hold it share it.
#[derive(Debug)]
pub struct Stamp {
    pub kind: ResourceType,
    pub name: Str,
    /// As sent in `Resource.version`. Opaque to Envoy, which hands it back after a reconnect.
    pub version: Str,
    /// Names this resource refers to: clusters of a route or listener, route tables of a listener or scope,
    /// the scope that a listener falls back to.
    /// Absent where only the version is known, from a client's claim.
    pub refs: Option<Arc<[Ref]>>,
    key: Key,
    mark: Mark,
}

/// Hash of a type and a name.
pub type Key = u128;

/// Hash of a type, a name, and what stands under it. Sets are compared by the (wrapping) sum of their
/// members' marks, so that adding and removing one costs the same whatever the size.
pub type Mark = u128;

impl Stamp {
    pub fn new(kind: ResourceType, name: Str, version: Str, refs: Option<Arc<[Ref]>>) -> Self {
        let key = key_of(kind, &name);
        let known = mark_of(key, &version);
        Self {
            kind,
            name,
            version,
            key,
            // Whoever knows the references shall not be taken for one who does not.
            mark: if refs.is_some() { known } else { !known },
            refs,
        }
    }

    pub fn key(&self) -> Key {
        self.key
    }

    pub fn mark(&self) -> Mark {
        self.mark
    }
}

pub fn key_of(kind: ResourceType, name: &str) -> Key {
    key_of_bytes(kind, name.as_bytes())
}

/// The same of something else than a name.
pub fn key_of_bytes(kind: ResourceType, bytes: &[u8]) -> Key {
    xxh3_128_with_seed(bytes, SECRET.wrapping_add(kind as u64))
}

/// The mark of a resource whose references are known.
pub fn mark_of(key: Key, version: &str) -> Mark {
    let seed = (key ^ key >> 64) as u64;
    xxh3_128_with_seed(version.as_bytes(), seed)
}

/// A hash for memoising by content that comes from outside.
pub fn hash_of(bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, *SECRET)
}

/// As the keys of the standard library's hash maps: random in each process, so that nobody can make a set
/// whose sum is another's; and nothing that is sent or compared with another process depends on it.
static SECRET: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(kind: ResourceType, name: &str, version: &str) -> Stamp {
        Stamp::new(kind, name.into(), version.into(), Some([].into()))
    }

    #[test]
    fn a_mark_tells_type_name_version_and_knowledge_apart() {
        let a = stamp(ResourceType::Cluster, "a", "1");
        let marks = [
            stamp(ResourceType::Endpoint, "a", "1").mark(),
            stamp(ResourceType::Cluster, "b", "1").mark(),
            stamp(ResourceType::Cluster, "a", "2").mark(),
            Stamp::new(ResourceType::Cluster, "a".into(), "1".into(), None).mark(),
        ];
        assert!(marks.iter().all(|m| *m != a.mark()));
        assert_eq!(a.mark(), stamp(ResourceType::Cluster, "a", "1").mark());
        assert_eq!(a.mark(), mark_of(a.key(), "1"));
    }
}
