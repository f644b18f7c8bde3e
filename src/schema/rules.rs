//! The bounds that Envoy's API itself sets on its fields (`validate.rules`), by which Envoy refuses a message.

use std::sync::LazyLock;
use std::time::Duration;

use prost_reflect::{
    DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage,
    Value,
};

use super::{ANY, POOL, Unfit, unpack};

static OF_FIELD: LazyLock<Option<ExtensionDescriptor>> =
    LazyLock::new(|| POOL.get_extension_by_name("validate.rules"));
static OF_ONEOF: LazyLock<Option<ExtensionDescriptor>> =
    LazyLock::new(|| POOL.get_extension_by_name("validate.required"));
static OF_MESSAGE: LazyLock<Option<ExtensionDescriptor>> =
    LazyLock::new(|| POOL.get_extension_by_name("validate.disabled"));

/// How much of a message is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it: what is required must be set.
    Whole,
    /// What is merged into another message: only what is set is judged.
    Part,
}

/// All that Envoy would refuse of the message by its own rules.
pub fn broken(message: &DynamicMessage, extent: Extent) -> Vec<Unfit> {
    let mut out = Vec::new();
    of_message(message, extent, "", &mut out);
    out
}

fn of_message(message: &DynamicMessage, extent: Extent, path: &str, out: &mut Vec<Unfit>) {
    let descriptor = message.descriptor();
    if descriptor.full_name() == ANY {
        if let Some(inside) = unpack(message) {
            of_message(&inside, extent, path, out);
        }
        return;
    }
    if is_free(&descriptor) {
        return;
    }
    for field in descriptor.fields() {
        of_field(message, &field, extent, path, out);
    }
    let required = OF_ONEOF.as_ref();
    for oneof in descriptor.oneofs().filter(|_| extent == Extent::Whole) {
        let must = required
            .is_some_and(|rule| oneof.options().get_extension(rule).as_bool() == Some(true));
        if must && !oneof.fields().any(|f| message.has_field(&f)) {
            let names: Vec<String> = oneof.fields().map(|f| f.name().to_owned()).collect();
            fault(
                out,
                path,
                format!("one of {} is required", names.join(", ")),
            );
        }
    }
}

/// A message whose fields are not judged.
fn is_free(descriptor: &MessageDescriptor) -> bool {
    let rule = OF_MESSAGE.as_ref();
    rule.is_some_and(|rule| descriptor.options().get_extension(rule).as_bool() == Some(true))
}

fn of_field(
    message: &DynamicMessage,
    field: &FieldDescriptor,
    extent: Extent,
    path: &str,
    out: &mut Vec<Unfit>,
) {
    let path = match path {
        "" => field.name().to_owned(),
        parent => format!("{parent}.{}", field.name()),
    };
    let set = message.has_field(field);
    let rules = rules(field);
    // Without presence of its own, an absent field of a whole message is its zero.
    let judged = set || extent == Extent::Whole && field.containing_oneof().is_none();
    if let Some(rules) = rules.filter(|_| judged) {
        let value = message.get_field(field);
        of_rules(&rules, field, &value, set, &path, out);
    }
    if !set {
        return;
    }
    match &*message.get_field(field) {
        Value::Message(inside) => of_message(inside, extent, &path, out),
        Value::List(items) => {
            for (i, item) in items.iter().enumerate() {
                if let Value::Message(inside) = item {
                    // What is appended is no part of another.
                    of_message(inside, Extent::Whole, &format!("{path}[{i}]"), out);
                }
            }
        }
        Value::Map(entries) => {
            for (key, value) in entries {
                if let Value::Message(inside) = value {
                    let key = key.as_str().unwrap_or_default();
                    of_message(inside, Extent::Whole, &format!("{path}[{key}]"), out);
                }
            }
        }
        _ => {}
    }
}

fn rules(field: &FieldDescriptor) -> Option<DynamicMessage> {
    let options = field.options();
    let rule = OF_FIELD.as_ref()?;
    if !options.has_extension(rule) {
        return None;
    }
    options.get_extension(rule).as_message().cloned()
}

/// `rules` is a `validate.FieldRules`.
fn of_rules(
    rules: &DynamicMessage,
    field: &FieldDescriptor,
    value: &Value,
    set: bool,
    path: &str,
    out: &mut Vec<Unfit>,
) {
    for (kind, rule) in rules.fields() {
        let Value::Message(rule) = rule else {
            continue;
        };
        match kind.name() {
            "message" | "any" => {
                if flag(rule, "required") && !set {
                    fault(out, path, "this is required");
                }
            }
            "duration" => of_duration(rule, value, set, path, out),
            "timestamp" if flag(rule, "required") && !set => fault(out, path, "this is required"),
            "repeated" => of_list(rule, field, value, path, out),
            "map" => of_map(rule, value, path, out),
            _ if field.is_list() || field.is_map() => {}
            _ => {
                if let Some(value) = unwrapped(value, set) {
                    scalar(rule, &field.kind(), &value, path, out);
                }
            }
        }
    }
}

