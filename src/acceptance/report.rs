//! Findings about versions that wait, stay or do not resolve; everything else was said at decode.

use std::collections::{BTreeMap, BTreeSet};

use super::links::{self, Links, Part, Ref};
use super::settle::{Break, Proposal};
use crate::config::decode::Place;
use crate::config::{Key, Object, Spec};
use crate::diagnostic::{Code, Diagnostic, Level};
use crate::text::Str;

/// A version that waits: an object's new form, or its deletion.
#[derive(Clone, Copy)]
pub(super) struct Waiting<'h> {
    pub(super) key: &'h Key,
    /// None for a deletion.
    pub(super) object: Option<&'h Object>,
    pub(super) place: Option<&'h Place>,
    pub(super) part: &'h Part,
}

/// What a waiting version waits for. `others` are the keys that wait as well.
pub(super) fn waiting(
    one: Waiting<'_>,
    force: &Links,
    next: &Links,
    others: &BTreeSet<Key>,
    domain: &str,
) -> Vec<Diagnostic> {
    let alone = BTreeMap::from([(one.key.clone(), one.part.clone())]);
    let breaks = Proposal::new(force, alone).all_breaks();
    let says = |broken: &Break| match one.part {
        Part::Uses(_) => missing(one, &broken.on, next, domain),
        Part::Offers(_) => removed(one, broken, others),
    };
    breaks.iter().map(says).collect()
}

fn missing(one: Waiting<'_>, on: &Ref, next: &Links, domain: &str) -> Diagnostic {
    let Ref { host, subset } = on;
    let partners: Vec<String> = next.definers(on).map(ToString::to_string).collect();
    let mut message = format!(
        "this form waits: no DestinationRule in force defines subset `{subset}` of {host}; the form \
         in force stays until one does"
    );
    if !partners.is_empty() {
        message.push_str(&format!(
            " ({}, which defines it, waits too)",
            partners.join(", ")
        ));
    }
    let field = one
        .object
        .map(|o| field_of(o, on, domain))
        .unwrap_or_default();
    finding(one.key, field, one.place, message)
}

fn removed(one: Waiting<'_>, broken: &Break, others: &BTreeSet<Key>) -> Diagnostic {
    let Break {
        user,
        on: Ref { host, subset },
    } = broken;
    let what = if one.object.is_some() {
        "this form waits"
    } else {
        "the deletion waits"
    };
    let mut message = format!(
        "{what}: {user} routes to subset `{subset}` of {host}, which would be gone; the form in \
         force stays until it does no more"
    );
    if others.contains(user) {
        message.push_str(&format!(" (a new form of {user} waits too)"));
    }
    let field = if one.object.is_some() {
        "spec.subsets"
    } else {
        ""
    };
    finding(one.key, field.to_owned(), one.place, message)
}

/// References of a VirtualService in force that nothing resolves, as Istio has them.
pub(super) fn unresolved(
    key: &Key,
    object: &Object,
    place: Option<&Place>,
    force: &Links,
    domain: &str,
) -> Vec<Diagnostic> {
    let refs = force.uses(key).into_iter().flatten();
    let open = refs.filter(|on| force.definers(on).next().is_none());
    open.map(|on| {
        let Ref { host, subset } = on;
        let message = format!(
            "this route waits: no DestinationRule defines subset `{subset}` of {host}; until one does \
             its requests get 503"
        );
        finding(key, field_of(object, on, domain), place, message)
    })
    .collect()
}

/// Whether a form of an object is in force while its present one has a fault.
#[derive(Clone, Copy)]
pub(super) enum Before {
    InForce,
    Never,
}

/// A rejected form's findings, with what its rejection means.
pub(super) fn faults(found: &[Diagnostic], before: Before) -> Vec<Diagnostic> {
    let meaning = match before {
        Before::InForce => "the form accepted before stays in force",
        Before::Never => "nothing of this object is in force",
    };
    let mut found = found.to_vec();
    for one in found.iter_mut().filter(|d| d.level == Level::Error) {
        one.message.push_str("; ");
        one.message.push_str(meaning);
    }
    found
}

/// Faults of documents that do not say whose they are, with what they mean for the file's objects.
pub(super) fn unclear(mut found: Vec<Diagnostic>) -> Vec<Diagnostic> {
    for one in found.iter_mut().filter(|d| d.level == Level::Error) {
        one.message
            .push_str("; until it is mended, objects in force from this file stay");
    }
    found
}

/// An object whose file can no longer be read as a whole.
pub(super) fn kept(key: &Key, file: &Str) -> Diagnostic {
    Diagnostic {
        level: Level::Warning,
        code: Code::Malformed,
        resource: Some(key.subject()),
        field: Str::default(),
        file: Some(file.clone()),
        line: None,
        message: "a document of its file cannot be read; the form in force stays".to_owned(),
    }
}

/// An object whose faults are gone; whether the new form waits is said apart.
pub(super) fn sound(key: &Key, place: &Place) -> Diagnostic {
    Diagnostic {
        level: Level::Info,
        code: Code::Recovered,
        ..finding(
            key,
            String::new(),
            Some(place),
            "this form is sound; the faults told before are gone".to_owned(),
        )
    }
}

/// A file whose faults are gone.
pub(super) fn readable(file: &Str) -> Diagnostic {
    Diagnostic {
        level: Level::Info,
        code: Code::Recovered,
        resource: None,
        field: Str::default(),
        file: Some(file.clone()),
        line: None,
        message: "the faults told of this file before are gone".to_owned(),
    }
}

fn field_of(object: &Object, on: &Ref, domain: &str) -> String {
    match &object.spec {
        Spec::VirtualService(spec) => links::named(spec, &object.meta.namespace, domain)
            .find(|(r, _)| r == on)
            .map(|(_, field)| field)
            .unwrap_or_default(),
        Spec::Namespace(_)
        | Spec::Node(_)
        | Spec::Service(_)
        | Spec::EndpointSlice(_)
        | Spec::Pod(_)
        | Spec::WorkloadEntry(_)
        | Spec::ServiceEntry(_)
        | Spec::DestinationRule(_)
        | Spec::PeerAuthentication(_)
        | Spec::Sidecar(_)
        | Spec::Gateway(_)
        | Spec::WorkloadGroup(_)
        | Spec::ProxyConfig(_)
        | Spec::TrafficExtension(_)
        | Spec::Ingress(_)
        | Spec::IngressClass(_)
        | Spec::EnvoyFilter(_)
        | Spec::Secret(_)
        | Spec::MeshConfig(_) => String::new(),
    }
}

fn finding(key: &Key, field: String, place: Option<&Place>, message: String) -> Diagnostic {
    let line = place
        .map(|p| p.lines.line_of(&field))
        .filter(|line| *line > 0);
    Diagnostic {
        level: Level::Warning,
        code: Code::Waiting,
        resource: Some(key.subject()),
        field: Str::from(field),
        file: place.map(|p| p.file.clone()).filter(|f| !f.is_empty()),
        line,
        message,
    }
}
