//! Route tables as scopes: a small table per host, a scope per name, and one of each for all the rest.

use std::sync::Arc;

use super::listeners::asks_at;
use super::{Common, Dirty, Outbound};
use crate::ir::outbound::{Asks, TableEntry};
use crate::ir::scopes::{self, Packing};
use crate::ir::{Loading, RouteScope};
use crate::text::{Hostname, Str};
use crate::view::hosts::Hosts;
use crate::view::joined::JoinedHost;
use crate::view::places::Place;
use crate::xds::{Encoded, ResourceType};

impl Outbound {
    /// Chooses how tables come. After a change of mind every table of a port comes again, and all listeners.
    pub(super) fn choose_packing(&mut self, dirty: &mut Dirty) {
        if dirty.tables.is_empty() {
            return;
        }
        let packing = Packing::chosen(self.client.packing, self.packing, self.largest_table());
        if packing == self.packing {
            return;
        }
        let before = std::mem::replace(&mut self.packing, packing);
        let shared = |name: &&Str| scopes::has_scopes(name);
        let names: Vec<Str> = self.tables.keys().filter(shared).cloned().collect();
        self.forget_packed(before, &names, dirty);
        for name in &names {
            self.renew(name, dirty);
        }
        dirty.tables.extend(names);
        dirty.places.extend(self.all_places());
    }

    /// What would be chosen if nothing were in force.
    pub(super) fn fresh_packing(&self) -> Packing {
        Packing::chosen(
            self.client.packing,
            Packing::default(),
            self.largest_table(),
        )
    }

    fn largest_table(&self) -> usize {
        let lengths = self
            .tables
            .iter()
            .filter(|(name, _)| scopes::has_scopes(name));
        let largest = lengths.map(|(_, table)| table.len()).max();
        largest.unwrap_or(0)
    }

    fn forget_packed(&mut self, before: Packing, names: &[Str], dirty: &mut Dirty) {
        match before {
            Packing::Whole => {
                for name in names {
                    self.take(ResourceType::Route, name, dirty);
                }
            }
            Packing::Scoped(_) => {
                for kind in [ResourceType::Route, ResourceType::ScopedRoute] {
                    let all = self.layer.of(kind).map(|e| e.name.clone());
                    let of_scopes: Vec<Str> = all.filter(|n| n.contains('/')).collect();
                    for name in of_scopes {
                        self.take(kind, &name, dirty);
                    }
                }
            }
        }
    }

    /// Marks all that stands in a table.
    fn renew(&self, name: &Str, dirty: &mut Dirty) {
        for host in self.tables.get(name).into_iter().flat_map(|t| t.hosts()) {
            dirty.hosts.insert((name.clone(), host.clone()));
            let joined = self.hosts.get(host).and_then(|j| j.virtual_host(name));
            let domains = joined.into_iter().flat_map(|v| v.domains.iter());
            let domains = domains.map(|(domain, _)| (name.clone(), domain.clone()));
            dirty.domains.extend(domains);
        }
    }

    pub(super) fn put_fallback(
        &mut self,
        table: Arc<Encoded>,
        common: &mut Common<'_>,
        dirty: &mut Dirty,
    ) {
        // Requests for what nobody claims never wait.
        let scope = RouteScope {
            key: table.name.clone(),
            table: table.name.clone(),
            loading: Loading::AtOnce,
        };
        self.put(table, dirty);
        self.put(common.hosts.cache.get(&scope), dirty);
    }

    pub(super) fn take_fallback(&mut self, name: &Str, dirty: &mut Dirty) {
        let fallback = scopes::fallback_of(name);
        self.take(ResourceType::Route, &fallback, dirty);
        self.take(ResourceType::ScopedRoute, &fallback, dirty);
    }

    pub(super) fn put_scopes(&mut self, common: &mut Common<'_>, dirty: &mut Dirty) {
        let hosts = std::mem::take(&mut dirty.hosts);
        let domains = std::mem::take(&mut dirty.domains);
        for (name, host) in hosts {
            if self.packing.of(&name) == Packing::Whole {
                continue;
            }
            let table = self.tables.get(&name);
            let cache = &mut common.hosts.cache;
            match table.and_then(|table| table.of_host(&name, &host, cache)) {
                Some(encoded) => self.put(encoded, dirty),
                None => {
                    let gone = scopes::table_of(&name, host.as_str());
                    self.take(ResourceType::Route, &gone, dirty);
                }
            }
        }
        for (name, domain) in domains {
            let packing = self.packing.of(&name);
            let key = scopes::key_of(&name, &domain);
            let Some(key) = key.filter(|_| packing != Packing::Whole) else {
                continue;
            };
            match self.owner(&name, &domain, common.hosts) {
                Some(host) => {
                    let table = scopes::table_of(&name, host.as_str());
                    let loading = packing.loading();
                    let scope = RouteScope {
                        key,
                        table,
                        loading,
                    };
                    self.put(common.hosts.cache.get(&scope), dirty);
                }
                None => self.take(ResourceType::ScopedRoute, &key, dirty),
            }
        }
    }

    /// Who gets a domain: the strongest claim, then the first by host.
    fn owner(&self, table: &str, domain: &str, hosts: &Hosts) -> Option<Hostname> {
        let claimants = hosts.claimants(table, domain);
        let claims = claimants.filter_map(|host| {
            let claimed = self.hosts.get(host)?.virtual_host(table)?;
            Some((claimed.claim(domain)?, host))
        });
        claims.min().map(|(_, host)| host.clone())
    }

    /// The resources that a host's entry in a table may be part of.
    pub fn names_of(
        &self,
        host: &Hostname,
        entry: &TableEntry,
        hosts: &Hosts,
    ) -> Vec<(ResourceType, Str)> {
        let name = &entry.table;
        if self.packing.of(name) == Packing::Whole {
            return vec![(ResourceType::Route, name.clone())];
        }
        let domains = entry.domains.iter().map(|(domain, _)| domain);
        let leads = |d: &&Str| self.owner(name, d, hosts).as_ref() == Some(host);
        let own = domains.clone().filter(leads);
        let keys = own.filter_map(|d| scopes::key_of(name, d));
        let mut names: Vec<_> = keys.map(|key| (ResourceType::ScopedRoute, key)).collect();
        if domains.into_iter().any(|d| d.starts_with('*')) {
            let fallback = scopes::fallback_of(name);
            names.push((ResourceType::Route, fallback.clone()));
            names.push((ResourceType::ScopedRoute, fallback));
        }
        let table = scopes::table_of(name, host.as_str());
        names.push((ResourceType::Route, table));
        names
    }

    /// Whether what the host asks of an address is another listener by packing: one that leads to a table which
    /// comes as scopes, or to clusters on demand.
    pub(super) fn is_packed(&self, joined: &JoinedHost, place: Place) -> bool {
        let table = asks_at(joined, place).and_then(Asks::table);
        let on_demand = self.packing.loading() == Loading::OnDemand;
        table.is_some_and(|table| on_demand || self.packing.of(table) != Packing::Whole)
    }
}
