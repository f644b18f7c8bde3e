//! One route table of one client: the parts it is assembled from.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::config::sidecar::OutboundMode;
use crate::config::value::Span;
use crate::ir::client::Client;
use crate::ir::outbound_listener::PASSTHROUGH;
use crate::ir::patches::Patch;
use crate::ir::{
    Action, Forward, HttpTarget, Reached, Response, Route, RouteTable, VirtualHost, scopes,
};
use crate::model::Snapshot;
use crate::text::{Hostname, Str};
use crate::xds::encode::{Cache, Part};
use crate::xds::{Encoded, patch, route};

/// The virtual hosts that have a domain here. No domain stands in two of them.
///
/// They lie in runs, each one piece of bytes that clients share: an edit makes one run anew, whatever the
/// number of hosts. Where runs end follows from the hosts alone, so that equal tables are equal in every
/// process.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// By the host that begins it; the first may begin with any.
    runs: BTreeMap<Option<Seat>, Arc<Run>>,
    /// What differs from the runs.
    pending: BTreeMap<Seat, Option<Arc<Part>>>,
    count: usize,
    /// Hosts that take every name that no other takes.
    catching: BTreeSet<Hostname>,
    /// Hosts with a wildcard among their domains, and those with nothing else.
    wild: BTreeSet<Hostname>,
    nameless: BTreeSet<Hostname>,
}

/// A host's place in the order of a table. A namespace's hosts lie side by side, for they are what differs
/// between the tables of two namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seat(Hostname);

#[derive(Clone, Debug)]
struct Run {
    parts: Box<[(Seat, Arc<Part>)]>,
    joined: Arc<Part>,
}

/// One host in so many begins a run.
const RUN: u64 = 32;

/// What becomes of requests for names that no host of a table claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// What becomes of all outbound traffic that nobody knows.
    Mode(OutboundMode),
    /// They are not found: at the edge.
    NotFound,
}

impl Rest {
    pub fn of(client: &Client, snapshot: &Snapshot) -> Self {
        match client.front {
            Some(_) => Self::NotFound,
            None => Self::Mode(client.outbound_mode(snapshot)),
        }
    }
}

/// A host's virtual host in a table, with those of its domains that it gets there.
#[derive(Clone, Debug)]
pub struct Grant {
    pub part: Arc<Part>,
    pub domains: Vec<Str>,
}

impl Table {
    /// Replaces what a host has here. Says whether that differs.
    pub fn set(&mut self, host: &Hostname, grant: Option<Grant>) -> bool {
        let domains = grant.as_ref().map_or(&[][..], |g| &g.domains);
        let is_wild = |d: &Str| d.starts_with('*');
        let wild = domains.iter().any(is_wild);
        for (set, belongs) in [
            (&mut self.catching, domains.iter().any(|d| d == "*")),
            (&mut self.wild, wild),
            (&mut self.nameless, wild && domains.iter().all(is_wild)),
        ] {
            if belongs {
                set.insert(host.clone());
            } else {
                set.remove(host);
            }
        }
        let seat = Seat(host.clone());
        let part = grant.map(|g| g.part);
        let version = |p: &Arc<Part>| p.version;
        let before = self.part(&seat).map(version);
        if before == part.as_ref().map(version) {
            return false;
        }
        self.count = self.count + usize::from(part.is_some()) - usize::from(before.is_some());
        self.pending.insert(seat, part);
        true
    }

    /// How many hosts are in it.
    pub fn len(&self) -> usize {
        self.count
    }

    /// The whole table, with a last virtual host for what nobody claims.
    pub fn assemble(
        &mut self,
        name: &Str,
        rest: Rest,
        patches: &[Arc<Patch>],
        cache: &mut Cache,
    ) -> Arc<Encoded> {
        self.settle(cache);
        let runs = self.runs.values().map(|r| r.joined.clone());
        let parts = self.with_catch_all(runs.collect(), (name, rest), cache);
        let head = head(name, Reached::ByListener);
        if !patches.is_empty()
            && let Some(patched) = patch::table(cache, &head, &parts, patches)
        {
            return patched;
        }
        route::table(cache, &head, &parts)
    }

    fn with_catch_all(
        &self,
        mut parts: Vec<Arc<Part>>,
        (table, rest): (&str, Rest),
        cache: &mut Cache,
    ) -> Vec<Arc<Part>> {
        let last = match rest {
            Rest::Mode(mode) => self.catching.is_empty().then(|| catch_all(mode)),
            // Without any virtual host the table would be no answer to Envoy.
            Rest::NotFound => parts.is_empty().then(|| black_hole(table)),
        };
        parts.extend(last.map(|host| route::part(cache, &host)));
        parts
    }

