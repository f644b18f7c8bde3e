//! The serde walk over a tree: structs, maps, lists, variants. Scalars are the parent's.

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use super::{Reader, Refusal, Step, Trail};
use crate::config::decode::lines::camel;
use crate::config::decode::yaml::{Node, Value};
use crate::diagnostic::Code;
use crate::text::Str;

impl<'de> Deserializer<'de> for Reader<'de, '_> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(b) => visitor.visit_bool(*b),
            Value::Int(n) => match u64::try_from(*n) {
                Ok(n) => visitor.visit_u64(n),
                Err(_) => visitor.visit_i64(self.integer_as()?),
            },
            Value::Float(n) => visitor.visit_f64(*n),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Map(_) => self.deserialize_map(visitor),
        }
        .map_err(|e| e.at(self.trail))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match self.value {
            Value::Bool(b) => visitor.visit_bool(*b),
            Value::Null
            | Value::Int(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::List(_)
            | Value::Map(_) => Err(self.expected("true or false")),
        }
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor
            .visit_u16(self.integer_as()?)
            .map_err(|e: Refusal| e.at(self.trail))
    }
    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor
            .visit_u32(self.integer_as()?)
            .map_err(|e: Refusal| e.at(self.trail))
    }
    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor
            .visit_u64(self.integer_as()?)
            .map_err(|e: Refusal| e.at(self.trail))
    }
    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor
            .visit_i32(self.integer_as()?)
            .map_err(|e: Refusal| e.at(self.trail))
    }
    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let number = match self.value {
            Value::Float(number) => Some(*number),
            Value::Int(number) => Some(*number as f64),
            Value::Text(text) => text.parse().ok(),
            Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => None,
        };
        visitor.visit_f64(number.ok_or_else(|| self.expected("a number"))?)
    }
    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor
            .visit_i64(self.integer_as()?)
            .map_err(|e: Refusal| e.at(self.trail))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor
            .visit_borrowed_str(self.string()?)
            .map_err(|e: Refusal| e.at(self.trail))
    }
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match self.value {
            Value::Null => visitor.visit_none(),
            Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::List(_)
            | Value::Map(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let items = self.items()?.iter().enumerate();
        visitor
            .visit_seq(Items {
                reader: self,
                items,
            })
            .map_err(|e| e.at(self.trail))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let entries = Entries {
            reader: self,
            fields: None,
            rest: self.entries()?.iter(),
            value: None,
        };
        visitor.visit_map(entries).map_err(|e| e.at(self.trail))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let rest = self.entries()?.iter();
        let entries = Entries {
            reader: self,
            fields: Some(fields),
            rest,
            value: None,
        };
        visitor.visit_map(entries).map_err(|e| e.at(self.trail))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let choice = self.choice(variants)?;
        visitor.visit_enum(choice).map_err(|e| e.at(self.trail))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_unit()
    }

    fn is_human_readable(&self) -> bool {
        true
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i128 u8 u128 f32 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

struct Items<'de, 't> {
    reader: Reader<'de, 't>,
    items: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = Refusal;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Refusal> {
        let Some((index, node)) = self.items.next() else {
            return Ok(None);
        };
        let trail = Trail {
            parent: Some(self.reader.trail),
            step: Step::Index(index),
        };
        let reader = Reader {
            value: &node.value,
            trail: &trail,
            unknown: self.reader.unknown,
        };
        seed.deserialize(reader).map(Some).map_err(|e| e.at(&trail))
    }

    /// Lists are kept for long: with room for what they have, and no more.
    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

/// The entries of a mapping; of a struct when `fields` are given, where a null counts as absent.
struct Entries<'de, 't> {
    reader: Reader<'de, 't>,
    fields: Option<&'static [&'static str]>,
    rest: std::slice::Iter<'de, (Str, Node)>,
    value: Option<(&'de str, &'de Node)>,
}

impl<'de> Entries<'de, '_> {
    /// The field that a key names, or none after noting the key as unknown.
    fn field(&self, key: &'de str) -> Option<&'de str> {
        let Some(fields) = self.fields else {
            return Some(key);
        };
        if fields.contains(&key) {
            return Some(key);
        }
        let camel = camel(key);
        let found = fields.iter().find(|f| camel.as_deref() == Some(**f));
        if found.is_none() {
            let trail = Trail {
                parent: Some(self.reader.trail),
                step: Step::Key(key),
            };
            self.reader.unknown.borrow_mut().push(trail.path());
        }
        found.copied()
    }
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = Refusal;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Refusal> {
        loop {
            let Some((key, node)) = self.rest.next() else {
                return Ok(None);
            };
            if node.value == Value::Null && self.fields.is_some() {
                continue;
            }
            let Some(name) = self.field(key) else {
                continue;
            };
            self.value = Some((name, node));
            let trail = Trail {
                parent: Some(self.reader.trail),
                step: Step::Key(name),
            };
            return seed
                .deserialize(KeyReader {
                    key: name,
                    trail: &trail,
                })
                .map(Some);
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refusal> {
        let Some((key, node)) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        let trail = Trail {
            parent: Some(self.reader.trail),
            step: Step::Key(key),
        };
        let reader = Reader {
            value: &node.value,
            trail: &trail,
            unknown: self.reader.unknown,
        };
        seed.deserialize(reader).map_err(|e| e.at(&trail))
    }
}

struct KeyReader<'de, 't> {
    key: &'de str,
    trail: &'t Trail<'t>,
}

impl<'de> Deserializer<'de> for KeyReader<'de, '_> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_borrowed_str(self.key)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let parsed = self.key.parse().map_err(|_| {
            Refusal::new(
                self.trail,
                format!("`{}` is no port number from 0 to 65535", self.key),
            )
        })?;
        visitor.visit_u16(parsed)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// A chosen variant: by name, by number (its place in the type's order), or as the only key.
struct Choice<'de, 't> {
    variant: &'static str,
    content: Option<&'de Node>,
    reader: Reader<'de, 't>,
}

impl<'de, 't> Reader<'de, 't> {
    fn choice(self, variants: &'static [&'static str]) -> Result<Choice<'de, 't>, Refusal> {
        let named = |name: &str| variants.iter().find(|v| **v == name).copied();
        let one_of = || format!("one of {}", variants.join(", "));
        let chosen = |variant, content| Choice {
            variant,
            content,
            reader: self,
        };
        match self.value {
            Value::Text(text) => named(text)
                .map(|v| chosen(v, None))
                .ok_or_else(|| self.expected(&one_of())),
            Value::Int(n) => usize::try_from(*n)
                .ok()
                .and_then(|n| variants.get(n))
                .map(|v| chosen(v, None))
                .ok_or_else(|| self.expected(&one_of())),
            Value::Map(entries) => {
                let mut set = entries.iter().filter(|(_, n)| n.value != Value::Null);
                let (Some((key, node)), None) = (set.next(), set.next()) else {
                    let found = format!("exactly {} must be set", one_of());
                    return Err(Refusal::new(self.trail, found));
                };
                named(key).map(|v| chosen(v, Some(node))).ok_or_else(|| {
                    let trail = Trail {
                        parent: Some(self.trail),
                        step: Step::Key(key),
                    };
                    let mut refusal = Refusal::new(&trail, format!("no such field; {}", one_of()));
                    refusal.code = Code::UnknownField;
                    refusal
                })
            }
            Value::Null | Value::Bool(_) | Value::Float(_) | Value::List(_) => {
                Err(self.expected(&one_of()))
            }
        }
    }
}

impl<'de, 't> EnumAccess<'de> for Choice<'de, 't> {
    type Error = Refusal;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Refusal> {
        let name: StrDeserializer<'_, Refusal> = self.variant.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Choice<'de, '_> {
    type Error = Refusal;

    fn unit_variant(self) -> Result<(), Refusal> {
        match self.content {
            None => Ok(()),
            Some(_) => Err(self.reader.expected("a name")),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Refusal> {
        let Some(node) = self.content else {
            return Err(self
                .reader
                .expected(&format!("a mapping with {}", self.variant)));
        };
        let trail = Trail {
            parent: Some(self.reader.trail),
            step: Step::Key(self.variant),
        };
        let reader = Reader {
            value: &node.value,
            trail: &trail,
            unknown: self.reader.unknown,
        };
        seed.deserialize(reader).map_err(|e| e.at(&trail))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _: V) -> Result<V::Value, Refusal> {
        Err(self.reader.expected("a name"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Refusal> {
        Err(self.reader.expected("a name"))
    }
}
