//! The control plane's own certificate, renewed while it serves.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::CaError;
use super::authority::Authority;
use super::bundle::Bundle;
use super::key::LeafKey;
use super::lease::Lease;
use super::signer::Subject;
use crate::text::Str;
use crate::tls::Live;

/// The names under which proxies look for the control plane, Istio's and the local ones.
pub const NAMES: &[&str] = &[
    "istiod.istio-system.svc",
    "istiod",
    "istio-pilot.istio-system.svc",
    "localhost",
    "127.0.0.1",
];

const LIFE: Duration = Duration::from_secs(24 * 3600);

/// Keeps a `Live` at a certificate that is good and at the roots of the bundle. Its owner calls it in time.
pub struct Serving {
    authority: Arc<Authority>,
    names: Vec<Str>,
    live: Arc<Live>,
    lease: Lease,
    bundle: Bundle,
}

struct Made {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    lease: Lease,
}

impl Serving {
    /// `extra` are names and addresses besides `NAMES`.
    pub fn new(authority: Arc<Authority>, extra: &[Str], now: SystemTime) -> Result<Self, CaError> {
        let mut names: Vec<Str> = NAMES.iter().map(|n| Str::new_static(n)).collect();
        names.extend(extra.iter().cloned());
        names.sort();
        names.dedup();
        let made = make(&authority, &names, now)?;
        let bundle = authority.bundle();
        let live = Live::new(made.chain, made.key, bundle.store()?).map_err(CaError::Tls)?;
        Ok(Self {
            authority,
            names,
            live: Arc::new(live),
            lease: made.lease,
            bundle,
        })
    }

    pub fn live(&self) -> Arc<Live> {
        self.live.clone()
    }

    /// When the next call of `renew_if_due` has something to do.
    pub fn lease(&self) -> Lease {
        self.lease
    }

    /// Renews at half life, and when the roots changed. A failure leaves what is served as it is.
    pub fn renew_if_due(&mut self, now: SystemTime) -> Result<Option<Lease>, CaError> {
        let bundle = self.authority.bundle();
        let same_roots = bundle == self.bundle;
        if same_roots && !self.lease.needs_renewal(now) {
            return Ok(None);
        }
        let made = make(&self.authority, &self.names, now)?;
        self.live.trust(bundle.store()?).map_err(CaError::Tls)?;
        self.live
            .present(made.chain, made.key)
            .map_err(CaError::Tls)?;
        self.bundle = bundle;
        self.lease = made.lease;
        Ok(Some(made.lease))
    }
}

fn make(authority: &Authority, names: &[Str], now: SystemTime) -> Result<Made, CaError> {
    let key = LeafKey::generate()?;
    let signed = authority.sign(Subject::Server(names), &key, LIFE, now)?;
    // rustls keeps the key as long as it serves, and wipes it then.
    let key = PrivatePkcs8KeyDer::from(key.pkcs8()?.to_vec());
    Ok(Made {
        chain: signed.chain,
        key: PrivateKeyDer::Pkcs8(key),
        lease: signed.lease,
    })
}
