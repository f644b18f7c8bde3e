//! The mesh as indexed, immutable facts; one writer applies changes and says what they touch. No Envoy here.

pub mod delegates;
pub mod endpoints;
pub mod envoy_filters;
pub mod extensions;
pub mod gateways;
pub mod ingresses;
pub mod policies;
pub mod protocol;
pub mod proxy;
pub mod registration;
pub mod routes;
pub mod rules;
pub mod services;
pub mod sidecars;
pub mod slices;
pub mod workloads;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use self::endpoints::{Difference, Endpoints};
use self::envoy_filters::EnvoyFilters;
use self::extensions::Extensions;
use self::gateways::Gateways;
use self::ingresses::Ingresses;
use self::policies::Policies;
use self::routes::Virtuals;
use self::rules::Rules;
use self::services::{Service, Services};
use self::sidecars::Sidecars;
use self::slices::Slice;
use self::workloads::{Nodes, Place, Workload, Workloads};
use crate::config::mesh::MeshConfig;
use crate::config::{Change, Key, Kind, Object, Spec};
use crate::text::{Hostname, Str};

/// Everything that joins may read. A clone shares all indexes; the writer copies one only where it writes.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub settings: Settings,
    pub mesh: Arc<MeshConfig>,
    pub services: Arc<Services>,
    pub endpoints: Arc<Endpoints>,
    pub workloads: Arc<Workloads>,
    pub nodes: Arc<Nodes>,
    pub virtuals: Arc<Virtuals>,
    pub rules: Arc<Rules>,
    pub policies: Arc<Policies>,
    pub sidecars: Arc<Sidecars>,
    pub gateways: Arc<Gateways>,
    ingresses: Arc<Ingresses>,
    pub extensions: Arc<Extensions>,
    pub envoy_filters: Arc<EnvoyFilters>,
    /// Objects whose index entry a default of MeshConfig reaches.
    defaulted: Arc<BTreeMap<Key, Arc<Object>>>,
}

/// Facts that are fixed at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Kubernetes' DNS domain (`--domain`).
    pub domain: Str,
    /// `CLUSTER_ID`.
    pub cluster: Str,
    /// `--route-packing`.
    pub packing: proxy::RoutePacking,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            domain: Str::new_static("cluster.local"),
            cluster: Str::new_static("Kubernetes"),
            packing: proxy::RoutePacking::default(),
        }
    }
}

/// What a batch of changes touches: the only things that are joined again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// A mesh-wide fact: everything.
    pub mesh: bool,
    /// Hosts (also wildcards of VirtualServices) whose clusters, routes or listeners may differ.
    pub hosts: BTreeSet<Hostname>,
    /// Hosts whose endpoints differ.
    pub endpoints: BTreeSet<Hostname>,
    /// Namespaces whose proxies may be in another scope.
    pub namespaces: BTreeSet<Str>,
    /// Whether proxies at the edge may be in another scope.
    pub fronts: bool,
    /// Whether any proxy may be in another scope.
    pub everyone: bool,
}

impl Snapshot {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// Applies a batch. Endpoint sets are joined once at its end, whatever made them change.
    pub fn apply(&mut self, changes: &[Change]) -> Facts {
        let mut facts = Facts::default();
        let mut sets = BTreeSet::new();
        for change in changes {
            self.apply_one(change, &mut facts, &mut sets);
        }
        for host in sets {
            let service = self.services.get(host.as_str()).cloned();
            let endpoints = Arc::make_mut(&mut self.endpoints);
            let policies = (&*self.policies, self.mesh.root_namespace.as_str());
            match endpoints.refresh(&host, service.as_deref(), &self.workloads, policies) {
                Difference::None => {}
                Difference::Endpoints => drop(facts.endpoints.insert(host)),
                Difference::Clusters => {
                    facts.hosts.insert(host.clone());
                    facts.endpoints.insert(host);
                }
            }
        }
        facts
    }

