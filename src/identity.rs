//! Workload identity: trust domain, namespace, service account (SPIFFE).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::text::Str;

/// `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
///
/// It comes only from a checked credential, never from what a proxy says of itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SpiffeId {
    pub trust_domain: Str,
    pub namespace: Str,
    pub service_account: Str,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is no workload identity of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>"
)]
pub struct SpiffeIdError(pub Str);

impl SpiffeId {
    pub fn parse(uri: &str) -> Result<Self, SpiffeIdError> {
        let parts: Vec<&str> = uri
            .strip_prefix("spiffe://")
            .unwrap_or("")
            .split('/')
            .collect();
        match parts[..] {
            [td, "ns", ns, "sa", sa] if ![td, ns, sa].contains(&"") => Ok(Self {
                trust_domain: Str::new(td),
                namespace: Str::new(ns),
                service_account: Str::new(sa),
            }),
            _ => Err(SpiffeIdError(Str::new(uri))),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spiffe_id_round_trips() {
        let uri = "spiffe://cluster.local/ns/shop/sa/reviews";
        assert_eq!(SpiffeId::parse(uri).unwrap().to_string(), uri);
    }

    #[test]
    fn other_uris_are_refused() {
        for bad in [
            "",
            "spiffe://td/ns/a",
            "spiffe:///ns/a/sa/b",
            "https://td/ns/a/sa/b",
            "spiffe://td/ns/a/sa/b/c",
        ] {
            assert!(SpiffeId::parse(bad).is_err(), "{bad}");
        }
    }
}
