//! Issues secrets to identities. The only place that counts what is issued, and bounds it by identity.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use super::CaError;
use super::bundle::Bundle;
use super::key::LeafKey;
use super::lease::Lease;
use super::pem;
use super::rate::Rates;
use super::signer::{Serial, Signed, Signer, Subject};
use crate::identity::SpiffeId;
use crate::text::Str;
use crate::xds::Encoded;
use crate::xds::secret::{self, ROOTS, WORKLOAD};

/// How long certificates live; `workload` where nobody asks for another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    workload: Duration,
    max: Duration,
}

/// The mesh's CA in this process. Shared; rotation replaces its signer as a whole.
pub struct Authority {
    current: RwLock<Arc<Current>>,
    lifetimes: Lifetimes,
    issued: AtomicU64,
    /// Secrets that could not be made; their sessions ask again.
    failed: AtomicU64,
    rates: Rates,
}

struct Current {
    signer: Signer,
    roots: Arc<Encoded>,
}

/// A secret for one proxy.
#[derive(Debug)]
pub struct IssuedSecret {
    pub encoded: Arc<Encoded>,
    /// Absent for the roots, which change only when the bundle does.
    pub certificate: Option<Fresh>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fresh {
    pub lease: Lease,
    pub serial: Serial,
}

/// What a version that a proxy brings back is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Send nothing. The lease is absent for the roots.
    Good(Option<Lease>),
    /// Issue a new one: it is not ours, not for this identity or generation, or due for renewal.
    Renew,
}

#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A proxy may hold its own certificate and the roots; anything else is as good as absent.
    #[error("no secret `{0}` for this identity")]
    Name(Str),
    /// Making keys and certificates costs; one identity gone wild must not cost the others.
    #[error("this identity has had too many certificates for now")]
    Rate,
    #[error(transparent)]
    Ca(#[from] CaError),
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a certificate lifetime of {workload:?} is not between {MIN_LIFE:?} and {max:?}")]
pub struct LifetimesError {
    workload: Duration,
    max: Duration,
}

/// Istio's default bound, 90 days.
pub const MAX_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
pub const DEFAULT_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Under this a certificate would be due again before it has reached its proxy.
const MIN_LIFE: Duration = Duration::from_secs(10);

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            workload: DEFAULT_LIFE,
            max: MAX_LIFE,
        }
    }
}

impl Lifetimes {
    pub fn new(workload: Duration, max: Duration) -> Result<Self, LifetimesError> {
        if workload < MIN_LIFE || workload > max {
            return Err(LifetimesError { workload, max });
        }
        Ok(Self { workload, max })
    }

    pub fn workload(&self) -> Duration {
        self.workload
    }

    pub fn max(&self) -> Duration {
        self.max
    }
}

impl Authority {
    pub fn new(signer: Signer, lifetimes: Lifetimes) -> Self {
        Self {
            current: RwLock::new(Arc::new(Current::new(signer))),
            lifetimes,
            issued: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            rates: Rates::default(),
        }
    }

    /// The secret `name` for `identity`. Only `default` and `ROOTCA` exist.
    pub fn secret(
        &self,
        name: &str,
        identity: &SpiffeId,
        now: SystemTime,
    ) -> Result<IssuedSecret, Refused> {
        let current = self.current();
        match name {
            ROOTS => Ok(IssuedSecret {
                encoded: current.roots.clone(),
                certificate: None,
            }),
            WORKLOAD => {
                let made = self.workload(&current, identity, now);
                if made.is_err() {
                    self.failed.fetch_add(1, Ordering::Relaxed);
                }
                made
            }
            _ => Err(Refused::Name(shown(name))),
        }
    }

    /// Whether what a proxy already has under `version` may stay.
    pub fn recognise(
        &self,
        name: &str,
        version: &str,
        identity: &SpiffeId,
        now: SystemTime,
    ) -> Standing {
        let current = self.current();
        if name == ROOTS && version == current.signer.bundle.version() {
            return Standing::Good(None);
        }
        if name != WORKLOAD {
            return Standing::Renew;
        }
        match current.signer.seal.recognise(version, identity) {
            Some(lease) if !lease.needs_renewal(now) => Standing::Good(Some(lease)),
            Some(_) | None => Standing::Renew,
        }
    }

