//! Keeps every attached proxy's scope current: changes in, touched names out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::hosts::Hosts;
use super::outbound::{Common, Outbound};
use super::{Layer, Names, ProxyId, Resources, ScopeId, Touched, Update, provenance};
use crate::config::Change;
use crate::config::meta::Labels;
use crate::config::{Kind, Source};
use crate::ir::client::Client;
use crate::ir::inbound::{self, Server};
use crate::ir::inbound_listener;
use crate::ir::patches::{self, Inline};
use crate::model::proxy::{Proxy, Role};
use crate::model::workloads::Workload;
use crate::model::{Facts, Settings, Snapshot};
use crate::text::Str;
use crate::xds::encode::Cache;
use crate::xds::{Encoded, Entry, ResourceType, patch};

/// The only owner of the snapshot, of what is joined and rendered from it, and of all scopes.
#[derive(Default)]
pub struct Engine {
    snapshot: Snapshot,
    hosts: Hosts,
    outbounds: BTreeMap<u32, Shared>,
    by_client: HashMap<Client, u32>,
    scopes: BTreeMap<ScopeId, Scope>,
    by_server: HashMap<(u32, Arc<Server>), ScopeId>,
    proxies: BTreeMap<ProxyId, Member>,
    by_namespace: BTreeMap<Str, BTreeSet<ProxyId>>,
    /// Those at the edge.
    routers: BTreeSet<ProxyId>,
    next: u32,
}

/// The outbound side of some scopes.
#[derive(Debug)]
struct Shared {
    outbound: Outbound,
    scopes: BTreeSet<ScopeId>,
}

#[derive(Debug)]
struct Scope {
    outbound: u32,
    server: Arc<Server>,
    layer: Layer,
    members: usize,
}

#[derive(Debug)]
struct Member {
    proxy: Proxy,
    scope: ScopeId,
}

/// With more outbound sides than these, one of them is likely to be like a newcomer's.
const ENOUGH: usize = 4;

impl Engine {
    pub fn new(settings: Settings) -> Self {
        Self {
            snapshot: Snapshot::new(settings),
            ..Self::default()
        }
    }

    /// What the joins read now. A clone is cheap and stays as it is.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Renders done since the start, by type.
    pub fn renders(&self) -> [u64; ResourceType::COUNT] {
        self.hosts.cache.renders
    }

    /// Patches that took a resource away from some proxy.
    pub(super) fn removing(&self) -> impl Iterator<Item = &Source> {
        self.hosts.cache.removing.iter()
    }

    /// Joins of a host done since the start.
    pub fn joins(&self) -> u64 {
        self.hosts.joins
    }

    /// Whether nothing is kept for any proxy, but what the next one begins with.
    #[cfg(test)]
    pub fn is_idle(mut self) -> bool {
        let kept: Vec<u32> = self.outbounds.keys().copied().collect();
        kept.iter().for_each(|id| self.forget(*id));
        self.hosts.sweep();
        kept.len() <= 1 && self.scopes.is_empty() && self.hosts.is_empty()
    }

    /// Makes ready for the first proxies: joins and renders what most of them are sent, whatever their namespace.
    pub fn prepare(&mut self) {
        let services = self.snapshot.services.all();
        let usual = |ns: &Str| Client::usual(ns, &Labels::default(), &self.snapshot);
        let mut namespaces: Vec<&Str> = services.map(|s| &s.namespace).collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        let mut clients = namespaces.into_iter().map(usual);
        let first = clients.next();
        // One that a Sidecar shows less than all is no beginning for the others.
        let open = first
            .iter()
            .cloned()
            .chain(clients)
            .find(|c| c.sidecar.is_none());
        if let Some(client) = open.or(first) {
            self.outbound(client);
        }
    }

