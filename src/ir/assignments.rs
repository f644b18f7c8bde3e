//! A cluster's endpoints: those of its port that carry its subset's labels, grouped by locality.

use super::outbound::{Assignment, Speaking};
use super::spread::{self, Placed, Spread};
use super::{Endpoint, LoadAssignment, TlsMode};
use crate::config::meta::selects;
use crate::model::Snapshot;
use crate::model::endpoints::{Address, EndpointSet, Member};
use crate::model::policies::Policies;
use crate::text::Str;

/// Never absent: a cluster whose host has no endpoints gets an empty assignment, or it would warm for ever.
pub fn join(snapshot: &Snapshot, host: &str, assignment: &Assignment) -> LoadAssignment {
    let set = snapshot.endpoints.get(host).map(AsRef::as_ref);
    let root = &snapshot.mesh.root_namespace;
    let node_of = |member: &Member| match member.address {
        Address::Ip(ip, _) => snapshot.workloads.at(ip).map(|w| w.node.clone()),
        Address::Name(..) | Address::Pipe(_) => None,
    };
    of_set(set, (&snapshot.policies, root), assignment, &node_of)
}

pub(super) fn of_set(
    set: Option<&EndpointSet>,
    (policies, root): (&Policies, &str),
    assignment: &Assignment,
    node_of: &dyn Fn(&Member) -> Option<Str>,
) -> LoadAssignment {
    let spread = assignment.spread.as_deref();
    let minds_nodes = spread.is_some_and(Spread::minds_nodes);
    let members = set.and_then(|s| s.by_port.get(&assignment.port));
    let members = members.into_iter().flatten();
    let mut own: Vec<&Member> = members
        .filter(|member| selects(&assignment.labels, &member.peer.labels))
        .collect();
    // Of pods with addresses of both families one is enough; the other family's may be out of reach.
    let preferred = |member: &&Member| match &member.address {
        Address::Ip(ip, _) => assignment.families.prefer(ip),
        Address::Name(..) | Address::Pipe(_) => true,
    };
    if own.iter().any(preferred) {
        own.retain(preferred);
    }
    let speaks = |endpoint: &Endpoint| match assignment.speaking {
        Speaking::Anything => true,
        Speaking::MeshTls => endpoint.tls_mode == TlsMode::Istio,
    };
    let placed = own.into_iter().map(|member| {
        let peer = &member.peer;
        let node = minds_nodes.then(|| node_of(member)).flatten();
        Placed {
            locality: &peer.locality,
            labels: &peer.labels,
            node: node.unwrap_or_default(),
            endpoint: member.endpoint(policies, root),
        }
    });
    let placed = placed.filter(|one| speaks(&one.endpoint));
    LoadAssignment {
        cluster: assignment.cluster.clone(),
        localities: spread::grouped(spread, placed.collect()),
    }
}
