//! The cluster's own public keys, for the time in which it answers no question about tokens.
//!
//! A signature says less than the cluster does: a token may have been taken back. So only tokens bound to a pod that is
//! still there in what was last seen count, that very pod and with its account; each use is counted, what it gives holds
//! for minutes, and none of it is done while the cluster answers. What is not looked at is the service account's uid.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use jsonwebtoken::jwk::JwkSet;

use super::authenticate::Credential;
use super::token::{AUDIENCE, Claims};
use super::verify::{KeySetError, LocalVerifier, TokenError};
use crate::text::Str;

/// What an issuer publishes of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerKeys {
    pub issuer: String,
    pub keys: JwkSet,
}

/// Whom a token says that it is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundPod {
    pub namespace: Str,
    pub name: Str,
    pub uid: Str,
    pub service_account: Str,
}

/// Who knows which pods there are.
pub trait Pods: Send + Sync {
    /// Whether there is this one: of this uid, and of this account.
    fn is_there(&self, pod: BoundPod) -> BoxFuture<'_, bool>;
}

/// A connection that rests on keys alone ends after so long, and is asked about again.
const HOLDS: Duration = Duration::from_secs(300);

pub struct Standby {
    verifier: RwLock<Option<Arc<LocalVerifier>>>,
    trust_domain: Str,
    pods: Box<dyn Pods>,
    used: AtomicU64,
}

impl Standby {
    /// Without keys until it is given some.
    pub fn new(trust_domain: &str, pods: Box<dyn Pods>) -> Self {
        Self {
            verifier: RwLock::new(None),
            trust_domain: Str::new(trust_domain),
            pods,
            used: AtomicU64::new(0),
        }
    }

    /// Keys that cannot be used leave none: those of before may have been taken back.
    pub fn replace(&self, keys: &IssuerKeys) -> Result<(), KeySetError> {
        let next = LocalVerifier::new(&keys.keys, &keys.issuer, &[AUDIENCE], &self.trust_domain);
        let (next, outcome) = match next {
            Ok(next) => (Some(Arc::new(next)), Ok(())),
            Err(why) => (None, Err(why)),
        };
        self.put(next);
        outcome
    }

    /// Speaks for nobody any more.
    pub fn forget(&self) {
        self.put(None);
    }

    fn put(&self, next: Option<Arc<LocalVerifier>>) {
        let verifier = self.verifier.write();
        *verifier.unwrap_or_else(PoisonError::into_inner) = next;
    }

    /// Credentials given by keys alone, since the start.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// `unanswered` is why the cluster did not say; it stays the answer where the keys do not say more.
    pub(super) async fn verify(
        &self,
        token: &str,
        unanswered: TokenError,
        now: SystemTime,
    ) -> Result<Credential, TokenError> {
        let verifier = self.verifier.read();
        let verifier = verifier.unwrap_or_else(PoisonError::into_inner).clone();
        let Some(verifier) = verifier else {
            return Err(unanswered);
        };
        let claims = match verifier.claims(token) {
            // Of a key or an issuer that is not known here, but may be to the cluster.
            Err(TokenError::Malformed | TokenError::Issuer) => return Err(unanswered),
            other => other?,
        };
        let mut credential = verifier.credential(&claims, now)?;
        let Some(pod) = bound(&claims) else {
            return Err(unanswered);
        };
        if !self.pods.is_there(pod).await {
            return Err(unanswered);
        }
        credential.expires = credential.expires.min(now + HOLDS);
        self.used.fetch_add(1, Ordering::Relaxed);
        Ok(credential)
    }
}

