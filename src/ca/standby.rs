//! The cluster's own public keys, for the time in which it answers no question about tokens.
//!
//! A signature says less than the cluster does: a token may have been taken back. So only tokens bound to a pod that is
//! still there in what was last seen count, each use is counted, and none of it is done while the cluster answers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use jsonwebtoken::jwk::JwkSet;
use serde::{Deserialize, Serialize};

use super::authenticate::Credential;
use super::token::AUDIENCE;
use super::verify::{KeySetError, LocalVerifier, TokenError};
use crate::text::Str;

/// What an issuer publishes of itself, as it is kept over a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuerKeys {
    pub issuer: String,
    pub keys: JwkSet,
}

/// Who knows which pods there are.
pub trait Pods: Send + Sync {
    fn is_there<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, bool>;
}

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

    pub fn replace(&self, keys: &IssuerKeys) -> Result<(), KeySetError> {
        let next = LocalVerifier::new(&keys.keys, &keys.issuer, &[AUDIENCE], &self.trust_domain)?;
        let mut verifier = self
            .verifier
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *verifier = Some(Arc::new(next));
        Ok(())
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
        let credential = verifier.verify(token, now)?;
        let Some(pod) = &credential.pod else {
            return Err(unanswered);
        };
        if !self
            .pods
            .is_there(credential.identity.namespace(), pod)
            .await
        {
            return Err(unanswered);
        }
        self.used.fetch_add(1, Ordering::Relaxed);
        Ok(credential)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;
    use crate::ca::testing::{id, now, token_issuer};
    use crate::ca::token::{Bearer, ISSUER, TokenIssuer};

    struct Known(&'static [&'static str]);

    impl Pods for Known {
        fn is_there<'a>(&'a self, _: &'a str, name: &'a str) -> BoxFuture<'a, bool> {
            std::future::ready(self.0.contains(&name)).boxed()
        }
    }

    fn token(issuer: &TokenIssuer, pod: Option<&str>) -> String {
        let bearer = Bearer {
            namespace: "shop",
            service_account: "reviews",
            pod,
        };
        issuer
            .issue(bearer, AUDIENCE, Duration::from_secs(60), now())
            .unwrap()
    }

    fn ask(standby: &Standby, token: &str) -> Result<Credential, TokenError> {
        let unanswered = TokenError::Unanswered("away".to_owned());
        standby
            .verify(token, unanswered, now())
            .now_or_never()
            .unwrap()
    }

    #[test]
    fn keys_speak_for_pods_that_are_there_and_for_nobody_else() {
        let issuer = token_issuer();
        let standby = Standby::new("cluster.local", Box::new(Known(&["reviews-1"])));
        let good = token(&issuer, Some("reviews-1"));
        let unanswered = Err(TokenError::Unanswered("away".to_owned()));
        assert_eq!(ask(&standby, &good), unanswered, "no keys yet");
        let keys = IssuerKeys {
            issuer: ISSUER.to_owned(),
            keys: issuer.jwks(),
        };
        standby.replace(&keys).unwrap();
        assert_eq!(ask(&standby, &good).unwrap().identity, id("reviews"));
        assert_eq!(ask(&standby, &token(&issuer, Some("gone"))), unanswered);
        assert_eq!(ask(&standby, &token(&issuer, None)), unanswered);
        let forged = token(&token_issuer(), Some("reviews-1"));
        assert!(ask(&standby, &forged).is_err());
        assert_eq!(standby.used(), 1);
    }
}
