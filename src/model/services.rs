//! Services by host, and which of them a namespace may see. Endpoints are not here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

use super::protocol::Protocol;
use super::workloads::Workload;
use crate::config::core::{self, ServiceType, TargetPort};
use crate::config::meta::{ExportTo, Labels, Meta, selects};
use crate::config::service_entry::{self as entry, EntryPort, Location, ServiceEntry};
use crate::config::value::range;
use crate::config::workload_entry::WorkloadEntry;
use crate::config::{Key, Kind};
use crate::text::{Hostname, Str};

/// A Kubernetes Service, or a host of a ServiceEntry, as the mesh sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub host: Hostname,
    pub name: Str,
    pub namespace: Str,
    pub created: i64,
    pub ports: Vec<ServicePort>,
    /// Virtual addresses; empty for a headless Service.
    pub addresses: Vec<IpAddr>,
    pub selector: Labels,
    pub export_to: ExportTo,
    pub publish_not_ready: bool,
    pub resolution: Resolution,
    /// What a ServiceEntry says beyond a Service.
    pub entry: Option<Box<Entry>>,
}

/// The part of a ServiceEntry that no Service has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// Ranges by which the host is called, besides its addresses.
    pub ranges: Vec<IpNet>,
    pub location: Location,
    /// The endpoints that it lists.
    pub endpoints: Vec<Workload>,
    pub subject_alt_names: Vec<Str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub number: u16,
    pub name: Str,
    pub protocol: Protocol,
    pub target: TargetPort,
}

