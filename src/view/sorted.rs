//! Sorted maps whose copies share all that does not differ: what one namespace sees is nearly what another sees.

use immutable_chunkmap::map::Map;

/// A copy costs nothing; an edit of it copies what lies beside the edited entry, and that is shared no more.
pub type Sorted<K, V> = Map<K, V, CHUNK>;

/// Entries that lie together, and are copied together. One more of a name and a pointer, and the allocator's next size
/// would be taken.
const CHUNK: usize = 31;
