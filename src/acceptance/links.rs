//! Which VirtualServices name which subsets, and which DestinationRules define them.
//!
//! Only the two kinds' references to each other; who may see which rule is the model's.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::destination_rule::DestinationRule;
use crate::config::l4_route::RouteDestination;
use crate::config::virtual_service::{Destination, VirtualService};
use crate::config::{Key, Kind, Object, Spec};
use crate::text::{Hostname, Str};

/// A subset of a host, as a route names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ref {
    pub(super) host: Hostname,
    pub(super) subset: Str,
}

/// What a version of an object needs or gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A VirtualService's references; empty also when it is deleted.
    Uses(BTreeSet<Ref>),
    /// A DestinationRule's host and subsets; none when it is deleted.
    Offers(Option<Offer>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) host: Hostname,
    pub(super) subsets: BTreeSet<Str>,
}

/// The part an object plays here; none for the kinds that are never held.
pub(super) fn part(object: &Object, domain: &str) -> Option<Part> {
    let namespace = &object.meta.namespace;
    match &object.spec {
        Spec::VirtualService(spec) => Some(Part::Uses(
            named(spec, namespace, domain).map(|(r, _)| r).collect(),
        )),
        Spec::DestinationRule(spec) => Some(Part::Offers(offer(spec, namespace, domain))),
        Spec::Namespace(_)
        | Spec::Node(_)
        | Spec::Service(_)
        | Spec::EndpointSlice(_)
        | Spec::Pod(_)
        | Spec::WorkloadEntry(_)
        | Spec::WorkloadGroup(_)
        | Spec::ServiceEntry(_)
        | Spec::PeerAuthentication(_)
        | Spec::Sidecar(_)
        | Spec::Gateway(_)
        | Spec::ProxyConfig(_)
        | Spec::TrafficExtension(_)
        | Spec::Ingress(_)
        | Spec::IngressClass(_)
        | Spec::EnvoyFilter(_)
        | Spec::Secret(_)
        | Spec::MeshConfig(_) => None,
    }
}

/// The part of an object that is not there.
pub(super) fn absent(kind: Kind) -> Option<Part> {
    match kind {
        Kind::VirtualService => Some(Part::Uses(BTreeSet::new())),
        Kind::DestinationRule => Some(Part::Offers(None)),
        Kind::Namespace
        | Kind::Node
        | Kind::Service
        | Kind::EndpointSlice
        | Kind::Pod
        | Kind::WorkloadEntry
        | Kind::WorkloadGroup
        | Kind::ServiceEntry
        | Kind::PeerAuthentication
        | Kind::Sidecar
        | Kind::Gateway
        | Kind::ProxyConfig
        | Kind::TrafficExtension
        | Kind::Ingress
        | Kind::IngressClass
        | Kind::EnvoyFilter
        | Kind::Secret
        | Kind::MeshConfig => None,
    }
}

/// The references of a VirtualService, each with its field. A destination that gets no traffic
/// (weight 0 among several) refers to nothing.
pub(super) fn named<'s>(
    spec: &'s VirtualService,
    namespace: &'s str,
    domain: &'s str,
) -> impl Iterator<Item = (Ref, String)> + 's {
    let http = spec.http.iter().enumerate().map(|(i, rule)| {
        let each = rule.route.iter().map(|d| (&d.destination, d.weight));
        (format!("spec.http[{i}]"), each.collect())
    });
    let bytes = |route: &'s [RouteDestination]| -> Vec<(&'s Destination, u32)> {
        route.iter().map(|d| (&d.destination, d.weight)).collect()
    };
    let tls = spec.tls.iter().enumerate();
    let tls = tls.map(move |(i, rule)| (format!("spec.tls[{i}]"), bytes(&rule.route)));
    let tcp = spec.tcp.iter().enumerate();
    let tcp = tcp.map(move |(i, rule)| (format!("spec.tcp[{i}]"), bytes(&rule.route)));
    let rules = http.chain(tls).chain(tcp);
    rules.flat_map(move |(path, route): (String, Vec<(&Destination, u32)>)| {
        let several = route.len() > 1;
        let reached = route.into_iter().enumerate();
        let named = reached
            .filter(move |(_, (to, weight))| (!several || *weight > 0) && !to.subset.is_empty());
        named.filter_map(move |(j, (to, _))| {
            let host = Hostname::expand(&to.host, namespace, domain).ok()?;
            let subset = to.subset.clone();
            let field = format!("{path}.route[{j}].destination.subset");
            Some((Ref { host, subset }, field))
        })
    })
}

