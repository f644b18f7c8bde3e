//! The outbound resources of one kind of client, kept current host by host. Route scopes: `scoped`,
//! listeners: `listeners`.

mod fixed;
mod listeners;
mod on_demand;
mod patched;
mod scoped;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::on_demand::OnDemand;
use super::hosts::Hosts;
use super::joined::JoinedHost;
use super::places::Place;
use super::sorted::Sorted;
use super::table::{Grant, Rest, Table};
use super::{Layer, Names};
use crate::ir::VirtualHost;
use crate::ir::client::Client;
use crate::ir::domains::Claim;
use crate::ir::outbound::ListenerEntry;
use crate::ir::outbound_listener::{self, Surroundings};
use crate::ir::relation::Relation;
use crate::ir::scopes::Packing;
use crate::model::Snapshot;
use crate::model::proxy::Interception;
use crate::model::sidecars::Egress;
use crate::text::{Hostname, Str};
use crate::xds::{Encoded, ResourceType, route};

#[derive(Clone, Debug)]
pub struct Outbound {
    pub client: Client,
    egress: Vec<Egress>,
    /// What goes to all such clients.
    pub layer: Layer,
    /// What goes to those that ask for it.
    pub on_demand: OnDemand,
    hosts: Sorted<Hostname, Arc<JoinedHost>>,
    /// Which hosts' routes lead to a host.
    callers: Sorted<Hostname, BTreeSet<Hostname>>,
    tables: BTreeMap<Str, Table>,
    packing: Packing,
    /// What stands whether or not a host asks for it: the Sidecar's egress listeners with a port.
    fixed: BTreeMap<Place, ListenerEntry>,
    /// What EnvoyFilters add: there wherever nothing else has the name.
    added: BTreeMap<(ResourceType, Str), Arc<Encoded>>,
}

/// What all kinds of client have in common: the facts, and what was joined and rendered from them.
pub struct Common<'a> {
    pub snapshot: &'a Snapshot,
    pub hosts: &'a mut Hosts,
}

/// Everything that one batch must put together again, once.
#[derive(Default)]
struct Dirty {
    tables: BTreeSet<Str>,
    places: BTreeSet<Place>,
    names: Vec<(ResourceType, Str)>,
    /// Hosts and domains whose scopes may differ, by table. Looked at where tables come as scopes.
    hosts: BTreeSet<(Str, Hostname)>,
    domains: BTreeSet<(Str, Str)>,
}

impl Outbound {
    pub fn new(client: Client, common: &mut Common<'_>) -> Self {
        let egress = client.egress();
        let mut own = Self {
            fixed: fixed::listeners(&client, &egress),
            // That of a mesh without hosts, till the tables are known.
            packing: Packing::chosen(client.packing, Packing::default(), 0),
            client,
            egress,
            layer: Layer::default(),
            on_demand: OnDemand::default(),
            hosts: Sorted::new(),
            callers: Sorted::new(),
            tables: BTreeMap::new(),
            added: BTreeMap::new(),
        };
        own.join_everything(common);
        own.add(common, &mut Dirty::default());
        own
    }

    /// The same as `new`, from another client's: namespaces see nearly the same mesh, and what differs between two
    /// of them are the hosts that they stand to in other relations.
    pub fn like(&self, client: Client, common: &mut Common<'_>) -> Self {
        let mut own = Self {
            client,
            ..self.clone()
        };
        let mut dirty = Dirty::default();
        if own.client.patches != self.client.patches {
            own.patch_again(&self.client.patches, common, &mut dirty);
        }
        own.join_all(own.otherwise(common.snapshot), common, &mut dirty);
        own.assemble(common, dirty);
        own
    }

    /// The hosts that the client does not stand to as the joins say that it holds.
    fn otherwise(&self, snapshot: &Snapshot) -> BTreeSet<Hostname> {
        let services = snapshot.services.all().map(|s| &s.host);
        let others = snapshot.virtuals.hosts();
        let others = others.filter(|host| snapshot.services.get(host.as_str()).is_none());
        let differs = |host: &Hostname| {
            let held = self.hosts.get(host).map(|joined| &joined.relation);
            self.relation(host, snapshot).as_ref() != held
        };
        let answered = self.answered(snapshot);
        let all = services.chain(others).cloned().chain(answered);
        all.filter(differs).collect()
    }

    /// Whether `like` gives what `new` would.
    pub fn is_like(&self, client: &Client) -> bool {
        let Client {
            namespace: _,
            labels: _,
            interception,
            families,
            taken,
            sidecar,
            packing,
            front,
            place: _,
            extensions,
            patches: _,
        } = &self.client;
        *interception == client.interception
            && *families == client.families
            && *taken == client.taken
            && *sidecar == client.sidecar
            && *packing == client.packing
            && *front == client.front
            && *extensions == client.extensions
            && self.packing == self.fresh_packing()
    }

