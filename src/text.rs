//! Shared strings and host names. No parsing of configuration here.

use std::fmt;

use serde::Serialize;

/// A cheap-to-clone string: names, labels and values of the mesh.
pub type Str = smol_str::SmolStr;

/// A lower-case DNS name, an IP literal, or a wildcard whose first label is `*`.
///
/// ```
/// # use fairlead::text::Hostname;
/// assert!(Hostname::parse("*.example.com").unwrap().matches("a.example.com"));
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Hostname(Str);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no host name: {1}")]
pub struct HostnameError(pub Str, pub &'static str);

const MAX_HOST: usize = 253;
const MAX_LABEL: usize = 63;

impl Hostname {
    /// Lower-cases and checks; a wildcard is allowed only as `*` or `*.rest` (also `*-rest`, as in Istio).
    pub fn parse(text: &str) -> Result<Self, HostnameError> {
        let fail = |why| Err(HostnameError(Str::new(text), why));
        if text.is_empty() {
            return fail("it is empty");
        }
        // `a.b.` is the absolute form of `a.b`.
        let bare = text.strip_suffix('.');
        let absolute = bare.filter(|t| !t.is_empty() && !t.ends_with(['.', '*']));
        let text = absolute.unwrap_or(text);
        if text.len() > MAX_HOST {
            return fail("it is longer than 253 characters");
        }
        let host = if text.bytes().any(|b| b.is_ascii_uppercase()) {
            Str::new(text.to_ascii_lowercase())
        } else {
            Str::new(text)
        };
        if text.parse::<std::net::IpAddr>().is_ok() {
            return Ok(Self(host));
        }
        let rest = host.strip_prefix('*').unwrap_or(&host);
        if rest.contains('*') {
            return fail("`*` may stand only at its start");
        }
        let labels = rest.strip_prefix('.').unwrap_or(rest);
        let bad = |l: &str| {
            l.is_empty()
                || l.len() > MAX_LABEL
                || !l
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if !labels.is_empty() && labels.split('.').any(bad) {
            return fail("a label is empty, too long, or has a character other than a-z, 0-9, `-`");
        }
        if labels.is_empty() && rest == "." {
            return fail("a label is empty");
        }
        Ok(Self(host))
    }

    /// Istio's short form: a name without a dot gets `.<namespace>.svc.<domain>`.
    pub fn expand(text: &str, namespace: &str, domain: &str) -> Result<Self, HostnameError> {
        if text.contains('.') || text.contains('*') || text.contains(':') {
            return Self::parse(text);
        }
        Self::parse(&format!("{text}.{namespace}.svc.{domain}"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn to_str(&self) -> Str {
        self.0.clone()
    }

    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }

    /// Whether `host` (no wildcard) is this host or falls under this wildcard.
    pub fn matches(&self, host: &str) -> bool {
        match self.0.strip_prefix('*') {
            Some(suffix) => host.len() >= suffix.len() && host.ends_with(suffix),
            None => self.0 == host,
        }
    }

    /// Istio's order of specificity: exact before wildcard, then the longer one.
    pub fn specificity(&self) -> (bool, usize) {
        (!self.is_wildcard(), self.0.len())
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::borrow::Borrow<str> for Hostname {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_by_suffix_and_exact_names_alone() {
        let any = Hostname::parse("*").unwrap();
        let wild = Hostname::parse("*.Example.com").unwrap();
        assert!(any.matches("a.b"));
        assert!(wild.matches("x.example.com"));
        assert!(!wild.matches("example.com"));
        assert!(Hostname::parse("a.b").unwrap().specificity() > wild.specificity());
        assert_eq!(Hostname::parse("a.b.").unwrap().as_str(), "a.b");
    }

    #[test]
    fn bad_hosts_say_why() {
        for bad in ["", ".", "a..b", "a.*.b", "a b", "*.", &"x".repeat(254)] {
            assert!(Hostname::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn short_names_expand_in_their_namespace() {
        let host = Hostname::expand("reviews", "shop", "cluster.local").unwrap();
        assert_eq!(host.as_str(), "reviews.shop.svc.cluster.local");
        assert_eq!(
            Hostname::expand("a.b", "shop", "cluster.local")
                .unwrap()
                .as_str(),
            "a.b"
        );
    }
}
