//! The mesh's certificates and tokens: who is who, and for how long.
//!
//! A credential (`authenticate`) gives an identity; the authority gives that identity, and no other, its
//! certificate. No leaf key is kept: what was issued lives in the bytes on their way to the proxy.

pub mod authenticate;
pub mod authority;
pub mod bundle;
pub mod csr;
pub mod files;
pub mod issuer_name;
pub mod key;
pub mod lease;
pub mod pem;
pub mod rate;
pub mod readers;
pub mod review;
pub mod service;
pub mod serving;
pub mod signer;
pub mod standby;
#[cfg(test)]
pub mod testing;
pub mod token;
pub mod trust;
pub mod verify;
pub mod version;

use crate::text::Str;

/// Why a certificate cannot be signed, or a CA not be used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("no root certificate")]
    NoRoot,
    #[error("root certificate: {0}")]
    Root(rustls::Error),
    #[error("certificate: {0}")]
    Certificate(String),
    #[error("the certificate is not a CA's (basicConstraints)")]
    NotCa,
    #[error("CA key: {0}")]
    Key(rcgen::Error),
    #[error("the key does not belong to the certificate")]
    KeyMismatch,
    #[error("a certificate that this CA signs does not verify against its roots: {0}")]
    Unverifiable(rustls::Error),
    #[error("the CA expired at {0} (seconds since 1970)")]
    Expired(u64),
    #[error("`{0}` is neither a host name nor an address")]
    ServerName(Str),
    #[error("sign: {0}")]
    Signing(rcgen::Error),
    #[error("serve with the certificate: {0}")]
    Tls(rustls::Error),
    #[error("the time is out of a certificate's range")]
    Date,
    #[error("the cryptographic library gave no key or random bytes")]
    Random,
}
