//! Patches on a listener: itself, its filters, its chains, and the filters of these.

use prost_reflect::{DynamicMessage, Value};

use super::list::{self, Anchor, Shape};
use super::merge::{self, Lists};
use super::{Act, Applied, act, put_list, route, take_list};
use crate::config::envoy_filter::{ApplyTo, FilterChainMatch, FilterMatch, ListenerMatch};
use crate::ir::patches::{Patch, current_name};
use crate::schema::{self, child, text};
use crate::text::Str;

const MANAGER: &str = "envoy.filters.network.http_connection_manager";

/// Network filters behind which nothing can stand.
const LAST_NETWORK: &[&str] = &[
    MANAGER,
    "envoy.filters.network.direct_response",
    "envoy.filters.network.dubbo_proxy",
    "envoy.filters.network.echo",
    "envoy.filters.network.generic_proxy",
    "envoy.filters.network.redis_proxy",
    "envoy.filters.network.tcp_proxy",
    "envoy.filters.network.thrift_proxy",
];
const LAST_HTTP: &[&str] = &["envoy.filters.http.router"];

/// The listener as patched; none where it is removed. `patches` are those that meet its name and port.
pub fn listener(
    mut listener: DynamicMessage,
    patches: &[&Patch],
    applied: &mut Applied,
) -> Option<DynamicMessage> {
    inline_routes(&mut listener, patches, applied);
    for patch in of(patches, ApplyTo::Listener) {
        match act(patch) {
            Act::Remove => {
                applied.note(patch);
                return None;
            }
            Act::Merge(value, lists) => {
                applied.note(patch);
                merge::merge(&mut listener, value, lists);
            }
            Act::Replace(_) | Act::Put(_) | Act::Nothing => {}
        }
    }
    listener_filters(&mut listener, patches, applied);
    extensions(&mut listener, "listener_filters", patches, applied);
    chains(&mut listener, patches, applied);
    Some(listener)
}

fn of<'p>(patches: &'p [&'p Patch], apply: ApplyTo) -> impl Iterator<Item = &'p Patch> + 'p {
    let all = patches.iter().copied();
    all.filter(move |patch| patch.spec.apply_to == apply)
}

fn wanted(patch: &Patch) -> Option<&ListenerMatch> {
    patch.spec.matches.listener.as_ref()
}

fn wanted_filter(patch: &Patch) -> Option<&FilterMatch> {
    wanted(patch)?.filter_chain.as_ref()?.filter.as_ref()
}

fn listener_filters(listener: &mut DynamicMessage, patches: &[&Patch], applied: &mut Applied) {
    const SHAPE: Shape = Shape {
        last: &[],
        ..Shape::PLAIN
    };
    let mut filters = take_list(listener, "listener_filters");
    for patch in of(patches, ApplyTo::ListenerFilter) {
        let name = wanted(patch).map(|w| &w.listener_filter);
        let anchor = Anchor::named(name.filter(|n| !n.is_empty()));
        if list::edit(&mut filters, patch, &anchor, SHAPE) {
            applied.note(patch);
        }
    }
    for patch in of(patches, ApplyTo::ListenerFilter) {
        let name = wanted(patch).map(|w| &w.listener_filter);
        let anchor = Anchor::named(name.filter(|n| !n.is_empty()));
        merge_filters(&mut filters, patch, &anchor, applied);
    }
    put_list(listener, "listener_filters", filters);
}

fn chains(listener: &mut DynamicMessage, patches: &[&Patch], applied: &mut Applied) {
    let is_virtual = text(listener, "name").starts_with("virtual");
    let mut chains = take_list(listener, "filter_chains");
    chains.retain_mut(|chain| match chain {
        Value::Message(one) => chain_stays(one, patches, is_virtual, applied),
        _ => true,
    });
    if let Some(mut default) = child(listener, "default_filter_chain") {
        let stays = chain_stays(&mut default, patches, is_virtual, applied);
        match stays {
            true => {
                listener.set_field_by_name("default_filter_chain", Value::Message(default));
            }
            false => listener.clear_field_by_name("default_filter_chain"),
        }
    }
    for patch in of(patches, ApplyTo::FilterChain) {
        if let Act::Put(value) = act(patch) {
            applied.note(patch);
            chains.push(Value::Message(value.clone()));
        }
    }
    put_list(listener, "filter_chains", chains);
}