    /// Joins every host again, for a mesh-wide fact.
    pub fn rebuild(&mut self, common: &mut Common<'_>) -> Names {
        self.join_everything(common).into_iter().collect()
    }

    /// Joins the touched hosts, those whose routes lead to them, and nothing else.
    pub fn touch(
        &mut self,
        hosts: &BTreeSet<Hostname>,
        endpoints: &BTreeSet<Hostname>,
        common: &mut Common<'_>,
    ) -> Names {
        let mut dirty = Dirty::default();
        let callers = hosts.iter().filter_map(|host| self.callers.get(host));
        // An endpoint changes what its own host adds, and nobody's routes.
        let held = endpoints.iter().filter(|h| self.hosts.get(*h).is_some());
        let queue = hosts.iter().chain(callers.flatten()).chain(held);
        let mut queue: BTreeSet<Hostname> = queue.cloned().collect();
        if let Some(front) = &self.client.front {
            queue.extend(hosts.iter().flat_map(|host| front.meets(host)));
        }
        self.join_all(queue, common, &mut dirty);
        self.assemble(common, dirty).into_iter().collect()
    }

    /// Lets go of all that it shares.
    pub fn release(self, hosts: &mut Hosts) {
        for (host, _) in &self.hosts {
            hosts.release(host);
        }
    }

    /// The joins that it holds.
    pub fn joined(&self) -> impl Iterator<Item = (&Hostname, &JoinedHost)> {
        let joined = self.hosts.into_iter();
        joined.map(|(host, joined)| (host, &**joined))
    }

    /// The egress listeners that stand by themselves.
    pub fn fixed(&self) -> impl Iterator<Item = &ListenerEntry> {
        self.fixed.values()
    }

    fn join_everything(&mut self, common: &mut Common<'_>) -> Vec<(ResourceType, Str)> {
        let hosts = self.all_hosts(common.snapshot);
        let mut dirty = Dirty {
            tables: self.tables.keys().cloned().collect(),
            places: self.all_places().collect(),
            ..Dirty::default()
        };
        let fixed = self.fixed.values().filter_map(|e| e.asks.table());
        dirty.tables.extend(fixed.cloned());
        let front = self.client.front.iter().flat_map(|front| front.tables());
        dirty.tables.extend(front.cloned());
        self.fix_clusters(common, &mut dirty);
        self.join_all(hosts, common, &mut dirty);
        self.assemble(common, dirty)
    }

    fn all_hosts(&self, snapshot: &Snapshot) -> BTreeSet<Hostname> {
        let services = snapshot.services.all().map(|s| &s.host);
        let named = services.chain(snapshot.virtuals.hosts());
        let held = self.hosts.into_iter().map(|(host, _)| host);
        let all = named.chain(held).cloned();
        all.chain(self.answered(snapshot)).collect()
    }

    /// The hosts that a client at the edge answers for.
    fn answered(&self, snapshot: &Snapshot) -> Vec<Hostname> {
        let Some(front) = &self.client.front else {
            return Vec::new();
        };
        let bound = snapshot.virtuals.bound_hosts();
        let met = bound.flat_map(|host| front.meets(host));
        met.chain(front.redirected().cloned()).collect()
    }

    fn fix_clusters(&mut self, common: &mut Common<'_>, dirty: &mut Dirty) {
        for cluster in outbound_listener::fixed_clusters(&common.snapshot.mesh) {
            let encoded = common.hosts.cache.get(&cluster);
            self.put_patched(encoded, common, dirty);
        }
        if self.client.interception != Interception::None {
            let around = Surroundings::of(&self.client, self.packing, common.snapshot);
            let listener = outbound_listener::virtual_outbound(&around);
            let encoded = common.hosts.cache.get(&listener);
            self.put_patched(encoded, common, dirty);
        }
    }

    fn join_all(
        &mut self,
        mut queue: BTreeSet<Hostname>,
        common: &mut Common<'_>,
        dirty: &mut Dirty,
    ) {
        while let Some(host) = queue.pop_first() {
            let new = self
                .relation(&host, common.snapshot)
                .map(|relation| common.hosts.get(&host, relation, common.snapshot));
            let old = self.hosts.get(&host).cloned();
            match (&old, &new) {
                (Some(old), Some(new)) if Arc::ptr_eq(old, new) => continue,
                (None, None) => continue,
                (_, Some(new)) => drop(self.hosts.insert_cow(host.clone(), new.clone())),
                (Some(_), None) => drop(self.hosts.remove_cow(&host)),
            }
            queue.extend(self.lead(&host, old.as_deref(), new.as_deref()));
            self.replace(&host, old.as_deref(), new.as_deref(), common, dirty);
            if old.is_some() {
                common.hosts.release(&host);
            }
        }
    }

