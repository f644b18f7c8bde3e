//! JSON of an API server to trees, without the parts that are large and mean nothing here.
//!
//! Lines are 0: there is no file. What the trees mean is decided in `reader`.

use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::yaml::{Node, Value};
use crate::text::Str;

/// One object as a tree. `metadata.managedFields`, often the larger half of it, is not kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Tree(pub Node);

impl Tree {
    /// A text of its metadata, empty when absent.
    pub fn meta(&self, field: &str) -> &str {
        let found = self.0.get("metadata").and_then(|meta| meta.get(field));
        found.and_then(Node::text).unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Below::Root.deserialize(deserializer).map(Tree)
    }
}

/// Where in an object a value stands, as far as it decides what is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Below {
    Root,
    Meta,
    Rest,
}

impl Below {
    /// None for a field that is not kept.
    fn of(self, key: &str) -> Option<Self> {
        match (self, key) {
            (Self::Root, "metadata") => Some(Self::Meta),
            (Self::Meta, "managedFields") => None,
            (Self::Root | Self::Meta | Self::Rest, _) => Some(Self::Rest),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Below {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        let value = deserializer.deserialize_any(self)?;
        Ok(Node { line: 0, value })
    }
}

impl<'de> Visitor<'de> for Below {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Int(v.into()))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::Int(v.into()))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Value::Float(v))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::Text(Str::new(v)))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Self::Rest)? {
            list.push(item);
        }
        Ok(Value::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Str>()? {
            match self.of(&key) {
                Some(below) => map.push((key, entries.next_value_seed(below)?)),
                None => drop(entries.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Value::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Kind;
    use crate::config::decode::{self, Item};

    fn tree(json: &str) -> Tree {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn managed_fields_are_dropped_in_the_metadata_and_nowhere_else() {
        let found = tree(
            r#"{"metadata": {"name": "a", "managedFields": [{"f:x": {}}]}, "spec": {"managedFields": 1}}"#,
        );
        let kept = tree(r#"{"metadata": {"name": "a"}, "spec": {"managedFields": 1}}"#);
        assert_eq!(found, kept);
        assert_eq!((found.meta("name"), found.meta("namespace")), ("a", ""));
    }

    #[test]
    fn a_live_object_is_what_a_file_with_it_is_but_for_its_place() {
        let json = r#"{"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "reviews", "namespace": "shop", "generation": 3,
                "creationTimestamp": "2024-01-01T00:00:00Z", "labels": {"a": "b"}},
            "spec": {"hosts": ["reviews"], "http": [{"timeout": "1.5s", "fault": {"abort": {"http2Error": "x"}},
                "route": [{"destination": {"host": "reviews", "port": {"number": 80}}}]}]}}"#;
        let live = decode::live(Kind::VirtualService, &tree(json).0).unwrap();
        let [Item::Object(filed)] = &decode::documents(json, "f.yaml").items[..] else {
            panic!("no object")
        };
        assert_eq!(live.object, filed.object);
        let [told] = &live.warnings[..] else {
            panic!("{:?}", live.warnings)
        };
        let mut want = filed.warnings[0].clone();
        (want.file, want.line) = (None, None);
        assert_eq!(*told, want);
        assert_eq!(live.place.file, "");
    }

    #[test]
    fn a_faulty_live_object_says_which_it_is_and_which_field() {
        let json = r#"{"metadata": {"name": "reviews", "namespace": "shop"},
            "spec": {"hosts": ["reviews"], "http": [{"route": [{"weight": -1}], "retrys": {}}]}}"#;
        let rejected = decode::live(Kind::VirtualService, &tree(json).0).unwrap_err();
        assert_eq!(
            rejected.key.unwrap().to_string(),
            "VirtualService shop/reviews"
        );
        let told: Vec<String> = rejected
            .diagnostics
            .iter()
            .map(ToString::to_string)
            .collect();
        let at = "error: VirtualService shop/reviews: spec.http[0]";
        assert!(told[0].starts_with(&format!("{at}.retrys: ")), "{told:?}");
        assert!(
            told[1].starts_with(&format!("{at}.route[0].weight: ")),
            "{told:?}"
        );
    }

    #[test]
    fn mesh_config_is_read_from_its_config_map() {
        let json = r#"{"metadata": {"name": "istio", "namespace": "istio-system"},
            "data": {"mesh": "trustDomain: a.example\n"}}"#;
        let live = decode::live(Kind::MeshConfig, &tree(json).0).unwrap();
        assert_eq!(
            live.object.key().to_string(),
            "MeshConfig istio-system/istio"
        );
        let empty = r#"{"metadata": {"name": "istio", "namespace": "istio-system"}}"#;
        let rejected = decode::live(Kind::MeshConfig, &tree(empty).0).unwrap_err();
        assert_eq!(rejected.diagnostics[0].line, None);
    }
}
