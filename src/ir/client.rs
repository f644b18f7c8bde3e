//! What tells two clients' outbound configuration apart.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::front::Front;
use super::patches::{Patch, Patches};
use super::spread::{self, Where};
use crate::config::meta::Labels;
use crate::config::sidecar::OutboundMode;
use crate::model::Snapshot;
use crate::model::extensions;
use crate::model::proxy::{Families, Interception, Proxy, Role, RoutePacking, Taken};
use crate::model::sidecars::{Chosen, Egress};
use crate::model::workloads::Workload;
use crate::text::Str;

/// Proxies with equal clients share every outbound resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    pub namespace: Str,
    pub interception: Interception,
    pub families: Families,
    pub taken: Taken,
    /// Only those labels that some VirtualService's `sourceLabels` or DestinationRule's `workloadSelector` asks for.
    pub labels: Labels,
    pub sidecar: Option<Arc<Chosen>>,
    pub packing: RoutePacking,
    /// At the edge of the mesh; a sidecar has none.
    pub front: Option<Arc<Front>>,
    /// Where it is, while that may matter to anybody.
    pub place: Option<Arc<Where>>,
    pub extensions: extensions::Chosen,
    /// Of EnvoyFilters, on all but its inbound side.
    pub patches: Patches,
}

impl Hash for Client {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.namespace.hash(state);
        self.interception.hash(state);
        self.families.hash(state);
        self.labels.hash(state);
        self.sidecar.as_ref().map(|s| &s.key).hash(state);
        self.front.hash(state);
        self.place.hash(state);
        self.patches.hash(state);
    }
}

impl Client {
    /// `workload` is the object that describes the proxy, if one does.
    pub fn of(
        proxy: &Proxy,
        labels: &Labels,
        workload: Option<&Arc<Workload>>,
        snapshot: &Snapshot,
    ) -> Self {
        let root = &snapshot.mesh.root_namespace;
        let patches = snapshot.envoy_filters.select(root, proxy, labels);
        let usual = Self {
            place: place(proxy, labels, workload, snapshot),
            ..Self::usual(&proxy.namespace, labels, snapshot)
        };
        if proxy.role == Role::Router {
            return Self {
                interception: Interception::None,
                families: proxy.families,
                taken: proxy.taken,
                sidecar: None,
                packing: RoutePacking::Rds,
                front: Some(Arc::new(Front::of(proxy, labels, workload, snapshot))),
                patches: Patches::gateway(&patches),
                ..usual
            };
        }
        Self {
            interception: proxy.interception,
            families: proxy.families,
            taken: proxy.taken,
            packing: packing(proxy.packing.unwrap_or(usual.packing), &patches),
            patches: Patches::outbound(&patches),
            ..usual
        }
    }

    /// A sidecar that says nothing of itself.
    pub fn usual(namespace: &Str, labels: &Labels, snapshot: &Snapshot) -> Self {
        let asked = snapshot.virtuals.source_label_keys();
        let asked = asked.chain(snapshot.rules.choosing_keys());
        let labels_asked = asked.filter_map(|k| labels.get(k).map(|v| (k.clone(), v.clone())));
        let root = &snapshot.mesh.root_namespace;
        let sidecar = snapshot.sidecars.select(root, namespace, labels);
        Self {
            namespace: namespace.clone(),
            interception: Interception::default(),
            families: Families::default(),
            taken: Taken::default(),
            labels: labels_asked.collect(),
            sidecar: sidecar.cloned(),
            packing: snapshot.settings.packing,
            front: None,
            place: None,
            extensions: snapshot.extensions.select(root, namespace, labels),
            patches: Patches::default(),
        }
    }

    /// Egress listeners in their order; one that imports everything without a Sidecar (or without `egress`).
    pub fn egress(&self) -> Vec<Egress> {
        match &self.sidecar {
            Some(sidecar) if !sidecar.egress.is_empty() => sidecar.egress.clone(),
            _ => vec![Egress::everything()],
        }
    }

    /// What becomes of traffic that the registry does not know.
    pub fn outbound_mode(&self, snapshot: &Snapshot) -> OutboundMode {
        let own = self
            .sidecar
            .as_ref()
            .and_then(|s| s.spec.outbound_traffic_policy.as_ref());
        own.unwrap_or(&snapshot.mesh.outbound_traffic_policy).mode
    }
}

/// Patches of routes are for whole tables, by their names; and those of the inbound side may name clusters, for which
/// nobody waits there.
fn packing(wish: RoutePacking, patches: &[Arc<Patch>]) -> RoutePacking {
    if Patches::outbound(patches).are_of_routes() {
        return RoutePacking::Rds;
    }
    match wish {
        RoutePacking::OnDemand if !Patches::inbound(patches).is_empty() => RoutePacking::Scoped,
        wish => wish,
    }
}

/// What describes the proxy knows better than it does itself where it is.
fn place(
    proxy: &Proxy,
    labels: &Labels,
    workload: Option<&Arc<Workload>>,
    snapshot: &Snapshot,
) -> Option<Arc<Where>> {
    let minded = snapshot.rules.minds();
    let of_mesh = &snapshot.mesh.locality_lb_setting;
    if minded.is_none() && of_mesh.distribute.is_empty() {
        return None;
    }
    let known = workload.map(|w| &w.locality).filter(|l| !l[0].is_empty());
    let mut keys: BTreeSet<Str> = minded.into_iter().flatten().cloned().collect();
    keys.extend(of_mesh.label_keys());
    let node = workload.map(|w| &w.node).filter(|node| !node.is_empty());
    let value = |key: &Str| match key.as_str() {
        spread::CLUSTER => Some(&snapshot.settings.cluster),
        spread::NODE => node.or_else(|| labels.get(key)),
        _ => labels.get(key),
    };
    let asked = keys
        .iter()
        .filter_map(|key| Some((key.clone(), value(key)?.clone())));
    Some(Arc::new(Where {
        locality: known.unwrap_or(&proxy.locality).clone(),
        labels: asked.collect(),
    }))
}
