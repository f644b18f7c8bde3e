//! The outbound resources of one kind of client, kept current host by host.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::table::Table;
use super::{Layer, Names};
use crate::config::Source;
use crate::ir::client::Client;
use crate::ir::outbound::{self, Asks, HostView, ListenerEntry};
use crate::ir::outbound_listener::{self, Surroundings};
use crate::ir::{Listener, assignments};
use crate::model::Snapshot;
use crate::model::protocol::{Class, Protocol};
use crate::model::sidecars::Egress;
use crate::text::{Hostname, Str};
use crate::xds::encode::Cache;
use crate::xds::{Entry, ResourceType};

#[derive(Debug)]
pub struct Outbound {
    pub client: Client,
    egress: Vec<Egress>,
    pub layer: Layer,
    views: BTreeMap<Hostname, HostView>,
    /// Which hosts' routes lead to a host.
    callers: BTreeMap<Hostname, BTreeSet<Hostname>>,
    tables: BTreeMap<Str, Table>,
    listeners: BTreeMap<Place, BTreeMap<Hostname, Vec<ListenerEntry>>>,
    /// What stands whether or not a host asks for it: the Sidecar's egress listeners with a port.
    fixed: BTreeMap<Place, ListenerEntry>,
}

type Place = (IpAddr, u16);

/// Everything that one batch must put together again, once.
#[derive(Default)]
struct Dirty {
    tables: BTreeSet<Str>,
    places: BTreeSet<Place>,
    names: Names,
}

impl Outbound {
    pub fn new(client: Client, snapshot: &Snapshot, cache: &mut Cache) -> Self {
        let egress = client.egress();
        let mut own = Self {
            fixed: fixed(&client, &egress),
            client,
            egress,
            layer: Layer::default(),
            views: BTreeMap::new(),
            callers: BTreeMap::new(),
            tables: BTreeMap::new(),
            listeners: BTreeMap::new(),
        };
        own.rebuild(snapshot, cache);
        own
    }

    /// Joins every host again, for a mesh-wide fact.
    pub fn rebuild(&mut self, snapshot: &Snapshot, cache: &mut Cache) -> Names {
        let mut hosts: BTreeSet<Hostname> =
            snapshot.services.all().map(|s| s.host.clone()).collect();
        hosts.extend(snapshot.virtuals.hosts().cloned());
        hosts.extend(self.views.keys().cloned());
        let mut dirty = Dirty {
            tables: self.tables.keys().cloned().collect(),
            places: self
                .listeners
                .keys()
                .chain(self.fixed.keys())
                .copied()
                .collect(),
            ..Dirty::default()
        };
        for entry in self.fixed.values() {
            dirty.tables.extend(table_of(&entry.asks).cloned());
        }
        self.fix_clusters(snapshot, cache, &mut dirty);
        self.join_all(&hosts, snapshot, cache, &mut dirty);
        self.assign(&hosts, snapshot, cache, &mut dirty.names);
        self.assemble(snapshot, cache, dirty)
    }

    /// Joins the touched hosts, those whose routes lead to them, and nothing else.
    pub fn touch(
        &mut self,
        hosts: &BTreeSet<Hostname>,
        endpoints: &BTreeSet<Hostname>,
        snapshot: &Snapshot,
        cache: &mut Cache,
    ) -> Names {
        let mut dirty = Dirty::default();
        self.join_all(hosts, snapshot, cache, &mut dirty);
        self.assign(endpoints, snapshot, cache, &mut dirty.names);
        self.assemble(snapshot, cache, dirty)
    }

    fn fix_clusters(&mut self, snapshot: &Snapshot, cache: &mut Cache, dirty: &mut Dirty) {
        for cluster in outbound_listener::fixed_clusters(&snapshot.mesh) {
            let entry = Entry {
                encoded: cache.get(&cluster),
                sources: [].into(),
            };
            self.put(entry, &mut dirty.names);
        }
        if self.client.interception != crate::model::proxy::Interception::None {
            let around = Surroundings::of(&self.client, snapshot);
            let listener = outbound_listener::virtual_outbound(&around);
            let entry = Entry {
                encoded: cache.get(&listener),
                sources: [].into(),
            };
            self.put(entry, &mut dirty.names);
        }
    }