    fn relation(&self, host: &Hostname, snapshot: &Snapshot) -> Option<Relation> {
        let called = Relation::of(&self.client, &self.egress, snapshot, host);
        let led = || Relation::led(&self.client, snapshot, host);
        called.or_else(|| self.callers.get(host).and_then(|_| led()))
    }

    /// Keeps `callers`; gives the hosts that are led to for the first time, or no longer.
    fn lead(
        &mut self,
        host: &Hostname,
        before: Option<&JoinedHost>,
        after: Option<&JoinedHost>,
    ) -> Vec<Hostname> {
        const NONE: &BTreeSet<Hostname> = &BTreeSet::new();
        let before = before.map_or(NONE, |j| &j.destinations);
        let after = after.map_or(NONE, |j| &j.destinations);
        let mut turned = Vec::new();
        for gone in before.difference(after) {
            if let Some(callers) = self.callers.get_mut_cow(gone) {
                callers.remove(host);
                if callers.is_empty() {
                    self.callers.remove_cow(gone);
                    turned.push(gone.clone());
                }
            }
        }
        for new in after.difference(before) {
            let callers = self.callers.get_or_default_cow(new.clone());
            if callers.is_empty() {
                turned.push(new.clone());
            }
            callers.insert(host.clone());
        }
        turned
    }

    fn replace(
        &mut self,
        host: &Hostname,
        old: Option<&JoinedHost>,
        new: Option<&JoinedHost>,
        common: &mut Common<'_>,
        dirty: &mut Dirty,
    ) {
        let clusters = |j: Option<&JoinedHost>| j.map_or(&[][..], |j| &j.clusters).to_vec();
        let assignments = |j: Option<&JoinedHost>| -> Vec<Arc<Encoded>> {
            let all = j.map_or(&[][..], |j| &j.assignments);
            all.iter().map(|a| a.encoded.clone()).collect()
        };
        self.exchange(&clusters(old), clusters(new), common, dirty);
        self.exchange(&assignments(old), assignments(new), common, dirty);
        self.replace_routes(host, old, new, common, dirty);
        listeners::replace(old, new, dirty);
    }

    fn exchange(
        &mut self,
        old: &[Arc<Encoded>],
        new: Vec<Arc<Encoded>>,
        common: &mut Common<'_>,
        dirty: &mut Dirty,
    ) {
        for gone in old {
            if new.iter().all(|n| n.name != gone.name) {
                self.take(gone.kind, &gone.name, dirty);
            }
        }
        for encoded in new {
            if !old.iter().any(|o| Arc::ptr_eq(o, &encoded)) {
                self.put_patched(encoded, common, dirty);
            }
        }
    }

    /// A host's own virtual hosts, and those of the hosts that claim one of its domains too.
    fn replace_routes(
        &mut self,
        host: &Hostname,
        old: Option<&JoinedHost>,
        new: Option<&JoinedHost>,
        common: &mut Common<'_>,
        dirty: &mut Dirty,
    ) {
        // A rival that was joined before this host may have looked at it by facts that hold no more.
        let settled = |j: &JoinedHost| {
            let mut tables = j.virtual_hosts.iter();
            !tables.any(|v| dirty.hosts.contains(&(v.table.clone(), host.clone())))
        };
        if let (Some(old), Some(new)) = (old, new)
            && old.routes_as(new)
            && settled(new)
        {
            return;
        }
        let both = || [old, new].into_iter().flatten();
        let tables: BTreeSet<Str> = both()
            .flat_map(|j| j.virtual_hosts.iter().map(|v| v.table.clone()))
            .collect();
        for name in tables {
            let mut affected = BTreeSet::from([host.clone()]);
            for joined in both() {
                affected.extend(common.hosts.rivals(host, joined, &name));
            }
            for host in affected {
                let grant = self.grant(&host, &name, common);
                let table = self.tables.entry(name.clone()).or_default();
                if table.set(&host, grant) {
                    dirty.tables.insert(name.clone());
                    dirty.hosts.insert((name.clone(), host));
                }
            }
            if self.packing.of(&name) == Packing::Whole {
                continue;
            }
            let claims = both().filter_map(|j| j.virtual_host(&name));
            let domains = claims.flat_map(|v| v.domains.iter());
            let domains = domains.map(|(domain, _)| (name.clone(), domain.clone()));
            dirty.domains.extend(domains);
        }
    }

