//! A cluster's endpoints: those of its port that carry its subset's labels, grouped by locality.

use super::outbound::{Assignment, Speaking};
use super::spread;
use super::{Endpoint, LoadAssignment, TlsMode};
use crate::config::meta::selects;
use crate::model::Snapshot;
use crate::model::endpoints::EndpointSet;
use crate::model::policies::Policies;

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
    let members = members.into_iter().flatten();
    let own = members.filter(|member| selects(&assignment.labels, &member.peer.labels));
    let speaks = |endpoint: &Endpoint| match assignment.speaking {
        Speaking::Anything => true,
        Speaking::MeshTls => endpoint.tls_mode == TlsMode::Istio,
    };
    let placed = own.map(|member| {
        let peer = &member.peer;
        (
            &peer.locality,
            &peer.labels,
            member.endpoint(policies, root),
        )
    });
    let placed = placed.filter(|(_, _, endpoint)| speaks(endpoint));
    LoadAssignment {
        cluster: assignment.cluster.clone(),
        localities: spread::grouped(assignment.spread.as_deref(), placed.collect()),
    }
}
