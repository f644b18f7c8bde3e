//! VirtualServices without hosts, to whose rules others delegate; and what both together say of a request.
//!
//! <https://istio.io/latest/docs/reference/config/networking/virtual-service/#Delegate>

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::http_action::{Delegate, HeaderChanges};
use crate::config::meta::ExportTo;
use crate::config::value::StringMatch;
use crate::config::virtual_service::{HeaderMatch, HttpMatchRequest, HttpRoute, VirtualService};
use crate::config::{Key, Kind};
use crate::text::{Hostname, Str};

/// One HTTP rule in effect, and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub route: Arc<HttpRoute>,
    /// Its place in the object that it was written in.
    pub place: Written,
    /// That object, where it is another one: a delegate, or an Ingress.
    pub origin: Option<Arc<Key>>,
}

/// The field that says a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Among the rules of a VirtualService.
    Rule(usize),
    /// Among the rules of an Ingress, and among the paths of that one.
    Path(usize, usize),
    DefaultBackend,
}

impl Written {
    pub fn field(self) -> Str {
        Str::new(match self {
            Self::Rule(rule) => format!("spec.http[{rule}]"),
            Self::Path(rule, path) => format!("spec.rules[{rule}].http.paths[{path}]"),
            Self::DefaultBackend => "spec.defaultBackend".to_owned(),
        })
    }
}

#[derive(Clone, Debug, Default)]
pub struct Delegates {
    by_key: BTreeMap<Key, (ExportTo, Arc<VirtualService>)>,
    /// By delegate, there or not: who names it.
    roots: BTreeMap<Key, BTreeSet<Key>>,
}

impl Delegates {
    pub fn put(&mut self, key: &Key, export_to: ExportTo, spec: Arc<VirtualService>) {
        self.by_key.insert(key.clone(), (export_to, spec));
    }

    /// Takes note of whom a root delegates to.
    pub fn follow(&mut self, root: &Key, spec: &VirtualService) {
        for delegate in spec.http.iter().filter_map(|rule| rule.delegate.as_ref()) {
            let named = self.roots.entry(named(root, delegate)).or_default();
            named.insert(root.clone());
        }
    }

    /// As a delegate and as a root.
    pub fn forget(&mut self, key: &Key) {
        self.by_key.remove(key);
        self.roots.retain(|_, roots| {
            roots.remove(key);
            !roots.is_empty()
        });
    }

    pub fn roots_of(&self, delegate: &Key) -> BTreeSet<Key> {
        self.roots.get(delegate).cloned().unwrap_or_default()
    }

    /// A root's rules; one whose delegate is not there, or not for it, is left out.
    pub fn flatten(&self, root: &Key, spec: &VirtualService, domain: &str) -> Vec<Rule> {
        let mut rules = Vec::with_capacity(spec.http.len());
        for (index, route) in spec.http.iter().enumerate() {
            let Some(delegate) = &route.delegate else {
                rules.push(Rule {
                    route: route.clone(),
                    place: Written::Rule(index),
                    origin: None,
                });
                continue;
            };
            let key = named(root, delegate);
            let found = self.by_key.get(&key);
            let found = found.filter(|(export_to, _)| export_to.reaches(&root.namespace));
            let Some((_, spec)) = found else {
                continue;
            };
            let key = Arc::new(key);
            let route = &in_full(route, &root.namespace, domain);
            for (index, own) in spec.http.iter().enumerate() {
                if let Some(merged) = merged(route, own) {
                    rules.push(Rule {
                        route: Arc::new(merged),
                        place: Written::Rule(index),
                        origin: Some(key.clone()),
                    });
                }
            }
        }
        rules
    }
}

/// A root's rule with the names of what delegates may inherit in full, for they are read from another namespace.
fn in_full(route: &HttpRoute, namespace: &str, domain: &str) -> HttpRoute {
    let mut out = route.clone();
    let several = out.mirrors.iter_mut().map(|m| &mut m.destination);
    for to in several.chain(&mut out.mirror) {
        if let Ok(host) = Hostname::expand(&to.host, namespace, domain) {
            to.host = host.to_str();
        }
    }
    out
}