    /// Of the domains that a host claims in a table those that it gets: the strongest claim wins, then the
    /// first by host.
    fn grant(&self, host: &Hostname, table: &str, common: &mut Common<'_>) -> Option<Grant> {
        let joined = self.hosts.get(host)?;
        let wanted = joined.virtual_host(table)?;
        let rivals = common.hosts.rivals(host, joined, table);
        let rivals = rivals
            .iter()
            .filter_map(|r| Some((r, self.hosts.get(r)?.virtual_host(table)?)));
        let rivals: Vec<_> = rivals.collect();
        let gets = |domain: &str, claim: Claim| {
            rivals.iter().all(|(rival, theirs)| {
                let stronger = |c: Claim| (c, *rival) < (claim, host);
                !theirs.claim(domain).is_some_and(stronger)
            })
        };
        let domains = wanted.domains.iter();
        let got: Vec<Str> = domains
            .filter(|(d, claim)| gets(d, *claim))
            .map(|(d, _)| d.clone())
            .collect();
        let part = if got.len() == wanted.domains.len() {
            wanted.part.clone()
        } else if got.is_empty() {
            return None;
        } else {
            let entry = common
                .hosts
                .table_entry(host, joined, table, common.snapshot)?;
            let node = VirtualHost {
                name: entry.name,
                domains: got.clone(),
                routes: entry.routes,
                redirects: entry.redirects,
            };
            route::part(&mut common.hosts.cache, &node)
        };
        Some(Grant { part, domains: got })
    }

    fn assemble(&mut self, common: &mut Common<'_>, mut dirty: Dirty) -> Vec<(ResourceType, Str)> {
        self.choose_packing(&mut dirty);
        let around = Surroundings::of(&self.client, self.packing, common.snapshot);
        let rest = Rest::of(&self.client, common.snapshot);
        for place in std::mem::take(&mut dirty.places) {
            match self.listener(&around, place, common.hosts) {
                Some(encoded) => self.put_patched(encoded, common, &mut dirty),
                None => {
                    let name = Str::new(format!("{}_{}", place.0, place.1));
                    self.take(ResourceType::Listener, &name, &mut dirty);
                }
            }
        }
        for name in std::mem::take(&mut dirty.tables) {
            self.put_table(&name, rest, common, &mut dirty);
        }
        self.put_scopes(common, &mut dirty);
        dirty.names
    }

    fn put_table(&mut self, name: &Str, rest: Rest, common: &mut Common<'_>, dirty: &mut Dirty) {
        let mut fixed = self.fixed.values();
        let wanted = fixed.any(|e| e.asks.table() == Some(name));
        let front = self.client.front.as_deref();
        let wanted = wanted || front.is_some_and(|front| front.tables().any(|t| t == name));
        let packing = self.packing.of(name);
        let table = self.tables.entry(name.clone()).or_default();
        let stands = table.len() > 0 || wanted;
        let cache = &mut common.hosts.cache;
        match packing {
            Packing::Whole if stands => {
                let front = self.client.front.as_deref();
                let patches = self.client.patches.of_table(name, front);
                let encoded = table.assemble(name, rest, &patches, cache);
                self.put(encoded, dirty);
            }
            Packing::Whole => self.take(ResourceType::Route, name, dirty),
            Packing::Scoped(_) if stands => {
                let encoded = table.fallback(name, rest, cache);
                self.put_fallback(encoded, common, dirty);
            }
            Packing::Scoped(_) => self.take_fallback(name, dirty),
        }
        if !stands {
            self.tables.remove(name);
        }
    }

    fn put(&mut self, encoded: Arc<Encoded>, dirty: &mut Dirty) {
        let (kind, name) = (encoded.kind, encoded.name.clone());
        if kind == ResourceType::Listener {
            self.pin(Some(&encoded), &name, dirty);
        }
        if !self.added.is_empty() && self.added.contains_key(&(kind, name.clone())) {
            // It may have stood there, and no name stands in two layers.
            self.layer.remove(kind, &name);
        }
        let layer = match self.is_on_demand(kind, &name) {
            true => &mut self.on_demand.layer,
            false => &mut self.layer,
        };
        if layer.insert(encoded) {
            dirty.names.push((kind, name));
        }
    }

    fn take(&mut self, kind: ResourceType, name: &Str, dirty: &mut Dirty) {
        if kind == ResourceType::Listener {
            self.pin(None, name, dirty);
        }
        if self.layer.remove(kind, name) || self.on_demand.layer.remove(kind, name) {
            dirty.names.push((kind, name.clone()));
            self.reveal(kind, name, dirty);
        }
    }
}