/// A rule for selected workloads is not in effect yet, so nothing can rely on it.
fn offer(spec: &DestinationRule, namespace: &str, domain: &str) -> Option<Offer> {
    if spec.workload_selector.is_some() {
        return None;
    }
    let host = Hostname::expand(&spec.host, namespace, domain).ok()?;
    let subsets = spec.subsets.iter().map(|s| s.name.clone()).collect();
    Some(Offer { host, subsets })
}

/// The parts of a set of versions, found by host.
#[derive(Clone, Debug, Default)]
pub(super) struct Links {
    parts: BTreeMap<Key, Part>,
    users: BTreeMap<Hostname, BTreeSet<Key>>,
    /// Rules of plain hosts by host, of wildcards by what follows the star.
    exact: BTreeMap<Hostname, BTreeSet<Key>>,
    wild: BTreeMap<Str, BTreeSet<Key>>,
}

impl Links {
    pub(super) fn set(&mut self, key: Key, part: Part) {
        self.remove(&key);
        match &part {
            Part::Uses(refs) => {
                for r in refs {
                    self.users
                        .entry(r.host.clone())
                        .or_default()
                        .insert(key.clone());
                }
            }
            Part::Offers(None) => {}
            Part::Offers(Some(offer)) => match offer.host.as_str().strip_prefix('*') {
                Some(tail) => {
                    self.wild
                        .entry(Str::new(tail))
                        .or_default()
                        .insert(key.clone());
                }
                None => {
                    self.exact
                        .entry(offer.host.clone())
                        .or_default()
                        .insert(key.clone());
                }
            },
        }
        self.parts.insert(key, part);
    }

    pub(super) fn remove(&mut self, key: &Key) {
        match self.parts.remove(key) {
            None | Some(Part::Offers(None)) => {}
            Some(Part::Uses(refs)) => refs
                .iter()
                .for_each(|r| take(&mut self.users, &r.host, key)),
            Some(Part::Offers(Some(offer))) => match offer.host.as_str().strip_prefix('*') {
                Some(tail) => take(&mut self.wild, &Str::new(tail), key),
                None => take(&mut self.exact, &offer.host, key),
            },
        }
    }

    pub(super) fn part(&self, key: &Key) -> Option<&Part> {
        self.parts.get(key)
    }

    pub(super) fn uses(&self, key: &Key) -> Option<&BTreeSet<Ref>> {
        match self.parts.get(key)? {
            Part::Uses(refs) => Some(refs),
            Part::Offers(_) => None,
        }
    }

    pub(super) fn offer(&self, key: &Key) -> Option<&Offer> {
        match self.parts.get(key)? {
            Part::Uses(_) => None,
            Part::Offers(offer) => offer.as_ref(),
        }
    }

    /// The rules that define this subset of this host, wildcard rules included.
    pub(super) fn definers<'l>(&'l self, r: &'l Ref) -> impl Iterator<Item = &'l Key> {
        let host = r.host.as_str();
        let exact = self.exact.get(&r.host).into_iter();
        let tails = (0..=host.len())
            .filter(|i| host.is_char_boundary(*i))
            .map(|i| &host[i..]);
        let wild = tails.filter_map(|tail| self.wild.get(tail));
        let covers = |key: &&Key| {
            self.offer(key)
                .is_some_and(|o| o.subsets.contains(&r.subset))
        };
        exact.chain(wild).flatten().filter(covers)
    }

    /// The VirtualServices that name a subset of a host that `host` (maybe a wildcard) covers.
    pub(super) fn users<'l>(
        &'l self,
        host: &'l Hostname,
    ) -> Box<dyn Iterator<Item = &'l Key> + 'l> {
        if host.is_wildcard() {
            let covered = self.users.iter().filter(|(h, _)| host.matches(h.as_str()));
            Box::new(covered.flat_map(|(_, keys)| keys))
        } else {
            Box::new(self.users.get(host).into_iter().flatten())
        }
    }
}

fn take<K: Ord>(index: &mut BTreeMap<K, BTreeSet<Key>>, at: &K, key: &Key) {
    if let Some(keys) = index.get_mut(at) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(at);
        }
    }
}
