//! The listeners of one kind of client: whose asks make up each, and which are to be made again.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Dirty, Outbound};
use crate::ir::outbound::Asks;
use crate::ir::outbound_listener::{self, Surroundings};
use crate::ir::{Listener, gateway_listener};
use crate::text::Hostname;
use crate::view::hosts::Hosts;
use crate::view::joined::{JoinedHost, JoinedListener};
use crate::view::places::{Place, Sort};
use crate::xds::Encoded;

impl Outbound {
    pub(super) fn all_places(&self) -> impl Iterator<Item = Place> {
        let hosts = self.hosts.into_iter();
        let asked = hosts.flat_map(|(_, joined)| &joined.listeners);
        let asked = asked.map(JoinedListener::place);
        let front = self.client.front.iter();
        let doors = front.flat_map(|front| front.doors.keys().copied());
        asked.chain(self.fixed.keys().copied()).chain(doors)
    }

    pub(super) fn listener(
        &self,
        around: &Surroundings<'_>,
        place: Place,
        hosts: &mut Hosts,
    ) -> Option<Arc<Encoded>> {
        let fixed = self.fixed.get(&place);
        let deciders = self.deciders(place, hosts);
        if let Some(front) = &self.client.front {
            let asks = deciders.into_iter().filter_map(|j| asks_at(j, place));
            let door = front.doors.get(&place)?;
            let listener = gateway_listener::listener(
                (around.mesh, front.topology.as_ref(), &around.extensions),
                around.families,
                place,
                door,
                asks,
            )?;
            return Some(hosts.cache.get(&listener));
        }
        if let ([one], None) = (&deciders[..], fixed)
            && !self.is_packed(one, place)
            && let Some(alone) = alone(Some(one), place)
        {
            return Some(alone.clone());
        }
        let asked = deciders.into_iter().filter_map(|j| asks_at(j, place));
        let asks: Vec<&Asks> = fixed.map(|e| &e.asks).into_iter().chain(asked).collect();
        if asks.is_empty() {
            return None;
        }
        let (address, port) = place;
        let listener: Listener = outbound_listener::listener(around, address, port, asks);
        Some(hosts.cache.get(&listener))
    }

    /// Of all hosts that ask for a listener there, the first by name for each sort of traffic, and all whose traffic is
    /// told apart; in the order of their names.
    fn deciders(&self, place: Place, hosts: &Hosts) -> Vec<&JoinedHost> {
        let asking = |host: &Hostname, sort| {
            let (host, joined) = self.hosts.get_full(host)?;
            let asks = asks_at(joined, place)?;
            (Sort::of(asks) == sort).then_some((host, &**joined))
        };
        let first = |sort| {
            let asks = |host: &Hostname| asking(host, sort);
            let mut own = self.hosts.into_iter().map(|(host, _)| host);
            let mut askers = hosts.askers(place, sort);
            let found = askers.by_ref().take(self.hosts.len()).find_map(asks);
            // A client that sees few of those who share a port looks at its own instead.
            found.or_else(|| askers.next().and_then(|_| own.find_map(asks)))
        };
        let told = hosts.askers(place, Sort::Told);
        let told = told.filter_map(|host| asking(host, Sort::Told));
        let firsts = Sort::SINGLE.into_iter().filter_map(first);
        let firsts: BTreeMap<_, _> = firsts.chain(told).collect();
        firsts.into_values().collect()
    }
}

/// The listeners that differ between what a host asked for and what it asks for.
pub(super) fn replace(old: Option<&JoinedHost>, new: Option<&JoinedHost>, dirty: &mut Dirty) {
    let all = |j: Option<&JoinedHost>| -> BTreeMap<Place, Asks> {
        let asked = j.map_or(&[][..], |j| &j.listeners).iter();
        // Of two asks for one address the first counts.
        asked.rev().map(|l| (l.place(), l.asks.clone())).collect()
    };
    let (before, after) = (all(old), all(new));
    let version = |e: &Arc<Encoded>| e.version.clone();
    let differs = |place: &Place| {
        before.get(place) != after.get(place)
            || alone(old, *place).map(version) != alone(new, *place).map(version)
    };
    let places = before.keys().chain(after.keys()).copied();
    dirty.places.extend(places.filter(differs));
}

pub(super) fn asks_at(joined: &JoinedHost, place: Place) -> Option<&Asks> {
    let mut asked = joined.listeners.iter();
    let there = asked.find(|l| l.place() == place);
    there.map(|l| &l.asks)
}

fn alone(joined: Option<&JoinedHost>, place: Place) -> Option<&Arc<Encoded>> {
    let mut asked = joined?.listeners.iter();
    let there = asked.find(|l| l.place() == place);
    there.and_then(|l| l.alone.as_ref())
}