fn named(root: &Key, delegate: &Delegate) -> Key {
    let namespace = match delegate.namespace.as_str() {
        "" => root.namespace.clone(),
        _ => delegate.namespace.clone(),
    };
    Key {
        kind: Kind::VirtualService,
        namespace,
        name: delegate.name.clone(),
    }
}

/// A delegate's rule within that of its root, which fills in what it does not say. None if no request meets both.
fn merged(root: &HttpRoute, own: &HttpRoute) -> Option<HttpRoute> {
    // A delegate delegates no further.
    if own.delegate.is_some() {
        return None;
    }
    let mut out = own.clone();
    out.matches = matches(&root.matches, &own.matches)?;
    out.name = joined(&root.name, &own.name);
    out.rewrite = out.rewrite.or_else(|| root.rewrite.clone());
    out.direct_response = out.direct_response.or_else(|| root.direct_response.clone());
    out.timeout = out.timeout.or(root.timeout);
    out.retries = out.retries.or_else(|| root.retries.clone());
    out.fault = out.fault.or_else(|| root.fault.clone());
    out.cors_policy = out.cors_policy.or_else(|| root.cors_policy.clone());
    out.mirror = out.mirror.or_else(|| root.mirror.clone());
    out.mirror_percent = out.mirror_percent.or(root.mirror_percent);
    out.mirror_percentage = out.mirror_percentage.or(root.mirror_percentage);
    if out.mirrors.is_empty() {
        out.mirrors.clone_from(&root.mirrors);
    }
    if out.headers == HeaderChanges::default() {
        out.headers.clone_from(&root.headers);
    }
    Some(out)
}

fn joined(root: &Str, own: &Str) -> Str {
    match (root.as_str(), own.as_str()) {
        (_, "") => root.clone(),
        ("", _) => own.clone(),
        (root, own) => Str::new(format!("{root}-{own}")),
    }
}

/// Every match of the delegate within one of the root's; one that fits in none makes the whole rule void, as in Istio.
fn matches(root: &[HttpMatchRequest], own: &[HttpMatchRequest]) -> Option<Vec<HttpMatchRequest>> {
    match (root, own) {
        ([], _) => return Some(own.to_vec()),
        (_, []) => return Some(root.to_vec()),
        (_, _) => {}
    }
    let mut out = Vec::new();
    for own in own {
        let before = out.len();
        let fitting = root.iter().filter(|root| fits(root, own));
        out.extend(fitting.map(|root| within(root, own)));
        if out.len() == before {
            return None;
        }
    }
    Some(out)
}

/// Whether the delegate's match asks for no other request than the root's.
fn fits(root: &HttpMatchRequest, own: &HttpMatchRequest) -> bool {
    let texts = [
        (&root.uri, &own.uri),
        (&root.scheme, &own.scheme),
        (&root.method, &own.method),
        (&root.authority, &own.authority),
    ];
    let both = |(root, own): &(&Option<StringMatch>, &Option<StringMatch>)| match (root, own) {
        (Some(root), Some(own)) => narrows(root, own),
        (None, _) | (_, None) => true,
    };
    let maps = [
        (&root.headers, &own.headers),
        (&root.without_headers, &own.without_headers),
        (&root.query_params, &own.query_params),
    ];
    let headers = maps.into_iter().all(|(root, own)| {
        root.iter().all(|(name, wanted)| match own.get(name) {
            None => true,
            Some(own) => header_narrows(wanted, own),
        })
    });
    let labels = |name: &Str, value: &Str| own.source_labels.get(name).is_none_or(|v| v == value);
    texts.iter().all(both)
        && headers
        && root.ignore_uri_case == own.ignore_uri_case
        && (root.port.is_none() || own.port.is_none() || root.port == own.port)
        && root
            .source_labels
            .iter()
            .all(|(name, value)| labels(name, value))
        && (root.source_namespace.is_empty()
            || own.source_namespace.is_empty()
            || root.source_namespace == own.source_namespace)
        && (root.gateways.is_empty() || own.gateways.iter().all(|g| root.gateways.contains(g)))
}

