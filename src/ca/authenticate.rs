//! From what a caller shows to who it is. Nothing else in the program decides that.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::verify::{LocalVerifier, MAX_TOKEN, TokenError};
use crate::identity::SpiffeId;
use crate::text::Str;
use crate::tls::{Peer, PeerError};

/// Proof of who the caller is, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    pub identity: SpiffeId,
    /// The pod that the token is bound to.
    pub pod: Option<Str>,
    /// A connection that rests on it ends then.
    pub expires: SystemTime,
}

/// Who checks tokens. Asking the API server (TokenReview) becomes another variant.
pub enum Verifier {
    Local(LocalVerifier),
}

/// The one gate for everything that needs an identity: xDS, certificate requests, debug pages.
pub struct Authenticator {
    verifier: Verifier,
    trust_domain: Str,
    known: Mutex<Known>,
}

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unauthenticated {
    #[error("no token and no client certificate")]
    Nothing,
    #[error("the authorization header is not one bearer token")]
    Header,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error("the client certificate is of trust domain {0}")]
    TrustDomain(Str),
    #[error("the client certificate expired")]
    Expired,
}

impl Unauthenticated {
    /// What the caller is told, whatever the reason: no help for guessing.
    pub const REPLY: &'static str = "no valid credential: a service-account token or a client certificate of the mesh is needed";
}

impl Authenticator {
    pub fn new(verifier: Verifier, trust_domain: &str) -> Self {
        Self {
            verifier,
            trust_domain: Str::new(trust_domain),
            known: Mutex::default(),
        }
    }

    /// The token if one is shown, else the certificate: a bad token is not made good by a certificate.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        peer: Option<&Peer>,
        now: SystemTime,
    ) -> Result<Credential, Unauthenticated> {
        match (bearer(headers)?, peer) {
            (Some(token), _) => Ok(self.token(token, now).await?),
            (None, Some(peer)) => self.certificate(peer, now),
            (None, None) => Err(Unauthenticated::Nothing),
        }
    }

    async fn token(&self, token: &str, now: SystemTime) -> Result<Credential, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLarge);
        }
        let hash = Known::hash(token);
        if let Some(credential) = self.known().get(&hash, now) {
            return Ok(credential);
        }
        let credential = match &self.verifier {
            Verifier::Local(local) => local.verify(token, now)?,
        };
        self.known().insert(hash, &credential, now);
        Ok(credential)
    }

    fn certificate(&self, peer: &Peer, now: SystemTime) -> Result<Credential, Unauthenticated> {
        let found = peer.identity()?;
        if found.identity.trust_domain() != &self.trust_domain {
            let other = found.identity.trust_domain().clone();
            return Err(Unauthenticated::TrustDomain(other));
        }
        if now >= found.not_after {
            return Err(Unauthenticated::Expired);
        }
        Ok(Credential {
            identity: found.identity,
            pod: None,
            expires: found.not_after,
        })
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Unauthenticated> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next(), values.next()) else {
        return Err(Unauthenticated::Header);
    };
    let Some(value) = value else {
        return Ok(None);
    };
    let text = value.to_str().map_err(|_| Unauthenticated::Header)?;
    let (scheme, token) = text.split_once(' ').ok_or(Unauthenticated::Header)?;
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(Unauthenticated::Header);
    }
    Ok(Some(token))
}

/// Tokens that were found good lately, by hash. Refusals are not remembered.
#[derive(Default)]
struct Known {
    good: BTreeMap<[u8; 32], (Credential, Validity)>,
}

/// From when to when an outcome may be used again; a clock that jumps back ends it too.
#[derive(Clone, Copy)]
struct Validity {
    from: SystemTime,
    until: SystemTime,
}

const REMEMBER: Duration = Duration::from_secs(300);
/// About 3 MB; more proxies than that verify more often.
const MAX_KNOWN: usize = 16_384;

impl Known {
    fn hash(token: &str) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        hash
    }

    fn get(&self, hash: &[u8; 32], now: SystemTime) -> Option<Credential> {
        let (credential, valid) = self.good.get(hash)?;
        (valid.from <= now && now < valid.until).then(|| credential.clone())
    }

    fn insert(&mut self, hash: [u8; 32], credential: &Credential, now: SystemTime) {
        if self.good.len() >= MAX_KNOWN {
            self.good.retain(|_, (_, valid)| now < valid.until);
        }
        if self.good.len() >= MAX_KNOWN {
            self.good.pop_first();
        }
        let valid = Validity {
            from: now,
            until: credential.expires.min(now + REMEMBER),
        };
        self.good.insert(hash, (credential.clone(), valid));
    }
}
