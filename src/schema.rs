//! Envoy's API by reflection: messages read from users' JSON, judged by their own rules, and taken apart.
//!
//! Nothing is decoded before somebody asks: a mesh without EnvoyFilters pays nothing for it.

mod reading;
mod rules;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage, Value};

pub use self::reading::read;
pub use self::rules::{Extent, broken};

/// Descriptors of Envoy's API, trimmed (proto/README.md).
static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(&include_bytes!("../proto/envoy.bin")[..])
        .expect("embedded at build time, and decoded by the tests below")
});

/// What a message cannot be: where inside of it, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// Below the message, such as `typed_config.rules[0]`; empty for itself.
    pub path: String,
    pub message: String,
}

pub(crate) const ANY: &str = "google.protobuf.Any";

/// By its full name, such as `envoy.config.cluster.v3.Cluster`.
pub fn message(name: &str) -> Option<MessageDescriptor> {
    POOL.get_message_by_name(name)
}

/// By the `@type` of an `Any`, or its `type_url`.
pub fn by_url(url: &str) -> Option<MessageDescriptor> {
    message(url.rsplit_once('/').map_or(url, |(_, name)| name))
}

/// What an `Any` carries, if it is known and sound.
pub fn unpack(any: &DynamicMessage) -> Option<DynamicMessage> {
    let url = any.get_field_by_name("type_url")?;
    let body = any.get_field_by_name("value")?;
    DynamicMessage::decode(by_url(url.as_str()?)?, body.as_bytes()?.clone()).ok()
}

/// An `Any` that carries the message.
pub fn pack(message: &DynamicMessage) -> Option<DynamicMessage> {
    let mut any = DynamicMessage::new(self::message(ANY)?);
    let url = format!("type.googleapis.com/{}", message.descriptor().full_name());
    any.set_field_by_name("type_url", Value::String(url));
    any.set_field_by_name("value", Value::Bytes(message.encode_to_vec().into()));
    Some(any)
}

/// A text field's text; empty where it is unset or another thing.
pub fn text(message: &DynamicMessage, field: &str) -> String {
    let value = message.get_field_by_name(field);
    let value = value.as_deref().and_then(Value::as_str);
    value.unwrap_or_default().to_owned()
}

/// A message field, if it is set.
pub fn child(message: &DynamicMessage, field: &str) -> Option<DynamicMessage> {
    if !message.has_field_by_name(field) {
        return None;
    }
    let value = message.get_field_by_name(field)?;
    value.as_message().cloned()
}

/// The items of a repeated field.
pub fn items(message: &DynamicMessage, field: &str) -> Vec<Value> {
    let value = message.get_field_by_name(field);
    let list = value.as_deref().and_then(Value::as_list);
    list.unwrap_or_default().to_vec()
}
