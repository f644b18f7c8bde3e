//! Whether Envoy's RE2 would compile an expression, judged without RE2.
//!
//! The crate `regex` has almost RE2's syntax. Where RE2 is laxer the expression is rewritten before
//! it is compiled, where RE2 is stricter it is refused here: what passes must not be NACKed.

use regex::RegexBuilder;

/// Istio's bound on the text, and one on what it compiles to.
const MAX_LENGTH: usize = 1024;
const MAX_COMPILED: usize = 4 << 20;
const MAX_REPEAT: u32 = 1000;

/// Script names that RE2 knows, of those that mean anything in a header or path.
const SCRIPTS: &[&str] = &[
    "Arabic",
    "Armenian",
    "Bengali",
    "Common",
    "Cyrillic",
    "Devanagari",
    "Georgian",
    "Greek",
    "Han",
    "Hangul",
    "Hebrew",
    "Hiragana",
    "Katakana",
    "Latin",
    "Tamil",
    "Thai",
];

/// Its general categories. It knows neither long names nor other spellings of them.
const CATEGORIES: &[&str] = &[
    "Any", "C", "Cc", "Cf", "Co", "Cs", "L", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn",
    "N", "Nd", "Nl", "No", "P", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm",
    "So", "Z", "Zl", "Zp", "Zs",
];

/// What may stand between `[:` and `:]`, also after `^`.
const POSIX: &[&str] = &[
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

pub(super) fn compiles(text: &str) -> Result<(), String> {
    groups(text).map(drop)
}

/// How many groups capture, in an expression that compiles.
pub(super) fn groups(text: &str) -> Result<usize, String> {
    if text.is_empty() {
        return Err("an empty expression matches nothing; leave the match out".to_owned());
    }
    if text.len() > MAX_LENGTH {
        return Err(format!(
            "the expression has {} bytes, at most {MAX_LENGTH} are taken",
            text.len()
        ));
    }
    let rewritten = Scanner {
        rest: text,
        out: String::new(),
        groups: vec![1],
        last: 1,
    }
    .rewrite()?;
    RegexBuilder::new(&rewritten)
        .size_limit(MAX_COMPILED)
        .build()
        .map(|regex| regex.captures_len() - 1)
        .map_err(|e| {
            let text = e.to_string();
            let cause = text.lines().last().unwrap_or("").trim();
            let cause = cause.strip_prefix("error: ").unwrap_or(cause);
            format!("this is no RE2 expression: {cause}")
        })
}

struct Scanner<'t> {
    rest: &'t str,
    out: String,
    /// Of each open group, how often its most repeated part is: counts inside counts multiply.
    groups: Vec<u32>,
    /// The same of what stands before the cursor.
    last: u32,
}

/// What stands before a quantifier decides whether RE2 takes it.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Atom,
    Quantifier,
    LazyQuantifier,
}

impl<'t> Scanner<'t> {
    fn rewrite(mut self) -> Result<String, String> {
        let mut before = Before::Atom;
        while let Some(c) = self.rest.chars().next() {
            if !matches!(c, '{' | '*' | '+' | '?' | ')') {
                self.last = 1;
            }
            before = match c {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '{' => match repetition(self.rest) {
                    Some(length) => self.quantifier(length, before)?,
                    None => {
                        self.last = 1;
                        self.literal_brace()
                    }
                },
                '?' if before == Before::Quantifier => {
                    self.take(1);
                    Before::LazyQuantifier
                }
                '*' | '+' | '?' => self.quantifier(1, before)?,
                '(' => self.group()?,
                ')' => self.close(),
                c => {
                    self.take(c.len_utf8());
                    Before::Atom
                }
            };
        }
        Ok(self.out)
    }

