//! JSON as users write it, read into a message by protobuf's rules; every fault keeps its path.

use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};
use serde::de::DeserializeSeed;
use serde_json::Value as Json;

use super::{ANY, Unfit, by_url, pack};

/// Messages whose JSON is not their fields.
const SPECIAL: &[&str] = &[
    "google.protobuf.BoolValue",
    "google.protobuf.BytesValue",
    "google.protobuf.DoubleValue",
    "google.protobuf.Duration",
    "google.protobuf.FloatValue",
    "google.protobuf.Int32Value",
    "google.protobuf.Int64Value",
    "google.protobuf.ListValue",
    "google.protobuf.StringValue",
    "google.protobuf.Struct",
    "google.protobuf.Timestamp",
    "google.protobuf.UInt32Value",
    "google.protobuf.UInt64Value",
    "google.protobuf.Value",
];

/// Messages that carry another one's JSON: Envoy itself turns them into it.
const TYPED_STRUCTS: &[&str] = &["udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"];

/// The message, or all that is wrong with its JSON.
pub fn read(descriptor: MessageDescriptor, json: &Json) -> Result<DynamicMessage, Vec<Unfit>> {
    let mut reader = Reader { unfit: Vec::new() };
    let message = reader.message(descriptor, json, "");
    match message {
        Some(message) if reader.unfit.is_empty() => Ok(message),
        _ => Err(reader.unfit),
    }
}

struct Reader {
    unfit: Vec<Unfit>,
}

impl Reader {
    fn fault(&mut self, path: &str, message: impl Into<String>) {
        self.unfit.push(Unfit {
            path: path.to_owned(),
            message: message.into(),
        });
    }

    fn message(
        &mut self,
        descriptor: MessageDescriptor,
        json: &Json,
        path: &str,
    ) -> Option<DynamicMessage> {
        let name = descriptor.full_name().to_owned();
        if name == ANY {
            return self.any(json, path);
        }
        if SPECIAL.contains(&name.as_str()) {
            return self.special(descriptor, json, path);
        }
        let Json::Object(entries) = json else {
            self.fault(path, format!("a {} is a mapping", short(&name)));
            return None;
        };
        let mut message = DynamicMessage::new(descriptor.clone());
        for (key, value) in entries {
            let inside = below(path, key);
            let field = descriptor
                .get_field_by_json_name(key)
                .or_else(|| descriptor.get_field_by_name(key));
            let Some(field) = field else {
                self.fault(&inside, format!("{name} has no such field"));
                continue;
            };
            if let Some(value) = self.field(&field, value, &inside) {
                message.set_field(&field, value);
            }
        }
        if TYPED_STRUCTS.contains(&name.as_str()) {
            self.typed_struct(entries, path);
        }
        Some(message)
    }

    fn any(&mut self, json: &Json, path: &str) -> Option<DynamicMessage> {
        let Json::Object(entries) = json else {
            self.fault(path, "a typed config is a mapping with an `@type`");
            return None;
        };
        let Some(url) = entries.get("@type").and_then(Json::as_str) else {
            self.fault(path, "a typed config needs an `@type`");
            return None;
        };
        let descriptor = self.known(url, &below(path, "@type"))?;
        let mut body = entries.clone();
        body.remove("@type");
        let name = descriptor.full_name();
        let body = match (SPECIAL.contains(&name) || name == ANY, body.remove("value")) {
            (true, Some(value)) => value,
            (_, Some(value)) => {
                body.insert("value".to_owned(), value);
                Json::Object(body)
            }
            (_, None) => Json::Object(body),
        };
        let message = self.message(descriptor, &body, path)?;
        pack(&message)
    }

    /// What a TypedStruct says of another message must be sound for that one.
    fn typed_struct(&mut self, entries: &serde_json::Map<String, Json>, path: &str) {
        let url = entries.get("type_url").or_else(|| entries.get("typeUrl"));
        let Some(url) = url.and_then(Json::as_str) else {
            self.fault(path, "a TypedStruct needs a `type_url`");
            return;
        };
        let Some(descriptor) = self.known(url, &below(path, "type_url")) else {
            return;
        };
        if let Some(value) = entries.get("value") {
            self.message(descriptor, value, &below(path, "value"));
        }
    }

    fn known(&mut self, url: &str, path: &str) -> Option<MessageDescriptor> {
        let found = by_url(url);
        if found.is_none() {
            let name = url.rsplit_once('/').map_or(url, |(_, name)| name);
            self.fault(path, format!("Envoy's API has no `{name}`"));
        }
        found
    }

    fn special(
        &mut self,
        descriptor: MessageDescriptor,
        json: &Json,
        path: &str,
    ) -> Option<DynamicMessage> {
        let name = descriptor.full_name().to_owned();
        match descriptor.deserialize(json.clone()) {
            Ok(message) => Some(message),
            Err(why) => {
                self.fault(path, format!("this is no {}: {why}", short(&name)));
                None
            }
        }
    }

    fn field(&mut self, field: &FieldDescriptor, json: &Json, path: &str) -> Option<Value> {
        // As in protobuf's JSON, null is the same as absent.
        let is_value =
            matches!(field.kind(), Kind::Message(m) if m.full_name() == "google.protobuf.Value");
        if json.is_null() && !is_value {
            return None;
        }
        if field.is_map() {
            return self.map(field, json, path);
        }
        if field.is_list() {
            let Json::Array(items) = json else {
                self.fault(path, "this is a list");
                return None;
            };
            let items = items.iter().enumerate();
            let items = items
                .filter_map(|(i, item)| self.single(&field.kind(), item, &format!("{path}[{i}]")));
            return Some(Value::List(items.collect()));
        }
        self.single(&field.kind(), json, path)
    }

