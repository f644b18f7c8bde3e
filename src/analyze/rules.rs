//! Rules of a VirtualService that no request can reach, and VirtualServices of which only the older counts.

use std::collections::{BTreeMap, BTreeSet};

use super::Mesh;
use crate::config::meta::ExportTo;
use crate::config::value::StringMatch;
use crate::config::virtual_service::{HttpMatchRequest, VirtualService};
use crate::config::{Object, Spec};
use crate::diagnostic::{Code, Diagnostic};
use crate::text::{Hostname, Str};

/// A rule behind one that takes everything, or whose matches all stand before it (IST0130); a match that stands before
/// it in another rule (IST0131).
pub(super) fn unreachable(mesh: &Mesh<'_>) -> Vec<Diagnostic> {
    let mut out = Vec::new();
    for (object, spec) in all(mesh) {
        let http = spec.http.iter().map(|rule| {
            let matches: Vec<_> = rule.matches.iter().map(nameless).collect();
            keys(&matches, is_unconditional)
        });
        out.extend(of_rules(mesh, object, "http", http));
        let tls = spec.tls.iter().map(|rule| keys(&rule.matches, |_| false));
        out.extend(of_rules(mesh, object, "tls", tls));
        let tcp = spec
            .tcp
            .iter()
            .map(|rule| keys(&rule.matches, |m| *m == Default::default()));
        out.extend(of_rules(mesh, object, "tcp", tcp));
    }
    out
}

fn all<'a>(mesh: &'a Mesh<'_>) -> impl Iterator<Item = (&'a Object, &'a VirtualService)> {
    mesh.objects.iter().filter_map(|object| match &object.spec {
        Spec::VirtualService(spec) => Some((*object, spec)),
        _ => None,
    })
}

/// A match, for the rules of one list: None takes everything.
type Condition = Option<String>;

/// Without a match, a rule takes everything.
fn keys<M: std::fmt::Debug>(matches: &[M], takes_all: impl Fn(&M) -> bool) -> Vec<Condition> {
    if matches.is_empty() {
        return vec![None];
    }
    let key = |m: &M| (!takes_all(m)).then(|| format!("{m:?}"));
    matches.iter().map(key).collect()
}

/// What a match is called, and how it is counted, decides nothing.
fn nameless(m: &HttpMatchRequest) -> HttpMatchRequest {
    HttpMatchRequest {
        name: Str::default(),
        stat_prefix: Str::default(),
        ..m.clone()
    }
}

fn is_unconditional(m: &HttpMatchRequest) -> bool {
    let any_path = match &m.uri {
        None => true,
        Some(StringMatch::Prefix(prefix)) => prefix == "/",
        Some(StringMatch::Exact(_) | StringMatch::Regex(_) | StringMatch::Segments(_)) => false,
    };
    let others = HttpMatchRequest {
        uri: None,
        ..m.clone()
    };
    any_path && others == HttpMatchRequest::default()
}

fn of_rules(
    mesh: &Mesh<'_>,
    object: &Object,
    list: &str,
    rules: impl Iterator<Item = Vec<Condition>>,
) -> Vec<Diagnostic> {
    let mut out = Vec::new();
    let mut wide: Option<usize> = None;
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for (i, conditions) in rules.enumerate() {
        let path = format!("spec.{list}[{i}]");
        let warning =
            |field, message| mesh.warning(Code::Unreachable, &object.key(), field, message);
        if let Some(first) = wide {
            let message =
                format!("spec.{list}[{first}] takes everything before this rule (IST0130)");
            out.push(warning(path, message));
            continue;
        }
        let before = |key: &Condition| key.as_ref().and_then(|key| known.get(key)).copied();
        let stands: Vec<(usize, usize)> = conditions
            .iter()
            .enumerate()
            .filter_map(|(at, key)| Some((at, before(key)?)))
            .collect();
        if stands.len() == conditions.len() {
            let (_, first) = stands[0];
            let message =
                format!("all that it matches spec.{list}[{first}] takes before it (IST0130)");
            out.push(warning(path, message));
        } else {
            for (at, first) in stands {
                let message = format!("this match stands in spec.{list}[{first}] before (IST0131)");
                out.push(warning(format!("{path}.match[{at}]"), message));
            }
        }
        if conditions.contains(&None) {
            wide = Some(i);
        }
        for key in conditions.into_iter().flatten() {
            known.entry(key).or_insert(i);
        }
    }
    out
}

/// VirtualServices of the mesh for one host that some namespace sees both of: there the older counts (IST0109).
pub(super) fn of_one_host(mesh: &Mesh<'_>) -> Vec<Diagnostic> {
    let mut by_host: BTreeMap<Hostname, Vec<(&Object, usize, ExportTo)>> = BTreeMap::new();
    for (object, spec) in all(mesh) {
        let of_mesh = spec.gateways.is_empty() || spec.gateways.iter().any(|g| g == "mesh");
        let namespace = &object.meta.namespace;
        for (i, text) in spec.hosts.iter().enumerate().filter(|_| of_mesh) {
            if let Ok(host) = Hostname::expand(text, namespace, mesh.domain) {
                let export = match spec.export_to.as_slice() {
                    [] => ExportTo::All,
                    own => ExportTo::of(own, namespace),
                };
                by_host.entry(host).or_default().push((object, i, export));
            }
        }
    }
    let mut out = Vec::new();
    for (host, mut several) in by_host {
        several.sort_by(|(a, ..), (b, ..)| a.meta.age().cmp(&b.meta.age()));
        let mut told = BTreeSet::new();
        for at in 1..several.len() {
            let (object, i, export) = &several[at];
            let older = several[..at]
                .iter()
                .find(|(other, _, seen)| other.key() != object.key() && meet(export, seen));
            if let Some((other, ..)) = older
                && told.insert(object.key())
            {
                let message = format!(
                    "{} has the host {host} too and is older; where both are seen, this one does not count (IST0109)",
                    other.key()
                );
                let field = format!("spec.hosts[{i}]");
                out.push(mesh.warning(Code::Conflict, &object.key(), field, message));
            }
        }
    }
    out
}

fn meet(a: &ExportTo, b: &ExportTo) -> bool {
    match (a, b) {
        (ExportTo::Namespaces(a), ExportTo::Namespaces(b)) => a.iter().any(|name| b.contains(name)),
        (ExportTo::Namespaces(names), ExportTo::All)
        | (ExportTo::All, ExportTo::Namespaces(names)) => !names.is_empty(),
        (ExportTo::All, ExportTo::All) => true,
    }
}
