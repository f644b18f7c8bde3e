//! Reads a tree into a typed spec by protobuf's JSON rules, keeping the path of every fault.
//!
//! Names may be camelCase or snake_case, enums names or numbers, integers text. A field that the
//! type does not have is noted and skipped; which of them are faults is decided in `known`.

mod walk;

use std::cell::RefCell;
use std::fmt::{self, Write as _};

use serde::de::{self, Deserialize};

use super::yaml::{Node, Value};
use crate::diagnostic::{Code, Level};
use crate::text::Str;

/// A value that its field does not take; `path` is the field's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub level: Level,
    pub code: Code,
    pub path: String,
    pub message: String,
}

impl Fault {
    pub fn error(code: Code, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            level: Level::Error,
            code,
            path: path.into(),
            message: message.into(),
        }
    }

    pub fn warning(code: Code, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            level: Level::Warning,
            ..Self::error(code, path, message)
        }
    }
}

/// What a tree gave: the value or the first fault, and the paths of fields the type does not have.
#[derive(Debug)]
pub struct Reading<T> {
    pub value: Result<T, Fault>,
    pub unknown: Vec<String>,
}

impl<T> Reading<T> {
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Reading<U> {
        Reading {
            value: self.value.map(f),
            unknown: self.unknown,
        }
    }
}

/// Reads `node`, whose own path is `path` (empty for a whole document).
pub fn read<'de, T: Deserialize<'de>>(node: &'de Node, path: &str) -> Reading<T> {
    let unknown = RefCell::new(Vec::new());
    let trail = Trail {
        parent: None,
        step: Step::Root(path),
    };
    let value = T::deserialize(Reader {
        value: &node.value,
        trail: &trail,
        unknown: &unknown,
    })
    .map_err(|e| Fault::error(e.code, e.path.unwrap_or_else(|| path.to_owned()), e.message));
    Reading {
        value,
        unknown: unknown.into_inner(),
    }
}

/// The way from the root to a value, as a chain on the stack.
struct Trail<'t> {
    parent: Option<&'t Trail<'t>>,
    step: Step<'t>,
}

enum Step<'t> {
    Root(&'t str),
    Key(&'t str),
    Index(usize),
}

impl Trail<'_> {
    fn render(&self, out: &mut String) {
        if let Some(parent) = self.parent {
            parent.render(out);
        }
        match self.step {
            Step::Root(path) => out.push_str(path),
            Step::Key(key) => push_key(out, key),
            Step::Index(index) => {
                // Writing to a String cannot fail.
                let _ = write!(out, "[{index}]");
            }
        }
    }

    fn path(&self) -> String {
        let mut out = String::new();
        self.render(&mut out);
        out
    }
}

/// Appends a key: `.key`, or `[key]` when it has dots, slashes or brackets.
pub fn push_key(path: &mut String, key: &str) {
    if key.contains(['.', '/', '[', ']']) {
        path.push('[');
        path.push_str(key);
        path.push(']');
    } else {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(key);
    }
}

/// The error inside serde's walk; the innermost step that sees it gives the path.
#[derive(Debug)]
struct Refusal {
    code: Code,
    path: Option<String>,
    message: String,
}

impl Refusal {
    fn new(trail: &Trail<'_>, message: String) -> Self {
        Self {
            code: Code::InvalidValue,
            path: Some(trail.path()),
            message,
        }
    }

    fn at(mut self, trail: &Trail<'_>) -> Self {
        self.path.get_or_insert_with(|| trail.path());
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

impl de::Error for Refusal {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            code: Code::InvalidValue,
            path: None,
            message: message.to_string(),
        }
    }
}

type Unknown = RefCell<Vec<String>>;

#[derive(Clone, Copy)]
struct Reader<'de, 't> {
    value: &'de Value,
    trail: &'t Trail<'t>,
    unknown: &'t Unknown,
}

impl<'de> Reader<'de, '_> {
    fn expected(&self, what: &str) -> Refusal {
        Refusal::new(self.trail, format!("expected {what}, found {}", self.value))
    }

    fn integer(&self) -> Result<i128, Refusal> {
        match self.value {
            Value::Int(n) => Ok(*n),
            // Every f64 this small holds its integer exactly.
            #[allow(clippy::cast_possible_truncation)]
            Value::Float(n) if n.fract() == 0.0 && n.abs() < 9.0e15 => Ok(*n as i128),
            Value::Text(text) => text.parse().map_err(|_| self.expected("a whole number")),
            Value::Null | Value::Bool(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => {
                Err(self.expected("a whole number"))
            }
        }
    }

    fn integer_as<N: TryFrom<i128> + Bounds>(&self) -> Result<N, Refusal> {
        let n = self.integer()?;
        N::try_from(n).map_err(|_| {
            let why = if n < N::MIN {
                if N::MIN == 0 {
                    format!("`{n}` is negative; it must be 0 or more")
                } else {
                    format!("`{n}` is less than {}", N::MIN)
                }
            } else {
                format!("`{n}` is greater than {}", N::MAX)
            };
            Refusal::new(self.trail, why)
        })
    }

    fn string(&self) -> Result<&'de str, Refusal> {
        match (self.value, &self.trail.step) {
            (Value::Text(text), _) => Ok(text),
            (Value::Bool(_) | Value::Int(_) | Value::Float(_), _) => Err(Refusal::new(
                self.trail,
                format!("expected a string, found {}; put it in quotes", self.value),
            )),
            // As in Kubernetes: `labels: {a: }`.
            (Value::Null, Step::Key(_)) => Ok(""),
            (Value::Null | Value::List(_) | Value::Map(_), _) => Err(self.expected("a string")),
        }
    }

    fn entries(&self) -> Result<&'de [(Str, Node)], Refusal> {
        match (self.value, &self.trail.step) {
            (Value::Map(entries), _) => Ok(entries),
            (Value::Null, Step::Root(_)) => Ok(&[]),
            (
                Value::Null
                | Value::Bool(_)
                | Value::Int(_)
                | Value::Float(_)
                | Value::Text(_)
                | Value::List(_),
                _,
            ) => Err(self.expected("a mapping")),
        }
    }

    fn items(&self) -> Result<&'de [Node], Refusal> {
        match self.value {
            Value::List(items) => Ok(items),
            Value::Null => Ok(&[]),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) | Value::Map(_) => {
                Err(self.expected("a list"))
            }
        }
    }
}

/// The range of an integer type, for messages.
trait Bounds {
    const MIN: i128;
    const MAX: i128;
}

impl Bounds for u16 {
    const MIN: i128 = 0;
    const MAX: i128 = u16::MAX as i128;
}
impl Bounds for u32 {
    const MIN: i128 = 0;
    const MAX: i128 = u32::MAX as i128;
}
impl Bounds for u64 {
    const MIN: i128 = 0;
    const MAX: i128 = u64::MAX as i128;
}
impl Bounds for i32 {
    const MIN: i128 = i32::MIN as i128;
    const MAX: i128 = i32::MAX as i128;
}
impl Bounds for i64 {
    const MIN: i128 = i64::MIN as i128;
    const MAX: i128 = i64::MAX as i128;
}
