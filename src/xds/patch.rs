//! Resources as EnvoyFilters patch them: decoded by reflection, changed, encoded again. Which patches a resource may
//! meet is decided in `ir::patches`.
//!
//! What no patch meets stays the resource that it was, shared with all who have it. What is patched is made once for all
//! who have the same patches of it.

mod cluster;
mod found;
mod list;
mod listener;
mod merge;
mod route;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use prost::Message;
use prost_reflect::{DynamicMessage, Value};

use self::merge::Lists;
use super::encode::{self, Cache, Part, Patched};
use super::{Encoded, Ref, ResourceType, Warming};
use crate::config::Source;
use crate::config::envoy_filter::Operation;
use crate::ir::RouteTable;
use crate::ir::patches::Patch;
use crate::schema::{self, child, text};
use crate::text::Str;

/// Raise when a patch gives other bytes for an equal resource.
const EPOCH: u32 = 1;

/// The patches that did anything, and what they brought in.
#[derive(Debug, Default)]
pub struct Applied {
    sources: BTreeSet<Source>,
    refs: BTreeSet<Ref>,
}

impl Applied {
    fn note(&mut self, patch: &Patch) {
        if self.sources.insert(patch.source.clone()) {
            self.refs.extend(patch.value.iter().flat_map(found::refs));
        }
    }

    fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }
}

/// A cluster or listener as patched; none where it is removed. Of other types nothing is patched here.
pub fn resource(
    cache: &mut Cache,
    base: &Arc<Encoded>,
    patches: &[Arc<Patch>],
) -> Option<Arc<Encoded>> {
    let patch = match base.kind {
        ResourceType::Cluster => cluster::cluster,
        ResourceType::Listener => listener::listener,
        ResourceType::Endpoint
        | ResourceType::Route
        | ResourceType::ScopedRoute
        | ResourceType::Secret => return Some(base.clone()),
    };
    if patches.is_empty() {
        return Some(base.clone());
    }
    let place = place_of(&base.version, patches);
    if let Some(known) = cache.patched(place) {
        return Some(known);
    }
    let before = decoded(base)?;
    let patches: Vec<&Patch> = patches.iter().map(|p| &**p).collect();
    let mut applied = Applied::default();
    let Some(after) = patch(before, &patches, &mut applied) else {
        cache.removing.append(&mut applied.sources);
        return None;
    };
    if applied.is_empty() {
        cache.keep_patched(place, base);
        return Some(base.clone());
    }
    let refs = base.refs.iter().flat_map(|refs| refs.iter().cloned());
    applied.refs.extend(refs);
    let version = encode::version_of("patched", EPOCH, &(&*base.version, contents(&patches)));
    let encoded = made(base.kind, &base.name, version, &after, applied);
    cache.keep_patched(place, &encoded);
    Some(encoded)
}

/// What a patch adds as a resource of its own.
pub fn added(cache: &mut Cache, kind: ResourceType, patch: &Patch) -> Option<Arc<Encoded>> {
    let value = patch.value.as_ref()?;
    let place = patch.identity();
    if let Some(known) = cache.patched(place) {
        return Some(known);
    }
    let mut applied = Applied::default();
    applied.note(patch);
    let name = Str::new(text(value, "name"));
    let version = encode::version_of("added", EPOCH, &patch.content);
    let encoded = made(kind, &name, version, value, applied);
    cache.keep_patched(place, &encoded);
    Some(encoded)
}

/// A table of these parts with its patches, run by run: an edit makes one run anew.
pub fn table(
    cache: &mut Cache,
    table: &RouteTable,
    parts: &[Arc<Part>],
    patches: &[Arc<Patch>],
) -> Option<Arc<Encoded>> {
    let list: Vec<&Patch> = patches.iter().map(|p| &**p).collect();
    let mut parts: Vec<Arc<Part>> = parts
        .iter()
        .map(|part| run(cache, part, patches, &list))
        .collect::<Option<_>>()?;
    let mut applied = Applied::default();
    let body = super::route::head(table).encode_to_vec();
    let mut head = DynamicMessage::decode(table_type()?, &body[..]).ok()?;
    route::head(&mut head, &list, &mut applied);
    let merged = take_list(&mut head, "virtual_hosts").into_iter();
    let merged = merged.filter_map(|host| match host {
        Value::Message(host) => route::virtual_host(host, &list, &mut applied),
        _ => None,
    });
    let mut hosts: Vec<DynamicMessage> = merged.collect();
    hosts.extend(route::added(&list, &mut applied));
    let contents = contents(&list);
    if !hosts.is_empty() {
        let version = encode::version_of("vhosts of patches", EPOCH, &(&table.name, &contents));
        let bytes = of_hosts(hosts)?;
        let refs = applied.refs.iter().cloned();
        parts.push(cache.part_of(version, &bytes, refs, Patched::default()));
    }
    let body = head.encode_to_vec();
    Some(cache.assemble(
        ResourceType::Route,
        super::route::TABLE_EPOCH,
        &table.name,
        (&(table, EPOCH, contents), body),
        &parts,
        applied.sources,
    ))
}