    fn apply_one(&mut self, change: &Change, facts: &mut Facts, sets: &mut BTreeSet<Hostname>) {
        let key = &change.key;
        let object = change.object.as_deref();
        if matches!(
            key.kind,
            Kind::Service | Kind::ServiceEntry | Kind::VirtualService | Kind::DestinationRule
        ) {
            let defaulted = Arc::make_mut(&mut self.defaulted);
            match &change.object {
                Some(object) => defaulted.insert(key.clone(), object.clone()),
                None => defaulted.remove(key),
            };
        }
        match key.kind {
            // No part of what is joined: proxies ask for Secrets by name, are started by ProxyConfigs, and entered
            // by WorkloadGroups.
            Kind::Namespace | Kind::Secret | Kind::ProxyConfig | Kind::WorkloadGroup => {}
            Kind::Service => self.apply_service(key, object, facts, sets),
            Kind::ServiceEntry => self.apply_entry(key, object, facts, sets),
            Kind::EndpointSlice => self.apply_slice(key, change.object.as_ref(), sets),
            Kind::Node => self.apply_node(key, object, facts, sets),
            Kind::Pod | Kind::WorkloadEntry => self.apply_workload(key, object, facts, sets),
            Kind::VirtualService => self.apply_virtual(key, object, facts),
            Kind::DestinationRule => self.apply_rule(key, object, facts),
            Kind::PeerAuthentication => self.apply_policy(key, object, facts),
            Kind::Sidecar => {
                let sidecar = object.and_then(|o| match &o.spec {
                    Spec::Sidecar(spec) => Some((o, spec)),
                    _ => None,
                });
                Arc::make_mut(&mut self.sidecars).set(key, sidecar);
                self.touch_namespace(&key.namespace, facts);
            }
            Kind::Gateway => {
                let gateway = object.and_then(|o| match &o.spec {
                    Spec::Gateway(spec) => Some((o, spec)),
                    _ => None,
                });
                Arc::make_mut(&mut self.gateways).set(key, gateway);
                facts.fronts = true;
            }
            Kind::TrafficExtension => self.apply_extension(key, object, facts),
            Kind::Ingress => self.apply_ingress(key, change.object.as_ref(), facts),
            Kind::IngressClass => {
                let class = object.and_then(|o| match &o.spec {
                    Spec::IngressClass(class) => Some(class),
                    _ => None,
                });
                self.apply_ingress_class(key, class, facts);
            }
            Kind::EnvoyFilter => self.apply_filter(key, object, facts),
            Kind::MeshConfig => self.apply_mesh(object, facts, sets),
        }
    }

    fn apply_extension(&mut self, key: &Key, object: Option<&Object>, facts: &mut Facts) {
        let extension = object.and_then(|o| match &o.spec {
            Spec::TrafficExtension(spec) => Some((o, &**spec)),
            _ => None,
        });
        Arc::make_mut(&mut self.extensions).set(key, extension);
        self.touch_namespace(&key.namespace, facts);
    }

    fn apply_filter(&mut self, key: &Key, object: Option<&Object>, facts: &mut Facts) {
        let filter = object.and_then(|o| match &o.spec {
            Spec::EnvoyFilter(spec) => Some((&o.meta, &**spec)),
            _ => None,
        });
        Arc::make_mut(&mut self.envoy_filters).set(key, filter);
        facts.everyone |= key.namespace == self.mesh.root_namespace;
        facts.namespaces.insert(key.namespace.clone());
    }

    fn apply_service(
        &mut self,
        key: &Key,
        object: Option<&Object>,
        facts: &mut Facts,
        sets: &mut BTreeSet<Hostname>,
    ) {
        let service = object.and_then(|o| match &o.spec {
            Spec::Service(spec) => {
                let export = &self.mesh.default_service_export_to;
                Service::of(&o.meta, spec, &self.settings.domain, export)
            }
            _ => None,
        });
        let before = self.service_host(key).into_iter().collect();
        self.set_services(key, before, service.into_iter().collect(), (facts, sets));
    }

    fn apply_entry(
        &mut self,
        key: &Key,
        object: Option<&Object>,
        facts: &mut Facts,
        sets: &mut BTreeSet<Hostname>,
    ) {
        let services = object.map(|o| match &o.spec {
            Spec::ServiceEntry(spec) => {
                let export = &self.mesh.default_service_export_to;
                Service::of_entry(&o.meta, spec, &self.settings.cluster, export)
            }
            _ => Vec::new(),
        });
        let before = self.services.hosts_of_entry(key);
        self.set_services(key, before, services.unwrap_or_default(), (facts, sets));
    }

