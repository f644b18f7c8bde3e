//! Pods and WorkloadEntries as workloads: address, labels, identity, ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::endpoints::{Address, TlsMode};
use super::proxy::Proxy;
use crate::config::core::{ContainerPort, Phase, Pod};
use crate::config::locality::Locality;
use crate::config::meta::{Labels, Meta};
use crate::config::workload_entry::WorkloadEntry;
use crate::config::{Key, Kind};
use crate::text::Str;

#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    pub key: Key,
    /// Of a Pod; empty if it is of no cluster.
    pub uid: Str,
    pub labels: Labels,
    pub service_account: Str,
    /// Where it is reached; a Pod without an IP yet has none.
    pub places: Vec<Place>,
    pub ports: Ports,
    pub ready: bool,
    pub tls_mode: TlsMode,
    pub locality: Locality,
    /// Of a Pod; empty until it has one.
    pub node: Str,
    pub weight: u32,
    /// `<workload>;<namespace>;<canonical service>;<revision>;<cluster>` (endpoint metadata `istio.workload`).
    pub tag: Str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Ip(IpAddr),
    /// To be looked up, where its Service's resolution is by DNS.
    Name(Str),
    Pipe(Str),
}

/// How a named target port finds its number.
#[derive(Clone, Debug, PartialEq)]
pub enum Ports {
    Containers(Vec<ContainerPort>),
    /// WorkloadEntry `ports`: by the Service port's name, overriding its target.
    Named(BTreeMap<Str, u16>),
}

#[derive(Clone, Debug, Default)]
pub struct Workloads {
    by_key: BTreeMap<Key, Arc<Workload>>,
    /// Ordered; nearly always it is one.
    by_ip: BTreeMap<IpAddr, Vec<Key>>,
    by_namespace: BTreeMap<Str, BTreeSet<Key>>,
}

/// Where each node is.
pub type Nodes = BTreeMap<Str, Locality>;

/// By the labels that Kubernetes gives to nodes, and of late to pods.
pub fn locality(labels: &Labels) -> Locality {
    let first = |names: &[&str]| {
        let found = names.iter().find_map(|name| labels.get(name));
        found.cloned().unwrap_or_default()
    };
    [
        first(&[
            "topology.kubernetes.io/region",
            "failure-domain.beta.kubernetes.io/region",
        ]),
        first(&[
            "topology.kubernetes.io/zone",
            "failure-domain.beta.kubernetes.io/zone",
        ]),
        first(&["topology.istio.io/subzone"]),
    ]
}

/// Its own labels, else its node's.
fn located(labels: &Labels, node: &str, nodes: &Nodes) -> Locality {
    let own = locality(labels);
    match own[0].is_empty() {
        true => nodes.get(node).cloned().unwrap_or(own),
        false => own,
    }
}

const TLS_MODE: &str = "security.istio.io/tlsMode";

impl Workload {
    /// None once the Pod has ended. One in the host network has no sidecar: it is called in plaintext.
    pub fn of_pod(
        key: Key,
        meta: &Meta,
        pod: &Pod,
        (cluster, nodes): (&str, &Nodes),
    ) -> Option<Self> {
        if matches!(pod.phase, Phase::Succeeded | Phase::Failed) {
            return None;
        }
        let name = if pod.workload_name.is_empty() {
            &meta.name
        } else {
            &pod.workload_name
        };
        Some(Self {
            tag: tag(name, meta, &meta.labels, cluster),
            key,
            uid: pod.uid.clone(),
            labels: meta.labels.clone(),
            service_account: pod.service_account.clone(),
            places: pod.ips.iter().copied().map(Place::Ip).collect(),
            ports: Ports::Containers(pod.ports.clone()),
            ready: pod.ready,
            tls_mode: if pod.host_network {
                TlsMode::Disabled
            } else {
                tls_mode(&meta.labels)
            },
            locality: located(&meta.labels, &pod.node_name, nodes),
            node: pod.node_name.clone(),
            weight: 1,
        })
    }

    pub fn of_entry(key: Key, meta: &Meta, entry: &WorkloadEntry, cluster: &str) -> Self {
        let both = meta.labels.iter().chain(entry.labels.iter());
        let labels: Labels = both.map(|(k, v)| (k.clone(), v.clone())).collect();
        let mut locality = entry.locality.split('/').map(Str::new);
        let place = match entry.address.strip_prefix("unix://") {
            Some(path) => vec![Place::Pipe(Str::new(path))],
            None if entry.address.is_empty() => Vec::new(),
            None => vec![match entry.address.parse() {
                Ok(ip) => Place::Ip(ip),
                Err(_) => Place::Name(entry.address.clone()),
            }],
        };
        Self {
            tag: tag(&meta.name, meta, &labels, cluster),
            key,
            uid: Str::default(),
            tls_mode: tls_mode(&labels),
            labels,
            service_account: entry.service_account.clone(),
            places: place,
            ports: Ports::Named(entry.ports.clone()),
            ready: true,
            locality: std::array::from_fn(|_| locality.next().unwrap_or_default()),
            node: Str::default(),
            weight: entry.weight.max(1),
        }
    }