/// A wrapper's value; none where the wrapper is unset.
fn unwrapped(value: &Value, set: bool) -> Option<Value> {
    match value {
        Value::Message(wrapper) => {
            let inner = set.then(|| wrapper.get_field_by_name("value")).flatten();
            inner.map(|v| v.into_owned())
        }
        other => Some(other.clone()),
    }
}

fn scalar(rule: &DynamicMessage, kind: &Kind, value: &Value, path: &str, out: &mut Vec<Unfit>) {
    if flag(rule, "ignore_empty") && value.is_default(&plain(kind)) {
        return;
    }
    match value {
        Value::String(text) => of_text(rule, text, path, out),
        Value::Bytes(bytes) => {
            let least = count(rule, "min_len");
            if least.is_some_and(|n| (bytes.len() as u64) < n) {
                fault(out, path, "this must not be empty");
            }
        }
        Value::EnumNumber(number) => {
            let known = match kind {
                Kind::Enum(of) => of.get_value(*number).is_some(),
                _ => true,
            };
            if flag(rule, "defined_only") && !known {
                fault(out, path, format!("{number} is no value of it"));
            }
            of_lists(rule, value, path, out);
        }
        Value::Bool(_) => {}
        other => {
            if let Some(number) = number(other) {
                of_bounds(rule, number, path, out);
            }
            of_lists(rule, other, path, out);
        }
    }
}

fn plain(kind: &Kind) -> Kind {
    match kind {
        Kind::Message(wrapper) => wrapper
            .get_field_by_name("value")
            .map_or_else(|| kind.clone(), |f| f.kind()),
        other => other.clone(),
    }
}

fn of_bounds(rule: &DynamicMessage, value: f64, path: &str, out: &mut Vec<Unfit>) {
    let bound = |name: &str| {
        let set = rule.has_field_by_name(name);
        let bound = set.then(|| rule.get_field_by_name(name)).flatten();
        bound.and_then(|v| number(&v))
    };
    let refuse = |says: String, out: &mut Vec<Unfit>| fault(out, path, says);
    if let Some(bound) = bound("gte").filter(|b| value < *b) {
        refuse(format!("{value} is less than {bound}"), out);
    }
    if let Some(bound) = bound("gt").filter(|b| value <= *b) {
        refuse(format!("{value} is not more than {bound}"), out);
    }
    if let Some(bound) = bound("lte").filter(|b| value > *b) {
        refuse(format!("{value} is more than {bound}"), out);
    }
    if let Some(bound) = bound("lt").filter(|b| value >= *b) {
        refuse(format!("{value} is not less than {bound}"), out);
    }
}

fn of_lists(rule: &DynamicMessage, value: &Value, path: &str, out: &mut Vec<Unfit>) {
    let list = |name: &str| super::items(rule, name);
    let (allowed, refused) = (list("in"), list("not_in"));
    let number_of = |v: &Value| v.as_enum_number().map(f64::from).or_else(|| number(v));
    let stands = |list: &[Value]| list.iter().any(|v| number_of(v) == number_of(value));
    if !allowed.is_empty() && !stands(&allowed) || stands(&refused) {
        fault(out, path, "Envoy does not take this value");
    }
}

fn of_text(rule: &DynamicMessage, text: &str, path: &str, out: &mut Vec<Unfit>) {
    let chars = text.chars().count() as u64;
    let least = count(rule, "min_len").or_else(|| count(rule, "min_bytes"));
    match least {
        Some(least) if least > 0 && text.is_empty() => fault(out, path, "this must not be empty"),
        Some(least) if chars < least => {
            fault(
                out,
                path,
                format!("this must have {least} characters or more"),
            );
        }
        Some(_) | None => {}
    }
    let most = count(rule, "max_len").or_else(|| count(rule, "max_bytes"));
    if most.is_some_and(|most| chars > most) {
        fault(out, path, "this is too long");
    }
    let part = |name: &str| Some(super::text(rule, name)).filter(|t| !t.is_empty());
    if let Some(prefix) = part("prefix").filter(|p| !text.starts_with(p.as_str())) {
        fault(out, path, format!("this must begin with `{prefix}`"));
    }
    if let Some(suffix) = part("suffix").filter(|p| !text.ends_with(p.as_str())) {
        fault(out, path, format!("this must end with `{suffix}`"));
    }
    let known = rule.get_field_by_name("well_known_regex");
    let known = known.and_then(|v| v.as_enum_number()).unwrap_or_default();
    if known != 0 && text.contains(['\n', '\r', '\0']) {
        fault(out, path, "a header has no line breaks");
    }
    let allowed = super::items(rule, "in");
    if !allowed.is_empty() && !allowed.iter().any(|v| v.as_str() == Some(text)) {
        fault(out, path, "Envoy does not take this value");
    }
}

