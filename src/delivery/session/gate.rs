//! What a warming cluster holds back, and for how long. Plain clusters never come here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::delivery::roster::{Name, Roster, Shelf};
use crate::delivery::wire::Nonce;
use crate::text::Str;
use crate::xds::stamp::{Key, key_of};
use crate::xds::{Ref, ResourceType, Warming};

/// Clusters new to the client that may not be active yet (design: hitless order).
#[derive(Debug, Default)]
pub struct Gate {
    warming: BTreeMap<Str, Warm>,
    /// Clusters that warm until their endpoints come, which the client has yet to ask for on this stream.
    unasked: Roster<Name>,
    /// Until when they are waited for, since the first of them was sent.
    unasked_until: Option<Instant>,
}

#[derive(Debug)]
struct Warm {
    /// The latest frame that brought it.
    frame: Nonce,
    until: Instant,
    why: Warming,
}

impl Gate {
    /// A cluster was sent that the client has in no form yet, as far as is known. The wait is not renewed
    /// if it goes on changing. `lacks` says whether a secret is still missing there.
    pub fn new_cluster(
        &mut self,
        cluster: &Str,
        why: &Warming,
        (frame, until): (Nonce, Instant),
        lacks: impl Fn(&str) -> bool,
    ) {
        let warms = match why {
            Warming::Plain => false,
            Warming::Dns | Warming::HealthCheck => true,
            Warming::Secrets(names) => names.iter().any(|n| lacks(n)),
        };
        let until = self.warming.remove(cluster).map_or(until, |w| w.until);
        if warms {
            let why = why.clone();
            self.warming
                .insert(cluster.clone(), Warm { frame, until, why });
        }
    }

    /// Clusters were sent that the client lacks, before this stream's first endpoints request.
    ///
    /// A resumed client's requests come in any order: routes may be asked for before endpoints.
    pub fn awaits_endpoints(
        &mut self,
        clusters: &Roster<Name>,
        until: Instant,
        shelf: &mut Shelf<Name>,
    ) {
        self.unasked = shelf.union(&self.unasked, clusters);
        self.unasked_until.get_or_insert(until);
    }

    /// Endpoints go before routes from now on.
    pub fn endpoints_asked(&mut self) {
        self.unasked = Roster::EMPTY;
        self.unasked_until = None;
    }

    /// Nothing waits for anything.
    pub fn is_open(&self) -> bool {
        self.warming.is_empty() && self.unasked.is_empty()
    }

    /// No cluster warms on anything but endpoints.
    pub fn is_plain(&self) -> bool {
        self.warming.is_empty()
    }

    /// A cluster in force was sent again: the client goes on with its old form until the new one is warm.
    pub fn sent_again(&mut self, cluster: &str, frame: Nonce) {
        if let Some(warm) = self.warming.get_mut(cluster) {
            warm.frame = frame;
        }
    }

    pub fn forget(&mut self, cluster: &str, shelf: &mut Shelf<Name>) {
        self.warming.remove(cluster);
        if !self.unasked.is_empty() {
            self.unasked = shelf.edit(&self.unasked, [], [endpoints_of(cluster)]);
        }
    }

    /// Envoy answers a cluster frame only when nothing warms, be it with an ACK or a NACK.
    pub fn clusters_answered(&mut self, nonce: Nonce) {
        self.warming.retain(|_, w| w.frame > nonce);
    }

    pub fn secrets_changed(&mut self, lacks: impl Fn(&str) -> bool) {
        self.warming.retain(|_, w| match &w.why {
            Warming::Secrets(names) => names.iter().any(|n| lacks(n)),
            Warming::Plain | Warming::Dns | Warming::HealthCheck => true,
        });
    }

    /// Whether a route or listener must wait: it names a warming cluster that its version in force does not.
    pub fn holds(&self, refs: &[Ref], in_force: Option<&[Ref]>) -> bool {
        let warming =
            |r: &Ref| self.warming.contains_key(&r.name) || self.unasked.has(endpoints_of(&r.name));
        !self.is_open()
            && refs
                .iter()
                .any(|r| is_newly_named(r, in_force) && warming(r))
    }

    /// Clusters that had their time; each is told of once and holds nothing from now on.
    pub fn overdue(&mut self, now: Instant) -> Vec<Str> {
        let late = self.warming.iter().filter(|(_, w)| w.until <= now);
        let mut late: BTreeSet<Str> = late.map(|(name, _)| name.clone()).collect();
        self.warming.retain(|n, _| !late.contains(n));
        if self.unasked_until.is_some_and(|until| until <= now) {
            late.extend(self.unasked.iter().map(|name| name.text.clone()));
            self.endpoints_asked();
        }
        late.into_iter().collect()
    }

    pub fn deadline(&self) -> Option<Instant> {
        let untils = self.warming.values().map(|w| w.until);
        untils.chain(self.unasked_until).min()
    }
}

/// The key by which the endpoints of a cluster go.
fn endpoints_of(cluster: &str) -> Key {
    key_of(ResourceType::Endpoint, cluster)
}

/// Whether `r` is a cluster that `in_force` does not name; yes if that is not known.
pub fn is_newly_named(r: &Ref, in_force: Option<&[Ref]>) -> bool {
    r.kind == ResourceType::Cluster && !in_force.is_some_and(|old| old.contains(r))
}