    fn set_services(
        &mut self,
        key: &Key,
        before: Vec<Hostname>,
        services: Vec<Service>,
        (facts, sets): (&mut Facts, &mut BTreeSet<Hostname>),
    ) {
        let given = services.iter().map(|service| &service.host);
        let owners = before.iter().chain(given);
        let owners = owners.filter_map(|host| self.services.get(host.as_str()));
        facts.namespaces.extend(owners.map(|s| s.namespace.clone()));
        let touched = Arc::make_mut(&mut self.services).set(key, before, services);
        for host in touched {
            // A wildcard VirtualService's own virtual host depends on whether a Service falls under it.
            let wild = self
                .virtuals
                .hosts()
                .filter(|h| h.is_wildcard() && h.matches(host.as_str()));
            facts.hosts.extend(wild.cloned());
            facts.hosts.insert(host.clone());
            let owner = self.services.get(host.as_str());
            facts.namespaces.extend(owner.map(|s| s.namespace.clone()));
            facts.namespaces.insert(key.namespace.clone());
            self.apply_backend(&host, facts);
            sets.insert(host);
        }
    }

    fn apply_slice(
        &mut self,
        key: &Key,
        object: Option<&Arc<Object>>,
        sets: &mut BTreeSet<Hostname>,
    ) {
        const SERVICE: &str = "kubernetes.io/service-name";
        let slice = object.and_then(|o| Some((o.meta.labels.get(SERVICE)?.clone(), Slice::of(o)?)));
        let endpoints = Arc::make_mut(&mut self.endpoints);
        // A slice may move to another Service by its label: take it from wherever it was.
        for host in endpoints.hosts_of_slice(key) {
            endpoints.set_slice(&host, key, None);
            sets.insert(host);
        }
        let Some((service, slice)) = slice else {
            return;
        };
        let service = Key {
            kind: Kind::Service,
            name: service,
            namespace: key.namespace.clone(),
        };
        if let Some(host) = self.service_host(&service) {
            Arc::make_mut(&mut self.endpoints).set_slice(&host, key, Some(slice));
            sets.insert(host);
        }
    }

    fn apply_workload(
        &mut self,
        key: &Key,
        object: Option<&Object>,
        facts: &mut Facts,
        sets: &mut BTreeSet<Hostname>,
    ) {
        let cluster = &self.settings.cluster;
        let workload = object.and_then(|o| match &o.spec {
            Spec::Pod(pod) => Workload::of_pod(key.clone(), &o.meta, pod, (cluster, &self.nodes)),
            Spec::WorkloadEntry(e) => Some(Workload::of_entry(key.clone(), &o.meta, e, cluster)),
            _ => None,
        });
        self.set_workload(key, workload, facts, sets);
    }

    /// The pods of a node are where it is, unless they say so themselves.
    fn apply_node(
        &mut self,
        key: &Key,
        object: Option<&Object>,
        facts: &mut Facts,
        sets: &mut BTreeSet<Hostname>,
    ) {
        let place = object.map(|o| workloads::locality(&o.meta.labels));
        if self.nodes.get(&key.name) == place.as_ref() {
            return;
        }
        let nodes = Arc::make_mut(&mut self.nodes);
        match place {
            Some(place) => drop(nodes.insert(key.name.clone(), place)),
            None => drop(nodes.remove(&key.name)),
        }
        for pod in self.workloads.on_node(&key.name) {
            let moved = pod.moved(&self.nodes);
            if moved.locality != pod.locality {
                self.set_workload(&pod.key, Some(moved), facts, sets);
            }
        }
    }

    fn set_workload(
        &mut self,
        key: &Key,
        workload: Option<Workload>,
        facts: &mut Facts,
        sets: &mut BTreeSet<Hostname>,
    ) {
        let workloads = Arc::make_mut(&mut self.workloads);
        let before = workloads.remove(key);
        if before.as_deref() == workload.as_ref() {
            if let Some(same) = workload {
                workloads.insert(same);
            }
            return;
        }
        if let Some(workload) = &workload {
            workloads.insert(workload.clone());
        }
        for version in [before.as_deref(), workload.as_ref()].into_iter().flatten() {
            let selecting = self
                .services
                .selecting(version.namespace(), &version.labels);
            sets.extend(selecting.map(|s| s.host.clone()));
            for ip in ips(version) {
                sets.extend(self.endpoints.hosts_at(ip).cloned());
            }
        }
        let scoped = |w: &Workload| (w.labels.clone(), w.ports.clone(), w.locality.clone());
        if before.as_deref().map(scoped) != workload.as_ref().map(scoped) {
            facts.namespaces.insert(key.namespace.clone());
        }
    }

