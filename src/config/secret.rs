//! A Secret, as far as gateways show it: a certificate with its key, and the roots of clients.
//!
//! Istio reads two shapes: `kubernetes.io/tls` with `tls.crt`, `tls.key` and maybe `ca.crt`, `ca.crl`; and any other
//! with `cert`, `key`, `cacert`, `crl`. A Secret without any of it is empty here.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::text::Str;

/// Envoy asks for a Secret of its proxy's namespace by this and the Secret's name.
pub const SECRET: &str = "kubernetes://";
/// At the end of such a name: the roots alone.
pub const ROOTS: &str = "-cacert";

/// The SDS name of a certificate and key in the proxy's file system begins so; `~` stands between the two.
pub const FILE_PAIR: &str = "file-cert:";
/// The same of roots; after `~` the list of what was revoked, if there is one.
pub const FILE_ROOTS: &str = "file-root:";

/// The SDS name of a Secret's certificate and key.
pub fn sds_name(secret: &str) -> Str {
    Str::new(format!("{SECRET}{secret}"))
}

/// The SDS name of a Secret's roots.
pub fn sds_roots(secret: &str) -> Str {
    Str::new(format!("{SECRET}{secret}{ROOTS}"))
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Secret {
    /// Certificate chain and private key, in PEM.
    pub pair: Option<(Str, PrivateKey)>,
    pub roots: Option<Str>,
    pub revoked: Option<Str>,
}

impl Secret {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// It is shown to nobody and written nowhere, and wiped with its last holder.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PrivateKey(Arc<Zeroizing<String>>);

impl PrivateKey {
    pub fn new(pem: Zeroizing<String>) -> Self {
        Self(Arc::new(pem))
    }

    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::clone(&self.0)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Serialize for PrivateKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("")
    }
}

impl<'de> Deserialize<'de> for PrivateKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pem = String::deserialize(deserializer)?;
        Ok(Self::new(Zeroizing::new(pem)))
    }
}
