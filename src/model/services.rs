//! Services by host, and which of them a namespace may see. Endpoints are not here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::protocol::Protocol;
use crate::config::core::{self, ServiceType, TargetPort};
use crate::config::meta::{ExportTo, Labels, Meta, selects};
use crate::text::{Hostname, Str};

/// A Kubernetes Service as the mesh sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub number: u16,
    pub name: Str,
    pub protocol: Protocol,
    pub target: TargetPort,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Envoy picks one of the endpoints.
    Endpoints,
    /// Headless: the client picked one by DNS.
    Headless,
}

#[derive(Clone, Debug, Default)]
pub struct Services {
    by_host: BTreeMap<Hostname, Arc<Service>>,
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
        })
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

    pub(super) fn insert(&mut self, service: Service) {
        let host = service.host.clone();
        self.by_namespace
            .entry(service.namespace.clone())
            .or_default()
            .insert(host.clone());
        self.by_host.insert(host, Arc::new(service));
    }

    pub(super) fn remove(&mut self, host: &Hostname) {
        if let Some(service) = self.by_host.remove(host)
            && let Some(hosts) = self.by_namespace.get_mut(&service.namespace)
        {
            hosts.remove(host);
        }
    }
}
