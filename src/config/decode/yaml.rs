//! YAML text to trees that know their lines. What the trees mean is decided in `reader` and `decode`.
//!
//! Documents are cut at `---` before parsing, so that one malformed document hurts only itself.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::text::Str;

/// A value with the 1-based line it stands on; for the value of a mapping, the line of its key.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub line: u32,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Str),
    List(Vec<Node>),
    Map(Vec<(Str, Node)>),
}

/// One document of a file: its text and the number of lines before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document<'t> {
    pub text: &'t str,
    pub lines_before: u32,
}

/// Why a document is no tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct YamlFault {
    pub line: u32,
    pub message: String,
}

// Far above any real object; they keep a hostile file from costing more than a few hundred MB.
const MAX_NODES: usize = 1_000_000;
// A CustomResourceDefinition nests 28 deep; parsing takes up to 40 kB of stack per level.
const MAX_DEPTH: usize = 36;
const MAX_ALIASES: usize = 10_000;
const MAX_MESSAGE: usize = 300;

/// The documents of a file that hold more than comments.
pub fn documents(text: &str) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let (mut start, mut first_line, mut offset, mut line) = (0, 0, 0, 0);
    for row in text.split_inclusive('\n') {
        if is_marker(row, "---") && offset > start {
            documents.push(Document {
                text: &text[start..offset],
                lines_before: first_line,
            });
            (start, first_line) = (offset, line);
        }
        offset += row.len();
        line += 1;
    }
    documents.push(Document {
        text: &text[start..],
        lines_before: first_line,
    });
    documents.retain(|d| !is_blank(d.text));
    documents
}

/// Parses one document. Empty values are `Null`, keys keep their spelling.
pub fn parse(document: Document<'_>) -> Result<Node, YamlFault> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
            max_depth: MAX_DEPTH,
            max_aliases: MAX_ALIASES,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_NODES,
        },
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Node>(document.text, options) {
        Ok(mut node) => {
            shift(&mut node, document.lines_before);
            Ok(node)
        }
        Err(error) => Err(fault(&error, document)),
    }
}

impl Node {
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::List(_) => None,
        }
    }

    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_)
            | Value::List(_)
            | Value::Map(_) => None,
        }
    }
}

impl fmt::Display for Value {
    /// As messages name what was found.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("nothing"),
            Self::Bool(b) => write!(f, "`{b}`"),
            Self::Int(n) => write!(f, "`{n}`"),
            Self::Float(n) => write!(f, "`{n}`"),
            Self::Text(text) => match text.char_indices().nth(60) {
                Some((cut, _)) => write!(f, "`{}…`", &text[..cut]),
                None => write!(f, "`{text}`"),
            },
            Self::List(_) => f.write_str("a list"),
            Self::Map(_) => f.write_str("a mapping"),
        }
    }
}

/// `---` at the start of a line ends a document everywhere in YAML, inside block text too.
fn is_marker(row: &str, marker: &str) -> bool {
    row.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn is_blank(text: &str) -> bool {
    text.lines().all(|row| {
        let bare = if is_marker(row, "---") || is_marker(row, "...") {
            &row[3..]
        } else {
            row
        };
        let bare = bare.trim();
        bare.is_empty() || bare.starts_with('#') || row.starts_with('%')
    })
}

fn fault(error: &serde_saphyr::Error, document: Document<'_>) -> YamlFault {
    let line = error
        .location()
        .map_or(1, |l| u32::try_from(l.line()).unwrap_or(u32::MAX));
    let text = error.without_snippet().to_string();
    let first = text.lines().next().unwrap_or("").trim();
    let cut = first
        .char_indices()
        .nth(MAX_MESSAGE)
        .map_or(first.len(), |(i, _)| i);
    YamlFault {
        line: line.max(1) + document.lines_before,
        message: first[..cut].to_owned(),
    }
}

fn shift(node: &mut Node, lines: u32) {
    node.line = node.line.max(1) + lines;
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|n| shift(n, lines)),
        Value::Map(entries) => entries.iter_mut().for_each(|(_, n)| shift(n, lines)),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => {}
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Node {
            line: line_of(&spanned),
            value: spanned.value,
        })
    }
}

fn line_of<T>(spanned: &Spanned<T>) -> u32 {
    u32::try_from(spanned.referenced.line()).unwrap_or(u32::MAX)
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
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
    fn visit_i128<E>(self, v: i128) -> Result<Value, E> {
        Ok(Value::Int(v))
    }
    fn visit_u128<E: serde::de::Error>(self, v: u128) -> Result<Value, E> {
        i128::try_from(v)
            .map(Value::Int)
            .map_err(|_| E::custom("a number is too large"))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Value::Float(v))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::Text(Str::new(v)))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Node>()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map: Vec<(Str, Node)> = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            let mut node: Node = entries.next_value()?;
            node.line = line_of(&key);
            if key.value.is_empty() {
                return Err(A::Error::custom("a mapping has an empty key"));
            }
            map.push((Str::from(key.value), node));
        }
        Ok(Value::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Node {
        let documents = documents(text);
        assert_eq!(documents.len(), 1, "{documents:?}");
        parse(documents[0]).unwrap()
    }

    #[test]
    fn a_value_has_the_line_of_its_key() {
        let root = only("# top\na: 1\nb:\n  c:\n  - x\n  - y: |\n      text\n");
        assert_eq!(root.get("a").unwrap().line, 2);
        let c = root.get("b").unwrap().get("c").unwrap();
        assert_eq!(c.line, 4);
        let Value::List(items) = &c.value else {
            panic!("{c:?}")
        };
        assert_eq!((items[0].line, items[1].line), (5, 6));
        assert_eq!(items[1].get("y").unwrap().text(), Some("text\n"));
    }

    #[test]
    fn documents_keep_their_lines_and_empty_ones_vanish() {
        let text = "# license\n---\n\n---\na: 1\n--- # second\nb: 2\n...\n---\n";
        let found = documents(text);
        assert_eq!(found.len(), 2);
        assert_eq!(parse(found[0]).unwrap().get("a").unwrap().line, 5);
        assert_eq!(parse(found[1]).unwrap().get("b").unwrap().line, 7);
    }

    #[test]
    fn a_malformed_document_says_its_line_and_leaves_the_others() {
        let found = documents("a: 1\n---\nb: [1\nc: 2\n---\nd: 3\n");
        assert!(parse(found[0]).is_ok());
        let fault = parse(found[1]).unwrap_err();
        assert!((3..=5).contains(&fault.line), "{fault:?}");
        assert!(parse(found[2]).is_ok());
    }

    #[test]
    fn json_and_numeric_keys_are_read() {
        let root = only("{\n\t\"a\": {\"8080\": true}, \"n\": 18446744073709551615}\n");
        assert_eq!(
            root.get("a").unwrap().get("8080").unwrap().value,
            Value::Bool(true)
        );
        assert_eq!(root.get("n").unwrap().value, Value::Int(u64::MAX.into()));
        assert_eq!(only("8080: x\n").get("8080").unwrap().text(), Some("x"));
    }

    #[test]
    fn a_repeated_key_is_a_fault() {
        assert!(parse(documents("a: 1\na: 2\n")[0]).unwrap_err().line >= 1);
    }

    #[test]
    fn alias_bombs_and_deep_nesting_are_refused() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..9 {
            let prior = format!("*a{}", i - 1);
            bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![prior; 10].join(",")));
        }
        assert!(parse(documents(&bomb)[0]).is_err());
        let deep = format!("a: {}{}", "[".repeat(100), "]".repeat(100));
        assert!(parse(documents(&deep)[0]).is_err());
    }
}