/// Of expressions nobody can tell.
fn narrows(root: &StringMatch, own: &StringMatch) -> bool {
    match (root, own) {
        (StringMatch::Exact(root), StringMatch::Exact(own)) => root == own,
        (StringMatch::Prefix(root), StringMatch::Exact(own) | StringMatch::Prefix(own)) => {
            own.starts_with(root.as_str())
        }
        (StringMatch::Exact(_), StringMatch::Prefix(_))
        | (StringMatch::Regex(_) | StringMatch::Segments(_), _)
        | (_, StringMatch::Regex(_) | StringMatch::Segments(_)) => false,
    }
}

fn header_narrows(root: &HeaderMatch, own: &HeaderMatch) -> bool {
    match (root, own) {
        (HeaderMatch::Present, _) => true,
        (HeaderMatch::Value(_), HeaderMatch::Present) => false,
        (HeaderMatch::Value(root), HeaderMatch::Value(own)) => narrows(root, own),
    }
}

/// What the delegate's match does not say, the root's does.
fn within(root: &HttpMatchRequest, own: &HttpMatchRequest) -> HttpMatchRequest {
    let mut out = own.clone();
    out.name = joined(&root.name, &own.name);
    out.uri = out.uri.or_else(|| root.uri.clone());
    out.scheme = out.scheme.or_else(|| root.scheme.clone());
    out.method = out.method.or_else(|| root.method.clone());
    out.authority = out.authority.or_else(|| root.authority.clone());
    for (to, from) in [
        (&mut out.headers, &root.headers),
        (&mut out.without_headers, &root.without_headers),
        (&mut out.query_params, &root.query_params),
    ] {
        for (name, wanted) in from {
            to.entry(name.clone()).or_insert_with(|| wanted.clone());
        }
    }
    out.port = out.port.or(root.port);
    let labels = root.source_labels.iter().chain(own.source_labels.iter());
    out.source_labels = labels.map(|(k, v)| (k.clone(), v.clone())).collect();
    if out.source_namespace.is_empty() {
        out.source_namespace = root.source_namespace.clone();
    }
    if out.gateways.is_empty() {
        out.gateways.clone_from(&root.gateways);
    }
    if out.stat_prefix.is_empty() {
        out.stat_prefix = root.stat_prefix.clone();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(value: serde_json::Value) -> HttpRoute {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_delegate_narrows_its_root_and_inherits_what_it_does_not_say() {
        let root = route(serde_json::json!({
            "name": "root", "timeout": "3s", "delegate": {"name": "d"},
            "match": [{"uri": {"prefix": "/shop"}, "headers": {"x": {"exact": "1"}}}],
        }));
        let own = route(serde_json::json!({
            "name": "own", "route": [{"destination": {"host": "a"}}],
            "match": [{"uri": {"prefix": "/shop/cart"}}, {"uri": {"exact": "/shop"}}],
        }));
        let merged = merged(&root, &own).unwrap();
        assert_eq!(merged.name, "root-own");
        assert_eq!(merged.timeout, root.timeout);
        let [first, second] = &merged.matches[..] else {
            panic!("{merged:?}");
        };
        assert_eq!(first.uri, own.matches[0].uri);
        assert_eq!(second.headers, root.matches[0].headers);
        assert!(merged.delegate.is_none());
    }

    #[test]
    fn a_delegate_that_asks_for_other_requests_has_no_rule() {
        let root = |uri| route(serde_json::json!({"match": [{"uri": uri}]}));
        let exact = |text: &str| serde_json::json!({"exact": text});
        let prefix = |text: &str| serde_json::json!({"prefix": text});
        for (outer, inner) in [
            (prefix("/a"), prefix("/b")),
            (exact("/a"), prefix("/a")),
            (exact("/a"), exact("/b")),
            (prefix("/a"), serde_json::json!({"regex": "/a.*"})),
        ] {
            assert!(
                merged(&root(outer.clone()), &root(inner.clone())).is_none(),
                "{outer} {inner}"
            );
        }
    }
}