    fn apply_virtual(&mut self, key: &Key, object: Option<&Object>, facts: &mut Facts) {
        let spec = object.and_then(|o| match &o.spec {
            Spec::VirtualService(spec) => Some((o, spec)),
            _ => None,
        });
        let labels: BTreeSet<Str> = self.virtuals.source_label_keys().cloned().collect();
        let export = &self.mesh.default_virtual_service_export_to;
        let virtuals = Arc::make_mut(&mut self.virtuals);
        let touched = virtuals.set(key, spec, &self.settings.domain, export);
        if !self.virtuals.source_label_keys().eq(labels.iter()) {
            facts.mesh = true;
        }
        self.touch_hosts(touched, facts);
    }

    fn apply_rule(&mut self, key: &Key, object: Option<&Object>, facts: &mut Facts) {
        let spec = object.and_then(|o| match &o.spec {
            Spec::DestinationRule(spec) => Some((o, &**spec)),
            _ => None,
        });
        let export = &self.mesh.default_destination_rule_export_to;
        let minded = |rules: &Rules| {
            let own = |keys: BTreeSet<&Str>| keys.into_iter().cloned().collect::<BTreeSet<Str>>();
            (rules.minds().map(own), own(rules.choosing_keys().collect()))
        };
        let before = minded(&self.rules);
        let rules = Arc::make_mut(&mut self.rules);
        let touched = rules.set(key, spec, &self.settings.domain, export);
        // Clients are told apart by where or what they are, or no more.
        if minded(&self.rules) != before {
            facts.mesh = true;
        }
        self.touch_hosts(touched, facts);
    }

    fn apply_policy(&mut self, key: &Key, object: Option<&Object>, facts: &mut Facts) {
        let spec = object.and_then(|o| match &o.spec {
            Spec::PeerAuthentication(spec) => Some((o, spec)),
            _ => None,
        });
        Arc::make_mut(&mut self.policies).set(key, spec);
        self.touch_namespace(&key.namespace, facts);
        if !facts.mesh {
            let hosts = self.hosts_with_workloads_in(&key.namespace);
            facts.hosts.extend(hosts.iter().cloned());
            facts.endpoints.extend(hosts);
        }
    }

    /// Hosts that a namespace's workloads stand behind: its Services, and others whose slices name them.
    fn hosts_with_workloads_in(&self, namespace: &str) -> BTreeSet<Hostname> {
        let own = self.services.in_namespace(namespace).map(|s| &s.host);
        let workloads = self.workloads.in_namespace(namespace);
        let addresses = workloads.flat_map(|w| ips(w));
        let elsewhere = addresses.flat_map(|ip| self.endpoints.hosts_at(ip));
        own.chain(elsewhere).cloned().collect()
    }

    /// Every index that a default of MeshConfig reached is built again from the objects' own fields.
    fn apply_mesh(
        &mut self,
        object: Option<&Object>,
        facts: &mut Facts,
        sets: &mut BTreeSet<Hostname>,
    ) {
        let mesh = object.and_then(|o| match &o.spec {
            Spec::MeshConfig(mesh) => Some((**mesh).clone()),
            _ => None,
        });
        let mesh = mesh.unwrap_or_default();
        if *self.mesh == mesh {
            return;
        }
        self.mesh = Arc::new(mesh);
        facts.mesh = true;
        for (key, object) in self.defaulted.clone().iter() {
            let change = Change {
                key: key.clone(),
                object: Some(object.clone()),
            };
            self.apply_one(&change, facts, sets);
        }
        self.apply_ingress_settings(facts);
    }

    fn touch_hosts(&self, touched: impl IntoIterator<Item = Hostname>, facts: &mut Facts) {
        for host in touched {
            if host.is_wildcard() {
                facts
                    .hosts
                    .extend(self.services.matching(&host).iter().map(|s| s.host.clone()));
            }
            facts.hosts.insert(host);
        }
    }

    fn touch_namespace(&self, namespace: &Str, facts: &mut Facts) {
        if *namespace == self.mesh.root_namespace {
            facts.mesh = true;
        }
        facts.namespaces.insert(namespace.clone());
    }

    fn service_host(&self, key: &Key) -> Option<Hostname> {
        let Key {
            name, namespace, ..
        } = key;
        Hostname::parse(&format!("{name}.{namespace}.svc.{}", self.settings.domain)).ok()
    }
}

fn ips(workload: &Workload) -> impl Iterator<Item = IpAddr> {
    workload.places.iter().filter_map(|p| match p {
        Place::Ip(ip) => Some(*ip),
        Place::Name(_) | Place::Pipe(_) => None,
    })
}
