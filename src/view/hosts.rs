//! Every join of a host that some client holds, made once for the whole mesh.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::joined::JoinedHost;
use super::places::{Place, Sort};
use crate::ir::outbound::{self, HostFacts, TableEntry};
use crate::ir::relation::Relation;
use crate::model::Snapshot;
use crate::text::{Hostname, Str};
use crate::xds::encode::Cache;

/// The joins in use, by host and by the relations that clients have to it, and the cache behind them.
#[derive(Default)]
pub struct Hosts {
    pub cache: Cache,
    /// Joins done since the start.
    pub joins: u64,
    joined: HashMap<Hostname, Vec<Arc<JoinedHost>>>,
    claimed: Claimed,
    /// Hosts of which a client let a join go.
    stale: BTreeSet<Hostname>,
}

impl Hosts {
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        let Claimed { by_claim, of_host } = &self.claimed;
        self.joined.is_empty() && by_claim.is_empty() && of_host.is_empty()
    }

    /// The join of a host for clients that stand to it so.
    pub fn get(
        &mut self,
        host: &Hostname,
        relation: Relation,
        snapshot: &Snapshot,
    ) -> Arc<JoinedHost> {
        let known = self.joined.get(host).into_iter().flatten();
        if let Some(same) = known.into_iter().find(|j| j.relation == relation) {
            return same.clone();
        }
        self.joins += 1;
        let view = outbound::join(&HostFacts::of(snapshot, host), &relation);
        let joined = JoinedHost::new(host, relation, view, snapshot, &mut self.cache);
        let joined = Arc::new(joined);
        self.claimed.add(host, &joined);
        let of_host = self.joined.entry(host.clone()).or_default();
        of_host.push(joined.clone());
        joined
    }

    /// A host's entry in a table before it was encoded, for a client that does not get all its domains.
    pub fn table_entry(
        &mut self,
        host: &Hostname,
        joined: &JoinedHost,
        table: &str,
        snapshot: &Snapshot,
    ) -> Option<TableEntry> {
        self.joins += 1;
        let view = outbound::join(&HostFacts::of(snapshot, host), &joined.relation);
        let mut entries = view.virtual_hosts.into_iter();
        entries.find(|v| v.table == table)
    }

    /// Forgets what was joined from other facts than those that hold now.
    pub fn touch(&mut self, hosts: &BTreeSet<Hostname>) {
        for host in hosts {
            if self.joined.remove(host).is_some() {
                self.stale.insert(host.clone());
            }
        }
    }

    pub fn touch_all(&mut self) {
        let hosts = std::mem::take(&mut self.joined).into_keys();
        self.stale.extend(hosts);
    }

    /// Joins the endpoints of these hosts again, for all who call them.
    pub fn assign(&mut self, hosts: &BTreeSet<Hostname>, snapshot: &Snapshot) {
        for host in hosts {
            for joined in self.joined.get_mut(host).into_iter().flatten() {
                *joined = Arc::new(joined.assigned_again(host, snapshot, &mut self.cache));
            }
        }
    }

    /// Takes back a join that a client holds no more.
    pub fn release(&mut self, host: &Hostname) {
        if !self.stale.contains(host) {
            self.stale.insert(host.clone());
        }
    }

    /// Forgets the joins that no client holds any more, of the hosts that were let go.
    pub fn sweep(&mut self) {
        for host in std::mem::take(&mut self.stale) {
            if let Some(of_host) = self.joined.get_mut(&host) {
                of_host.retain(|j| Arc::strong_count(j) > 1);
                if of_host.is_empty() {
                    self.joined.remove(&host);
                }
            }
            let left = self.joined.get(&host).into_iter().flatten();
            self.claimed.retain(&host, left);
        }
    }

    /// Hosts that claim a domain in that table, for any client; some of them may not.
    pub fn claimants(&self, table: &str, domain: &str) -> impl Iterator<Item = &Hostname> {
        self.claimed.by(claim_of(table, domain))
    }

    /// Hosts that ask for a listener there for traffic of this sort, for any client; some of them may not.
    pub fn askers(&self, place: Place, sort: Sort) -> impl Iterator<Item = &Hostname> {
        self.claimed.by(sort.hash_at(place))
    }

    /// Hosts that claim one of this host's domains in that table, for any client.
    pub fn rivals(&self, host: &Hostname, joined: &JoinedHost, table: &str) -> BTreeSet<Hostname> {
        let claims = joined.virtual_host(table);
        let domains = claims.iter().flat_map(|v| v.domains.iter());
        let claimants = domains.flat_map(|(d, _)| self.claimed.by(claim_of(table, d)));
        claimants.filter(|h| *h != host).cloned().collect()
    }
}

