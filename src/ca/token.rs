//! Service-account tokens: what they say, and issuing our own. Checking them is in `verify`.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::lease::unix;
use super::pem;
use crate::identity::SpiffeId;
use crate::state::{LockedDir, StateDir, StateError};
use crate::text::Str;

/// Who signed our own tokens.
pub const ISSUER: &str = "fairlead";
/// The audience that Istio's proxies ask for.
pub const AUDIENCE: &str = "istio-ca";

const KEY: &str = "token/key.pem";
const MAX_KEY: u64 = 16 << 10;
const MAX_LIFE: Duration = Duration::from_secs(366 * 24 * 3600);

/// The claims of a projected token of Kubernetes; ours have the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub iss: String,
    pub sub: String,
    pub aud: Audience,
    pub exp: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iat: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Bound,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    pub fn has(&self, wanted: &str) -> bool {
        match self {
            Self::One(one) => one == wanted,
            Self::Many(many) => many.iter().any(|one| one == wanted),
        }
    }
}

/// What the token is bound to: it dies with its pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    pub namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Named>,
    pub serviceaccount: Named,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// Whom a token is for.
#[derive(Clone, Copy, Debug)]
pub struct Bearer<'a> {
    pub namespace: &'a str,
    pub service_account: &'a str,
    pub pod: Option<&'a str>,
}

/// Signs tokens of a mesh without Kubernetes: RS256, as Kubernetes does. A token is signed once and
/// verified by every connection, and RSA verifies in a fraction of what ECDSA takes.
pub struct TokenIssuer {
    key: EncodingKey,
    public: Jwk,
}

#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("token key {KEY}: {0}")]
    Key(String),
    #[error(
        "no token key yet: another fairlead process holds the state directory and has not made one"
    )]
    NoKey,
    #[error("`{0}` is not a name that a token can carry")]
    Name(Str),
    #[error("a token's life of {0:?} is not between 1 second and 366 days")]
    Life(Duration),
    #[error("sign the token: {0}")]
    Signing(jsonwebtoken::errors::Error),
}

impl TokenIssuer {
    /// Reads the key, or makes it at the first start.
    pub fn open(dir: &LockedDir) -> Result<Self, IssueError> {
        if let Some(found) = Self::read(dir)? {
            return Ok(found);
        }
        let text = new_key()?;
        dir.write(KEY, text.as_bytes())?;
        Self::parse(text.as_bytes())
    }

    pub fn is_there(dir: &StateDir) -> bool {
        dir.path(KEY).exists()
    }

    /// For a process beside the one that serves: takes the lock only to make a key that is not there.
    pub fn beside(dir: StateDir) -> Result<Self, IssueError> {
        if let Some(found) = Self::read(&dir)? {
            return Ok(found);
        }
        let root = dir.path("");
        match dir.lock() {
            Ok(locked) => Self::open(&locked),
            Err(StateError::Locked(_)) => {
                let dir = StateDir::prepare(&root)?;
                Self::read(&dir)?.ok_or(IssueError::NoKey)
            }
            Err(e) => Err(e.into()),
        }
    }

    fn read(dir: &StateDir) -> Result<Option<Self>, IssueError> {
        let text = dir.read(KEY, MAX_KEY)?;
        text.map(|t| Self::parse(&t)).transpose()
    }

    pub(super) fn parse(text: &[u8]) -> Result<Self, IssueError> {
        pem::private_key(text).map_err(|e| IssueError::Key(pem::explain(&e)))?;
        let key = EncodingKey::from_rsa_pem(text).map_err(|e| IssueError::Key(e.to_string()))?;
        let broken = |e: jsonwebtoken::errors::Error| IssueError::Key(e.to_string());
        let mut public = Jwk::from_encoding_key(&key, Algorithm::RS256).map_err(broken)?;
        let id = public.thumbprint(ThumbprintHash::SHA256).map_err(broken)?;
        public.common.key_id = Some(id);
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(Self { key, public })
    }

    /// The public half, as an issuer publishes it.
    pub fn jwks(&self) -> JwkSet {
        JwkSet {
            keys: vec![self.public.clone()],
        }
    }

    pub fn issue(
        &self,
        bearer: Bearer<'_>,
        audience: &str,
        life: Duration,
        now: SystemTime,
    ) -> Result<String, IssueError> {
        if life < Duration::from_secs(1) || life > MAX_LIFE {
            return Err(IssueError::Life(life));
        }
        let claims = bearer.claims(audience, life, now)?;
        self.sign(&claims).map_err(IssueError::Signing)
    }

    /// Signs any claims; only `issue` decides which.
    pub(super) fn sign(&self, claims: &impl Serialize) -> jsonwebtoken::errors::Result<String> {
        let header = Header {
            kid: self.public.common.key_id.clone(),
            ..Header::new(Algorithm::RS256)
        };
        jsonwebtoken::encode(&header, claims, &self.key)
    }
}