    /// What scopes fall back to: hosts with wildcards, and what nobody claims.
    pub fn fallback(&mut self, name: &Str, rest: Rest, cache: &mut Cache) -> Arc<Encoded> {
        self.settle(cache);
        let wild = self.wild.iter().map(|host| Seat(host.clone()));
        let wild = wild.filter_map(|seat| self.part(&seat).cloned());
        let parts = self.with_catch_all(wild.collect(), (name, rest), cache);
        let name = scopes::fallback_of(name);
        route::table(cache, &head(&name, Reached::ByScope), &parts)
    }

    /// The table of one host that a scope may lead to.
    pub fn of_host(&self, name: &Str, host: &Hostname, cache: &mut Cache) -> Option<Arc<Encoded>> {
        let part = self.part(&Seat(host.clone()));
        let part = part.filter(|_| !self.nameless.contains(host))?;
        let name = scopes::table_of(name, host.as_str());
        if self.wild.contains(host) {
            let head = head(&name, Reached::ByScope);
            return Some(route::table(cache, &head, std::slice::from_ref(part)));
        }
        let head = head(&name, Reached::ByOwnScopes);
        Some(route::table_of_one(cache, &head, part))
    }

    pub fn hosts(&self) -> impl Iterator<Item = &Hostname> {
        let settled = self.runs.values().flat_map(|run| &run.parts);
        let settled = settled.map(|(seat, _)| &seat.0);
        settled.chain(self.pending.keys().map(|seat| &seat.0))
    }

    fn part(&self, seat: &Seat) -> Option<&Arc<Part>> {
        if let Some(pending) = self.pending.get(seat) {
            return pending.as_ref();
        }
        let (_, run) = self.runs.range(..=Some(seat.clone())).next_back()?;
        let at = run.parts.binary_search_by(|(s, _)| s.cmp(seat)).ok()?;
        Some(&run.parts[at].1)
    }

    /// Makes the runs anew that something differs in.
    fn settle(&mut self, cache: &mut Cache) {
        let pending = std::mem::take(&mut self.pending);
        let mut open = Open::default();
        for (seat, part) in &pending {
            open.reach(&mut self.runs, seat);
            if part.is_none() && seat.begins() {
                // What followed it belongs to the run before.
                open.reach_before(&mut self.runs, seat);
            }
        }
        let mut parts = open.parts;
        for (seat, part) in pending {
            match part {
                Some(part) => drop(parts.insert(seat, part)),
                None => drop(parts.remove(&seat)),
            }
        }
        let mut first = None;
        let mut run: Vec<(Seat, Arc<Part>)> = Vec::new();
        for (seat, part) in parts {
            if seat.begins() {
                let done = std::mem::take(&mut run);
                self.close(first.replace(seat.clone()), done, cache);
            }
            run.push((seat, part));
        }
        self.close(first, run, cache);
    }

    fn close(&mut self, first: Option<Seat>, parts: Vec<(Seat, Arc<Part>)>, cache: &mut Cache) {
        if !parts.is_empty() {
            let joined = cache.concatenate(parts.iter().map(|(_, p)| p));
            let parts = parts.into();
            self.runs.insert(first, Arc::new(Run { parts, joined }));
        }
    }
}

/// Runs that were taken apart.
#[derive(Default)]
struct Open {
    parts: BTreeMap<Seat, Arc<Part>>,
    firsts: BTreeSet<Option<Seat>>,
}

impl Open {
    /// Takes the run apart that a host lies in, or would.
    fn reach(&mut self, runs: &mut BTreeMap<Option<Seat>, Arc<Run>>, seat: &Seat) {
        let key = Some(seat.clone());
        let closed = runs.range(..=&key).next_back().map(|(first, _)| first);
        let opened = self.firsts.range(..=&key).next_back();
        if let Some(first) = closed.cloned()
            && opened.is_none_or(|o| *o < first)
        {
            self.take(runs, first);
        }
    }

    fn reach_before(&mut self, runs: &mut BTreeMap<Option<Seat>, Arc<Run>>, seat: &Seat) {
        let key = Some(seat.clone());
        let before = runs.range(..&key).next_back().map(|(first, _)| first);
        if let Some(first) = before.cloned() {
            self.take(runs, first);
        }
    }

    fn take(&mut self, runs: &mut BTreeMap<Option<Seat>, Arc<Run>>, first: Option<Seat>) {
        let run = runs.remove(&first);
        let run = run.map(Arc::unwrap_or_clone);
        self.parts.extend(run.into_iter().flat_map(|r| r.parts));
        self.firsts.insert(first);
    }
}

