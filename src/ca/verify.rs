//! Checks service-account tokens by their issuer's public keys. Remembering the outcome is in `authenticate`.

use std::time::{Duration, SystemTime};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};

use super::authenticate::Credential;
use super::lease::from_unix;
use super::token::Claims;
use crate::identity::SpiffeId;
use crate::text::Str;

/// Larger tokens are refused unread.
pub const MAX_TOKEN: usize = 16 << 10;
/// How far an issuer's clock may be ahead of ours; none for the end of a token.
const SKEW: Duration = Duration::from_secs(60);

/// Verifies without asking anybody: signature, issuer, audience, time.
pub struct LocalVerifier {
    keys: Vec<Key>,
    trust_domain: Str,
}

struct Key {
    id: Option<String>,
    key: DecodingKey,
    validation: Validation,
}

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    #[error("the token is larger than {MAX_TOKEN} bytes")]
    TooLarge,
    #[error("the token is not a signed JWT of an accepted algorithm and key")]
    Malformed,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token is of another issuer")]
    Issuer,
    #[error("the token expired")]
    Expired,
    #[error("the token is not valid yet")]
    Early,
    #[error("the token does not name one service account")]
    Subject,
}

#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    #[error("the key set has no EC P-256 or RSA key that can verify tokens")]
    NoKey,
    #[error("a key of the key set: {0}")]
    Key(jsonwebtoken::errors::Error),
}

impl LocalVerifier {
    /// The algorithm of each key follows from its type; what a token's header asks for does not count.
    pub fn new(
        keys: &JwkSet,
        issuer: &str,
        audiences: &[&str],
        trust_domain: &str,
    ) -> Result<Self, KeySetError> {
        let mut found = Vec::new();
        for jwk in &keys.keys {
            let Some(algorithm) = algorithm(jwk) else {
                continue;
            };
            let mut validation = Validation::new(algorithm);
            validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
            validation.set_issuer(&[issuer]);
            validation.set_audience(audiences);
            // By the library's own clock; ours is checked below.
            validation.validate_exp = false;
            found.push(Key {
                id: jwk.common.key_id.clone(),
                key: DecodingKey::from_jwk(jwk).map_err(KeySetError::Key)?,
                validation,
            });
        }
        if found.is_empty() {
            return Err(KeySetError::NoKey);
        }
        Ok(Self {
            keys: found,
            trust_domain: Str::new(trust_domain),
        })
    }

    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Credential, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLarge);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
        let named = |k: &&Key| header.kid.is_none() || k.id.is_none() || k.id == header.kid;
        let key = self.keys.iter().find(named).ok_or(TokenError::Malformed)?;
        let claims = jsonwebtoken::decode::<Claims>(token, &key.key, &key.validation)
            .map_err(|e| refusal(e.kind()))?
            .claims;
        self.credential(&claims, now)
    }

    fn credential(&self, claims: &Claims, now: SystemTime) -> Result<Credential, TokenError> {
        let expires = from_unix(claims.exp).ok_or(TokenError::Malformed)?;
        if now >= expires {
            return Err(TokenError::Expired);
        }
        let begins = from_unix(claims.nbf.unwrap_or(0)).ok_or(TokenError::Malformed)?;
        if now + SKEW < begins {
            return Err(TokenError::Early);
        }
        let bound = &claims.kubernetes;
        let (namespace, account) = (&bound.namespace, &bound.serviceaccount.name);
        if claims.sub != format!("system:serviceaccount:{namespace}:{account}") {
            return Err(TokenError::Subject);
        }
        let identity = SpiffeId::new(&self.trust_domain, namespace, account)
            .map_err(|_| TokenError::Subject)?;
        Ok(Credential {
            identity,
            pod: bound.pod.as_ref().map(|p| Str::new(&p.name)),
            expires,
        })
    }
}

/// `None` for keys that cannot verify a service-account token; a shared secret never can.
fn algorithm(jwk: &Jwk) -> Option<Algorithm> {
    match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
            Some(Algorithm::ES256)
        }
        AlgorithmParameters::RSA(_) => Some(Algorithm::RS256),
        _ => None,
    }
}

fn refusal(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::InvalidAudience => TokenError::Audience,
        ErrorKind::InvalidIssuer => TokenError::Issuer,
        _ => TokenError::Malformed,
    }
}
