//! What a warming cluster holds back, and for how long. Plain clusters never come here.

use std::time::Instant;

use super::watch::News;
use crate::delivery::frame::Roll;
use crate::delivery::roster::{Member, Name, Roster, Shelf};
use crate::delivery::wire::Nonce;
use crate::text::Str;
use crate::xds::stamp::{Key, key_of};
use crate::xds::{Ref, ResourceType, Warming};

/// Clusters new to the client that may not be active yet (design: hitless order).
#[derive(Debug, Default)]
pub struct Gate {
    /// No cluster is in two of them.
    waves: Vec<Wave>,
    /// Clusters that warm until their endpoints come, which the client has yet to ask for on this stream.
    unasked: Roster<Name>,
    /// Until when they are waited for, since the first of them was sent.
    unasked_until: Option<Instant>,
}

/// Clusters that came together and warm for the same reason: a set that sessions share.
#[derive(Debug)]
struct Wave {
    clusters: Roster<Name>,
    /// The latest frame that brought them.
    frame: Nonce,
    until: Instant,
    why: Warming,
}

impl Gate {
    /// Clusters were sent. Those that the client has in no form yet, as far as is known, hold back what newly
    /// names them while they warm; the wait is not renewed if they go on changing. The others go on in their
    /// old form. `lacks` says whether a secret is still missing there.
    pub fn clusters_sent(
        &mut self,
        (roll, news): (&Roll, &News),
        (frame, until): (Nonce, Instant),
        lacks: impl Fn(&str) -> bool,
        shelf: &mut Shelf<Name>,
    ) {
        if self.waves.is_empty() && roll.warming.is_empty() {
            return;
        }
        let before = std::mem::take(&mut self.waves);
        let mut seen = Roster::EMPTY;
        let warms = |(why, _): &&(Warming, Roster<Name>)| is_warm_later(why, &lacks);
        for wave in before {
            let kept = shelf.rest(&wave.clusters, &roll.clusters);
            let again = shelf.rest(&wave.clusters, &kept);
            seen = shelf.union(&seen, &again);
            let fresh = fresh(&again, (roll, news), shelf);
            for (why, clusters) in roll.warming.iter().filter(warms) {
                let clusters = both(&fresh, clusters, shelf);
                self.wait(clusters, (frame, wave.until), why);
            }
            let known = shelf.rest(&again, &fresh);
            self.wait(known, (frame, wave.until), &wave.why);
            self.wait(kept, (wave.frame, wave.until), &wave.why);
        }
        for (why, clusters) in roll.warming.iter().filter(warms) {
            let unseen = shelf.rest(clusters, &seen);
            let fresh = fresh(&unseen, (roll, news), shelf);
            self.wait(fresh, (frame, until), why);
        }
    }

    fn wait(&mut self, clusters: Roster<Name>, (frame, until): (Nonce, Instant), why: &Warming) {
        if !clusters.is_empty() {
            self.waves.push(Wave {
                clusters,
                frame,
                until,
                why: why.clone(),
            });
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
        self.waves.is_empty() && self.unasked.is_empty()
    }

    pub fn forget(&mut self, cluster: &str, shelf: &mut Shelf<Name>) {
        let key = key_of(ResourceType::Cluster, cluster);
        for wave in &mut self.waves {
            wave.clusters = shelf.edit(&wave.clusters, [], [key]);
        }
        self.waves.retain(|wave| !wave.clusters.is_empty());
        if !self.unasked.is_empty() {
            self.unasked = shelf.edit(&self.unasked, [], [endpoints_of(cluster)]);
        }
    }

    /// Envoy answers a cluster frame only when nothing warms, be it with an ACK or a NACK.
    pub fn clusters_answered(&mut self, nonce: Nonce) {
        self.waves.retain(|wave| wave.frame > nonce);
    }

    pub fn secrets_changed(&mut self, lacks: impl Fn(&str) -> bool) {
        self.waves.retain(|wave| is_warm_later(&wave.why, &lacks));
    }

    /// Whether a route or listener must wait: it names a warming cluster that its version in force does not.
    pub fn holds(&self, refs: &[Ref], in_force: Option<&[Ref]>) -> bool {
        !self.is_open()
            && refs
                .iter()
                .any(|r| is_newly_named(r, in_force) && self.warms(&r.name))
    }

    fn warms(&self, cluster: &str) -> bool {
        let key = key_of(ResourceType::Cluster, cluster);
        self.waves.iter().any(|wave| wave.clusters.has(key))
            || self.unasked.has(endpoints_of(cluster))
    }

    /// Clusters that had their time; each is told of once and holds nothing from now on.
    pub fn overdue(&mut self, now: Instant) -> Vec<Str> {
        let late = self.waves.extract_if(.., |wave| wave.until <= now);
        let late = late.flat_map(|wave| {
            wave.clusters
                .iter()
                .map(|n| n.text.clone())
                .collect::<Vec<_>>()
        });
        let mut late: Vec<Str> = late.collect();
        if self.unasked_until.is_some_and(|until| until <= now) {
            late.extend(self.unasked.iter().map(|name| name.text.clone()));
            self.endpoints_asked();
        }
        late.sort_unstable();
        late.dedup();
        late
    }

    pub fn deadline(&self) -> Option<Instant> {
        let untils = self.waves.iter().map(|wave| wave.until);
        untils.chain(self.unasked_until).min()
    }
}

/// Whether a new cluster is not active with its endpoints, but later.
fn is_warm_later(why: &Warming, lacks: impl Fn(&str) -> bool) -> bool {
    match why {
        Warming::Plain => false,
        Warming::Dns | Warming::HealthCheck => true,
        Warming::Secrets(names) => names.iter().any(|name| lacks(name)),
    }
}

/// Those among them that the client has in no form.
fn fresh(
    clusters: &Roster<Name>,
    (roll, news): (&Roll, &News),
    shelf: &mut Shelf<Name>,
) -> Roster<Name> {
    match news {
        News::None => Roster::EMPTY,
        News::All => clusters.clone(),
        News::Some(_) => {
            let fresh = clusters.iter().filter(|name| news.has(name.key(), roll));
            shelf.edit(&Roster::EMPTY, fresh.cloned(), [])
        }
    }
}

fn both(a: &Roster<Name>, b: &Roster<Name>, shelf: &mut Shelf<Name>) -> Roster<Name> {
    let alone = shelf.rest(a, b);
    shelf.rest(a, &alone)
}

/// The key by which the endpoints of a cluster go.
fn endpoints_of(cluster: &str) -> Key {
    key_of(ResourceType::Endpoint, cluster)
}

/// Whether `r` is a cluster that `in_force` does not name; yes if that is not known.
pub fn is_newly_named(r: &Ref, in_force: Option<&[Ref]>) -> bool {
    r.kind == ResourceType::Cluster && !in_force.is_some_and(|old| old.contains(r))
}
