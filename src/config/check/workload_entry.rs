//! WorkloadEntry: its address and ports.

use super::{fault, host, is_label, key_path, port, unix_path};
use crate::config::decode::reader::Fault;
use crate::config::workload_entry::WorkloadEntry;
use crate::diagnostic::Code;

pub(super) fn faults(spec: &WorkloadEntry) -> Vec<Fault> {
    let mut out = Vec::new();
    let path = "spec.address";
    if let Some(file) = spec.address.strip_prefix("unix://") {
        out.extend(unix_path(path, file));
        if !spec.ports.is_empty() {
            out.push(fault("spec.ports", "a socket has no ports"));
        }
    } else if !spec.address.is_empty() {
        out.extend(host(path, &spec.address));
        if spec.address.starts_with('*') {
            out.push(fault(path, "an address takes no wildcard"));
        }
    } else if spec.network.is_empty() {
        out.push(fault(path, "a WorkloadEntry needs an address"));
    }
    if !spec.network.is_empty() {
        let message = "networks are not in effect yet: an entry is reached at its address alone";
        out.push(Fault::warning(
            Code::NotYetInEffect,
            "spec.network",
            message,
        ));
    }
    for (name, number) in &spec.ports {
        let at = key_path("spec.ports", name);
        if !is_label(name) {
            out.push(fault(&at, format!("`{name}` is no port name")));
        }
        out.extend(port(&at, *number));
    }
    out
}