impl ServicePort {
    /// Where connections go instead, if that is another port than the one that was called.
    pub fn instead(&self) -> Option<u16> {
        match self.target {
            TargetPort::Number(number) if number != self.number => Some(number),
            TargetPort::Number(_) | TargetPort::Name(_) => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Envoy picks one of the endpoints.
    Endpoints,
    /// Headless, or of no resolution: the client picked one by DNS.
    Headless,
    /// Envoy looks names up.
    Dns(Lookup),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Lookup {
    /// All addresses are endpoints.
    Every,
    /// New connections go to the first.
    First,
}

#[derive(Clone, Debug, Default)]
pub struct Services {
    by_host: BTreeMap<Hostname, Arc<Service>>,
    /// Of hosts that several objects have, those that do not count, in their order.
    others: BTreeMap<Hostname, Vec<Arc<Service>>>,
    /// The hosts of each ServiceEntry.
    of_entry: BTreeMap<Key, Vec<Hostname>>,
    by_namespace: BTreeMap<Str, BTreeSet<Hostname>>,
}

impl Service {
    /// None for ExternalName, which has no endpoints of its own and is not yet in effect.
    pub fn of(
        meta: &Meta,
        spec: &core::Service,
        domain: &str,
        default_export: &[Str],
    ) -> Option<Self> {
        if spec.kind == ServiceType::ExternalName {
            return None;
        }
        let host = format!("{}.{}.svc.{domain}", meta.name, meta.namespace);
        let addresses = addresses(spec);
        let export = match meta.annotations.get("networking.istio.io/exportTo") {
            Some(list) => list.split(',').map(|s| Str::new(s.trim())).collect(),
            None => default_export.to_vec(),
        };
        Some(Self {
            host: Hostname::parse(&host).ok()?,
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            created: meta.creation_timestamp,
            ports: spec.ports.iter().map(ServicePort::of).collect(),
            resolution: match spec.cluster_ip.as_deref() {
                Some("None") => Resolution::Headless,
                _ => Resolution::Endpoints,
            },
            addresses,
            selector: spec.selector.clone(),
            export_to: ExportTo::of(&export, &meta.namespace),
            publish_not_ready: spec.publish_not_ready_addresses,
            entry: None,
        })
    }

    /// One for each host of a ServiceEntry.
    pub fn of_entry(
        meta: &Meta,
        spec: &ServiceEntry,
        cluster: &str,
        default_export: &[Str],
    ) -> Vec<Self> {
        let export = match spec.export_to.as_slice() {
            [] => default_export,
            own => own,
        };
        let resolution = match spec.resolution {
            entry::Resolution::None | entry::Resolution::DynamicDns => Resolution::Headless,
            entry::Resolution::Static => Resolution::Endpoints,
            entry::Resolution::Dns => Resolution::Dns(Lookup::Every),
            entry::Resolution::DnsRoundRobin => Resolution::Dns(Lookup::First),
        };
        let key = Key {
            kind: Kind::ServiceEntry,
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
        };
        let listed = |e: &WorkloadEntry| Workload::of_entry(key.clone(), meta, e, cluster);
        let addresses = spec.addresses.iter();
        let part = Entry {
            ranges: unique(addresses.clone().filter_map(|a| range_of(a))),
            location: spec.location,
            endpoints: spec.endpoints.iter().map(listed).collect(),
            subject_alt_names: spec.subject_alt_names.clone(),
        };
        let selector = spec.workload_selector.as_ref();
        let service = |host: &Str| {
            Some(Self {
                host: Hostname::parse(host).ok()?,
                name: meta.name.clone(),
                namespace: meta.namespace.clone(),
                created: meta.creation_timestamp,
                ports: spec.ports.iter().map(ServicePort::of_entry).collect(),
                addresses: unique(addresses.clone().filter_map(|a| a.parse().ok())),
                selector: selector.map(|s| s.labels.clone()).unwrap_or_default(),
                export_to: ExportTo::of(export, &meta.namespace),
                publish_not_ready: false,
                resolution,
                entry: Some(Box::new(part.clone())),
            })
        };
        spec.hosts.iter().filter_map(service).collect()
    }

    /// The object that it is made of.
    pub fn key(&self) -> Key {
        Key {
            kind: match self.entry {
                Some(_) => Kind::ServiceEntry,
                None => Kind::Service,
            },
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }

    /// Whether its own name is looked up where it has no endpoints.
    pub fn looks_itself_up(&self) -> bool {
        let listed = self
            .entry
            .as_deref()
            .is_some_and(|e| !e.endpoints.is_empty());
        let own = matches!(self.resolution, Resolution::Dns(_)) && !self.host.is_wildcard();
        own && !listed && self.selector.is_empty()
    }

    /// Whether it is outside the mesh, where nobody has an identity of it.
    pub fn is_external(&self) -> bool {
        let outside = |e: &Entry| e.location == Location::External;
        self.entry.as_deref().is_some_and(outside)
    }

    /// Of several objects with one host a Service counts, else the oldest.
    fn rank(&self) -> impl Ord + '_ {
        (
            self.entry.is_some(),
            self.created,
            &self.name,
            &self.namespace,
        )
    }

    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|p| p.number == number)
    }

    /// The port's number, if there is just one.
    pub fn only_port(&self) -> Option<u16> {
        match self.ports.as_slice() {
            [only] => Some(only.number),
            _ => None,
        }
    }

    /// An empty selector selects nothing (endpoints come from slices alone).
    pub fn selects(&self, namespace: &str, labels: &Labels) -> bool {
        self.namespace == namespace && !self.selector.is_empty() && selects(&self.selector, labels)
    }
}

impl ServicePort {
    fn of_entry(spec: &EntryPort) -> Self {
        Self {
            number: spec.number,
            name: spec.name.clone(),
            protocol: Protocol::of_word(&spec.protocol),
            target: TargetPort::Number(spec.target_port.unwrap_or(spec.number)),
        }
    }

    fn of(spec: &core::ServicePort) -> Self {
        let app = spec.app_protocol.as_deref();
        Self {
            number: spec.port,
            name: spec.name.clone(),
            protocol: Protocol::select(spec.protocol, app, &spec.name, spec.port),
            target: spec
                .target_port
                .clone()
                .unwrap_or(TargetPort::Number(spec.port)),
        }
    }
}

fn addresses(spec: &core::Service) -> Vec<IpAddr> {
    let listed = spec.cluster_ips.iter().chain(spec.cluster_ip.iter());
    let mut out = Vec::new();
    for ip in listed
        .filter_map(|a| a.parse().ok())
        .chain(spec.external_ips.iter().copied())
    {
        if !out.contains(&ip) {
            out.push(ip);
        }
    }
    out
}

impl Services {
    pub fn get(&self, host: &str) -> Option<&Arc<Service>> {
        self.by_host.get(host)
    }