fn bound(claims: &Claims) -> Option<BoundPod> {
    let pod = claims.kubernetes.pod.as_ref()?;
    Some(BoundPod {
        namespace: Str::new(&claims.kubernetes.namespace),
        name: Str::new(&pod.name),
        uid: Str::new(pod.uid.as_ref().filter(|uid| !uid.is_empty())?),
        service_account: Str::new(&claims.kubernetes.serviceaccount.name),
    })
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::ca::testing::{after, bound_token, id, now, token_issuer};
    use crate::ca::token::{Bearer, ISSUER, TokenIssuer};

    struct One(BoundPod);

    impl Pods for One {
        fn is_there(&self, pod: BoundPod) -> BoxFuture<'_, bool> {
            std::future::ready(pod == self.0).boxed()
        }
    }

    fn pod(service_account: &str) -> Box<One> {
        Box::new(One(BoundPod {
            namespace: Str::new("shop"),
            name: Str::new("reviews-1"),
            uid: Str::new("u-1"),
            service_account: Str::new(service_account),
        }))
    }

    fn keys(issuer: &TokenIssuer) -> IssuerKeys {
        IssuerKeys {
            issuer: ISSUER.to_owned(),
            keys: issuer.jwks(),
        }
    }

    fn ask(standby: &Standby, token: &str) -> Result<Credential, TokenError> {
        let asked = standby.verify(token, unanswered(), now());
        asked.now_or_never().unwrap()
    }

    fn unanswered() -> TokenError {
        TokenError::Unanswered("away".to_owned())
    }

    #[test]
    fn keys_speak_for_the_very_pod_that_is_there_and_only_for_minutes() {
        let issuer = token_issuer();
        let standby = Standby::new("cluster.local", pod("reviews"));
        let good = bound_token(&issuer, "reviews-1", Some("u-1"));
        assert_eq!(ask(&standby, &good), Err(unanswered()), "no keys yet");
        standby.replace(&keys(&issuer)).unwrap();
        let credential = ask(&standby, &good).unwrap();
        assert_eq!(credential.identity, id("reviews"));
        assert_eq!(credential.expires, after(300));
        let bearer = Bearer {
            namespace: "shop",
            service_account: "reviews",
            pod: None,
        };
        let unbound = issuer.issue(bearer, AUDIENCE, HOLDS, now()).unwrap();
        for other in [
            bound_token(&issuer, "reviews-1", Some("u-0")),
            bound_token(&issuer, "reviews-1", None),
            bound_token(&issuer, "reviews-2", Some("u-1")),
            unbound,
            bound_token(&token_issuer(), "reviews-1", Some("u-1")),
        ] {
            assert_eq!(ask(&standby, &other), Err(unanswered()));
        }
        assert_eq!(standby.used(), 1);
    }

    #[test]
    fn a_pod_of_another_account_is_another() {
        let issuer = token_issuer();
        let standby = Standby::new("cluster.local", pod("admin"));
        standby.replace(&keys(&issuer)).unwrap();
        let token = bound_token(&issuer, "reviews-1", Some("u-1"));
        assert_eq!(ask(&standby, &token), Err(unanswered()));
    }

    #[test]
    fn a_forged_signature_is_refused_and_keys_that_are_none_leave_none() {
        let issuer = token_issuer();
        let standby = Standby::new("cluster.local", pod("reviews"));
        standby.replace(&keys(&issuer)).unwrap();
        let good = bound_token(&issuer, "reviews-1", Some("u-1"));
        let other = bound_token(&issuer, "reviews-2", Some("u-1"));
        let (head, _) = good.rsplit_once('.').unwrap();
        let (_, signature) = other.rsplit_once('.').unwrap();
        let forged = format!("{head}.{signature}");
        assert_eq!(ask(&standby, &forged), Err(TokenError::Signature));
        let empty = IssuerKeys {
            keys: JwkSet { keys: Vec::new() },
            ..keys(&issuer)
        };
        assert!(standby.replace(&empty).is_err());
        assert_eq!(ask(&standby, &good), Err(unanswered()));
        standby.replace(&keys(&issuer)).unwrap();
        standby.forget();
        assert_eq!(ask(&standby, &good), Err(unanswered()));
    }
}
