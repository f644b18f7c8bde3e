//! The control plane's own certificate, renewed while it serves.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::CaError;
use super::authority::Authority;
use super::bundle::Bundle;
use super::key::LeafKey;
use super::lease::Lease;
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
    key: Zeroizing<PrivateKeyDer<'static>>,
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
        let live = Live::new(made.chain, &made.key, bundle.store()?).map_err(CaError::Tls)?;
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
            .present(made.chain, &made.key)
            .map_err(CaError::Tls)?;
        self.bundle = bundle;
        self.lease = made.lease;
        Ok(Some(made.lease))
    }
}

fn make(authority: &Authority, names: &[Str], now: SystemTime) -> Result<Made, CaError> {
    let key = LeafKey::generate()?;
    let signed = authority.sign_server(names, &key, LIFE, now)?;
    Ok(Made {
        chain: signed.chain,
        key: key.der()?,
        lease: signed.lease,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::testing::{authority, client, handshake, signer, trusting};
    use crate::clock;
    use crate::tls::server_config;

    #[test]
    fn every_name_of_the_control_plane_verifies() {
        let now = clock::wall();
        let ca = Arc::new(authority(now));
        let extra = [Str::new("istiod-canary.istio-system.svc"), Str::new("::1")];
        let serving = Serving::new(ca.clone(), &extra, now).unwrap();
        let config = server_config(serving.live()).unwrap();
        let names = NAMES.iter().copied().chain(["::1", &*extra[0]]);
        for name in names {
            let client = client(trusting(&ca), None);
            handshake(client, config.clone(), name).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        let client = client(trusting(&ca), None);
        assert!(handshake(client, config, "elsewhere").is_err());
        assert!(Serving::new(ca, &[Str::new("näme")], now).is_err());
    }

    #[test]
    fn it_is_renewed_at_half_life_and_not_before() {
        let now = clock::wall();
        let ca = Arc::new(authority(now));
        let mut serving = Serving::new(ca.clone(), &[], now).unwrap();
        let first = serving.lease();
        let early = first.renew_at - Duration::from_secs(1);
        assert_eq!(serving.renew_if_due(early).unwrap(), None);
        let renewed = serving.renew_if_due(first.renew_at).unwrap().unwrap();
        assert!(renewed.not_after > first.not_after);
        assert_eq!(serving.renew_if_due(first.renew_at).unwrap(), None);
        assert_eq!(ca.issued(), 2);
    }

    #[test]
    fn new_roots_are_served_and_trusted_at_once() {
        let now = clock::wall();
        let ca = Arc::new(authority(now));
        let mut serving = Serving::new(ca.clone(), &[], now).unwrap();
        let config = server_config(serving.live()).unwrap();
        let before = trusting(&ca);
        ca.replace(signer(now));
        assert!(serving.renew_if_due(now).unwrap().is_some());
        let reach = |roots| handshake(client(roots, None), config.clone(), "istiod").is_ok();
        assert!(reach(trusting(&ca)));
        assert!(!reach(before));
    }

    #[test]
    fn a_ca_that_ended_leaves_what_is_served() {
        let now = clock::wall();
        let ca = Arc::new(authority(now));
        let mut serving = Serving::new(ca.clone(), &[], now).unwrap();
        let lease = serving.lease();
        let end = ca.not_after();
        assert!(serving.renew_if_due(end).is_err());
        assert_eq!(serving.lease(), lease);
    }
}