    /// Puts a proxy into its scope, which is made when it is the first.
    pub fn attach(&mut self, id: ProxyId, proxy: Proxy) -> ScopeId {
        self.detach(id);
        let (client, server) = self.place(&proxy);
        let scope = self.enter(client, server);
        self.by_namespace
            .entry(proxy.namespace.clone())
            .or_default()
            .insert(id);
        if proxy.role == Role::Router {
            self.routers.insert(id);
        }
        self.proxies.insert(id, Member { proxy, scope });
        scope
    }

    pub fn detach(&mut self, id: ProxyId) {
        let Some(member) = self.proxies.remove(&id) else {
            return;
        };
        if let Some(ids) = self.by_namespace.get_mut(&member.proxy.namespace) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_namespace.remove(&member.proxy.namespace);
            }
        }
        self.routers.remove(&id);
        self.leave(member.scope);
        self.hosts.sweep();
    }

    pub fn scope_of(&self, id: ProxyId) -> Option<ScopeId> {
        self.proxies.get(&id).map(|m| m.scope)
    }

    /// The proxies of a namespace.
    pub fn of_namespace(&self, namespace: &str) -> Vec<ProxyId> {
        let ids = self.by_namespace.get(namespace);
        ids.into_iter().flatten().copied().collect()
    }

    pub fn proxy(&self, id: ProxyId) -> Option<&Proxy> {
        self.proxies.get(&id).map(|m| &m.proxy)
    }

    /// None for a scope that nobody is attached to any more.
    pub fn resources(&self, scope: ScopeId) -> Option<Resources<'_>> {
        let scope = self.scopes.get(&scope)?;
        let shared = self.outbounds.get(&scope.outbound)?;
        let Outbound {
            layer, on_demand, ..
        } = &shared.outbound;
        Some(Resources::new(&scope.layer, layer, &on_demand.layer))
    }

    /// As `resources`, with the objects that made each. Not cheap: for people who look.
    pub fn entries(&self, id: ScopeId) -> Option<Vec<Entry>> {
        let scope = self.scopes.get(&id)?;
        let Shared { outbound, .. } = self.outbounds.get(&scope.outbound)?;
        let resources = self.resources(id)?;
        let Scope { server, .. } = scope;
        Some(provenance::entries(
            resources,
            outbound,
            server,
            (&self.snapshot, &self.hosts),
        ))
    }

    /// Applies a batch: work is touched hosts × the scopes that see them.
    pub fn apply(&mut self, changes: &[Change]) -> Update {
        let facts = self.snapshot.apply(changes);
        let mut update = Update::default();
        for (id, names) in self.touch_outbounds(&facts) {
            let names = Arc::new(names);
            for scope in self.outbounds.get(&id).into_iter().flat_map(|s| &s.scopes) {
                let names = names.clone();
                update.scopes.insert(*scope, Touched { names });
            }
        }
        if facts.mesh {
            self.rebuild_inbound(&mut update);
        }
        self.rescope(&facts, &mut update);
        self.hosts.sweep();
        update.scopes.retain(|id, _| self.scopes.contains_key(id));
        update
    }

    /// What differs, by outbound side, where anything does.
    fn touch_outbounds(&mut self, facts: &Facts) -> BTreeMap<u32, Names> {
        let mut touched = BTreeMap::new();
        if !facts.mesh && facts.hosts.is_empty() && facts.endpoints.is_empty() {
            return touched;
        }
        let Facts {
            hosts, endpoints, ..
        } = facts;
        if facts.mesh {
            self.hosts.touch_all();
        } else {
            self.hosts.touch(hosts);
            self.hosts.assign(endpoints, &self.snapshot);
        }
        let mut common = Common {
            snapshot: &self.snapshot,
            hosts: &mut self.hosts,
        };
        for (id, Shared { outbound, .. }) in &mut self.outbounds {
            let names = if facts.mesh {
                outbound.rebuild(&mut common)
            } else {
                outbound.touch(hosts, endpoints, &mut common)
            };
            if !names.is_empty() {
                touched.insert(*id, names);
            }
        }
        touched
    }

    /// The mesh's own settings (trust domains, access log) stand in every inbound listener.
    fn rebuild_inbound(&mut self, update: &mut Update) {
        for (id, scope) in &mut self.scopes {
            let layer = inbound_layer(&scope.server, &self.snapshot, &mut self.hosts.cache);
            let names = differing(&scope.layer, &layer);
            scope.layer = layer;
            if !names.is_empty() {
                let touched = update.scopes.entry(*id).or_default();
                Arc::make_mut(&mut touched.names).extend(names);
            }
        }
    }

    fn rescope(&mut self, facts: &Facts, update: &mut Update) {
        let ids: BTreeSet<ProxyId> = if facts.mesh || facts.everyone {
            self.proxies.keys().copied().collect()
        } else {
            let of = |ns| self.by_namespace.get(ns).into_iter().flatten().copied();
            let routers = self.routers.iter().filter(|_| facts.fronts).copied();
            facts
                .namespaces
                .iter()
                .flat_map(of)
                .chain(routers)
                .collect()
        };
        for id in ids {
            let Some(proxy) = self.proxies.get(&id).map(|m| m.proxy.clone()) else {
                continue;
            };
            let (client, server) = self.place(&proxy);
            let Some(before) = self.scope_of(id) else {
                continue;
            };
            if self.is_at(before, &client, &server) {
                continue;
            }
            let scope = self.enter(client, server);
            self.leave(before);
            if let Some(member) = self.proxies.get_mut(&id) {
                member.scope = scope;
            }
            update.moved.insert(id);
        }
    }

    fn place(&self, proxy: &Proxy) -> (Client, Server) {
        let snapshot = &self.snapshot;
        let workloads = &snapshot.workloads;
        let described = workloads
            .named(Kind::Pod, &proxy.namespace, &proxy.name)
            .or_else(|| workloads.named(Kind::WorkloadEntry, &proxy.namespace, &proxy.name))
            .filter(|w| vouches(proxy, w));
        let labels: &Labels = described.map_or(&proxy.labels, |w| &w.labels);
        let client = Client::of(proxy, labels, described, snapshot);
        let server = inbound::server(proxy, described, client.sidecar.as_ref(), snapshot);
        (client, server)
    }

    fn is_at(&self, scope: ScopeId, client: &Client, server: &Server) -> bool {
        self.scopes.get(&scope).is_some_and(|s| {
            let shared = self.outbounds.get(&s.outbound);
            *s.server == *server && shared.is_some_and(|o| o.outbound.client == *client)
        })
    }

    fn enter(&mut self, client: Client, server: Server) -> ScopeId {
        let outbound = self.outbound(client);
        let place = (outbound, Arc::new(server));
        if let Some(known) = self.by_server.get(&place)
            && let Some(scope) = self.scopes.get_mut(known)
        {
            scope.members += 1;
            return *known;
        }
        self.next += 1;
        let new = ScopeId(self.next);
        let server = place.1.clone();
        let layer = inbound_layer(&server, &self.snapshot, &mut self.hosts.cache);
        self.by_server.insert(place, new);
        if let Some(shared) = self.outbounds.get_mut(&outbound) {
            shared.scopes.insert(new);
        }
        let scope = Scope {
            outbound,
            server,
            layer,
            members: 1,
        };
        self.scopes.insert(new, scope);
        new
    }

    fn outbound(&mut self, client: Client) -> u32 {
        if let Some(known) = self.by_client.get(&client) {
            return *known;
        }
        self.next += 1;
        let mut common = Common {
            snapshot: &self.snapshot,
            hosts: &mut self.hosts,
        };
        let known = self.outbounds.values().map(|shared| &shared.outbound);
        let alike = known.into_iter().find(|known| known.is_like(&client));
        let shared = Shared {
            outbound: match alike {
                Some(alike) => alike.like(client.clone(), &mut common),
                None => Outbound::new(client.clone(), &mut common),
            },
            scopes: BTreeSet::new(),
        };
        self.outbounds.insert(self.next, shared);
        self.by_client.insert(client, self.next);
        self.forget_unused(self.next);
        self.next
    }

    /// What no proxy uses is there to begin with: one began with it, or there is enough else.
    fn forget_unused(&mut self, new: u32) {
        let Some(Shared { outbound, .. }) = self.outbounds.get(&new) else {
            return;
        };
        let enough = self.outbounds.len() > ENOUGH;
        let others = self.outbounds.iter().filter(|(id, _)| **id != new);
        let unused = others.filter(|(_, shared)| {
            shared.scopes.is_empty() && (enough || shared.outbound.is_like(&outbound.client))
        });
        for id in unused.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.forget(id);
        }
    }

    fn forget(&mut self, outbound: u32) {
        if let Some(Shared { outbound, .. }) = self.outbounds.remove(&outbound) {
            self.by_client.remove(&outbound.client);
            outbound.release(&mut self.hosts);
        }
    }

    /// A scope goes with its last proxy, and its outbound side with its last scope. The last one stays: whoever comes
    /// next begins with it.
    fn leave(&mut self, id: ScopeId) {
        let Some(scope) = self.scopes.get_mut(&id) else {
            return;
        };
        scope.members -= 1;
        if scope.members > 0 {
            return;
        }
        let outbound = scope.outbound;
        if let Some(scope) = self.scopes.remove(&id) {
            self.by_server.remove(&(outbound, scope.server));
        }
        let Some(shared) = self.outbounds.get_mut(&outbound) else {
            return;
        };
        shared.scopes.remove(&id);
        if shared.scopes.is_empty() && self.outbounds.len() > 1 {
            self.forget(outbound);
        }
    }
}

