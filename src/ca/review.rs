//! Tokens of a cluster's own, which the cluster checks: a TokenReview (`authentication.k8s.io/v1`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use jsonwebtoken::dangerous::insecure_decode_claims;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::authenticate::Credential;
use super::lease::from_unix;
use super::standby::Standby;
use super::token::{AUDIENCE, Audience};
use super::verify::TokenError;
use crate::identity::SpiffeId;
use crate::text::Str;

/// An API server.
pub trait Cluster: Send + Sync {
    /// Creates an object by its collection's path, and gives what the server made of it, or why it did not.
    fn create<'a>(
        &'a self,
        collection: &'static str,
        object: Value,
    ) -> BoxFuture<'a, Result<Value, Unmade>>;
}

/// Why a cluster made nothing.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unmade {
    /// It is not there, or is not well.
    #[error("{0}")]
    Away(String),
    /// It answered, such as that this is not allowed, or too much.
    #[error("{0}")]
    Refused(String),
}

/// Asks a cluster about tokens, about few at a time.
pub struct Reviewer {
    cluster: Arc<dyn Cluster>,
    trust_domain: Str,
    turns: Semaphore,
    standby: Option<Arc<Standby>>,
}

const COLLECTION: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
/// Questions at one time: many proxies that come at once wait here, not at the API server.
const TURNS: usize = 32;
/// How long a caller waits for its turn, and then for an answer.
/// Twice that is less than a connection may take to introduce itself.
const PATIENCE: Duration = Duration::from_secs(4);
/// Where a token's pod stands in what the cluster knows of its user.
const POD: &str = "authentication.kubernetes.io/pod-name";

/// `status` of a TokenReview.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    authenticated: bool,
    user: User,
    /// Those of the token among the ones that were asked for. Empty if the server does not look at audiences.
    audiences: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
    extra: BTreeMap<String, Vec<String>>,
}

/// What of a token's claims is read without its key.
#[derive(Deserialize)]
struct Claims {
    iss: Option<String>,
    exp: Option<u64>,
    aud: Option<Audience>,
}

/// Who says to have signed a token. It decides who checks it, and nothing else.
pub fn issuer(token: &str) -> Option<String> {
    insecure_decode_claims::<Claims>(token).ok()?.iss
}

impl Reviewer {
    pub fn new(cluster: Arc<dyn Cluster>, trust_domain: &str) -> Self {
        Self {
            cluster,
            trust_domain: Str::new(trust_domain),
            turns: Semaphore::new(TURNS),
            standby: None,
        }
    }

    /// Asks keys where the cluster does not answer.
    pub fn with_standby(self, standby: Option<Arc<Standby>>) -> Self {
        Self { standby, ..self }
    }

    /// Credentials given without the cluster's word, since the start.
    pub fn by_standby(&self) -> u64 {
        self.standby.as_ref().map_or(0, |standby| standby.used())
    }

    pub async fn verify(&self, token: &str, now: SystemTime) -> Result<Credential, TokenError> {
        let claims = insecure_decode_claims::<Claims>(token);
        let Claims { exp, aud, .. } = claims.map_err(|_| TokenError::Malformed)?;
        // What it says of itself is enough to refuse it, and nobody is asked.
        if !aud.is_some_and(|aud| aud.has(AUDIENCE)) {
            return Err(TokenError::Audience);
        }
        // Tokens without an end are of no audience that is asked for.
        let expires = exp.and_then(from_unix).ok_or(TokenError::Malformed)?;
        if now >= expires {
            return Err(TokenError::Expired);
        }
        let why = match self.ask(token).await? {
            Ok(status) => return self.credential(&status, expires),
            Err(away) => TokenError::Unanswered(away),
        };
        match &self.standby {
            Some(standby) => standby.verify(token, why, now).await,
            None => Err(why),
        }
    }

