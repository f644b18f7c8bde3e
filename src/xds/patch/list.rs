//! Where a patch puts, replaces or removes an item of an ordered list of filters or routes.

use prost_reflect::{DynamicMessage, Value};

use super::{Act, act};
use crate::config::envoy_filter::{FilterClass, Operation};
use crate::ir::patches::{Patch, current_name};
use crate::schema::text;
use crate::text::Str;

/// What stands in which order in a list.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Items behind which nothing can stand: what would be added behind goes before.
    pub last: &'static [&'static str],
    /// Whether what goes first does so only where its anchor is.
    pub first_needs_anchor: bool,
}

impl Shape {
    pub const PLAIN: Self = Self {
        last: &[],
        first_needs_anchor: false,
    };
}

/// The item beside which a patch acts.
pub enum Anchor {
    /// None is named.
    None,
    Named(Str),
    /// A filter that only istio-proxy has, which would stand before all of ours.
    Front,
    /// One that would stand right before the last.
    End,
}

/// Filters of istio-proxy's own at the front of its chains.
pub const ISTIO_FRONT: &[&str] = &[
    "envoy.filters.http.alpn",
    "envoy.filters.network.metadata_exchange",
    "istio.alpn",
    "istio.metadata_exchange",
    "istio_authn",
];
/// And at the end.
pub const ISTIO_END: &[&str] = &["envoy.filters.http.stats", "istio.stats"];

impl Anchor {
    pub fn named(name: Option<&Str>) -> Self {
        match name {
            None => Self::None,
            Some(name) if name.is_empty() => Self::None,
            Some(name) if ISTIO_FRONT.contains(&name.as_str()) => Self::Front,
            Some(name) if ISTIO_END.contains(&name.as_str()) => Self::End,
            Some(name) => Self::Named(Str::new(current_name(name))),
        }
    }

    /// Whether an item is meant. Without an anchor all are.
    pub fn is_at(&self, item: &DynamicMessage) -> bool {
        match self {
            Self::None => true,
            Self::Named(name) => current_name(&text(item, "name")) == name.as_str(),
            Self::Front | Self::End => false,
        }
    }
}

/// Applies what changes the list. Says whether anything did.
pub fn edit(items: &mut Vec<Value>, patch: &Patch, anchor: &Anchor, shape: Shape) -> bool {
    let meant = |item: &Value| item.as_message().is_some_and(|m| anchor.is_at(m));
    edit_at(items, patch, anchor, &meant, shape)
}

/// The same with items that are found by more than their names.
pub fn edit_at(
    items: &mut Vec<Value>,
    patch: &Patch,
    anchor: &Anchor,
    meant: &dyn Fn(&Value) -> bool,
    shape: Shape,
) -> bool {
    let value = match act(patch) {
        Act::Remove => {
            let before = items.len();
            if !matches!(anchor, Anchor::None) {
                items.retain(|item| !meant(item));
            }
            return items.len() < before;
        }
        Act::Replace(value) => {
            let named = !matches!(anchor, Anchor::None);
            let item = items.iter_mut().find(|item| named && meant(item));
            return item
                .map(|item| *item = Value::Message(value.clone()))
                .is_some();
        }
        Act::Merge(..) | Act::Nothing => return false,
        Act::Put(value) => Value::Message(value.clone()),
    };
    let place = place(items, patch, anchor, &value, shape, meant);
    if let Some(place) = place {
        items.insert(place, value);
    }
    place.is_some()
}

/// Where a value goes; nowhere beside what is not there.
fn place(
    items: &[Value],
    patch: &Patch,
    anchor: &Anchor,
    value: &Value,
    shape: Shape,
    meant: &dyn Fn(&Value) -> bool,
) -> Option<usize> {
    let end = end(items, value, shape);
    let at = items.iter().position(meant);
    match (patch.spec.patch.operation, anchor) {
        (Operation::Add, _) => Some(by_class(items, patch.spec.patch.filter_class, end)),
        (Operation::InsertFirst, Anchor::Named(_) | Anchor::Front | Anchor::End)
            if shape.first_needs_anchor =>
        {
            at.map(|_| 0)
        }
        (Operation::InsertFirst, _)
        | (Operation::InsertBefore, Anchor::None | Anchor::Front)
        | (Operation::InsertAfter, Anchor::Front) => Some(0),
        (Operation::InsertAfter, Anchor::None | Anchor::End)
        | (Operation::InsertBefore, Anchor::End) => Some(end),
        (Operation::InsertBefore, Anchor::Named(_)) => at,
        (Operation::InsertAfter, Anchor::Named(_)) => at.map(|at| (at + 1).min(end.max(at))),
        (
            Operation::Invalid
            | Operation::Merge
            | Operation::MergeAndReplaceList
            | Operation::Remove
            | Operation::Replace,
            _,
        ) => None,
    }
}

/// Where the list ends for what is added: before an item behind which nothing can stand, unless it is one itself.
fn end(items: &[Value], new: &Value, shape: Shape) -> usize {
    let is_last = |item: &Value| {
        let name = item.as_message().map(|m| text(m, "name"));
        name.is_some_and(|name| shape.last.contains(&current_name(&name)))
    };
    match items.last() {
        Some(last) if is_last(last) && !is_last(new) => items.len() - 1,
        Some(_) | None => items.len(),
    }
}

const AUTHN: &[&str] = &["envoy.filters.http.jwt_authn"];
const AUTHZ: &[&str] = &["envoy.filters.http.ext_authz", "envoy.filters.http.rbac"];

/// After the mesh's own authentication, after its authorization, or before its statistics.
fn by_class(items: &[Value], class: FilterClass, end: usize) -> usize {
    let name = |item: &Value| {
        item.as_message()
            .map(|m| text(m, "name"))
            .unwrap_or_default()
    };
    let behind = |names: &[&str]| {
        let last = items
            .iter()
            .rposition(|item| names.contains(&name(item).as_str()));
        last.map(|at| at + 1)
    };
    match class {
        FilterClass::Unspecified => end,
        FilterClass::Authn => behind(AUTHN).unwrap_or(0),
        FilterClass::Authz => behind(AUTHZ).or_else(|| behind(AUTHN)).unwrap_or(0),
        FilterClass::Stats => items
            .iter()
            .position(|item| name(item) == "envoy.filters.http.grpc_stats")
            .unwrap_or(end),
    }
}