    /// The same where its node turns out to be.
    pub fn moved(&self, nodes: &Nodes) -> Self {
        Self {
            locality: located(&self.labels, &self.node, nodes),
            ..self.clone()
        }
    }

    pub fn namespace(&self) -> &Str {
        &self.key.namespace
    }
}

/// A label says so; without it, a workload without a sidecar must not be sent TLS.
fn tls_mode(labels: &Labels) -> TlsMode {
    match labels.get(TLS_MODE).map(Str::as_str) {
        Some("istio") => TlsMode::Istio,
        _ => TlsMode::Disabled,
    }
}

/// Canonical name and revision as in Istio: own label, then `app.kubernetes.io/…`, then the short one.
fn tag(workload: &str, meta: &Meta, labels: &Labels, cluster: &str) -> Str {
    let first = |names: &[&str]| names.iter().find_map(|n| labels.get(n));
    let canonical = first(&[
        "service.istio.io/canonical-name",
        "app.kubernetes.io/name",
        "app",
    ])
    .map_or(workload, Str::as_str);
    let revision = first(&[
        "service.istio.io/canonical-revision",
        "app.kubernetes.io/version",
        "version",
    ])
    .map_or("", Str::as_str);
    let revision = if revision == "latest" { "" } else { revision };
    Str::new(format!(
        "{workload};{};{canonical};{revision};{cluster}",
        meta.namespace
    ))
}

impl Workloads {
    /// The pods of a node.
    pub(super) fn on_node(&self, node: &str) -> Vec<Arc<Workload>> {
        let all = self.by_key.values().filter(|w| w.node == node);
        all.cloned().collect()
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.by_key.values()
    }

    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    pub fn get(&self, key: &Key) -> Option<&Arc<Workload>> {
        self.by_key.get(key)
    }

    pub fn named(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Arc<Workload>> {
        let key = Key {
            kind,
            namespace: Str::new(namespace),
            name: Str::new(name),
        };
        self.by_key.get(&key)
    }

    /// The account of the object that has a proxy's name, where the proxy's credential is of another: then
    /// nothing of the object is the proxy's, its ports among it.
    pub fn other_account(&self, proxy: &Proxy) -> Option<&Str> {
        let identity = proxy.identity.as_ref()?;
        let named = |kind| self.named(kind, &proxy.namespace, &proxy.name);
        let found = named(Kind::Pod).or_else(|| named(Kind::WorkloadEntry))?;
        let account = &found.service_account;
        (!account.is_empty() && account != identity.service_account()).then_some(account)
    }

    /// The workload at an address; a Pod before a WorkloadEntry, then by name.
    pub fn at(&self, ip: IpAddr) -> Option<&Arc<Workload>> {
        self.by_ip
            .get(&ip)?
            .first()
            .and_then(|k| self.by_key.get(k))
    }

    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<Workload>> {
        self.by_namespace
            .get(namespace)
            .into_iter()
            .flatten()
            .filter_map(|k| self.by_key.get(k))
    }

    pub(super) fn insert(&mut self, workload: Workload) {
        self.remove(&workload.key);
        let key = workload.key.clone();
        for ip in ips(&workload) {
            let keys = self.by_ip.entry(ip).or_default();
            if let Err(at) = keys.binary_search(&key) {
                keys.reserve_exact(1);
                keys.insert(at, key.clone());
            }
        }
        self.by_namespace
            .entry(key.namespace.clone())
            .or_default()
            .insert(key.clone());
        self.by_key.insert(key, Arc::new(workload));
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Arc<Workload>> {
        let gone = self.by_key.remove(key)?;
        for ip in ips(&gone) {
            if let Some(keys) = self.by_ip.get_mut(&ip) {
                keys.retain(|k| k != key);
                if keys.is_empty() {
                    self.by_ip.remove(&ip);
                }
            }
        }
        if let Some(keys) = self.by_namespace.get_mut(&key.namespace) {
            keys.remove(key);
        }
        Some(gone)
    }
}

fn ips(workload: &Workload) -> impl Iterator<Item = IpAddr> {
    workload.places.iter().filter_map(|p| match p {
        Place::Ip(ip) => Some(*ip),
        Place::Name(_) | Place::Pipe(_) => None,
    })
}

/// The endpoint address of a place at a port; a Unix socket has none.
pub fn address(place: &Place, port: u16) -> Address {
    match place {
        Place::Ip(ip) => Address::Ip(*ip, port),
        Place::Name(name) => Address::Name(name.clone(), port),
        Place::Pipe(path) => Address::Pipe(path.clone()),
    }
}
