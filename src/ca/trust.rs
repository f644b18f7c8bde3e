//! A mesh's trust, opened as a whole at the start.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use tracing::warn;

use super::CaError;
use super::authenticate::{Authenticator, Verifier};
use super::authority::{Authority, Lifetimes};
use super::files::{self, CaFilesError};
use super::review::{Cluster, Reviewer};
use super::serving::Serving;
use super::standby::Standby;
use super::token::{AUDIENCE, ISSUER, IssueError, TokenIssuer};
use super::verify::{KeySetError, LocalVerifier};
use crate::state::LockedDir;
use crate::text::Str;

/// What a user decides about trust.
pub struct Plan<'a> {
    pub trust_domain: &'a str,
    /// A folder in `cacerts` layout; without it the CA is our own.
    pub plugged: Option<&'a Path>,
    pub lifetimes: Lifetimes,
    /// Names and addresses of the control plane besides the usual ones.
    pub names: &'a [Str],
    /// The file that shows, if it is there, that a mesh was served from this directory before.
    pub past: Option<&'a str>,
    /// Who knows tokens that are not ours.
    pub cluster: Option<Arc<dyn Cluster>>,
    /// Who knows them while the cluster does not answer.
    pub standby: Option<Arc<Standby>>,
}

pub struct Trust {
    pub authority: Arc<Authority>,
    pub authenticator: Arc<Authenticator>,
    pub serving: Serving,
}

#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error(transparent)]
    Files(#[from] CaFilesError),
    #[error(transparent)]
    Token(#[from] IssueError),
    #[error(transparent)]
    Keys(#[from] KeySetError),
    #[error("certificate of the control plane: {0}")]
    Serving(CaError),
}

impl Trust {
    /// CA and token key are made if the directory has none; afterwards they are the same at each start.
    pub fn open(dir: &LockedDir, mut plan: Plan<'_>, now: SystemTime) -> Result<Self, TrustError> {
        let signer = match plan.plugged {
            Some(folder) => files::open_plugged(dir, folder, now)?,
            None => files::open(dir, plan.trust_domain, plan.past, now)?,
        };
        let authority = Arc::new(Authority::new(signer, plan.lifetimes));
        if !TokenIssuer::is_there(dir) && plan.past.is_some() {
            let path = dir.path("");
            let path = path.display();
            warn!(
                %path,
                "the key that signs tokens is gone and is made anew: every token issued before is refused; \
                 restore token/key.pem from a backup, or issue new ones by `fairlead token`"
            );
        }
        let keys = TokenIssuer::open(dir)?.jwks();
        let local = LocalVerifier::new(&keys, ISSUER, &[AUDIENCE], plan.trust_domain)?;
        let cluster = plan.cluster.take();
        let verifier = Verifier {
            own: local,
            cluster: cluster.map(|cluster| {
                Reviewer::new(cluster, plan.trust_domain).with_standby(plan.standby.take())
            }),
        };
        let authenticator = Authenticator::new(verifier, plan.trust_domain);
        let serving = Serving::new(authority.clone(), plan.names, now);
        Ok(Self {
            authority,
            authenticator: Arc::new(authenticator),
            serving: serving.map_err(TrustError::Serving)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http::{HeaderMap, header::AUTHORIZATION};

    use super::*;
    use crate::ca::authority::Standing;
    use crate::ca::testing::{id, now};
    use crate::ca::token::Bearer;
    use crate::state::StateDir;

    fn start(root: &Path) -> Trust {
        let plan = Plan {
            trust_domain: "cluster.local",
            plugged: None,
            lifetimes: Lifetimes::default(),
            names: &[],
            past: None,
            cluster: None,
            standby: None,
        };
        let dir = StateDir::prepare(root).unwrap().lock().unwrap();
        Trust::open(&dir, plan, now()).unwrap()
    }

    #[test]
    fn after_a_restart_tokens_hold_and_no_certificate_is_issued_again() {
        let root = tempfile::tempdir().unwrap();
        let before = start(root.path());
        let secret = before.authority.secret("default", &id("reviews"), now());
        let version = secret.unwrap().encoded.version.clone();
        let issuer = TokenIssuer::beside(StateDir::prepare(root.path()).unwrap()).unwrap();
        let bearer = Bearer {
            namespace: "shop",
            service_account: "reviews",
            pod: None,
        };
        let hour = std::time::Duration::from_secs(3600);
        let token = issuer.issue(bearer, AUDIENCE, hour, now()).unwrap();
        drop(before);

        let after = start(root.path());
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        let caller = after.authenticator.authenticate(&headers, None, now());
        let caller = caller.now_or_never().unwrap().unwrap().identity;
        assert_eq!(caller, id("reviews"));
        let issued = after.authority.issued();
        let standing = after
            .authority
            .recognise("default", &version, &caller, now());
        assert!(matches!(standing, Standing::Good(Some(_))));
        assert_eq!(after.authority.issued(), issued);
    }
}
