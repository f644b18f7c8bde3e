//! From what a caller shows to who it is. Nothing else in the program decides that.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::review::{self, Reviewer};
use super::token::ISSUER;
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

/// Who checks tokens: we those that we issued, and the cluster, where there is one, all others.
pub struct Verifier {
    pub own: LocalVerifier,
    pub cluster: Option<Reviewer>,
}

/// The one gate for everything that needs an identity: xDS, certificate requests, debug pages.
pub struct Authenticator {
    verifier: Verifier,
    trust_domain: Str,
    known: Mutex<Known>,
    refused: AtomicU64,
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
    /// Whether the same credential may be good in a moment: nobody could say.
    pub fn is_for_now(&self) -> bool {
        matches!(self, Self::Token(TokenError::Unanswered(_)))
    }

    /// What the caller is told, whatever the reason: no help for guessing.
    pub const REPLY: &'static str = "no valid credential: a service-account token or a client certificate of the mesh is needed";
}

impl Verifier {
    /// Of our own tokens alone.
    pub fn of_own(own: LocalVerifier) -> Self {
        let cluster = None;
        Self { own, cluster }
    }
}

impl Authenticator {
    pub fn new(verifier: Verifier, trust_domain: &str) -> Self {
        Self {
            verifier,
            trust_domain: Str::new(trust_domain),
            known: Mutex::default(),
            refused: AtomicU64::new(0),
        }
    }

