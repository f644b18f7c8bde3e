//! What is worth saying about a whole set of objects that no single one shows.
//!
//! Faults inside objects are told at decode, versions that wait by acceptance; both are in `findings`.
//! A new analyzer is a file here and a line in `ANALYZERS`.

mod destinations;
mod endpoints;
mod gateways;
mod hosts;
mod ingresses;
#[cfg(test)]
mod tests;

use crate::acceptance::Acceptance;
use crate::config::decode::PodTemplate;
use crate::config::{Key, Object};
use crate::diagnostic::{Code, Diagnostic, Level};
use crate::text::Str;

/// The objects in force, as analyzers see them.
struct Mesh<'a> {
    objects: Vec<&'a Object>,
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
    let mesh = Mesh {
        objects: acceptance.objects().map(|o| &**o).collect(),
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