fn chain_stays(
    chain: &mut DynamicMessage,
    patches: &[&Patch],
    is_virtual: bool,
    applied: &mut Applied,
) -> bool {
    for patch in of(patches, ApplyTo::FilterChain) {
        if !matches_chain(wanted(patch), chain, is_virtual) {
            continue;
        }
        match act(patch) {
            Act::Remove => {
                applied.note(patch);
                return false;
            }
            Act::Merge(value, lists) => {
                applied.note(patch);
                merge_chain(chain, value, lists);
            }
            Act::Replace(_) | Act::Put(_) | Act::Nothing => {}
        }
    }
    network_filters(chain, patches, is_virtual, applied);
    true
}

/// TLS of the same transport socket is merged inside.
fn merge_chain(chain: &mut DynamicMessage, value: &DynamicMessage, lists: Lists) {
    let mut rest = value.clone();
    if let (Some(old), Some(new)) = (
        child(chain, "transport_socket"),
        child(value, "transport_socket"),
    ) && text(&old, "name") == text(&new, "name")
    {
        let merged = super::merge_typed(&old, &new);
        chain.set_field_by_name("transport_socket", Value::Message(merged));
        rest.clear_field_by_name("transport_socket");
    }
    merge::merge(chain, &rest, lists);
}

fn network_filters(
    chain: &mut DynamicMessage,
    patches: &[&Patch],
    is_virtual: bool,
    applied: &mut Applied,
) {
    const SHAPE: Shape = Shape {
        last: LAST_NETWORK,
        ..Shape::PLAIN
    };
    let meeting: Vec<&Patch> = patches
        .iter()
        .copied()
        .filter(|p| matches_chain(wanted(p), chain, is_virtual))
        .collect();
    let mut filters = take_list(chain, "filters");
    let anchor = |patch| Anchor::named(wanted_filter(patch).map(|f| &f.name));
    for patch in of(&meeting, ApplyTo::NetworkFilter) {
        if list::edit(&mut filters, patch, &anchor(patch), SHAPE) {
            applied.note(patch);
        }
    }
    for patch in of(&meeting, ApplyTo::NetworkFilter) {
        merge_filters(&mut filters, patch, &anchor(patch), applied);
    }
    put_list(chain, "filters", filters);
    extensions(chain, "filters", patches, applied);
    let mut filters = take_list(chain, "filters");
    for filter in filters.iter_mut().filter_map(Value::as_message_mut) {
        let name = text(filter, "name");
        if current_name(&name) == MANAGER {
            let http = of(&meeting, ApplyTo::HttpFilter);
            let http: Vec<&Patch> = http.filter(|p| meets_manager(p, &name)).collect();
            let added = of(patches, ApplyTo::ExtensionConfig);
            let http: Vec<&Patch> = http.into_iter().chain(added).collect();
            http_filters(filter, &http, applied);
        }
    }
    put_list(chain, "filters", filters);
}

fn meets_manager(patch: &Patch, name: &str) -> bool {
    wanted_filter(patch)
        .is_none_or(|f| f.name.is_empty() || current_name(&f.name) == current_name(name))
}

fn http_filters(filter: &mut DynamicMessage, patches: &[&Patch], applied: &mut Applied) {
    const SHAPE: Shape = Shape {
        last: LAST_HTTP,
        ..Shape::PLAIN
    };
    if patches.is_empty() {
        return;
    }
    edit_manager(filter, |manager| {
        let mut filters = take_list(manager, "http_filters");
        let named = |patch| {
            let sub = wanted_filter(patch).and_then(|f| f.sub_filter.as_ref());
            Anchor::named(sub.map(|s| &s.name))
        };
        for patch in of(patches, ApplyTo::HttpFilter) {
            if list::edit(&mut filters, patch, &named(patch), SHAPE) {
                applied.note(patch);
            }
        }
        for patch in of(patches, ApplyTo::HttpFilter) {
            merge_filters(&mut filters, patch, &named(patch), applied);
        }
        put_list(manager, "http_filters", filters);
        extensions(manager, "http_filters", patches, applied);
    });
}

/// A filter that says that its configuration is to be discovered, of which a patch adds it, has it inside.
fn extensions(holder: &mut DynamicMessage, field: &str, patches: &[&Patch], applied: &mut Applied) {
    if of(patches, ApplyTo::ExtensionConfig).next().is_none() {
        return;
    }
    let mut filters = take_list(holder, field);
    for filter in filters.iter_mut().filter_map(Value::as_message_mut) {
        if !filter.has_field_by_name("config_discovery") {
            continue;
        }
        let name = text(filter, "name");
        let named = of(patches, ApplyTo::ExtensionConfig).find_map(|patch| {
            let value = patch.value.as_ref().filter(|v| text(v, "name") == name)?;
            Some((patch, child(value, "typed_config")?))
        });
        if let Some((patch, config)) = named {
            applied.note(patch);
            filter.set_field_by_name("typed_config", Value::Message(config));
        }
    }
    put_list(holder, field, filters);
}