    fn join_all(
        &mut self,
        hosts: &BTreeSet<Hostname>,
        snapshot: &Snapshot,
        cache: &mut Cache,
        dirty: &mut Dirty,
    ) {
        let mut queue = hosts.clone();
        for host in hosts {
            queue.extend(self.callers.get(host).into_iter().flatten().cloned());
        }
        while let Some(host) = queue.pop_first() {
            let mut view = outbound::join(&self.client, &self.egress, snapshot, &host);
            if view.clusters.is_empty() && self.callers.contains_key(&host) {
                let led_to = outbound::join_destination(&self.client, snapshot, &host);
                view.clusters = led_to.clusters;
                view.assignments = led_to.assignments;
            }
            let old = self.views.remove(&host).unwrap_or_default();
            queue.extend(self.lead(&host, &old.destinations, &view.destinations));
            if old != view {
                self.replace(&host, &old, &view, cache, dirty);
                self.assign_view(&host, &view, snapshot, cache, &mut dirty.names);
            }
            if view != HostView::default() {
                self.views.insert(host, view);
            }
        }
    }

    /// Keeps `callers`; gives the hosts that are led to for the first time, or no longer.
    fn lead(
        &mut self,
        host: &Hostname,
        before: &BTreeSet<Hostname>,
        after: &BTreeSet<Hostname>,
    ) -> Vec<Hostname> {
        let mut turned = Vec::new();
        for gone in before.difference(after) {
            if let Some(callers) = self.callers.get_mut(gone) {
                callers.remove(host);
                if callers.is_empty() {
                    self.callers.remove(gone);
                    turned.push(gone.clone());
                }
            }
        }
        for new in after.difference(before) {
            let callers = self.callers.entry(new.clone()).or_default();
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
        old: &HostView,
        new: &HostView,
        cache: &mut Cache,
        dirty: &mut Dirty,
    ) {
        let kept: BTreeSet<&Str> = new.clusters.iter().map(|(c, _)| &c.name).collect();
        for (gone, _) in old.clusters.iter().filter(|(c, _)| !kept.contains(&c.name)) {
            self.take(ResourceType::Cluster, &gone.name, &mut dirty.names);
        }
        let kept: BTreeSet<&Str> = new.assignments.iter().map(|a| &a.cluster).collect();
        for gone in old
            .assignments
            .iter()
            .filter(|a| !kept.contains(&a.cluster))
        {
            self.take(ResourceType::Endpoint, &gone.cluster, &mut dirty.names);
        }
        for (cluster, sources) in &new.clusters {
            let entry = Entry {
                encoded: cache.get(cluster),
                sources: sources.clone().into(),
            };
            self.put(entry, &mut dirty.names);
        }
        let tables: BTreeSet<Str> = old
            .virtual_hosts
            .iter()
            .chain(&new.virtual_hosts)
            .map(|v| v.table.clone())
            .collect();
        for name in tables {
            let entry = new.virtual_hosts.iter().find(|v| v.table == name).cloned();
            let table = self.tables.entry(name.clone()).or_default();
            table.set(host, entry, cache);
            dirty.tables.insert(name);
        }
        let places = old
            .listeners
            .iter()
            .chain(&new.listeners)
            .map(|l| (l.address, l.port));
        for place in places.collect::<BTreeSet<Place>>() {
            let asks = new
                .listeners
                .iter()
                .filter(|l| (l.address, l.port) == place);
            let asks: Vec<ListenerEntry> = asks.cloned().collect();
            let of_place = self.listeners.entry(place).or_default();
            if asks.is_empty() {
                of_place.remove(host);
            } else {
                of_place.insert(host.clone(), asks);
            }
            dirty.places.insert(place);
        }
    }

    fn assign(
        &mut self,
        hosts: &BTreeSet<Hostname>,
        snapshot: &Snapshot,
        cache: &mut Cache,
        names: &mut Names,
    ) {
        for host in hosts {
            if let Some(view) = self.views.remove(host) {
                self.assign_view(host, &view, snapshot, cache, names);
                self.views.insert(host.clone(), view);
            }
        }
    }

    fn assign_view(
        &mut self,
        host: &Hostname,
        view: &HostView,
        snapshot: &Snapshot,
        cache: &mut Cache,
        names: &mut Names,
    ) {
        let sources: std::sync::Arc<[Source]> = view
            .clusters
            .first()
            .and_then(|(_, s)| s.first())
            .cloned()
            .into_iter()
            .collect();
        for assignment in &view.assignments {
            let joined = assignments::join(snapshot, host.as_str(), assignment);
            let entry = Entry {
                encoded: cache.get(&joined),
                sources: sources.clone(),
            };
            self.put(entry, names);
        }
    }

    fn assemble(&mut self, snapshot: &Snapshot, cache: &mut Cache, mut dirty: Dirty) -> Names {
        let around = Surroundings::of(&self.client, snapshot);
        for place in std::mem::take(&mut dirty.places) {
            match self.listener(&around, place) {
                Some((listener, sources)) => {
                    let entry = Entry {
                        encoded: cache.get(&listener),
                        sources: sources.into(),
                    };
                    self.put(entry, &mut dirty.names);
                }
                None => {
                    self.listeners.remove(&place);
                    let name = Str::new(format!("{}_{}", place.0, place.1));
                    self.take(ResourceType::Listener, &name, &mut dirty.names);
                }
            }
        }
        for name in std::mem::take(&mut dirty.tables) {
            let wanted = self
                .fixed
                .values()
                .any(|e| table_of(&e.asks) == Some(&name));
            let table = self.tables.entry(name.clone()).or_default();
            if table.is_empty() && !wanted {
                self.tables.remove(&name);
                self.take(ResourceType::Route, &name, &mut dirty.names);
            } else {
                let entry = table.assemble(&name, around.mode, cache);
                self.put(entry, &mut dirty.names);
            }
        }
        dirty.names
    }

    fn listener(&self, around: &Surroundings<'_>, place: Place) -> Option<(Listener, Vec<Source>)> {
        let asked = self
            .listeners
            .get(&place)
            .into_iter()
            .flat_map(|m| m.values())
            .flatten();
        let entries: Vec<&ListenerEntry> =
            self.fixed.get(&place).into_iter().chain(asked).collect();
        let sources: BTreeSet<Source> = entries.iter().map(|e| e.source.clone()).collect();
        if entries.is_empty() {
            return None;
        }
        let (address, port) = place;
        let listener = outbound_listener::listener(around, address, port, entries.into_iter());
        Some((listener, sources.into_iter().collect()))
    }

    fn put(&mut self, entry: Entry, names: &mut Names) {
        let (kind, name) = (entry.encoded.kind, entry.encoded.name.clone());
        if self.layer.insert(entry) {
            names.insert((kind, name));
        }
    }

    fn take(&mut self, kind: ResourceType, name: &Str, names: &mut Names) {
        if self.layer.remove(kind, name) {
            names.insert((kind, name.clone()));
        }
    }
}

fn table_of(asks: &Asks) -> Option<&Str> {
    match asks {
        Asks::Http { table } | Asks::Detect { table, .. } => Some(table),
        Asks::Tcp { .. } => None,
    }
}

/// An egress listener with an HTTP port stands even while no host is called through it.
fn fixed(client: &Client, egress: &[Egress]) -> BTreeMap<Place, ListenerEntry> {
    let Some(sidecar) = &client.sidecar else {
        return BTreeMap::new();
    };
    let mut out = BTreeMap::new();
    for (index, listener) in egress.iter().enumerate() {
        let Some(port) = &listener.spec.port else {
            continue;
        };
        if Protocol::of_word(&port.protocol).class() != Class::Http {
            continue;
        }
        let address = listener
            .spec
            .bind
            .parse()
            .unwrap_or_else(|_| outbound::http_address(client));
        let entry = ListenerEntry {
            address,
            port: port.number,
            asks: Asks::Http {
                table: Str::new(port.number.to_string()),
            },
            source: Source {
                key: sidecar.key.clone(),
                field: Str::new(format!("spec.egress[{index}]")),
            },
        };
        out.insert((address, port.number), entry);
    }
    out
}
