//! Where the fields of one object stand in its file: field path → line.

use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};

use super::yaml::{Node, Value};
use crate::text::Str;

/// The lines of an object's fields. Paths look like `spec.http[0].match[1].headers[x-user]`.
///
/// There are as many as objects, and a line is asked for when a person is told of a fault: they are kept packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines(Box<[u8]>);

#[derive(Default, Serialize, Deserialize)]
struct Branch {
    line: u32,
    under: Under,
}

#[derive(Default, Serialize, Deserialize)]
enum Under {
    #[default]
    Nothing,
    List(Vec<Branch>),
    Map(Vec<(Str, Branch)>),
}

/// How deep lines are kept: Kubernetes' own objects are large and rarely spoken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    Full,
    Shallow,
}

const SHALLOW: usize = 2;

impl Lines {
    /// Of an object whose text is not at hand; every line is 0. All such objects share it.
    pub fn unknown() -> Arc<Self> {
        static UNKNOWN: LazyLock<Arc<Lines>> =
            LazyLock::new(|| Arc::new(Lines::packed(&Branch::default())));
        Arc::clone(&UNKNOWN)
    }

    pub fn of(root: &Node, detail: Detail) -> Self {
        let depth = match detail {
            Detail::Full => usize::MAX,
            Detail::Shallow => SHALLOW,
        };
        Self::packed(&branch(root, depth))
    }

    fn packed(branch: &Branch) -> Self {
        // Numbers and strings in memory: there is nothing that could fail.
        Self(postcard::to_stdvec(branch).unwrap_or_default().into())
    }

    /// The line of the longest part of `path` that exists; so an absent field gives its parent's.
    pub fn line_of(&self, path: &str) -> u32 {
        let root: Branch = postcard::from_bytes(&self.0).unwrap_or_default();
        let mut at = &root;
        for step in steps(path) {
            let Some(next) = at.step(step) else { break };
            at = next;
        }
        at.line
    }
}

/// As `Lines::line_of`, for a tree at hand.
pub fn line_in(root: &Node, path: &str) -> u32 {
    let mut at = root;
    for step in steps(path) {
        let next = match &at.value {
            Value::List(items) => step.parse::<usize>().ok().and_then(|i| items.get(i)),
            Value::Map(entries) => entries
                .iter()
                .find(|(k, _)| is_key(k, step))
                .map(|(_, n)| n),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => None,
        };
        let Some(next) = next else { break };
        at = next;
    }
    at.line
}

/// Empties the value at `path`. False when there is none, or it is empty already.
pub(super) fn clear(root: &mut Node, path: &str) -> bool {
    replace(root, path, Value::Null).is_some_and(|was| was != Value::Null)
}

/// Puts a text at `path`, where there is a value.
pub(super) fn set_text(root: &mut Node, path: &str, text: &str) {
    replace(root, path, Value::Text(Str::new(text)));
}

/// Gives the value that was at `path`.
fn replace(root: &mut Node, path: &str, value: Value) -> Option<Value> {
    let mut at = root;
    for step in steps(path) {
        let next = match &mut at.value {
            Value::List(items) => step.parse::<usize>().ok().and_then(|i| items.get_mut(i)),
            Value::Map(entries) => {
                let entry = entries.iter_mut().find(|(k, _)| is_key(k, step));
                entry.map(|(_, node)| node)
            }
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => None,
        };
        at = next?;
    }
    Some(std::mem::replace(&mut at.value, value))
}

/// Whether a key as written is the step of a path, which has camelCase.
fn is_key(key: &str, step: &str) -> bool {
    key == step || camel(key).as_deref() == Some(step)
}

impl Branch {
    fn step(&self, step: &str) -> Option<&Branch> {
        match &self.under {
            Under::Nothing => None,
            Under::List(items) => items.get(step.parse::<usize>().ok()?),
            Under::Map(entries) => entries
                .iter()
                .find(|(key, _)| is_key(key, step))
                .map(|(_, branch)| branch),
        }
    }
}

/// The lowerCamelCase form of a snake_case name; none when it has no underscore.
pub fn camel(name: &str) -> Option<String> {
    if !name.contains('_') {
        return None;
    }
    let mut out = String::with_capacity(name.len());
    let mut raise = false;
    for c in name.chars() {
        match c {
            '_' => raise = true,
            c if raise => {
                out.extend(c.to_uppercase());
                raise = false;
            }
            c => out.push(c),
        }
    }
    Some(out)
}

/// `a.b[0].c[x.y/z]` → a, b, 0, c, x.y/z.
pub fn steps(path: &str) -> impl Iterator<Item = &str> {
    let mut rest = path;
    std::iter::from_fn(move || {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        if rest.is_empty() {
            return None;
        }
        let (step, after) = match rest.strip_prefix('[') {
            Some(inner) => inner.split_once(']').unwrap_or((inner, "")),
            None => rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len())),
        };
        rest = after;
        Some(step)
    })
}

fn branch(node: &Node, depth: usize) -> Branch {
    let under = match (&node.value, depth.checked_sub(1)) {
        (Value::List(items), Some(depth)) => {
            Under::List(items.iter().map(|n| branch(n, depth)).collect())
        }
        (Value::Map(entries), Some(depth)) => Under::Map(
            entries
                .iter()
                .map(|(k, n)| (k.clone(), branch(n, depth)))
                .collect(),
        ),
        (
            Value::List(_)
            | Value::Map(_)
            | Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_)
            | Value::Text(_),
            _,
        ) => Under::Nothing,
    };
    Branch {
        line: node.line,
        under,
    }
}

#[cfg(test)]
mod tests {
    use super::super::yaml;
    use super::*;

    fn lines(text: &str) -> Lines {
        Lines::of(
            &yaml::parse(yaml::documents(text)[0]).unwrap(),
            Detail::Full,
        )
    }

    #[test]
    fn a_path_gives_the_line_of_its_field_or_of_the_nearest_parent() {
        let lines = lines("spec:\n  http:\n  - route:\n    - weight: 1\n      per_try: 2\n");
        assert_eq!(lines.line_of("spec.http[0].route[0].weight"), 4);
        assert_eq!(lines.line_of("spec.http[0].route[0].perTry"), 5);
        assert_eq!(lines.line_of("spec.http[0].timeout"), 3);
        assert_eq!(lines.line_of(""), 1);
        let root = yaml::parse(yaml::documents("a:\n  b_c: 1\n")[0]).unwrap();
        assert_eq!((line_in(&root, "a.bC"), line_in(&root, "a.x")), (2, 1));
    }

    #[test]
    fn a_key_with_dots_stands_in_brackets() {
        assert_eq!(
            steps("a.b[0].c[x.y/z].d").collect::<Vec<_>>(),
            ["a", "b", "0", "c", "x.y/z", "d"]
        );
    }
}