fn of_duration(rule: &DynamicMessage, value: &Value, set: bool, path: &str, out: &mut Vec<Unfit>) {
    if !set {
        if flag(rule, "required") {
            fault(out, path, "this is required");
        }
        return;
    }
    let Some(value) = value.as_message().and_then(nanos) else {
        return;
    };
    let bound = |name: &str| super::child(rule, name).as_ref().and_then(nanos);
    let shown = |nanos: i128| format!("{:?}", Duration::from_nanos(nanos.unsigned_abs() as u64));
    if let Some(least) = bound("gte").filter(|b| value < *b) {
        fault(out, path, format!("this is less than {}", shown(least)));
    }
    if let Some(least) = bound("gt").filter(|b| value <= *b) {
        fault(out, path, format!("this is not more than {}", shown(least)));
    }
    if let Some(most) = bound("lte").filter(|b| value > *b) {
        fault(out, path, format!("this is more than {}", shown(most)));
    }
    if let Some(most) = bound("lt").filter(|b| value >= *b) {
        fault(out, path, format!("this is not less than {}", shown(most)));
    }
}

fn nanos(duration: &DynamicMessage) -> Option<i128> {
    let part = |name: &str| duration.get_field_by_name(name);
    let seconds = part("seconds")?.as_i64()?;
    let nanos = part("nanos")?.as_i32()?;
    Some(i128::from(seconds) * 1_000_000_000 + i128::from(nanos))
}

fn of_list(
    rule: &DynamicMessage,
    field: &FieldDescriptor,
    value: &Value,
    path: &str,
    out: &mut Vec<Unfit>,
) {
    let items = value.as_list().unwrap_or_default();
    if flag(rule, "ignore_empty") && items.is_empty() {
        return;
    }
    let least = count(rule, "min_items").unwrap_or(0);
    if (items.len() as u64) < least {
        fault(out, path, format!("this needs {least} or more items"));
    }
    let most = count(rule, "max_items");
    if let Some(most) = most.filter(|most| items.len() as u64 > *most) {
        fault(
            out,
            path,
            format!("this has {} items, at most {most} may be", items.len()),
        );
    }
    if flag(rule, "unique") {
        let twice = items
            .iter()
            .enumerate()
            .find(|(i, v)| items[..*i].contains(v));
        if let Some((i, _)) = twice {
            fault(out, &format!("{path}[{i}]"), "this stands twice");
        }
    }
    let Some(of_items) = super::child(rule, "items") else {
        return;
    };
    for (i, item) in items.iter().enumerate() {
        let path = format!("{path}[{i}]");
        for (_, rule) in of_items.fields() {
            if let (Value::Message(rule), Some(item)) = (rule, unwrapped_item(item)) {
                scalar(rule, &field.kind(), &item, &path, out);
            }
        }
    }
}

/// Items that are messages are judged by their own fields.
fn unwrapped_item(item: &Value) -> Option<Value> {
    match item {
        Value::Message(_) => None,
        other => Some(other.clone()),
    }
}

fn of_map(rule: &DynamicMessage, value: &Value, path: &str, out: &mut Vec<Unfit>) {
    let pairs = value.as_map().map_or(0, |m| m.len() as u64);
    let least = count(rule, "min_pairs").unwrap_or(0);
    if pairs < least {
        fault(out, path, format!("this needs {least} or more entries"));
    }
}

fn flag(rule: &DynamicMessage, name: &str) -> bool {
    let value = rule.get_field_by_name(name);
    value.and_then(|v| v.as_bool()).unwrap_or_default()
}

fn count(rule: &DynamicMessage, name: &str) -> Option<u64> {
    if !rule.has_field_by_name(name) {
        return None;
    }
    rule.get_field_by_name(name)?.as_u64()
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::I32(n) => Some(f64::from(*n)),
        Value::U32(n) => Some(f64::from(*n)),
        Value::I64(n) => Some(*n as f64),
        Value::U64(n) => Some(*n as f64),
        Value::F32(n) => Some(f64::from(*n)),
        Value::F64(n) => Some(*n),
        _ => None,
    }
}

fn fault(out: &mut Vec<Unfit>, path: &str, message: impl Into<String>) {
    out.push(Unfit {
        path: path.to_owned(),
        message: message.into(),
    });
}
