//! The Secrets that gateways show, by the names under which Envoy asks for them.
//!
//! A name is `kubernetes://<secret>`, always of the proxy's own namespace; with `-cacert` at its end it is the roots of
//! clients, from a Secret of that name or beside the certificate of the one without.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

use super::session::{Answer, Ask};
use crate::backoff::jittered;
use crate::ca::readers::Readers;
use crate::config::secret::{FILE_PAIR, FILE_ROOTS, ROOTS, SECRET, Secret};
use crate::config::{Change, Kind, Spec};
use crate::identity::SpiffeId;
use crate::text::Str;
use crate::xds::{Encoded, secret};

/// Namespace and name of a Secret.
type Place = (Str, Str);

#[derive(Default)]
pub struct Credentials {
    known: RwLock<BTreeMap<Place, Arc<Secret>>>,
    readers: Readers,
}

/// A proxy that may not have a Secret may soon.
const AGAIN: Duration = Duration::from_secs(30);

/// Bytes of a hash that tell one content from another.
const VERSION: usize = 16;

/// Whether it is a certificate in the proxy's own file system, which Envoy reads itself, again when it changes.
pub fn is_file(name: &str) -> bool {
    name.starts_with(FILE_PAIR) || name.starts_with(FILE_ROOTS)
}

/// The name of the Secret that is asked for; None for what is none.
pub fn named(name: &str) -> Option<&str> {
    name.strip_prefix(SECRET)
        .filter(|name| !name.is_empty() && !name.contains('/'))
}

impl Credentials {
    pub fn of(readers: Readers) -> Self {
        Self {
            readers,
            ..Self::default()
        }
    }

    /// Takes in what changed; gives the Secrets that are others now. One that lost what it had stays as it was: a
    /// gateway that starts while its Secret is being written anew must not be without.
    pub fn apply(&self, changes: &[Change]) -> BTreeSet<Place> {
        let mut touched = BTreeSet::new();
        let secrets = changes.iter().filter(|c| c.key.kind == Kind::Secret);
        for change in secrets {
            let place = (change.key.namespace.clone(), change.key.name.clone());
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            match change.object.as_deref().map(|object| &object.spec) {
                Some(Spec::Secret(new)) if !new.is_empty() => {
                    let new = Arc::new((**new).clone());
                    if known.insert(place.clone(), new.clone()) != Some(new) {
                        touched.insert(place);
                    }
                }
                Some(_) => {}
                None => drop(known.remove(&place)),
            }
        }
        touched
    }

    /// The answer to a proxy, if it may have one.
    pub async fn answer(&self, identity: &SpiffeId, ask: &Ask, now: Instant) -> Answer {
        if is_file(&ask.name) {
            return self.find_for("", &ask.name, ask.held.as_ref());
        }
        if self.readers.may_read(identity).await.is_err() {
            return Answer::Unavailable {
                retry: now + jittered(AGAIN),
            };
        }
        self.find_for(identity.namespace(), &ask.name, ask.held.as_ref())
    }

    /// What to send of a name, if it is not the version that the proxy has.
    fn find_for(&self, namespace: &str, name: &Str, held: Option<&Str>) -> Answer {
        let Some(encoded) = self.find(namespace, name) else {
            return Answer::Missing;
        };
        if held == Some(&encoded.version) {
            return Answer::StillGood {
                version: encoded.version.clone(),
                renew: None,
            };
        }
        Answer::Fresh {
            encoded: Arc::new(encoded),
            renew: None,
        }
    }