/// PKCS#8 in PEM.
pub(super) fn new_key() -> Result<Zeroizing<String>, IssueError> {
    let random = |_| IssueError::Key("no random numbers".into());
    let pair = KeyPair::generate(KeySize::Rsa2048).map_err(random)?;
    Ok(pem::encode_private_key(
        pair.as_der().map_err(random)?.as_ref(),
    ))
}

impl Bearer<'_> {
    pub(super) fn claims(
        self,
        audience: &str,
        life: Duration,
        now: SystemTime,
    ) -> Result<Claims, IssueError> {
        let Self {
            namespace,
            service_account,
            pod,
        } = self;
        // The same rule that a verifier applies, so that nothing is issued which would be refused.
        SpiffeId::new("any", namespace, service_account)
            .map_err(|_| IssueError::Name(Str::new(format!("{namespace}/{service_account}"))))?;
        if let Some(pod) = pod {
            SpiffeId::new("any", namespace, pod).map_err(|_| IssueError::Name(Str::new(pod)))?;
        }
        let issued = unix(now);
        let exp = issued + life.as_secs();
        let sub = format!("system:serviceaccount:{namespace}:{service_account}");
        let named = |name: &str| Named {
            name: name.into(),
            uid: None,
        };
        let id = digest(&SHA256, format!("{sub} {pod:?} {issued} {exp}").as_bytes());
        Ok(Claims {
            iss: ISSUER.into(),
            sub,
            aud: Audience::Many(vec![audience.into()]),
            exp,
            nbf: Some(issued),
            iat: Some(issued),
            jti: Some(BASE64URL_NOPAD.encode(&id.as_ref()[..16])),
            kubernetes: Bound {
                namespace: namespace.into(),
                pod: pod.map(named),
                serviceaccount: named(service_account),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::testing::now;

    const HOUR: Duration = Duration::from_secs(3600);

    fn bearer(namespace: &str) -> Bearer<'_> {
        Bearer {
            namespace,
            service_account: "reviews",
            pod: None,
        }
    }

    fn prepared(root: &std::path::Path) -> StateDir {
        StateDir::prepare(root).unwrap()
    }

    #[test]
    fn the_key_is_made_once_by_whoever_comes_first() {
        let root = tempfile::tempdir().unwrap();
        let command = TokenIssuer::beside(prepared(root.path())).unwrap();
        let server = TokenIssuer::open(&prepared(root.path()).lock().unwrap()).unwrap();
        assert_eq!(command.jwks(), server.jwks());
    }

    #[test]
    fn tokens_are_issued_while_the_server_holds_the_directory() {
        let root = tempfile::tempdir().unwrap();
        let locked = prepared(root.path()).lock().unwrap();
        let early = TokenIssuer::beside(prepared(root.path()));
        assert!(matches!(early, Err(IssueError::NoKey)));
        let server = TokenIssuer::open(&locked).unwrap();
        let command = TokenIssuer::beside(prepared(root.path())).unwrap();
        assert_eq!(command.jwks(), server.jwks());
    }

    #[test]
    fn the_published_keys_hold_no_private_part() {
        let root = tempfile::tempdir().unwrap();
        let issuer = TokenIssuer::open(&prepared(root.path()).lock().unwrap()).unwrap();
        let keys = serde_json::to_value(issuer.jwks()).unwrap();
        let key = keys["keys"][0].as_object().unwrap();
        let fields: Vec<&str> = key.keys().map(String::as_str).collect();
        assert_eq!(fields, ["alg", "e", "kid", "kty", "n", "use"]);
    }

    #[test]
    fn names_and_lives_that_no_verifier_takes_are_not_issued() {
        let root = tempfile::tempdir().unwrap();
        let issuer = TokenIssuer::open(&prepared(root.path()).lock().unwrap()).unwrap();
        for namespace in ["", "a/b", "a:b", "a b", "a\n"] {
            let refused = issuer.issue(bearer(namespace), AUDIENCE, HOUR, now());
            assert!(matches!(refused, Err(IssueError::Name(_))), "{namespace}");
        }
        for life in [Duration::ZERO, 2 * MAX_LIFE] {
            let refused = issuer.issue(bearer("shop"), AUDIENCE, life, now());
            assert!(matches!(refused, Err(IssueError::Life(_))));
        }
    }

    #[test]
    fn a_broken_key_is_refused_not_replaced() {
        let root = tempfile::tempdir().unwrap();
        let locked = prepared(root.path()).lock().unwrap();
        locked.write(KEY, b"garbage").unwrap();
        let refused = TokenIssuer::open(&locked).err().unwrap().to_string();
        assert!(refused.contains(KEY), "{refused}");
        assert_eq!(&locked.read(KEY, MAX_KEY).unwrap().unwrap()[..], b"garbage");
    }
}
