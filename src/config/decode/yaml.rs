//! YAML text to trees that know their lines. What the trees mean is decided in `reader` and `decode`.
//!
//! Documents are cut at `---` before parsing, so that one malformed document hurts only itself.

mod fault;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::reader::push_key;
use super::repeats::{Allowance, Repeats};
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

/// A key that stands twice in one mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twice {
    /// The second one's.
    pub path: String,
    pub line: u32,
    pub first: u32,
}

impl fmt::Display for Twice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, .. } = self;
        write!(
            f,
            "this key stands in line {first} already; leave one of them"
        )
    }
}

/// Parses one document that is alone. Empty values are `Null`, keys keep their spelling; a key that
/// stands twice does so in the tree, and `twice` tells it.
pub fn parse(document: Document<'_>) -> Result<Node, YamlFault> {
    parse_within(document, &mut Repeats::default().file())
}

pub(super) fn parse_within(
    document: Document<'_>,
    allowance: &mut Allowance,
) -> Result<Node, YamlFault> {
    let seen = Rc::new(RefCell::new(0));
    let note = seen.clone();
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
            max_depth: MAX_DEPTH,
            max_aliases: MAX_ALIASES,
            max_recorded_anchor_events: allowance.left(),
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: allowance.left(),
        },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
        with_snippet: false,
    }
    .with_budget_report(move |report| {
        // Without an anchor nothing is repeated; with one, all of the document may be.
        if report.anchors > 0 {
            *note.borrow_mut() = report.events + report.recorded_anchor_events;
        }
    });
    let parsed = serde_saphyr::from_str_with_options::<Node>(document.text, options);
    allowance.spend(*seen.borrow());
    match parsed {
        Ok(mut node) => {
            shift(&mut node, document.lines_before);
            Ok(node)
        }
        Err(error) => Err(fault::tell(&error, document, allowance.of())),
    }
}

/// The first key of a tree that stands twice in its mapping.
pub(super) fn twice(node: &Node) -> Option<Twice> {
    match &node.value {
        Value::List(items) => items.iter().enumerate().find_map(|(i, item)| {
            let found = twice(item)?;
            Some(found.under(&format!("[{i}]")))
        }),
        Value::Map(entries) => {
            let mut seen = BTreeMap::new();
            entries.iter().find_map(|(key, value)| {
                let found = match seen.insert(key, value.line) {
                    Some(first) => Twice {
                        path: String::new(),
                        line: value.line,
                        first,
                    },
                    None => twice(value)?,
                };
                let mut step = String::new();
                push_key(&mut step, key);
                Some(found.under(&step))
            })
        }
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => None,
    }
}

impl Twice {
    fn under(mut self, step: &str) -> Self {
        let joint = if self.path.is_empty() || self.path.starts_with('[') {
            ""
        } else {
            "."
        };
        self.path = format!("{step}{joint}{}", self.path);
        self
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
    fn a_key_that_stands_twice_is_told_with_both_lines() {
        let root = only("a:\n- b: 1\n  c: 2\n  b: 3\n");
        let Twice { path, line, first } = twice(&root).unwrap();
        assert_eq!((path.as_str(), line, first), ("a[0].b", 4, 2));
        assert_eq!(twice(&only("a: {b: 1}\nc: {b: 1}\n")), None);
        assert_eq!(twice(&only("a: &a {b: 1}\nc: {<<: *a, b: 2}\n")), None);
    }

    fn bomb() -> String {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..9 {
            let prior = format!("*a{}", i - 1);
            bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![prior; 10].join(",")));
        }
        bomb
    }

    #[test]
    fn an_alias_bomb_is_refused_with_our_own_words() {
        let text = format!("\n\n{}", bomb());
        let fault = parse(documents(&text)[0]).unwrap_err();
        assert_eq!(
            fault.message,
            "aliases here stand for more than the 100000 values that those of a file may; \
             write the values out, or leave some away"
        );
        assert!((6..=9).contains(&fault.line), "{fault:?}");
    }

    #[test]
    fn documents_of_a_file_share_what_aliases_may_repeat() {
        let mut allowance = Repeats::default().file();
        let bomb = bomb();
        let bomb = documents(&bomb)[0];
        assert!(parse_within(bomb, &mut allowance).is_err());
        assert_eq!(allowance.left(), 0);
        let plain = documents("a: [1, 2]\n")[0];
        assert!(parse_within(plain, &mut allowance).is_ok());
        let alias = documents("a: &a [1]\nb: *a\n")[0];
        assert!(parse_within(alias, &mut allowance).is_err());
    }

    #[test]
    fn what_is_nested_too_deep_is_told_so() {
        let deep = format!("a: {}{}", "[".repeat(100), "]".repeat(100));
        let fault = parse(documents(&deep)[0]).unwrap_err();
        assert_eq!(fault.message, "this is nested deeper than 36 levels");
    }

    #[test]
    fn a_message_names_no_line_beside_the_files() {
        for text in [
            "a: [1\nb: 2\n",
            "a: *b\n",
            "a: 'x\n",
            "a: 1\n b: 2\n",
            "a: b: c\n",
        ] {
            let text = format!("x: 1\n---\n{text}");
            let fault = parse(documents(&text)[1]).unwrap_err();
            for library in [" at line", "Options", "line 1", "column"] {
                assert!(!fault.message.contains(library), "{fault:?}");
            }
        }
    }
}
