//! What is worth saying about a whole set of objects that no single one shows.
//!
//! Faults inside objects are told at decode, versions that wait by acceptance; both are in `findings`.
//! A new analyzer is a file here and a line in `ANALYZERS`. Where Istio's analyzers say the same, the message ends with
//! their code.

mod destinations;
mod endpoints;
mod gateways;
mod hosts;
mod ingresses;
mod pods;
mod rules;
mod sidecars;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use self::pods::Pods;
use crate::acceptance::Acceptance;
use crate::config::decode::PodTemplate;
use crate::config::{Key, Object};
use crate::diagnostic::{Code, Diagnostic, Level};
use crate::text::Str;

/// The objects in force, as analyzers see them.
struct Mesh<'a> {
    objects: Vec<&'a Object>,
    by_key: BTreeMap<Key, &'a Object>,
    pods: Pods<'a>,
    templates: Vec<&'a PodTemplate>,
    acceptance: &'a Acceptance,
    domain: &'a str,
}

const ANALYZERS: &[fn(&Mesh<'_>) -> Vec<Diagnostic>] = &[
    destinations::without_service,
    endpoints::of_templates,
    hosts::of_several,
    gateways::of_virtual_services,
    gateways::without_proxy,
    gateways::without_secret,
    gateways::in_conflict,
    ingresses::of_no_class,
    ingresses::without_service,
    ingresses::in_conflict,
    ingresses::without_proxy,
    gateways::without_port,
    rules::unreachable,
    rules::of_one_host,
    sidecars::of_one_workload,
    sidecars::of_one_host,
];

/// All that is to be said: by file, line and object, most severe first within a line.
pub fn findings(acceptance: &Acceptance, domain: &str) -> Vec<Diagnostic> {
    let mut found = acceptance.diagnostics();
    found.extend(analyzed(acceptance, domain));
    found.sort_by(|a, b| {
        let place = |d: &Diagnostic| (d.file.clone(), d.line, d.resource.clone());
        place(a).cmp(&place(b)).then_with(|| a.cmp(b))
    });
    found
}

/// What the analyzers alone have to say.
pub fn analyzed(acceptance: &Acceptance, domain: &str) -> Vec<Diagnostic> {
    let objects: Vec<&Object> = acceptance.objects().map(|o| &**o).collect();
    let mesh = Mesh {
        by_key: objects.iter().map(|o| (o.key(), *o)).collect(),
        pods: Pods::of(&objects),
        objects,
        templates: acceptance.templates().collect(),
        acceptance,
        domain,
    };
    ANALYZERS
        .iter()
        .flat_map(|analyze| analyze(&mesh))
        .collect()
}

impl Mesh<'_> {
    /// A warning about a field of an object in force.
    fn warning(&self, code: Code, key: &Key, field: String, message: String) -> Diagnostic {
        let (file, line) = self.acceptance.place(key, &field).unzip();
        Diagnostic {
            level: Level::Warning,
            code,
            resource: Some(key.subject()),
            field: Str::from(field),
            file,
            line: line.flatten(),
            message,
        }
    }
}
