//! Patches on route tables: the table, its virtual hosts, their routes.

use prost_reflect::{DynamicMessage, Value};

use super::list::{self, Anchor, Shape};
use super::merge;
use super::{Act, Applied, act, put_list, take_list};
use crate::config::envoy_filter::{ApplyTo, RouteAction, VirtualHostMatch};
use crate::ir::patches::{self, Patch};
use crate::schema::{self, text};

/// A whole table. `patches` are those of routes; which of them meet the table is judged here.
pub fn inline(
    mut table: DynamicMessage,
    patches: &[&Patch],
    applied: &mut Applied,
) -> DynamicMessage {
    let name = text(&table, "name");
    let meets = |p: &&&Patch| {
        patches::matches_table(p.spec.matches.route_configuration.as_ref(), &name, None)
    };
    let meeting: Vec<&Patch> = patches.iter().filter(meets).copied().collect();
    if meeting.is_empty() {
        return table;
    }
    head(&mut table, &meeting, applied);
    let hosts = take_list(&mut table, "virtual_hosts").into_iter();
    let hosts = hosts.filter_map(|host| match host {
        Value::Message(host) => virtual_host(host, &meeting, applied).map(Value::Message),
        other => Some(other),
    });
    let mut hosts: Vec<Value> = hosts.collect();
    hosts.extend(added(&meeting, applied).into_iter().map(Value::Message));
    put_list(&mut table, "virtual_hosts", hosts);
    table
}

/// What is merged into the table itself, its virtual hosts aside or not.
pub fn head(table: &mut DynamicMessage, patches: &[&Patch], applied: &mut Applied) {
    for patch in of(patches, ApplyTo::RouteConfiguration) {
        if let Act::Merge(value, lists) = act(patch) {
            applied.note(patch);
            merge::merge(table, value, lists);
        }
    }
}

/// Virtual hosts of the patches' own.
pub fn added(patches: &[&Patch], applied: &mut Applied) -> Vec<DynamicMessage> {
    let hosts = of(patches, ApplyTo::VirtualHost).filter_map(|patch| match act(patch) {
        Act::Put(value) => {
            applied.note(patch);
            Some(value.clone())
        }
        Act::Remove | Act::Merge(..) | Act::Replace(_) | Act::Nothing => None,
    });
    hosts.collect()
}

/// None where it is removed.
pub fn virtual_host(
    mut host: DynamicMessage,
    patches: &[&Patch],
    applied: &mut Applied,
) -> Option<DynamicMessage> {
    for patch in of(patches, ApplyTo::VirtualHost) {
        if !matches_host(patch, &host) {
            continue;
        }
        match act(patch) {
            Act::Remove => {
                applied.note(patch);
                return None;
            }
            Act::Replace(value) => {
                applied.note(patch);
                host = value.clone();
            }
            Act::Merge(value, lists) => {
                applied.note(patch);
                merge::merge(&mut host, value, lists);
            }
            Act::Put(_) | Act::Nothing => {}
        }
    }
    routes(&mut host, patches, applied);
    Some(host)
}

/// What is removed or merged first, then what is put beside.
fn routes(host: &mut DynamicMessage, patches: &[&Patch], applied: &mut Applied) {
    const SHAPE: Shape = Shape {
        first_needs_anchor: true,
        ..Shape::PLAIN
    };
    let meeting: Vec<&Patch> = of(patches, ApplyTo::HttpRoute)
        .filter(|p| matches_host(p, host))
        .collect();
    if meeting.is_empty() {
        return;
    }
    let mut routes = take_list(host, "routes");
    routes.retain_mut(|route| match route {
        Value::Message(route) => route_stays(route, &meeting, applied),
        _ => true,
    });
    for patch in meeting {
        if !matches!(act(patch), Act::Put(_)) {
            continue;
        }
        let anchor = match wanted_host(patch).and_then(|v| v.route.as_ref()) {
            Some(route) => Anchor::Named(route.name.clone()),
            None => Anchor::None,
        };
        let meant = |route: &Value| route.as_message().is_some_and(|r| matches_route(patch, r));
        if list::edit_at(&mut routes, patch, &anchor, &meant, SHAPE) {
            applied.note(patch);
        }
    }
    put_list(host, "routes", routes);
}

fn route_stays(route: &mut DynamicMessage, patches: &[&Patch], applied: &mut Applied) -> bool {
    for patch in patches {
        if !matches_route(patch, route) {
            continue;
        }
        match act(patch) {
            Act::Remove => {
                applied.note(patch);
                return false;
            }
            Act::Merge(value, lists) => {
                applied.note(patch);
                merge::merge(route, value, lists);
            }
            Act::Replace(_) | Act::Put(_) | Act::Nothing => {}
        }
    }
    true
}

fn of<'p>(patches: &'p [&'p Patch], apply: ApplyTo) -> impl Iterator<Item = &'p Patch> + 'p {
    let all = patches.iter().copied();
    all.filter(move |patch| patch.spec.apply_to == apply)
}

fn wanted_host(patch: &Patch) -> Option<&VirtualHostMatch> {
    let table = patch.spec.matches.route_configuration.as_ref()?;
    table.vhost.as_ref()
}

fn matches_host(patch: &Patch, host: &DynamicMessage) -> bool {
    let Some(wanted) = wanted_host(patch) else {
        return true;
    };
    let named = wanted.name.is_empty() || wanted.name == text(host, "name");
    let of_domain = || {
        let domains = schema::items(host, "domains");
        domains
            .iter()
            .any(|d| d.as_str() == Some(&wanted.domain_name))
    };
    named && (wanted.domain_name.is_empty() || of_domain())
}

fn matches_route(patch: &Patch, route: &DynamicMessage) -> bool {
    let Some(wanted) = wanted_host(patch).and_then(|v| v.route.as_ref()) else {
        return true;
    };
    let acts = |field: &str| route.has_field_by_name(field);
    (wanted.name.is_empty() || wanted.name == text(route, "name"))
        && match wanted.action {
            RouteAction::Any => true,
            RouteAction::Route => acts("route"),
            RouteAction::Redirect => acts("redirect"),
            RouteAction::DirectResponse => acts("direct_response"),
        }
}