    pub fn len(&self) -> usize {
        self.by_host.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_host.is_empty()
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.by_host.values()
    }

    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<Service>> {
        self.by_namespace
            .get(namespace)
            .into_iter()
            .flatten()
            .filter_map(|h| self.by_host.get(h))
    }

    /// Services that select these labels in this namespace.
    pub fn selecting<'a>(
        &'a self,
        namespace: &'a str,
        labels: &'a Labels,
    ) -> impl Iterator<Item = &'a Arc<Service>> {
        self.in_namespace(namespace)
            .filter(move |s| s.selects(namespace, labels))
    }

    /// Services whose host is `pattern` or falls under it.
    pub fn matching<'a>(&'a self, pattern: &'a Hostname) -> Vec<&'a Arc<Service>> {
        if pattern.is_wildcard() {
            return self
                .all()
                .filter(|s| pattern.matches(s.host.as_str()))
                .collect();
        }
        self.get(pattern.as_str()).into_iter().collect()
    }

    /// Replaces what an object gives: `hosts` are those that it may have given before. Gives the hosts of which another
    /// object counts now, or another form.
    pub(super) fn set(
        &mut self,
        key: &Key,
        hosts: Vec<Hostname>,
        services: Vec<Service>,
    ) -> BTreeSet<Hostname> {
        let mut new: BTreeMap<Hostname, Service> = BTreeMap::new();
        for service in services {
            new.entry(service.host.clone()).or_insert(service);
        }
        if key.kind == Kind::ServiceEntry {
            self.of_entry.remove(key);
            if !new.is_empty() {
                let hosts = new.keys().cloned().collect();
                self.of_entry.insert(key.clone(), hosts);
            }
        }
        let hosts: BTreeSet<Hostname> = hosts.into_iter().chain(new.keys().cloned()).collect();
        let differs = |host: &Hostname| self.replace(key, host, new.remove(host));
        hosts.into_iter().filter(differs).collect()
    }

    /// The hosts that a ServiceEntry gives.
    pub(super) fn hosts_of_entry(&self, key: &Key) -> Vec<Hostname> {
        self.of_entry.get(key).cloned().unwrap_or_default()
    }

    fn replace(&mut self, key: &Key, host: &Hostname, new: Option<Service>) -> bool {
        let before = self.by_host.get(host).cloned();
        if let (Some(before), Some(new)) = (&before, &new)
            && **before == *new
        {
            return false;
        }
        let all = before.iter().cloned();
        let all = all.chain(self.others.remove(host).unwrap_or_default());
        let mut all: Vec<Arc<Service>> = all.filter(|s| s.key() != *key).collect();
        all.extend(new.map(Arc::new));
        all.sort_by(|a, b| a.rank().cmp(&b.rank()));
        let mut all = all.into_iter();
        let now = all.next();
        let others: Vec<Arc<Service>> = all.collect();
        if !others.is_empty() {
            self.others.insert(host.clone(), others);
        }
        if before == now {
            return false;
        }
        if let Some(before) = before
            && let Some(hosts) = self.by_namespace.get_mut(&before.namespace)
        {
            hosts.remove(host);
        }
        match now {
            Some(now) => {
                let hosts = self.by_namespace.entry(now.namespace.clone()).or_default();
                hosts.insert(host.clone());
                self.by_host.insert(host.clone(), now);
            }
            None => drop(self.by_host.remove(host)),
        }
        true
    }
}

/// Each once, in their order.
fn unique<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut out = Vec::new();
    for one in all {
        if !out.contains(&one) {
            out.push(one);
        }
    }
    out
}

/// A CIDR range of IPv4: nothing else is captured.
fn range_of(text: &str) -> Option<IpNet> {
    let range = text.contains('/').then(|| range(text)).flatten();
    range.filter(|range| matches!(range, IpNet::V4(_)))
}
