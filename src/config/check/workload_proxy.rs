//! ProxyConfig: selector, names of variables, image.

use super::{fault, key_path, selector};
use crate::config::decode::reader::Fault;
use crate::config::proxy_config::{IMAGE_TYPES, ProxyImage};
use crate::config::workload_proxy::WorkloadProxy;

pub(super) fn faults(spec: &WorkloadProxy) -> Vec<Fault> {
    let mut out = Vec::new();
    if let Some(chosen) = &spec.selector {
        out.extend(selector("spec.selector.matchLabels", &chosen.match_labels));
    }
    for name in spec.environment_variables.keys() {
        if !is_variable(name) {
            let path = key_path("spec.environmentVariables", name);
            out.push(fault(path, format!("`{name}` is no name of a variable")));
        }
    }
    out.extend(image("spec.image", spec.image.as_ref()));
    out
}

pub(super) fn image(path: &str, image: Option<&ProxyImage>) -> Option<Fault> {
    let name = &image?.image_type;
    let known = name.is_empty() || IMAGE_TYPES.contains(&name.as_str());
    let message = || {
        let known = IMAGE_TYPES.join(", ");
        format!("`{name}` is no type of image; known are {known}")
    };
    (!known).then(|| fault(format!("{path}.imageType"), message()))
}

/// As Kubernetes takes them.
fn is_variable(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_graphic() && c != '=';
    !name.is_empty() && name.chars().all(fits)
}