    fn take(&mut self, length: usize) -> &'t str {
        let (head, tail) = self.rest.split_at(length);
        self.out.push_str(head);
        self.rest = tail;
        head
    }

    fn quantifier(&mut self, length: usize, before: Before) -> Result<Before, String> {
        let text = self.take(length);
        if before != Before::Atom {
            return Err(format!(
                "`{text}` repeats a repetition, which RE2 does not take"
            ));
        }
        let counts = text.trim_matches(['{', '}']).split(',');
        // RE2 goes by the upper bound, by the lower one where there is no other.
        let count = counts.filter_map(|n| n.parse::<u32>().ok()).max();
        if count.is_some_and(|n| n > MAX_REPEAT) {
            return Err(format!("`{text}` repeats more than {MAX_REPEAT} times"));
        }
        self.last *= count.unwrap_or(1).max(1);
        if self.last > MAX_REPEAT {
            return Err(format!(
                "`{text}` and the counts inside what it repeats make more than {MAX_REPEAT} times"
            ));
        }
        self.note();
        Ok(Before::Quantifier)
    }

    fn note(&mut self) {
        if let Some(group) = self.groups.last_mut() {
            *group = self.last.max(*group);
        }
    }

    fn close(&mut self) -> Before {
        // One parenthesis too many is told by the compiler.
        self.last = self.groups.pop().unwrap_or(1);
        self.note();
        self.take(1);
        Before::Atom
    }

    /// RE2 takes a brace that starts no repetition for itself.
    fn literal_brace(&mut self) -> Before {
        self.out.push('\\');
        self.take(1);
        Before::Atom
    }

    /// RE2 has the flags i, m, s, U alone, and names of letters, digits and `_`.
    fn group(&mut self) -> Result<Before, String> {
        self.groups.push(1);
        if let Some(flags) = self.rest.strip_prefix("(?") {
            let end = flags
                .find([':', ')', '<', 'P', '=', '!'])
                .unwrap_or(flags.len());
            if flags[..end].contains(|c: char| !matches!(c, 'i' | 'm' | 's' | 'U' | '-')) {
                return Err(format!(
                    "`(?{}` has a flag that RE2 does not have",
                    &flags[..end]
                ));
            }
            let name = flags[end..].trim_start_matches('P').strip_prefix('<');
            let name = name.and_then(|n| n.split_once('>'));
            if let Some((name, _)) = name
                && !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            {
                return Err(format!("`{name}` is no name of a group in RE2"));
            }
            self.take(2);
            return Ok(Before::Atom);
        }
        self.take(1);
        Ok(Before::Atom)
    }

    fn escape(&mut self) -> Result<Before, String> {
        let mut chars = self.rest.chars();
        chars.next();
        match chars.next() {
            None => Err("a lone `\\` stands at the end".to_owned()),
            Some('Q') => {
                let quoted = &self.rest[2..];
                let (literal, after) = quoted.split_once("\\E").unwrap_or((quoted, ""));
                self.out.push_str(&regex::escape(literal));
                self.rest = after;
                Ok(Before::Atom)
            }
            Some('C') => {
                self.out.push('.');
                self.rest = &self.rest[2..];
                Ok(Before::Atom)
            }
            Some('p' | 'P') => self.unicode_class(),
            Some('u' | 'U') => Err("`\\u` is no escape of RE2; write `\\x{…}`".to_owned()),
            Some(c) => {
                self.take(1 + c.len_utf8());
                Ok(Before::Atom)
            }
        }
    }

    /// `\pN`, `\p{Greek}`, and `\p{^Greek}`, which only RE2 has.
    fn unicode_class(&mut self) -> Result<Before, String> {
        let (escape, rest) = self.rest.split_at(2);
        let (name, length) = match rest.strip_prefix('{').and_then(|r| r.split_once('}')) {
            Some((name, _)) => (name, name.len() + 2),
            None => {
                let length = rest.chars().next().map_or(0, char::len_utf8);
                (&rest[..length], length)
            }
        };
        let (escape, name) = match (escape, name.strip_prefix('^')) {
            (_, None) => (escape, name),
            ("\\p", Some(name)) => ("\\P", name),
            (_, Some(name)) => ("\\p", name),
        };
        if !CATEGORIES.contains(&name) && !SCRIPTS.contains(&name) {
            return Err(format!("`{name}` is no Unicode class of RE2"));
        }
        self.out.push_str(&format!("{escape}{{{name}}}"));
        self.rest = &rest[length..];
        Ok(Before::Atom)
    }

    /// Inside a class RE2 knows `[:name:]` only; a bare `[` and the set operators are plain there.
    fn class(&mut self) -> Result<Before, String> {
        self.take(1);
        if self.rest.starts_with('^') {
            self.take(1);
        }
        if self.rest.starts_with(']') {
            self.out.push('\\');
            self.take(1);
        }
        while let Some(c) = self.rest.chars().next() {
            match c {
                ']' => {
                    self.take(1);
                    return Ok(Before::Atom);
                }
                '\\' => drop(self.escape()?),
                '[' if self.rest.starts_with("[:") && self.rest.contains(":]") => {
                    let end = self.rest.find(":]").unwrap_or(0);
                    let name = self.take(end + 2);
                    let bare = name.trim_matches(['[', ']', ':']);
                    if !POSIX.contains(&bare.strip_prefix('^').unwrap_or(bare)) {
                        return Err(format!("`{name}` is no class of RE2"));
                    }
                }
                '[' | '&' | '~' => {
                    self.out.push('\\');
                    self.take(1);
                }
                c => drop(self.take(c.len_utf8())),
            }
        }
        Err("a `[` is never closed".to_owned())
    }
}