    /// Signs a workload's own key. The caller has proven that the workload owns it.
    pub fn sign(
        &self,
        identity: &SpiffeId,
        key: &impl rcgen::PublicKeyData,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Signed, Refused> {
        self.spend(identity, now)?;
        Ok(self.signed(Subject::Workload(identity), key, ttl, now)?)
    }

    /// Signs a key of a server of ours.
    pub fn sign_server(
        &self,
        names: &[Str],
        key: &impl rcgen::PublicKeyData,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Signed, CaError> {
        self.signed(Subject::Server(names), key, ttl, now)
    }

    fn signed(
        &self,
        subject: Subject<'_>,
        key: &impl rcgen::PublicKeyData,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Signed, CaError> {
        let signed = self.current().signer.sign(subject, key, ttl, now)?;
        self.issued.fetch_add(1, Ordering::Relaxed);
        Ok(signed)
    }

    /// Certificates issued since the start.
    pub fn issued(&self) -> u64 {
        self.issued.load(Ordering::Relaxed)
    }

    /// Secrets that could not be made when they were asked for, since the start.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    pub fn lifetimes(&self) -> Lifetimes {
        self.lifetimes
    }

    pub fn bundle(&self) -> Bundle {
        self.current().signer.bundle.clone()
    }

    /// The last second for which the CA can vouch.
    pub fn not_after(&self) -> SystemTime {
        self.current().signer.not_after()
    }

    /// The last second of the longest-lived root.
    pub fn root_not_after(&self) -> SystemTime {
        self.current().signer.root_not_after()
    }

    /// Signs with another key or certificate from now on. What the old one signed is no longer recognised.
    pub fn replace(&self, signer: Signer) {
        let next = Arc::new(Current::new(signer));
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
    }

    fn spend(&self, identity: &SpiffeId, now: SystemTime) -> Result<(), Refused> {
        if self.rates.take(identity, now) {
            Ok(())
        } else {
            Err(Refused::Rate)
        }
    }

    fn current(&self) -> Arc<Current> {
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn workload(
        &self,
        current: &Current,
        identity: &SpiffeId,
        now: SystemTime,
    ) -> Result<IssuedSecret, Refused> {
        self.spend(identity, now)?;
        let key = LeafKey::generate()?;
        let subject = Subject::Workload(identity);
        let ttl = self.lifetimes.workload;
        let Signed {
            chain,
            lease,
            serial,
        } = current.signer.sign(subject, &key, ttl, now)?;
        let version = current.signer.seal.version(identity, lease);
        let chain = pem::encode_certificates(&chain);
        let encoded = secret::workload(version, chain, key.pem()?);
        self.issued.fetch_add(1, Ordering::Relaxed);
        Ok(IssuedSecret {
            encoded: Arc::new(encoded),
            certificate: Some(Fresh { lease, serial }),
        })
    }
}

impl Current {
    fn new(signer: Signer) -> Self {
        let bundle = &signer.bundle;
        let roots = secret::roots(bundle.version().clone(), bundle.pem());
        Self {
            roots: Arc::new(roots),
            signer,
        }
    }
}

/// A refused name comes from outside: as much of it as a person needs.
fn shown(name: &str) -> Str {
    name.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ca::lease::unix;
    use crate::ca::testing::{after, authority, chain_and_key, id, now, signer};

    fn version(secret: &IssuedSecret) -> Str {
        secret.encoded.version.clone()
    }

    #[test]
    fn a_proxy_is_given_its_own_certificate_and_the_roots_and_no_other_secret() {
        let ca = authority(now());
        let own = ca.secret("default", &id("reviews"), now()).unwrap();
        let (chain, _) = chain_and_key(&own.encoded);
        let text = String::from_utf8_lossy(&chain[0]);
        assert!(text.contains("spiffe://cluster.local/ns/shop/sa/reviews"));
        let roots = ca.secret("ROOTCA", &id("reviews"), now()).unwrap();
        assert_eq!(roots.encoded.version, *ca.bundle().version());
        for name in [
            "",
            "kubernetes://other/secret",
            "kubernetes-gateway://istio-system/cert",
            "file-cert:/etc/key~/etc/cert",
            "file-root:system",
            "builtin://",
            "default-cacert",
            "ROOTCA ",
            &"x".repeat(1 << 20),
        ] {
            let refused = ca.secret(name, &id("reviews"), now()).unwrap_err();
            assert!(matches!(refused, Refused::Name(_)));
            assert!(refused.to_string().len() < 300);
        }
        assert_eq!(ca.issued(), 1);
    }

    #[test]
    fn what_a_proxy_holds_is_recognised_until_its_renewal() {
        let ca = authority(now());
        let secret = ca.secret("default", &id("reviews"), now()).unwrap();
        let lease = secret.certificate.unwrap().lease;
        let standing = |v: &str, who: &str, at| ca.recognise("default", v, &id(who), at);
        let held = version(&secret);
        let just_before = lease.renew_at - Duration::from_secs(1);
        assert_eq!(
            standing(&held, "reviews", just_before),
            Standing::Good(Some(lease))
        );
        assert_eq!(standing(&held, "reviews", lease.renew_at), Standing::Renew);
        assert_eq!(standing(&held, "ratings", now()), Standing::Renew);
        assert_eq!(standing("", "reviews", now()), Standing::Renew);
        assert_eq!(ca.issued(), 1);
    }

    #[test]
    fn another_signer_ends_what_the_first_one_vouched_for() {
        let ca = authority(now());
        let held = version(&ca.secret("default", &id("a"), now()).unwrap());
        let roots = version(&ca.secret("ROOTCA", &id("a"), now()).unwrap());
        let good = ca.recognise("ROOTCA", &roots, &id("a"), now());
        assert_eq!(good, Standing::Good(None));
        ca.replace(signer(now()));
        for (name, version) in [("default", &held), ("ROOTCA", &roots)] {
            let standing = ca.recognise(name, version, &id("a"), now());
            assert_eq!(standing, Standing::Renew, "{name}");
        }
    }

    #[test]
    fn an_identity_gone_wild_is_refused_and_no_other() {
        let ca = authority(now());
        let asked = |who: &str| ca.secret("default", &id(who), now());
        let until_refused = (0..=10_000).find_map(|_| asked("wild").err());
        assert!(matches!(until_refused, Some(Refused::Rate)));
        assert_eq!(ca.failed(), 1);
        assert!(asked("reviews").is_ok());
        // What it holds is worth what it was.
        assert!(ca.secret("ROOTCA", &id("wild"), now()).is_ok());
    }

    #[test]
    fn lifetimes_out_of_bounds_are_refused() {
        let seconds = Duration::from_secs;
        assert!(Lifetimes::new(seconds(60), MAX_LIFE).is_ok());
        assert!(Lifetimes::new(seconds(1), MAX_LIFE).is_err());
        assert!(Lifetimes::new(seconds(120), seconds(60)).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_lifetime_is_kept_and_renewed_in_its_middle(ttl in 10u64..7_776_000, at in 0u64..1_000_000) {
            let lifetimes = Lifetimes::new(Duration::from_secs(ttl), MAX_LIFE).unwrap();
            let ca = Authority::new(signer(now()), lifetimes);
            let fresh = ca.secret("default", &id("a"), after(at)).unwrap().certificate.unwrap();
            prop_assert_eq!(fresh.lease.not_after, after(at + ttl));
            let part = (unix(fresh.lease.renew_at) - unix(after(at))) as f64 / ttl as f64;
            prop_assert!((0.35..=0.55).contains(&part), "{part}");
        }
    }
}