    /// The token if one is shown, else the certificate: a bad token is not made good by a certificate.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        peer: Option<&Peer>,
        now: SystemTime,
    ) -> Result<Credential, Unauthenticated> {
        let proven = self.proven(headers, peer, now).await;
        if proven.as_ref().is_err_and(|reason| !reason.is_for_now()) {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        proven
    }

    /// Callers refused for want of a valid credential, wherever they called, since the start.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Callers let in by the cluster's keys alone, for it did not answer, since the start.
    pub fn by_standby(&self) -> u64 {
        self.verifier
            .cluster
            .as_ref()
            .map_or(0, Reviewer::by_standby)
    }

    async fn proven(
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
        let Verifier { own, cluster } = &self.verifier;
        let ours = || review::issuer(token).is_some_and(|issuer| issuer == ISSUER);
        let credential = match cluster {
            Some(cluster) if !ours() => cluster.verify(token, now).await?,
            _ => own.verify(token, now)?,
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http::HeaderValue;

    use super::*;
    use crate::ca::testing::{
        after, authority, chain_and_key, client, handshake, id, now, token_issuer, trusting,
    };
    use crate::ca::token::{AUDIENCE, Bearer, ISSUER, TokenIssuer};
    use crate::clock;
    use crate::tls::server_config;

    struct Gate {
        issuer: TokenIssuer,
        authenticator: Authenticator,
    }

    impl Gate {
        fn new() -> Self {
            let issuer = token_issuer();
            let td = "cluster.local";
            let local = LocalVerifier::new(&issuer.jwks(), ISSUER, &[AUDIENCE], td).unwrap();
            Self {
                issuer,
                authenticator: Authenticator::new(Verifier::of_own(local), td),
            }
        }

        fn token(&self, account: &str, life: u64) -> String {
            let bearer = Bearer {
                namespace: "shop",
                service_account: account,
                pod: None,
            };
            let life = Duration::from_secs(life);
            self.issuer.issue(bearer, AUDIENCE, life, now()).unwrap()
        }

        fn ask(
            &self,
            headers: &[&str],
            peer: Option<&Peer>,
            at: SystemTime,
        ) -> Result<Credential, Unauthenticated> {
            let mut map = HeaderMap::new();
            for value in headers {
                map.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            let asked = self.authenticator.authenticate(&map, peer, at);
            asked.now_or_never().unwrap()
        }
    }

    /// A peer of the CA's, for `account` of the shop.
    fn peer(account: &str) -> Peer {
        let at = clock::wall();
        let ca = std::sync::Arc::new(authority(at));
        let secret = ca.secret("default", &id(account), at).unwrap();
        let serving = crate::ca::serving::Serving::new(ca.clone(), &[], at).unwrap();
        let client = client(trusting(&ca), Some(chain_and_key(&secret.encoded)));
        let config = server_config(serving.live()).unwrap();
        Peer::of(&handshake(client, config, "istiod").unwrap().1).unwrap()
    }

    #[test]
    fn a_bearer_token_says_who_the_caller_is() {
        let gate = Gate::new();
        for scheme in ["Bearer", "bearer"] {
            let header = format!("{scheme} {}", gate.token("reviews", 600));
            let credential = gate.ask(&[&header], None, now()).unwrap();
            assert_eq!(credential.identity, id("reviews"));
        }
    }

    #[test]
    fn without_one_good_credential_there_is_no_identity() {
        let gate = Gate::new();
        let token = gate.token("reviews", 600);
        let header = format!("Bearer {token}");
        let refused = |headers: &[&str]| gate.ask(headers, None, now()).unwrap_err();
        assert_eq!(refused(&[]), Unauthenticated::Nothing);
        assert_eq!(refused(&[&header, &header]), Unauthenticated::Header);
        for bad in [&*token, "Bearer ", "Bearer", "Basic eDp5", ""] {
            assert_eq!(refused(&[bad]), Unauthenticated::Header, "{bad}");
        }
        let twice = format!("Bearer {token} {token}");
        assert!(matches!(refused(&[&twice]), Unauthenticated::Token(_)));
        let huge = format!("Bearer {}", "a".repeat(MAX_TOKEN + 1));
        assert_eq!(
            refused(&[&huge]),
            Unauthenticated::Token(TokenError::TooLarge)
        );
    }

    #[test]
    fn a_mesh_certificate_says_who_the_caller_is() {
        let gate = Gate::new();
        let peer = peer("ratings");
        let at = clock::wall();
        let credential = gate.ask(&[], Some(&peer), at).unwrap();
        assert_eq!(credential.identity, id("ratings"));
        let late = gate.ask(&[], Some(&peer), credential.expires);
        assert_eq!(late, Err(Unauthenticated::Expired));
    }

    #[test]
    fn a_bad_token_is_not_made_good_by_a_certificate() {
        let gate = Gate::new();
        let peer = peer("ratings");
        let got = gate.ask(&["Bearer x.y.z"], Some(&peer), now());
        assert!(matches!(got, Err(Unauthenticated::Token(_))));
        let header = format!("Bearer {}", gate.token("reviews", 600));
        let credential = gate.ask(&[&header], Some(&peer), now()).unwrap();
        assert_eq!(credential.identity, id("reviews"));
    }

    #[test]
    fn a_certificate_of_another_trust_domain_is_nobodys() {
        let gate = Gate {
            authenticator: Authenticator {
                trust_domain: Str::new("elsewhere"),
                ..Gate::new().authenticator
            },
            ..Gate::new()
        };
        let got = gate.ask(&[], Some(&peer("ratings")), clock::wall());
        assert!(matches!(got, Err(Unauthenticated::TrustDomain(_))));
    }

    #[test]
    fn what_is_remembered_ends_with_the_token_and_with_a_clock_that_jumps() {
        let gate = Gate::new();
        let header = format!("Bearer {}", gate.token("reviews", 100));
        gate.ask(&[&header], None, now()).unwrap();
        assert_eq!(gate.authenticator.known().good.len(), 1);
        gate.ask(&[&header], None, after(99)).unwrap();
        let expired = Unauthenticated::Token(TokenError::Expired);
        assert_eq!(gate.ask(&[&header], None, after(100)), Err(expired.clone()));
        assert_eq!(gate.ask(&[&header], None, after(86_400)), Err(expired));
        let early = Unauthenticated::Token(TokenError::Early);
        let day_before = now() - Duration::from_secs(86_400);
        assert_eq!(gate.ask(&[&header], None, day_before), Err(early));
    }

    #[test]
    fn memory_is_bounded_and_refusals_take_none() {
        let gate = Gate::new();
        for n in 0..50 {
            let _ = gate.ask(&[&format!("Bearer {n}.y.z")], None, now());
        }
        assert!(gate.authenticator.known().good.is_empty());
        let credential = gate
            .ask(&[&format!("Bearer {}", gate.token("a", 600))], None, now())
            .unwrap();
        let mut known = Known::default();
        for n in 0..(MAX_KNOWN + 100) {
            known.insert(Known::hash(&n.to_string()), &credential, now());
        }
        assert_eq!(known.good.len(), MAX_KNOWN);
        known.insert(Known::hash("later"), &credential, after(300));
        assert_eq!(known.good.len(), 1);
    }
}
