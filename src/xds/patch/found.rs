//! What a message that users wrote refers to, and what it waits for.

use std::collections::BTreeSet;

use prost_reflect::{DynamicMessage, ReflectMessage, Value};

use crate::schema::{self, child, text};
use crate::text::Str;
use crate::xds::{Ref, ResourceType, Warming};

/// Clusters and route tables that are named anywhere inside.
pub fn refs(message: &DynamicMessage) -> BTreeSet<Ref> {
    let mut out = BTreeSet::new();
    walk(message, &mut |inside| {
        let name = inside.descriptor().full_name().to_owned();
        let weighted = name.ends_with(".ClusterWeight");
        let fields = [
            ("cluster", ResourceType::Cluster, true),
            ("name", ResourceType::Cluster, weighted),
            (
                "cluster_name",
                ResourceType::Cluster,
                name.ends_with(".EnvoyGrpc"),
            ),
            ("route_config_name", ResourceType::Route, true),
        ];
        for (field, kind, counts) in fields {
            let named = text(inside, field);
            if counts && !named.is_empty() {
                out.insert(Ref {
                    kind,
                    name: Str::new(named),
                });
            }
        }
    });
    out
}

/// Why a cluster stays warming.
pub fn warming(cluster: &DynamicMessage) -> Warming {
    let kind = cluster.get_field_by_name("type");
    let kind = kind.and_then(|v| v.as_enum_number()).unwrap_or_default();
    // STRICT_DNS and LOGICAL_DNS; a cluster type of an extension may look names up as well.
    if matches!(kind, 1 | 2) || child(cluster, "cluster_type").is_some() {
        return Warming::Dns;
    }
    if !schema::items(cluster, "health_checks").is_empty() {
        return Warming::HealthCheck;
    }
    let mut secrets = BTreeSet::new();
    walk(cluster, &mut |inside| {
        if inside
            .descriptor()
            .full_name()
            .ends_with(".SdsSecretConfig")
        {
            secrets.insert(Str::new(text(inside, "name")));
        }
    });
    match secrets.is_empty() {
        true => Warming::Plain,
        false => Warming::Secrets(secrets.into_iter().collect()),
    }
}

pub fn is_eds(cluster: &DynamicMessage) -> bool {
    let kind = cluster.get_field_by_name("type");
    kind.and_then(|v| v.as_enum_number()) == Some(3)
}

/// Every message inside, those of `Any` as what they carry.
fn walk(message: &DynamicMessage, see: &mut dyn FnMut(&DynamicMessage)) {
    if message.descriptor().full_name() == schema::ANY {
        if let Some(inside) = schema::unpack(message) {
            walk(&inside, see);
        }
        return;
    }
    see(message);
    for (_, value) in message.fields() {
        walk_value(value, see);
    }
}

fn walk_value(value: &Value, see: &mut dyn FnMut(&DynamicMessage)) {
    match value {
        Value::Message(inside) => walk(inside, see),
        Value::List(items) => items.iter().for_each(|item| walk_value(item, see)),
        Value::Map(entries) => entries.values().for_each(|item| walk_value(item, see)),
        _ => {}
    }
}