    fn find(&self, namespace: &str, name: &Str) -> Option<Encoded> {
        if let Some((chain, key)) = name.strip_prefix(FILE_PAIR).and_then(|n| n.split_once('~')) {
            return Some(secret::pair_of_files(name, version(&[name]), chain, key));
        }
        if let Some(roots) = name.strip_prefix(FILE_ROOTS) {
            let (roots, revoked) = roots.split_once('~').unwrap_or((roots, ""));
            return Some(secret::roots_of_files(
                name,
                version(&[name]),
                roots,
                revoked,
            ));
        }
        let wanted = named(name)?;
        if let Some(own) = wanted.strip_suffix(ROOTS) {
            let apart = self.get(namespace, wanted).filter(|s| s.roots.is_some());
            let found = apart.or_else(|| self.get(namespace, own))?;
            let roots = found.roots.clone()?;
            let version = version(&[&roots, found.revoked.as_deref().unwrap_or_default()]);
            return Some(secret::client_roots(
                name,
                version,
                &roots,
                found.revoked.as_deref(),
            ));
        }
        let found = self.get(namespace, wanted)?;
        let (chain, key) = found.pair.clone()?;
        let key = key.reveal();
        let version = version(&[&chain, &key]);
        Some(secret::pair(name, version, chain.to_string(), key))
    }

    fn get(&self, namespace: &str, name: &str) -> Option<Arc<Secret>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&(Str::new(namespace), Str::new(name))).cloned()
    }
}

/// Equal in every replica. The hash is one that tells nothing of a key.
fn version(parts: &[&str]) -> Str {
    let all: Vec<u8> = parts.join("\0").into_bytes();
    let all = zeroize::Zeroizing::new(all);
    Str::new(HEXLOWER.encode(&digest(&SHA256, &all).as_ref()[..VERSION]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secret::PrivateKey;
    use crate::config::{Key, Meta, Object};

    fn change(name: &str, secret: Option<Secret>) -> Change {
        let key = Key {
            kind: Kind::Secret,
            namespace: Str::new_static("edge"),
            name: Str::new(name),
        };
        let object = secret.map(|secret| Object {
            meta: Meta {
                name: key.name.clone(),
                namespace: key.namespace.clone(),
                ..Meta::default()
            },
            spec: Spec::Secret(Box::new(secret)),
        });
        Change {
            key,
            object: object.map(Arc::new),
        }
    }

    fn secret(chain: &'static str) -> Secret {
        let key = PrivateKey::new(zeroize::Zeroizing::new("k".to_owned()));
        Secret {
            pair: Some((Str::new_static(chain), key)),
            roots: Some(Str::new_static("r")),
            revoked: None,
        }
    }

    fn fresh(answer: &Answer) -> Option<Str> {
        match answer {
            Answer::Fresh { encoded, .. } => Some(encoded.version.clone()),
            _ => None,
        }
    }

    #[test]
    fn a_secret_is_its_namespaces_own_and_a_version_held_is_not_sent_again() {
        let credentials = Credentials::default();
        assert_eq!(
            credentials
                .apply(&[change("shop", Some(secret("a")))])
                .len(),
            1
        );
        let name = Str::new_static("kubernetes://shop");
        let version = fresh(&credentials.find_for("edge", &name, None)).unwrap();
        let again = credentials.find_for("edge", &name, Some(&version));
        assert!(matches!(again, Answer::StillGood { .. }), "{again:?}");
        assert!(matches!(
            credentials.find_for("other", &name, None),
            Answer::Missing
        ));
        let roots = Str::new_static("kubernetes://shop-cacert");
        assert!(fresh(&credentials.find_for("edge", &roots, None)).is_some());
        assert!(
            credentials
                .apply(&[change("shop", Some(secret("a")))])
                .is_empty()
        );
        assert_eq!(
            credentials
                .apply(&[change("shop", Some(secret("b")))])
                .len(),
            1
        );
        assert_ne!(
            fresh(&credentials.find_for("edge", &name, None)),
            Some(version)
        );
    }

    #[test]
    fn a_secret_that_lost_its_content_stays_and_one_that_went_is_gone() {
        let credentials = Credentials::default();
        credentials.apply(&[change("shop", Some(secret("a")))]);
        assert!(
            credentials
                .apply(&[change("shop", Some(Secret::default()))])
                .is_empty()
        );
        let name = Str::new_static("kubernetes://shop");
        assert!(fresh(&credentials.find_for("edge", &name, None)).is_some());
        credentials.apply(&[change("shop", None)]);
        assert!(matches!(
            credentials.find_for("edge", &name, None),
            Answer::Missing
        ));
    }
}