/// An object describes a proxy only if the proxy's credential is of that object's account.
fn vouches(proxy: &Proxy, workload: &Workload) -> bool {
    let account = &workload.service_account;
    proxy.identity.as_ref().is_none_or(|i| {
        i.namespace() == workload.namespace()
            && (account.is_empty() || i.service_account() == account)
    })
}

fn inbound_layer(server: &Server, snapshot: &Snapshot, cache: &mut Cache) -> Layer {
    let view = inbound_listener::join(server, &snapshot.mesh);
    let mut layer = Layer::default();
    let clusters = view.clusters.iter().map(|(c, _)| cache.get(c)).collect();
    let listeners = view.listeners.iter().map(|(l, _)| cache.get(l)).collect();
    let all: [Vec<_>; 2] = [clusters, listeners];
    for encoded in all.into_iter().flatten() {
        let patched = patched_inbound(encoded, server, cache);
        patched.map(|encoded| layer.insert(encoded));
    }
    layer
}

/// None where an EnvoyFilter removes it.
fn patched_inbound(
    encoded: Arc<Encoded>,
    server: &Server,
    cache: &mut Cache,
) -> Option<Arc<Encoded>> {
    let Server { patches, ports, .. } = server;
    if patches.is_empty() {
        return Some(encoded);
    }
    let meeting = match encoded.kind {
        ResourceType::Cluster => {
            let service = patches::service_of(ports.iter(), &encoded.name);
            patches.of_cluster(&encoded.name, &service)
        }
        ResourceType::Listener => patches.of_listener(&encoded.name, Inline::Routes),
        ResourceType::Endpoint
        | ResourceType::Route
        | ResourceType::ScopedRoute
        | ResourceType::Secret => return Some(encoded),
    };
    patch::resource(cache, &encoded, &meeting)
}

fn differing(before: &Layer, after: &Layer) -> Names {
    let mut names = Names::new();
    for kind in ResourceType::ALL {
        for (old, new) in [(before, after), (after, before)] {
            let differs = |e: &&Arc<Encoded>| {
                let other = new.get(kind, &e.name);
                other.is_none_or(|o| o.version != e.version)
            };
            names.extend(old.of(kind).filter(differs).map(|e| (kind, e.name.clone())));
        }
    }
    names
}