impl Seat {
    fn begins(&self) -> bool {
        xxh3_64(self.0.as_str().as_bytes()).is_multiple_of(RUN)
    }

    /// What follows the first label, then the whole.
    fn key(&self) -> (&str, &str) {
        let whole = self.0.as_str();
        (whole.split_once('.').map_or("", |(_, rest)| rest), whole)
    }
}

impl Ord for Seat {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Seat {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn head(name: &Str, reached: Reached) -> RouteTable {
    RouteTable {
        name: name.clone(),
        reached,
    }
}

/// Istio's `allow_any` and `block_all`.
fn catch_all(mode: OutboundMode) -> VirtualHost {
    let (name, action) = match mode {
        OutboundMode::AllowAny => (
            "allow_any",
            Action::Forward(Forward {
                targets: vec![HttpTarget::only(Str::new_static(PASSTHROUGH))],
                timeout: Span(std::time::Duration::ZERO),
                retries: None,
                hash: Vec::new(),
                rewrite: None,
                mirrors: Vec::new(),
            }),
        ),
        OutboundMode::RegistryOnly => ("block_all", respond(502)),
    };
    VirtualHost {
        name: Str::new_static(name),
        domains: vec![Str::new_static("*")],
        routes: vec![Route {
            name: Str::new_static(name),
            matches: None,
            action,
            config: Str::default(),
            operation: Str::default(),
            also: None,
        }],
        redirects: false,
    }
}

/// Istio's answer of a gateway that no VirtualService is bound to: 404. `http.<port>`, `https.<port>.…`
fn black_hole(table: &str) -> VirtualHost {
    let port = table.split('.').nth(1).unwrap_or_default();
    VirtualHost {
        name: Str::new(format!("blackhole:{port}")),
        domains: vec![Str::new_static("*")],
        routes: Vec::new(),
        redirects: false,
    }
}

fn respond(status: u16) -> Action {
    Action::Respond(Response {
        status,
        body: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(n: u16) -> Hostname {
        Hostname::parse(&format!("svc-{n}.ns-{}.svc.cluster.local", n % 3)).unwrap()
    }

    fn grant(cache: &mut Cache, n: u16, code: u16) -> Grant {
        let node = VirtualHost {
            name: host(n).to_str(),
            domains: vec![host(n).to_str()],
            redirects: false,
            routes: vec![Route {
                name: Str::default(),
                matches: None,
                action: respond(code),
                config: Str::default(),
                operation: Str::default(),
                also: None,
            }],
        };
        Grant {
            part: route::part(cache, &node),
            domains: vec![host(n).to_str()],
        }
    }

    fn assembled(table: &mut Table, cache: &mut Cache) -> Vec<u8> {
        let rest = Rest::Mode(OutboundMode::AllowAny);
        let table = table.assemble(&Str::new_static("80"), rest, &[], cache);
        table.chunks.concat()
    }

    proptest! {
        #[test]
        fn a_table_is_the_same_whatever_was_in_it_before(
            edits in prop::collection::vec((0u16..200, prop::option::of(0u16..3)), 1..400),
            batch in 1usize..50,
        ) {
            let mut cache = Cache::default();
            let mut edited = Table::default();
            let mut last = BTreeMap::new();
            for batch in edits.chunks(batch) {
                for (n, code) in batch {
                    let grant = code.map(|code| grant(&mut cache, *n, code));
                    edited.set(&host(*n), grant);
                    last.insert(*n, *code);
                }
                assembled(&mut edited, &mut cache);
            }
            let mut fresh = Table::default();
            for (n, code) in last {
                let grant = code.map(|code| grant(&mut cache, n, code));
                fresh.set(&host(n), grant);
            }
            prop_assert_eq!(assembled(&mut edited, &mut cache), assembled(&mut fresh, &mut cache));
        }
    }

    #[test]
    fn an_edit_leaves_all_runs_but_one_as_they_are() {
        let mut cache = Cache::default();
        let mut table = Table::default();
        for n in 0..1000 {
            let grant = grant(&mut cache, n, 200);
            table.set(&host(n), Some(grant));
        }
        assembled(&mut table, &mut cache);
        let pieces = |t: &Table| -> Vec<_> { t.runs.values().map(|r| r.joined.clone()).collect() };
        let before = pieces(&table);
        let edit = grant(&mut cache, 500, 404);
        assert!(table.set(&host(500), Some(edit)));
        assembled(&mut table, &mut cache);
        let after = pieces(&table);
        let same = before.iter().zip(&after).filter(|(a, b)| Arc::ptr_eq(a, b));
        assert_eq!(
            (before.len(), same.count()),
            (after.len(), before.len() - 1)
        );
        assert!(before.len() > 20, "{}", before.len());
    }
}