/// Who claims which domain of which table, and a listener at which place. Kept by hash: what falls together
/// by chance is only looked at again by name.
#[derive(Default)]
struct Claimed {
    by_claim: HashMap<u64, Claimants>,
    of_host: HashMap<Hostname, Box<[u64]>>,
}

enum Claimants {
    One(Hostname),
    Several(BTreeSet<Hostname>),
}

fn claim_of(table: &str, domain: &str) -> u64 {
    xxh3_64(domain.as_bytes()) ^ xxh3_64(table.as_bytes()).rotate_left(1)
}

fn claims(joined: &JoinedHost) -> impl Iterator<Item = u64> {
    let hosts = joined.virtual_hosts.iter();
    let domains = hosts.flat_map(|v| {
        v.domains
            .iter()
            .map(|(d, _): &(Str, _)| claim_of(&v.table, d))
    });
    let listeners = joined.listeners.iter();
    domains.chain(listeners.map(|l| Sort::of(&l.asks).hash_at(l.place())))
}

impl Claimed {
    fn by(&self, claim: u64) -> impl Iterator<Item = &Hostname> {
        let (one, several) = match self.by_claim.get(&claim) {
            None => (None, None),
            Some(Claimants::One(host)) => (Some(host), None),
            Some(Claimants::Several(hosts)) => (None, Some(hosts)),
        };
        one.into_iter()
            .chain(several.into_iter().flat_map(|h| h.iter()))
    }

    fn add(&mut self, host: &Hostname, joined: &JoinedHost) {
        let known = self.of_host.get(host).map(AsRef::as_ref);
        let known: &[u64] = known.unwrap_or_default();
        let new: BTreeSet<u64> = claims(joined).filter(|c| !known.contains(c)).collect();
        if new.is_empty() {
            return;
        }
        let all = known.iter().copied().chain(new.iter().copied()).collect();
        self.of_host.insert(host.clone(), all);
        for claim in new {
            self.put(claim, host);
        }
    }

    fn put(&mut self, claim: u64, host: &Hostname) {
        let claimants = self
            .by_claim
            .entry(claim)
            .or_insert_with(|| Claimants::One(host.clone()));
        match claimants {
            Claimants::One(one) if one == host => {}
            Claimants::One(one) => {
                let both = BTreeSet::from([one.clone(), host.clone()]);
                *claimants = Claimants::Several(both);
            }
            Claimants::Several(hosts) => drop(hosts.insert(host.clone())),
        }
    }

    /// Takes back what none of the host's joins that are left claims.
    fn retain<'j>(&mut self, host: &Hostname, left: impl Iterator<Item = &'j Arc<JoinedHost>>) {
        let left: BTreeSet<u64> = left.flat_map(|j| claims(j)).collect();
        let Some(known) = self.of_host.remove(host) else {
            return;
        };
        for claim in known.iter().filter(|c| !left.contains(c)) {
            self.take(*claim, host);
        }
        if !left.is_empty() {
            self.of_host
                .insert(host.clone(), left.into_iter().collect());
        }
    }

    fn take(&mut self, claim: u64, host: &Hostname) {
        let empty = match self.by_claim.get_mut(&claim) {
            None => false,
            Some(Claimants::One(one)) => one == host,
            Some(Claimants::Several(hosts)) => {
                hosts.remove(host);
                hosts.is_empty()
            }
        };
        if empty {
            self.by_claim.remove(&claim);
        }
    }
}
