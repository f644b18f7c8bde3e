//! How far changes got among this replica's proxies, and which objects some of them rejected.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::{Hub, StreamId};
use crate::config::Key;
use crate::text::Str;
use crate::view::{ProxyId, ScopeId};
use crate::xds::ResourceType;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    pub proxies: usize,
    /// Those of them that never had all they are to have.
    pub fresh: usize,
    /// For each other that owes an answer: since when; in order.
    pub behind: Vec<Instant>,
    /// By object.
    pub refused: Vec<Refused>,
}

/// Proxies that go on without (the present form of) something made of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub key: Key,
    pub proxies: usize,
    /// Of one of them: the proxy, the resource, and Envoy's words.
    pub said: String,
}

impl Reach {
    /// Proxies that hold what there was at this time, as far as it concerns them.
    pub fn current(&self, since: Instant) -> usize {
        let behind = self.behind.partition_point(|at| *at <= since);
        self.proxies.saturating_sub(self.fresh + behind)
    }
}

/// What proxies refused when it was last looked up, and of which objects that was made.
#[derive(Debug, Default)]
pub struct Refusals {
    seen: Vec<Seen>,
    found: Vec<Refused>,
}

/// One resource that one proxy refused, in the frame of this number.
type Seen = (StreamId, ScopeId, ResourceType, Str, u32);

/// Of so many scopes refusals are looked up: it is done between pushes.
const SCOPES: usize = 8;

impl Hub {
    pub(super) fn reach(&mut self) -> Reach {
        let (whole, fresh): (Vec<_>, Vec<_>) = self.links.values().partition(|link| link.whole);
        let behind = whole.iter().filter_map(|link| link.session.owes());
        let mut behind: Vec<Instant> = behind.collect();
        behind.sort();
        Reach {
            proxies: self.links.len(),
            fresh: fresh.len(),
            behind,
            refused: self.refused(),
        }
    }

    /// Looked up again only when something else was refused: it joins a client's hosts once more.
    fn refused(&mut self) -> Vec<Refused> {
        let mut seen: Vec<Seen> = Vec::new();
        for (stream, link) in &self.links {
            let refusals = link.session.refusals();
            seen.extend(
                refusals.map(|(kind, name, nack)| {
                    (*stream, link.scope, kind, name.clone(), nack.frame.0)
                }),
            );
        }
        if seen != self.refusals.seen {
            self.refusals.found = self.look_up(&seen);
            self.refusals.seen = seen;
        }
        self.refusals.found.clone()
    }

    fn look_up(&self, seen: &[Seen]) -> Vec<Refused> {
        let mut wanted: BTreeMap<ScopeId, BTreeSet<(ResourceType, Str)>> = BTreeMap::new();
        for (_, scope, kind, name, _) in seen {
            let names = wanted.entry(*scope).or_default();
            names.insert((*kind, name.clone()));
        }
        let mut sources: BTreeMap<(ScopeId, ResourceType, Str), Vec<Key>> = BTreeMap::new();
        for (scope, names) in wanted.into_iter().take(SCOPES) {
            for entry in self.engine.entries(scope).unwrap_or_default() {
                let name = (entry.encoded.kind, entry.encoded.name.clone());
                if names.contains(&name) {
                    let keys = entry.sources.iter().map(|s| s.key.clone());
                    sources.insert((scope, name.0, name.1), keys.collect());
                }
            }
        }
        let mut found: BTreeMap<Key, (BTreeSet<StreamId>, String)> = BTreeMap::new();
        for (stream, scope, kind, name, _) in seen {
            let made_of = sources.get(&(*scope, *kind, name.clone()));
            for key in made_of.into_iter().flatten() {
                let (streams, said) = found.entry(key.clone()).or_default();
                if streams.insert(*stream) && said.is_empty() {
                    *said = self.said(*stream, *kind, name);
                }
            }
        }
        let refused = |(key, (streams, said)): (Key, (BTreeSet<StreamId>, String))| Refused {
            key,
            proxies: streams.len(),
            said,
        };
        found.into_iter().map(refused).collect()
    }

    fn said(&self, stream: StreamId, kind: ResourceType, name: &Str) -> String {
        let proxy = self.engine.proxy(ProxyId(stream.0));
        let proxy = proxy.map_or("", |proxy| proxy.id.as_str());
        let link = self.links.get(&stream);
        let mut refusals = link.into_iter().flat_map(|l| l.session.refusals());
        let nack = refusals.find(|(k, n, _)| (*k, *n) == (kind, name));
        let message = nack.map_or("", |(_, _, nack)| &nack.message);
        format!("{proxy}: {} {name}: {message}", kind.short())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    #[test]
    fn a_proxy_that_owes_an_older_answer_holds_nothing_newer() {
        let start = clock::mono();
        let at = |s| start + Duration::from_secs(s);
        let reach = Reach {
            proxies: 6,
            fresh: 1,
            behind: vec![at(1), at(3)],
            refused: Vec::new(),
        };
        let current = [0, 1, 2, 3].map(|s| reach.current(at(s)));
        assert_eq!(current, [5, 4, 4, 3]);
    }
}