/// Takes the manager out of its filter, and puts it back.
fn edit_manager(filter: &mut DynamicMessage, edit: impl FnOnce(&mut DynamicMessage)) {
    let manager = child(filter, "typed_config").and_then(|any| schema::unpack(&any));
    if let Some(mut manager) = manager {
        edit(&mut manager);
        if let Some(any) = schema::pack(&manager) {
            filter.set_field_by_name("typed_config", Value::Message(any));
        }
    }
}

/// Into all filters that match, or into every one.
fn merge_filters(filters: &mut [Value], patch: &Patch, anchor: &Anchor, applied: &mut Applied) {
    let Act::Merge(value, _) = act(patch) else {
        return;
    };
    for filter in filters.iter_mut().filter_map(Value::as_message_mut) {
        let config = child(filter, "typed_config");
        if let Some(config) = config.filter(|_| anchor.is_at(filter)) {
            applied.note(patch);
            let name = text(value, "name");
            if !name.is_empty() {
                filter.set_field_by_name("name", Value::String(name));
            }
            if let Some(new) = child(value, "typed_config") {
                let merged = merge::merge_any(&config, &new);
                filter.set_field_by_name("typed_config", Value::Message(merged));
            }
        }
    }
}

fn matches_chain(wanted: Option<&ListenerMatch>, chain: &DynamicMessage, is_virtual: bool) -> bool {
    let Some(wanted) = wanted else {
        return true;
    };
    let found = child(chain, "filter_chain_match");
    let port = found.as_ref().and_then(|m| child(m, "destination_port"));
    let port = port.and_then(|p| p.get_field_by_name("value")?.as_u32());
    if is_virtual && wanted.port_number != 0 && port != Some(wanted.port_number) {
        return false;
    }
    let Some(filter_chain) = &wanted.filter_chain else {
        return true;
    };
    let FilterChainMatch {
        name,
        sni,
        transport_protocol,
        application_protocols,
        filter: _,
        destination_port,
        transport_socket,
    } = filter_chain;
    let list = |field: &str| -> Vec<Str> {
        let items = found.as_ref().map(|m| schema::items(m, field));
        let items = items.into_iter().flatten();
        items.filter_map(|v| v.as_str().map(Str::new)).collect()
    };
    let transport = found.as_ref().map(|m| text(m, "transport_protocol"));
    let socket = child(chain, "transport_socket").map(|s| text(&s, "name"));
    let protocols = list("application_protocols");
    let mut asked = application_protocols.split(',').filter(|p| !p.is_empty());
    (name.is_empty() || *name == text(chain, "name"))
        && (sni.is_empty() || list("server_names").contains(sni))
        && (transport_protocol.is_empty() || transport.as_deref() == Some(transport_protocol))
        && asked.all(|p| protocols.contains(&Str::new(p)))
        && (*destination_port == 0 || port == Some(*destination_port))
        && (transport_socket.is_empty() || socket.as_deref() == Some(transport_socket))
}

/// Route tables that stand inside their listener, as those of inbound ports do.
fn inline_routes(listener: &mut DynamicMessage, patches: &[&Patch], applied: &mut Applied) {
    let routes: Vec<&Patch> = patches
        .iter()
        .copied()
        .filter(|p| p.spec.apply_to.is_of_routes())
        .collect();
    if routes.is_empty() {
        return;
    }
    let mut chains = take_list(listener, "filter_chains");
    for chain in chains.iter_mut().filter_map(Value::as_message_mut) {
        let mut filters = take_list(chain, "filters");
        let managers = filters.iter_mut().filter_map(Value::as_message_mut);
        for filter in managers.filter(|f| text(f, "name") == MANAGER) {
            edit_manager(filter, |manager| {
                if let Some(table) = child(manager, "route_config") {
                    let table = route::inline(table, &routes, applied);
                    manager.set_field_by_name("route_config", Value::Message(table));
                }
            });
        }
        put_list(chain, "filters", filters);
    }
    put_list(listener, "filter_chains", chains);
}