    fn map(&mut self, field: &FieldDescriptor, json: &Json, path: &str) -> Option<Value> {
        let Kind::Message(entry) = field.kind() else {
            return None;
        };
        let Json::Object(entries) = json else {
            self.fault(path, "this is a mapping");
            return None;
        };
        let (key_kind, kind) = (
            entry.map_entry_key_field().kind(),
            entry.map_entry_value_field().kind(),
        );
        let mut out = std::collections::HashMap::new();
        for (key, value) in entries {
            let inside = below(path, key);
            let Some(key) = map_key(&key_kind, key) else {
                self.fault(&inside, "this is no key of the mapping");
                continue;
            };
            if let Some(value) = self.single(&kind, value, &inside) {
                out.insert(key, value);
            }
        }
        Some(Value::Map(out))
    }

    fn single(&mut self, kind: &Kind, json: &Json, path: &str) -> Option<Value> {
        let value = match kind {
            Kind::Message(descriptor) => {
                return self
                    .message(descriptor.clone(), json, path)
                    .map(Value::Message);
            }
            Kind::Enum(descriptor) => return self.enumeration(descriptor, json, path),
            Kind::Bool => json.as_bool().map(Value::Bool),
            Kind::String => json.as_str().map(|s| Value::String(s.to_owned())),
            Kind::Bytes => json
                .as_str()
                .and_then(base64)
                .map(|b| Value::Bytes(b.into())),
            Kind::Double => float(json).map(Value::F64),
            Kind::Float => float(json).map(|f| Value::F32(f as f32)),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => integer(json)
                .and_then(|n| n.try_into().ok())
                .map(Value::I32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => integer(json)
                .and_then(|n| n.try_into().ok())
                .map(Value::I64),
            Kind::Uint32 | Kind::Fixed32 => integer(json)
                .and_then(|n| n.try_into().ok())
                .map(Value::U32),
            Kind::Uint64 | Kind::Fixed64 => integer(json)
                .and_then(|n| n.try_into().ok())
                .map(Value::U64),
        };
        if value.is_none() {
            self.fault(path, format!("`{json}` is no {}", word(kind)));
        }
        value
    }

    fn enumeration(&mut self, of: &EnumDescriptor, json: &Json, path: &str) -> Option<Value> {
        let found = match json {
            Json::String(name) => of.get_value_by_name(name).map(|v| v.number()),
            other => integer(other).and_then(|n| n.try_into().ok()),
        };
        if found.is_none() {
            let names: Vec<String> = of.values().map(|v| v.name().to_owned()).collect();
            self.fault(path, format!("`{json}` is none of {}", names.join(", ")));
        }
        found.map(Value::EnumNumber)
    }
}

fn below(path: &str, key: &str) -> String {
    let mut out = path.to_owned();
    if key.contains(['.', '/', '[', ']']) {
        out.push_str(&format!("[{key}]"));
    } else {
        if !out.is_empty() {
            out.push('.');
        }
        out.push_str(key);
    }
    out
}

fn short(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, short)| short)
}

fn word(kind: &Kind) -> &'static str {
    match kind {
        Kind::Bool => "true or false",
        Kind::String => "text",
        Kind::Bytes => "base64",
        Kind::Double | Kind::Float => "number",
        Kind::Message(_) => "mapping",
        Kind::Enum(_) => "name",
        Kind::Uint32 | Kind::Fixed32 => "whole number from 0 to 4294967295",
        Kind::Uint64 | Kind::Fixed64 => "whole number from 0 on",
        Kind::Int32
        | Kind::Sint32
        | Kind::Sfixed32
        | Kind::Int64
        | Kind::Sint64
        | Kind::Sfixed64 => "whole number",
    }
}

fn integer(json: &Json) -> Option<i128> {
    match json {
        Json::String(text) => text.parse().ok(),
        Json::Number(number) => number
            .as_i64()
            .map(i128::from)
            .or_else(|| number.as_u64().map(i128::from))
            .or_else(|| whole(number.as_f64()?)),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    }
}

fn whole(number: f64) -> Option<i128> {
    (number.fract() == 0.0).then_some(number as i128)
}

fn float(json: &Json) -> Option<f64> {
    match json {
        Json::String(text) => match text.as_str() {
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            "NaN" => Some(f64::NAN),
            text => text.parse().ok(),
        },
        other => other.as_f64(),
    }
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let bare = text.trim_end_matches('=').as_bytes();
    let plain = data_encoding::BASE64_NOPAD.decode(bare);
    plain
        .or_else(|_| data_encoding::BASE64URL_NOPAD.decode(bare))
        .ok()
}

fn map_key(kind: &Kind, key: &str) -> Option<MapKey> {
    Some(match kind {
        Kind::Bool => MapKey::Bool(key.parse().ok()?),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => MapKey::I32(key.parse().ok()?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => MapKey::I64(key.parse().ok()?),
        Kind::Uint32 | Kind::Fixed32 => MapKey::U32(key.parse().ok()?),
        Kind::Uint64 | Kind::Fixed64 => MapKey::U64(key.parse().ok()?),
        Kind::String
        | Kind::Bytes
        | Kind::Double
        | Kind::Float
        | Kind::Message(_)
        | Kind::Enum(_) => MapKey::String(key.to_owned()),
    })
}
