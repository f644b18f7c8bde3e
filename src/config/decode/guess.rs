//! Which object a document that is no YAML was meant to be. For messages alone: nothing is decided by it.

use crate::diagnostic::Subject;
use crate::text::Str;

use super::manifest::DEFAULT_NAMESPACE;

const MAX_NAME: usize = 253;

/// Read from lines as people write them; none unless kind and name are there.
pub(super) fn subject(text: &str) -> Option<Subject> {
    let (mut kind, mut name, mut namespace) = (None, None, None);
    let mut within = "";
    let mut indent = None;
    for row in text.lines() {
        let bare = row.trim_start();
        let Some((key, value)) = bare.split_once(':') else {
            continue;
        };
        let depth = row.len() - bare.len();
        if depth == 0 {
            (within, indent) = (key, None);
            match key {
                "kind" => kind = kind.or_else(|| plain(value)),
                "metadata" => {
                    name = name.or_else(|| in_braces(value, "name"));
                    namespace = namespace.or_else(|| in_braces(value, "namespace"));
                }
                _ => {}
            }
        } else if within == "metadata" && *indent.get_or_insert(depth) == depth {
            match key {
                "name" => name = name.or_else(|| plain(value)),
                "namespace" => namespace = namespace.or_else(|| plain(value)),
                _ => {}
            }
        }
    }
    Some(Subject {
        kind: kind?,
        namespace: namespace.unwrap_or(DEFAULT_NAMESPACE),
        name: name?,
    })
}

/// Of `{name: a, namespace: b}`.
fn in_braces(value: &str, wanted: &str) -> Option<Str> {
    let inside = value.trim().strip_prefix('{')?;
    let pairs = inside.split([',', '{', '}']);
    let mut values = pairs.filter_map(|pair| pair.split_once(':'));
    values.find_map(|(key, value)| plain(value).filter(|_| key.trim() == wanted))
}

fn plain(value: &str) -> Option<Str> {
    let bare = value.split(" #").next().unwrap_or(value).trim();
    let bare = bare.trim_matches(['"', '\'']);
    let sound = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let named = !bare.is_empty() && bare.len() <= MAX_NAME && bare.chars().all(sound);
    named.then(|| Str::new(bare))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_document_still_says_its_name_by_its_lines() {
        let text = "kind: VirtualService # routes\nmetadata:\n  labels:\n    name: x\n  name: 'reviews'\n  \
                    namespace: shop\nspec:\n  name: y\n  hosts: [a\n";
        let found = subject(text).unwrap().to_string();
        assert_eq!(found, "VirtualService shop/reviews");
    }

    #[test]
    fn names_in_braces_are_found_too() {
        let text = "kind: Service\nmetadata: {name: a, namespace: b}\nspec: [\n";
        assert_eq!(subject(text).unwrap().to_string(), "Service b/a");
    }

    #[test]
    fn without_kind_or_name_nothing_is_guessed() {
        assert_eq!(subject("kind: Service\nspec: {name: a}\n"), None);
        assert_eq!(subject("metadata:\n  name: a\n"), None);
    }
}
