//! WorkloadGroup: its template, as far as it is one.

use super::{fault, is_label, key_path, port};
use crate::config::decode::reader::Fault;
use crate::config::workload_group::WorkloadGroup;
use crate::diagnostic::Code;

pub(super) fn faults(spec: &WorkloadGroup) -> Vec<Fault> {
    let mut out = Vec::new();
    let template = &spec.template;
    if !template.address.is_empty() {
        let message = "every proxy is entered at its own address; this one changes nothing";
        let told = Fault::warning(Code::Conflict, "spec.template.address", message);
        out.push(told);
    }
    if !template.network.is_empty() {
        let message = "networks are not in effect yet: an entry is reached at its address alone";
        let path = "spec.template.network";
        out.push(Fault::warning(Code::NotYetInEffect, path, message));
    }
    for (name, number) in &template.ports {
        let at = key_path("spec.template.ports", name);
        if !is_label(name) {
            out.push(fault(&at, format!("`{name}` is no port name")));
        }
        out.extend(port(&at, *number));
    }
    out
}
