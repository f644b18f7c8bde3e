//! Which hosts ask for a listener at each address of one client.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::ir::outbound::Asks;
use crate::text::Hostname;

pub type Place = (IpAddr, u16);

/// Of all that ask, only the first by name for each sort of traffic decides: touching one of thousands
/// that share a port looks at no other.
#[derive(Clone, Debug, Default)]
pub struct Places(BTreeMap<Place, Askers>);

#[derive(Clone, Debug)]
enum Askers {
    One(Hostname),
    Several(Box<Sorts>),
}

#[derive(Clone, Debug, Default)]
struct Sorts {
    http: BTreeSet<Hostname>,
    bytes: BTreeSet<Hostname>,
    detect: BTreeSet<Hostname>,
}

/// Whose asks make up a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deciders {
    Nobody,
    /// The only one.
    One(Hostname),
    /// Those of several that decide, in their order.
    Several(BTreeSet<Hostname>),
}

impl Places {
    pub fn all(&self) -> impl Iterator<Item = Place> {
        self.0.keys().copied()
    }

    pub fn deciders(&self, place: Place) -> Deciders {
        match self.0.get(&place) {
            None => Deciders::Nobody,
            Some(Askers::One(host)) => Deciders::One(host.clone()),
            Some(Askers::Several(sorts)) => {
                let firsts = [&sorts.http, &sorts.bytes, &sorts.detect];
                let firsts = firsts.into_iter().filter_map(BTreeSet::first);
                Deciders::Several(firsts.cloned().collect())
            }
        }
    }

    /// A host asks for this, and for nothing else there. `others` says what those ask who are there.
    pub fn set<'a>(
        &mut self,
        place: Place,
        host: &Hostname,
        asks: &Asks,
        others: impl Fn(&Hostname) -> Option<&'a Asks>,
    ) {
        match self.0.get_mut(&place) {
            None => drop(self.0.insert(place, Askers::One(host.clone()))),
            Some(Askers::One(one)) if one == host => {}
            Some(Askers::One(one)) => {
                let mut sorts = Box::<Sorts>::default();
                if let Some(asks) = others(one) {
                    sorts.add(one, asks);
                }
                sorts.add(host, asks);
                self.0.insert(place, Askers::Several(sorts));
            }
            Some(Askers::Several(sorts)) => {
                sorts.remove(host);
                sorts.add(host, asks);
            }
        }
    }

    pub fn remove(&mut self, place: Place, host: &Hostname) {
        let empty = match self.0.get_mut(&place) {
            None => false,
            Some(Askers::One(one)) => one == host,
            Some(Askers::Several(sorts)) => {
                sorts.remove(host);
                sorts.is_empty()
            }
        };
        if empty {
            self.0.remove(&place);
        }
    }
}

impl Sorts {
    fn is_empty(&self) -> bool {
        self.http.is_empty() && self.bytes.is_empty() && self.detect.is_empty()
    }

    fn add(&mut self, host: &Hostname, asks: &Asks) {
        match asks {
            Asks::Http { .. } => drop(self.http.insert(host.clone())),
            Asks::Tcp { .. } => drop(self.bytes.insert(host.clone())),
            Asks::Detect { .. } => drop(self.detect.insert(host.clone())),
        }
    }

    fn remove(&mut self, host: &Hostname) {
        self.http.remove(host);
        self.bytes.remove(host);
        self.detect.remove(host);
    }
}