/// Some virtual hosts of a table.
fn run(
    cache: &mut Cache,
    base: &Arc<Part>,
    patches: &[Arc<Patch>],
    list: &[&Patch],
) -> Option<Arc<Part>> {
    let place = place_of(&base.version.to_string(), patches);
    if let Some(known) = cache.patched_part(place) {
        return Some(known);
    }
    let mut table = DynamicMessage::decode(table_type()?, base.bytes.clone()).ok()?;
    let mut applied = Applied::default();
    let hosts = take_list(&mut table, "virtual_hosts").into_iter();
    let hosts = hosts.filter_map(|host| match host {
        Value::Message(host) => route::virtual_host(host, list, &mut applied),
        _ => None,
    });
    let hosts: Vec<DynamicMessage> = hosts.collect();
    let part = if applied.is_empty() {
        base.clone()
    } else {
        let version = (base.version.0, contents(list));
        let version = encode::version_of("patched run", EPOCH, &version);
        let Applied { sources, refs } = applied;
        let refs = base.refs.iter().cloned().chain(refs);
        cache.part_of(version, &of_hosts(hosts)?, refs, Patched::by(sources))
    };
    cache.keep_patched_part(place, &part);
    Some(part)
}

fn table_type() -> Option<prost_reflect::MessageDescriptor> {
    schema::by_url(ResourceType::Route.type_url())
}

/// Virtual hosts as the fields of a table that they are.
fn of_hosts(hosts: Vec<DynamicMessage>) -> Option<Vec<u8>> {
    let mut table = DynamicMessage::new(table_type()?);
    let hosts = hosts.into_iter().map(Value::Message).collect();
    put_list(&mut table, "virtual_hosts", hosts);
    Some(table.encode_to_vec())
}

fn made(
    kind: ResourceType,
    name: &Str,
    version: super::Version,
    message: &DynamicMessage,
    applied: Applied,
) -> Arc<Encoded> {
    let is_cluster = kind == ResourceType::Cluster;
    let Applied { sources, refs } = applied;
    let refs: Vec<Ref> = if is_cluster {
        Vec::new()
    } else {
        refs.into_iter().collect()
    };
    Arc::new(Encoded {
        warming: if is_cluster {
            found::warming(message)
        } else {
            Warming::Plain
        },
        eds: is_cluster && found::is_eds(message),
        patched: Patched::by(sources),
        ..encode::encode(kind, name, version, &message.encode_to_vec(), refs.into())
    })
}

fn decoded(encoded: &Encoded) -> Option<DynamicMessage> {
    let descriptor = schema::by_url(encoded.kind.type_url())?;
    DynamicMessage::decode(descriptor, &encoded.body()?[..]).ok()
}

/// Under which a patched form is kept: with where the patches stand, so that each form knows its own.
fn place_of(version: &str, patches: &[Arc<Patch>]) -> u128 {
    let identities: Vec<u128> = patches.iter().map(|p| p.identity()).collect();
    encode::version_of("place", EPOCH, &(version, identities)).0
}

fn contents(patches: &[&Patch]) -> Vec<u128> {
    patches.iter().map(|p| p.content).collect()
}

/// What a patch does, with its value.
enum Act<'p> {
    Remove,
    Merge(&'p DynamicMessage, Lists),
    Replace(&'p DynamicMessage),
    /// Beside what is there; of what is no list, anywhere.
    Put(&'p DynamicMessage),
    /// Without a value, where one is needed: such a patch was refused before.
    Nothing,
}

fn act(patch: &Patch) -> Act<'_> {
    match (patch.spec.patch.operation, &patch.value) {
        (Operation::Remove, _) => Act::Remove,
        (_, None) | (Operation::Invalid, _) => Act::Nothing,
        (Operation::Merge, Some(value)) => Act::Merge(value, Lists::Append),
        (Operation::MergeAndReplaceList, Some(value)) => Act::Merge(value, Lists::Replace),
        (Operation::Replace, Some(value)) => Act::Replace(value),
        (
            Operation::Add
            | Operation::InsertBefore
            | Operation::InsertAfter
            | Operation::InsertFirst,
            Some(value),
        ) => Act::Put(value),
    }
}

/// Merges what two extensions of one name are configured with.
fn merge_typed(old: &DynamicMessage, new: &DynamicMessage) -> DynamicMessage {
    let mut merged = old.clone();
    if let Some(config) = child(new, "typed_config") {
        let config = match child(old, "typed_config") {
            Some(old) => merge::merge_any(&old, &config),
            None => config,
        };
        merged.set_field_by_name("typed_config", Value::Message(config));
    }
    merged
}

fn take_list(message: &mut DynamicMessage, field: &str) -> Vec<Value> {
    match message.take_field_by_name(field) {
        Some(Value::List(items)) => items,
        Some(_) | None => Vec::new(),
    }
}

fn put_list(message: &mut DynamicMessage, field: &str, items: Vec<Value>) {
    if !items.is_empty() {
        message.set_field_by_name(field, Value::List(items));
    }
}
