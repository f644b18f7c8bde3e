//! Clusters that a client is sent when a request first needs them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Dirty, Outbound};
use crate::ir::{Loading, outbound_listener};
use crate::text::Str;
use crate::view::Layer;
use crate::view::sorted::Sorted;
use crate::xds::{Encoded, ResourceType};

/// What is there for those who ask. A listener's byte streams do not ask, so a cluster that one of them leads to
/// comes to all.
#[derive(Clone, Debug, Default)]
pub struct OnDemand {
    pub layer: Layer,
    /// How many listeners name a cluster.
    named: Sorted<Str, usize>,
}

impl Outbound {
    pub(super) fn is_on_demand(&self, kind: ResourceType, name: &Str) -> bool {
        self.packing.loading() == Loading::OnDemand
            && kind == ResourceType::Cluster
            && !outbound_listener::is_fixed(name)
            && self.on_demand.named.get(name).is_none()
    }

    /// A listener is about to be replaced: the clusters that it named, and those that it names.
    pub(super) fn pin(&mut self, new: Option<&Arc<Encoded>>, name: &Str, dirty: &mut Dirty) {
        if self.packing.loading() == Loading::AtOnce {
            return;
        }
        let before = clusters_of(self.layer.get(ResourceType::Listener, name));
        let after = clusters_of(new);
        for gone in before.difference(&after) {
            if let Some(count) = self.on_demand.named.get_mut_cow(gone) {
                *count -= 1;
                if *count == 0 {
                    self.on_demand.named.remove_cow(gone);
                    self.move_over(gone, dirty);
                }
            }
        }
        for named in after.difference(&before) {
            let count = self.on_demand.named.get_or_default_cow(named.clone());
            *count += 1;
            if *count == 1 {
                self.move_over(named, dirty);
            }
        }
    }

    /// From those for all to those on demand, or back.
    fn move_over(&mut self, cluster: &Str, dirty: &mut Dirty) {
        let kind = ResourceType::Cluster;
        let on_demand = &mut self.on_demand.layer;
        let taken = self.layer.take(kind, cluster);
        if let Some(encoded) = taken.or_else(|| on_demand.take(kind, cluster)) {
            self.put(encoded, dirty);
        }
    }
}

fn clusters_of(listener: Option<&Arc<Encoded>>) -> BTreeSet<Str> {
    let refs = listener.and_then(|l| l.refs.as_deref()).unwrap_or_default();
    let clusters = refs.iter().filter(|r| r.kind == ResourceType::Cluster);
    clusters.map(|r| r.name.clone()).collect()
}
