//! Workload identity: trust domain, namespace, service account (SPIFFE).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::text::Str;

/// `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
///
/// It comes only from a checked credential, never from what a proxy says of itself. Its parts hold
/// only the characters that SPIFFE allows, so none can escape from a URI, a certificate or a regex.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Str", into = "Str")]
pub struct SpiffeId {
    trust_domain: Str,
    namespace: Str,
    service_account: Str,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is no workload identity of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>"
)]
pub struct SpiffeIdError(pub Str);

/// Kubernetes' bound on names, and SPIFFE's on a trust domain is not much above it.
const MAX_PART: usize = 253;
/// How much of a refused text a message repeats.
const MAX_SHOWN: usize = 300;

impl SpiffeId {
    pub fn new(
        trust_domain: &str,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, SpiffeIdError> {
        if [trust_domain, namespace, service_account]
            .into_iter()
            .all(is_part)
        {
            return Ok(Self {
                trust_domain: Str::new(trust_domain),
                namespace: Str::new(namespace),
                service_account: Str::new(service_account),
            });
        }
        let uri = format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}");
        Err(refused(&uri))
    }

    pub fn parse(uri: &str) -> Result<Self, SpiffeIdError> {
        let path = uri.strip_prefix("spiffe://").unwrap_or("");
        let mut parts = path.splitn(6, '/');
        let parts: [Option<&str>; 6] = std::array::from_fn(|_| parts.next());
        match parts {
            [Some(td), Some("ns"), Some(ns), Some("sa"), Some(sa), None] => {
                Self::new(td, ns, sa).map_err(|_| refused(uri))
            }
            _ => Err(refused(uri)),
        }
    }

    pub fn trust_domain(&self) -> &Str {
        &self.trust_domain
    }

    pub fn namespace(&self) -> &Str {
        &self.namespace
    }

    pub fn service_account(&self) -> &Str {
        &self.service_account
    }
}

/// Whether an identity could be of this trust domain.
pub fn is_trust_domain(text: &str) -> bool {
    is_part(text)
}

fn is_part(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    !text.is_empty()
        && text.len() <= MAX_PART
        && text.bytes().all(allowed)
        && text.bytes().any(|b| b != b'.')
}

fn refused(uri: &str) -> SpiffeIdError {
    SpiffeIdError(uri.chars().take(MAX_SHOWN).collect())
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            trust_domain,
            namespace,
            service_account,
        } = self;
        write!(
            f,
            "spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}"
        )
    }
}

impl TryFrom<Str> for SpiffeId {
    type Error = SpiffeIdError;

    fn try_from(uri: Str) -> Result<Self, Self::Error> {
        Self::parse(&uri)
    }
}

impl From<SpiffeId> for Str {
    fn from(id: SpiffeId) -> Self {
        Str::new(id.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spiffe_id_round_trips() {
        let uri = "spiffe://cluster.local/ns/shop/sa/reviews";
        let id = SpiffeId::parse(uri).unwrap();
        assert_eq!(id.to_string(), uri);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{uri}\""));
        assert_eq!(serde_json::from_str::<SpiffeId>(&json).unwrap(), id);
    }

    #[test]
    fn other_uris_are_refused() {
        for bad in [
            "",
            "spiffe://td/ns/a",
            "spiffe:///ns/a/sa/b",
            "https://td/ns/a/sa/b",
            "spiffe://td/ns/a/sa/b/c",
            "spiffe://td/ns/a/sa/b/",
            "spiffe://td/ns/a/sa/..",
            "spiffe://td/ns/a/sa/b?x=y",
            "spiffe://td/ns/a/sa/b%2Fc",
            "spiffe://td/ns/a.*|x/sa/b",
            "spiffe://td/ns/a\n/sa/b",
            "spiffe://td:80/ns/a/sa/b",
        ] {
            assert!(SpiffeId::parse(bad).is_err(), "{bad}");
        }
        assert!(SpiffeId::new("td", "a/sa/admin", "b").is_err());
        let long = "x".repeat(10_000);
        let error = SpiffeId::parse(&long).unwrap_err();
        assert!(error.to_string().len() < 500, "{error}");
    }
}