/// The length of `{n}`, `{n,}` or `{n,m}` at the start of `text`.
fn repetition(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('{')?;
    let (inner, _) = inner.split_once('}')?;
    let (from, to) = inner.split_once(',').unwrap_or((inner, ""));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    (!from.is_empty() && digits(from) && digits(to)).then_some(inner.len() + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_re2_takes_is_taken() {
        for ok in [
            "/users/{id}",
            "^(.*?;)?(user=jason)(;.*)?$",
            "[[]a]",
            "[^[]+",
            "[]a]",
            "[[:alpha:]_-]+",
            "[a&&b]",
            r"\Qa.b*\E+",
            r"\pL\p{Lu}\p{Greek}",
            "(?i)abc(?P<x>d)(?:e)",
            "a{2,3}?",
            "x{,5}",
            r"\/v[0-9]{1,1000}\.",
            "a*?b??",
            "(a{10}){100}",
            "(a{100}|b{100}){10}c{1000}",
            "(a{0}){1000}",
            "[[:^alpha:][:word:]]",
            "[[:foo]",
            r"\p{Any}\pN\PZ\p{^Lu}[\P{^Lu}]",
            "(?P<a_1>x)",
            r"\_[_a]_",
        ] {
            assert_eq!(compiles(ok), Ok(()), "{ok}");
        }
    }

    #[test]
    fn what_re2_refuses_is_refused() {
        for bad in [
            "",
            "*",
            "(",
            "[a",
            "a**",
            "a{2}{3}",
            "a{1001}",
            r"(a)\1",
            "(?=a)",
            "(?<!a)b",
            "(?x)a",
            r"\u0041",
            r"\p{Alphabetic}",
            r"a\",
            "+",
            "a+*",
            "[[:foo:]]",
            "[[:^foo:]]",
            "[[:Alpha:]]",
            r"\p{LC}",
            r"\p{Cn}",
            r"\p{lu}",
            r"\pl",
            "(?P<a.b>x)",
        ] {
            assert!(compiles(bad).is_err(), "{bad}");
        }
        assert!(compiles(&"a".repeat(1025)).is_err());
    }

    #[test]
    fn counts_inside_counts_multiply() {
        for bad in [
            "(a{1000}){1000}",
            "(a{100}){100}",
            "([a-z0-9]{1,40}-){1,40}x",
            "(((a{10}){10}b){10}c){2}",
            "((a{501})+){2}",
            "(a{2}|b{501}){2,}",
        ] {
            assert!(compiles(bad).is_err(), "{bad}");
        }
    }
}