    /// The cluster's word, or why it is away. To wait for a turn in vain says nothing of the cluster: whoever
    /// asks much could bring that about.
    async fn ask(&self, token: &str) -> Result<Result<Status, String>, TokenError> {
        let unanswered = TokenError::Unanswered;
        let turn = timeout(PATIENCE, self.turns.acquire()).await;
        let turn = turn.map_err(|_| unanswered("too many are asked about".to_owned()))?;
        let _turn = turn.map_err(|e| unanswered(e.to_string()))?;
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [AUDIENCE]},
        });
        let mut answer = match timeout(PATIENCE, self.cluster.create(COLLECTION, review)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(Unmade::Refused(why))) => return Err(unanswered(why)),
            Ok(Err(Unmade::Away(why))) => return Ok(Err(why)),
            Err(_) => return Ok(Err(format!("nothing within {PATIENCE:?}"))),
        };
        let status = answer.get_mut("status").map(Value::take);
        let status = serde_json::from_value(status.unwrap_or_default());
        status.map(Ok).map_err(|e| unanswered(e.to_string()))
    }

    fn credential(&self, status: &Status, expires: SystemTime) -> Result<Credential, TokenError> {
        let Status {
            authenticated,
            user,
            audiences,
        } = status;
        if !authenticated {
            return Err(TokenError::Unknown);
        }
        if !audiences.iter().any(|a| a == AUDIENCE) {
            return Err(TokenError::Audience);
        }
        let account = user.username.strip_prefix("system:serviceaccount:");
        let (namespace, account) = account
            .and_then(|account| account.split_once(':'))
            .ok_or(TokenError::Subject)?;
        let identity = SpiffeId::new(&self.trust_domain, namespace, account);
        let pod = user.extra.get(POD).and_then(|pods| pods.first());
        Ok(Credential {
            identity: identity.map_err(|_| TokenError::Subject)?,
            pod: pod.map(Str::new),
            expires,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::FutureExt;

    use super::*;
    use crate::ca::lease::unix;
    use crate::ca::standby::{BoundPod, IssuerKeys, Pods};
    use crate::ca::testing::{after, bound_token, id, now, token_issuer};
    use crate::ca::token::{Bearer, ISSUER};

    /// Answers every question the same, and keeps what was asked.
    struct Answers(Result<Value, Unmade>, std::sync::Arc<Mutex<Vec<Value>>>);

    impl Cluster for Answers {
        fn create<'a>(
            &'a self,
            collection: &'static str,
            object: Value,
        ) -> BoxFuture<'a, Result<Value, Unmade>> {
            assert_eq!(collection, COLLECTION);
            self.1.lock().unwrap().push(object);
            std::future::ready(self.0.clone()).boxed()
        }
    }

    fn token() -> String {
        let bearer = Bearer {
            namespace: "shop",
            service_account: "reviews",
            pod: None,
        };
        let hour = Duration::from_secs(3600);
        token_issuer().issue(bearer, AUDIENCE, hour, now()).unwrap()
    }

    fn good() -> Value {
        json!({
            "authenticated": true,
            "audiences": [AUDIENCE],
            "user": {
                "username": "system:serviceaccount:shop:reviews",
                "extra": {POD: ["reviews-v1"]},
            },
        })
    }

    fn verify_at(status: &Value, at: SystemTime) -> Result<Credential, TokenError> {
        let answers = Answers(Ok(json!({"status": status})), std::sync::Arc::default());
        let reviewer = Reviewer::new(Arc::new(answers), "cluster.local");
        runtime().block_on(reviewer.verify(&token(), at))
    }

    fn runtime() -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().build().unwrap()
    }

    #[test]
    fn what_the_cluster_knows_of_a_token_is_who_its_bearer_is() {
        let credential = verify_at(&good(), now()).unwrap();
        assert_eq!(credential.identity, id("reviews"));
        assert_eq!(credential.pod.as_deref(), Some("reviews-v1"));
        assert_eq!(unix(credential.expires), unix(after(3600)));
    }

    #[test]
    fn the_cluster_is_asked_for_our_audience() {
        let asked = std::sync::Arc::<Mutex<Vec<Value>>>::default();
        let answers = Answers(Ok(json!({"status": good()})), asked.clone());
        let reviewer = Reviewer::new(Arc::new(answers), "cluster.local");
        let token = token();
        runtime().block_on(reviewer.verify(&token, now())).unwrap();
        let asked = asked.lock().unwrap();
        assert_eq!(asked[0]["kind"], "TokenReview");
        assert_eq!(
            asked[0]["spec"],
            json!({"token": token, "audiences": ["istio-ca"]})
        );
    }

    #[test]
    fn an_answer_that_lacks_anything_is_no_credential() {
        let user = |name: &str| json!({"username": name});
        for (field, value, why) in [
            ("authenticated", json!(false), TokenError::Unknown),
            // A server that does not look at audiences names none.
            ("audiences", json!([]), TokenError::Audience),
            ("audiences", json!(["vault"]), TokenError::Audience),
            ("user", user("admin"), TokenError::Subject),
            (
                "user",
                user("system:serviceaccount:shop"),
                TokenError::Subject,
            ),
            (
                "user",
                user("system:serviceaccount:shop:a/b"),
                TokenError::Subject,
            ),
        ] {
            let mut status = good();
            status[field] = value;
            assert_eq!(verify_at(&status, now()), Err(why), "{status}");
        }
        assert_eq!(verify_at(&json!({}), now()), Err(TokenError::Unknown));
        for odd in [json!("ok"), json!(7)] {
            let got = verify_at(&odd, now());
            assert!(matches!(got, Err(TokenError::Unanswered(_))), "{got:?}");
        }
        assert_eq!(verify_at(&good(), after(3600)), Err(TokenError::Expired));
    }

    /// Keys of the issuer of `token`, and a pod for everybody.
    struct Everybody;

    impl Pods for Everybody {
        fn is_there(&self, _: BoundPod) -> BoxFuture<'_, bool> {
            std::future::ready(true).boxed()
        }
    }

    fn verify_after(
        answer: Result<Value, Unmade>,
        standby: Option<Arc<Standby>>,
        token: &str,
    ) -> Result<Credential, TokenError> {
        let answers = Answers(answer, std::sync::Arc::default());
        let reviewer = Reviewer::new(Arc::new(answers), "cluster.local").with_standby(standby);
        runtime().block_on(reviewer.verify(token, now()))
    }

    #[test]
    fn a_cluster_that_is_away_lets_nobody_in() {
        let away = Unmade::Away("connection refused".into());
        assert_eq!(
            verify_after(Err(away), None, &token()),
            Err(TokenError::Unanswered("connection refused".into()))
        );
    }

    #[test]
    fn keys_are_asked_only_while_the_cluster_is_away() {
        let issuer = token_issuer();
        let token = bound_token(&issuer, "reviews-1", Some("u-1"));
        let standby = Standby::new("cluster.local", Box::new(Everybody));
        let keys = IssuerKeys {
            issuer: ISSUER.to_owned(),
            keys: issuer.jwks(),
        };
        standby.replace(&keys).unwrap();
        let standby = Some(Arc::new(standby));
        let after = |answer| verify_after(answer, standby.clone(), &token);
        let away = Unmade::Away("connection refused".into());
        assert_eq!(after(Err(away)).unwrap().identity, id("reviews"));
        let refused = Unmade::Refused("forbidden".into());
        let got = after(Err(refused));
        assert_eq!(got, Err(TokenError::Unanswered("forbidden".into())));
        let got = after(Ok(json!({"status": "odd"})));
        assert!(matches!(got, Err(TokenError::Unanswered(_))), "{got:?}");
        let got = after(Ok(json!({"status": {"authenticated": false}})));
        assert_eq!(got, Err(TokenError::Unknown));
    }

    #[test]
    fn a_bearer_is_asked_for_its_issuer_and_believed_nothing() {
        assert_eq!(issuer(&token()).as_deref(), Some("fairlead"));
        for text in ["", "a.b", "a.b.c", "not a token"] {
            assert_eq!(issuer(text), None);
        }
    }
}
