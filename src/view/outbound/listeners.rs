//! The listeners of a client: who asks for an address, and what stands there for all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Dirty, Outbound};
use crate::ir::Listener;
use crate::ir::outbound::Asks;
use crate::ir::outbound_listener::{self, Surroundings};
use crate::text::Hostname;
use crate::view::hosts::Hosts;
use crate::view::joined::JoinedHost;
use crate::view::places::{Deciders, Place};
use crate::xds::Encoded;

impl Outbound {
    /// What a host asks of addresses differs.
    pub(super) fn replace_asks(
        &mut self,
        host: &Hostname,
        old: Option<&JoinedHost>,
        new: Option<&JoinedHost>,
        dirty: &mut Dirty,
    ) {
        let all = |j: Option<&JoinedHost>| -> BTreeMap<Place, Asks> {
            let asked = j.map_or(&[][..], |j| &j.listeners).iter();
            // Of two asks for one address the first counts.
            asked
                .rev()
                .map(|l| ((l.address, l.port), l.asks.clone()))
                .collect()
        };
        let (before, after) = (all(old), all(new));
        let version = |e: &Arc<Encoded>| e.version.clone();
        for (place, _) in before.iter().filter(|(p, _)| !after.contains_key(*p)) {
            self.places.remove(*place, host);
            dirty.places.insert(*place);
        }
        for (place, asks) in &after {
            if before.get(place) != Some(asks) {
                let hosts = &self.hosts;
                let asks_of = |host: &Hostname| hosts.get(host).and_then(|j| asks_at(j, *place));
                self.places.set(*place, host, asks, asks_of);
                dirty.places.insert(*place);
            } else if alone(old, *place).map(version) != alone(new, *place).map(version) {
                dirty.places.insert(*place);
            }
        }
    }

    /// None where nobody asks for anything.
    pub(super) fn listener(
        &self,
        around: &Surroundings<'_>,
        place: Place,
        hosts: &mut Hosts,
    ) -> Option<Arc<Encoded>> {
        let fixed = self.fixed.get(&place);
        let deciders = match self.places.deciders(place) {
            Deciders::Nobody => BTreeSet::new(),
            Deciders::One(host) => {
                let joined = self.hosts.get(&host);
                let joined = joined.filter(|j| !self.is_packed(j, place));
                let alone = joined.and_then(|j| alone(Some(j), place));
                if let Some(alone) = alone.filter(|_| fixed.is_none()) {
                    return Some(alone.clone());
                }
                BTreeSet::from([host])
            }
            Deciders::Several(hosts) => hosts,
        };
        let asked = deciders.iter().filter_map(|h| self.hosts.get(h));
        let asked = asked.filter_map(|j| asks_at(j, place));
        let asks: Vec<&Asks> = fixed.map(|e| &e.asks).into_iter().chain(asked).collect();
        if asks.is_empty() {
            return None;
        }
        let (address, port) = place;
        let listener: Listener = outbound_listener::listener(around, address, port, asks);
        Some(hosts.cache.get(&listener))
    }
}

pub(super) fn asks_at(joined: &JoinedHost, place: Place) -> Option<&Asks> {
    let mut asked = joined.listeners.iter();
    let there = asked.find(|l| (l.address, l.port) == place);
    there.map(|l| &l.asks)
}

fn alone(joined: Option<&JoinedHost>, place: Place) -> Option<&Arc<Encoded>> {
    let mut asked = joined?.listeners.iter();
    let there = asked.find(|l| (l.address, l.port) == place);
    there.and_then(|l| l.alone.as_ref())
}
