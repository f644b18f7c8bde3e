//! Who may read the Secrets of its namespace, as the cluster says: a SubjectAccessReview
//! (`authorization.k8s.io/v1`), which Istio asks for gateways too.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;
use tracing::warn;

use super::review::Cluster;
use crate::clock;
use crate::identity::SpiffeId;

#[derive(Default)]
pub struct Readers {
    /// Without a cluster, whoever proves to be of a namespace may.
    cluster: Option<Arc<dyn Cluster>>,
    known: Mutex<BTreeMap<SpiffeId, (Word, Instant)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    May,
    MayNot,
    /// The cluster was asked in vain.
    Unknown,
}

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Forbidden {
    #[error("`{account}` may not list Secrets of `{namespace}`; give it a Role that says so")]
    Refused { account: String, namespace: String },
    #[error("the cluster did not say whether it may")]
    Unanswered,
}

const COLLECTION: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
/// How long an answer holds. While the cluster is away the last one does.
const HOLDS: Duration = Duration::from_secs(60);
/// The same of an answer that did not come.
const AGAIN: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(4);
/// Accounts that are remembered; beyond these, those whose answers are oldest are forgotten.
const MOST: usize = 1000;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Review {
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    allowed: bool,
}

impl Word {
    fn holds(self) -> Duration {
        match self {
            Self::May | Self::MayNot => HOLDS,
            Self::Unknown => AGAIN,
        }
    }
}

impl Readers {
    pub fn of(cluster: Option<Arc<dyn Cluster>>) -> Self {
        Self {
            cluster,
            known: Mutex::default(),
        }
    }

    pub async fn may_read(&self, identity: &SpiffeId) -> Result<(), Forbidden> {
        let Some(cluster) = &self.cluster else {
            return Ok(());
        };
        let now = clock::mono();
        let known = self.known(identity);
        if let Some((word, at)) = known
            && now.saturating_duration_since(at) < word.holds()
        {
            return said(word, identity);
        }
        let word = match ask(&**cluster, identity).await {
            Ok(word) => word,
            // Its last word holds while it is away; and it is not asked at once again.
            Err(why) => {
                warn!(%identity, why, "the cluster does not say who may read Secrets");
                known.map_or(Word::Unknown, |(word, _)| word)
            }
        };
        self.remember(identity, word, now);
        let said = said(word, identity);
        if let Err(reason) = &said {
            warn!(%identity, %reason, "its Secrets are not given to it");
        }
        said
    }

    fn known(&self, identity: &SpiffeId) -> Option<(Word, Instant)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(identity).copied()
    }

    fn remember(&self, identity: &SpiffeId, word: Word, now: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST && !known.contains_key(identity) {
            known.retain(|_, (_, at)| now.saturating_duration_since(*at) < HOLDS);
            let oldest = known.iter().min_by_key(|(_, (_, at))| *at);
            let oldest = oldest.filter(|_| known.len() >= MOST);
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                known.remove(&oldest);
            }
        }
        known.insert(identity.clone(), (word, now));
    }
}

async fn ask(cluster: &dyn Cluster, identity: &SpiffeId) -> Result<Word, String> {
    let namespace = identity.namespace();
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": account(identity),
            "groups": [
                "system:serviceaccounts",
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated",
            ],
            "resourceAttributes": {
                "namespace": namespace,
                "verb": "list",
                "resource": "secrets",
            },
        },
    });
    let answer = timeout(PATIENCE, cluster.create(COLLECTION, review)).await;
    let answer = answer.map_err(|_| format!("nothing within {PATIENCE:?}"))?;
    let answer = answer.map_err(|why| why.to_string())?;
    let review: Review = serde_json::from_value(answer).map_err(|why| why.to_string())?;
    Ok(match review.status.allowed {
        true => Word::May,
        false => Word::MayNot,
    })
}

fn account(identity: &SpiffeId) -> String {
    let (namespace, account) = (identity.namespace(), identity.service_account());
    format!("system:serviceaccount:{namespace}:{account}")
}

fn said(word: Word, identity: &SpiffeId) -> Result<(), Forbidden> {
    match word {
        Word::May => Ok(()),
        Word::Unknown => Err(Forbidden::Unanswered),
        Word::MayNot => Err(Forbidden::Refused {
            account: account(identity),
            namespace: identity.namespace().to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::future::BoxFuture;
    use serde_json::Value;

    use super::*;
    use crate::ca::review::Unmade;
    use crate::ca::testing::id;

    #[derive(Clone, Default)]
    struct Answers {
        away: Arc<AtomicBool>,
    }

    impl Cluster for Answers {
        fn create<'a>(
            &'a self,
            _: &'static str,
            object: Value,
        ) -> BoxFuture<'a, Result<Value, Unmade>> {
            Box::pin(async move {
                if self.away.load(Ordering::Relaxed) {
                    return Err(Unmade::Away("gone".to_owned()));
                }
                let user = object["spec"]["user"].as_str().unwrap_or_default();
                let allowed = user.ends_with(":gateway");
                Ok(json!({"status": {"allowed": allowed}}))
            })
        }
    }

    #[tokio::test]
    async fn the_cluster_says_who_may_and_its_last_word_holds_while_it_is_away() {
        let cluster = Answers::default();
        let readers = Readers::of(Some(Arc::new(cluster.clone())));
        assert_eq!(readers.may_read(&id("gateway")).await, Ok(()));
        let refused = readers.may_read(&id("reviews")).await;
        assert!(
            matches!(refused, Err(Forbidden::Refused { .. })),
            "{refused:?}"
        );
        cluster.away.store(true, Ordering::Relaxed);
        assert_eq!(readers.may_read(&id("gateway")).await, Ok(()));
        let unknown = readers.may_read(&id("ratings")).await;
        assert!(matches!(unknown, Err(Forbidden::Unanswered)), "{unknown:?}");
    }
}
