//! Patches of EnvoyFilters that meet nothing, of all workloads that the objects describe. For people who look.

use std::collections::BTreeSet;

use super::engine::Engine;
use super::{ProxyId, Resources};
use crate::config::Source;
use crate::config::envoy_filter::{ApplyTo, Context};
use crate::model::proxy::{Proxy, Role};
use crate::model::workloads::{Place, Workload};
use crate::xds::ResourceType;

impl Engine {
    /// Attaches a proxy for each workload; the engine is for nothing else afterwards.
    pub fn unmet_patches(&mut self) -> Vec<Source> {
        let snapshot = self.snapshot().clone();
        let mut met = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for workload in snapshot.workloads.all() {
            let at_edge = !snapshot.gateways.select(&workload.labels).is_empty();
            let role = if at_edge { Role::Router } else { Role::Sidecar };
            if !seen.insert((workload.namespace().clone(), workload.labels.clone())) {
                continue;
            }
            let Some(proxy) = proxy_of(workload, role) else {
                continue;
            };
            let id = ProxyId(0);
            let scope = self.attach(id, proxy);
            met.extend(self.resources(scope).into_iter().flat_map(patched));
        }
        met.extend(self.removing().cloned());
        let all = snapshot.envoy_filters.all();
        let judged = all.filter(|patch| {
            // What proxies say of themselves is in no object.
            !matches!(patch.spec.apply_to, ApplyTo::Bootstrap | ApplyTo::Invalid)
                && patch.spec.matches.context != Context::Waypoint
                && patch.spec.matches.proxy.is_none()
        });
        let unmet = judged.filter(|patch| !met.contains(&patch.source));
        unmet.map(|patch| patch.source.clone()).collect()
    }
}

fn patched(resources: Resources<'_>) -> BTreeSet<Source> {
    let kinds = [
        ResourceType::Cluster,
        ResourceType::Listener,
        ResourceType::Route,
    ];
    let all = kinds.into_iter().flat_map(|kind| resources.of(kind));
    all.flat_map(|encoded| encoded.patched.sources().cloned())
        .collect()
}

fn proxy_of(workload: &Workload, role: Role) -> Option<Proxy> {
    let ip = workload.places.iter().find_map(|place| match place {
        Place::Ip(ip) => Some(*ip),
        Place::Name(_) | Place::Pipe(_) => None,
    })?;
    let (name, namespace) = (&workload.key.name, workload.namespace());
    let id = format!("{role}~{ip}~{name}.{namespace}~{namespace}.svc");
    Proxy::parse(&id, serde_json::Value::Null, None).ok()
}
