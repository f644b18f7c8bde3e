//! Merging one message into another, as Istio's MERGE does.
//!
//! Lists are appended to, entries of mappings replaced, messages merged. Durations are replaced, as in Istio, and so are
//! wrappers: a `false` or 0 that a user wrote is meant.

use prost_reflect::{DynamicMessage, Kind, ReflectMessage, Value};

use crate::schema;

/// What becomes of a list that both have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lists {
    Append,
    Replace,
}

const REPLACED: &[&str] = &[
    "google.protobuf.Any",
    "google.protobuf.BoolValue",
    "google.protobuf.BytesValue",
    "google.protobuf.DoubleValue",
    "google.protobuf.Duration",
    "google.protobuf.FloatValue",
    "google.protobuf.Int32Value",
    "google.protobuf.Int64Value",
    "google.protobuf.StringValue",
    "google.protobuf.UInt32Value",
    "google.protobuf.UInt64Value",
];

/// Both are of one type.
pub fn merge(into: &mut DynamicMessage, from: &DynamicMessage, lists: Lists) {
    for (field, value) in from.fields() {
        let replaced = match field.kind() {
            Kind::Message(message) => REPLACED.contains(&message.full_name()),
            _ => true,
        };
        let known = into.has_field(&field);
        match (value, known) {
            (Value::List(new), true) if lists == Lists::Append => {
                if let Value::List(items) = into.get_field_mut(&field) {
                    items.extend(new.iter().cloned());
                }
            }
            (Value::Map(new), true) => {
                if let Value::Map(entries) = into.get_field_mut(&field) {
                    entries.extend(new.iter().map(|(k, v)| (k.clone(), v.clone())));
                }
            }
            (Value::Message(new), true) if !replaced => {
                if let Value::Message(old) = into.get_field_mut(&field) {
                    merge(old, new, lists);
                }
            }
            (other, _) => into.set_field(&field, other.clone()),
        }
    }
}

/// Merges what one `Any` carries into what another does. Another type takes its place.
pub fn merge_any(into: &DynamicMessage, from: &DynamicMessage) -> DynamicMessage {
    let merged = || {
        let mut old = schema::unpack(into)?;
        let new = schema::unpack(from)?;
        if old.descriptor() != new.descriptor() {
            return None;
        }
        merge(&mut old, &new, Lists::Append);
        schema::pack(&old)
    };
    merged().unwrap_or_else(|| from.clone())
}
