//! PeerAuthentication: ports and the selector they need.

use super::{fault, port, selector};
use crate::config::decode::reader::Fault;
use crate::config::peer_authentication::PeerAuthentication;

pub(super) fn faults(spec: &PeerAuthentication) -> Vec<Fault> {
    let labels = spec.selector.as_ref().map(|s| &s.match_labels);
    let mut out = Vec::new();
    out.extend(
        labels
            .iter()
            .flat_map(|l| selector("spec.selector.matchLabels", l)),
    );
    if !spec.port_level_mtls.is_empty() && labels.is_none() {
        out.push(fault(
            "spec.portLevelMtls",
            "modes by port need a selector with labels",
        ));
    }
    for number in spec.port_level_mtls.keys() {
        out.extend(port(&format!("spec.portLevelMtls.{number}"), *number));
    }
    out
}
