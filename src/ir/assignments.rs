//! A cluster's endpoints: those of its port that carry its subset's labels, grouped by locality.

use std::collections::BTreeMap;

use super::outbound::Assignment;
use super::{Endpoint, LoadAssignment, LocalityEndpoints};
use crate::config::meta::selects;
use crate::model::Snapshot;
use crate::model::endpoints::EndpointSet;
use crate::model::policies::Policies;
use crate::text::Str;

/// Never absent: a cluster whose host has no endpoints gets an empty assignment, or it would warm for ever.
pub fn join(snapshot: &Snapshot, host: &str, assignment: &Assignment) -> LoadAssignment {
    let set = snapshot.endpoints.get(host).map(AsRef::as_ref);
    let root = &snapshot.mesh.root_namespace;
    of_set(set, (&snapshot.policies, root), assignment)
}

pub(super) fn of_set(
    set: Option<&EndpointSet>,
    (policies, root): (&Policies, &str),
    assignment: &Assignment,
) -> LoadAssignment {
    let members = set.and_then(|s| s.by_port.get(&assignment.port));
    let mut by_locality: BTreeMap<&[Str; 3], Vec<Endpoint>> = BTreeMap::new();
    for member in members.into_iter().flatten() {
        if selects(&assignment.labels, &member.peer.labels) {
            let endpoint = member.endpoint(policies, root);
            by_locality
                .entry(&member.peer.locality)
                .or_default()
                .push(endpoint);
        }
    }
    LoadAssignment {
        cluster: assignment.cluster.clone(),
        localities: by_locality
            .into_iter()
            .map(|(locality, endpoints)| LocalityEndpoints {
                locality: locality.clone(),
                endpoints,
            })
            .collect(),
    }
}
