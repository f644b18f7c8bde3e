//! Versions of workload certificates that any replica can read.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::{constant_time, hkdf, hmac};
use data_encoding::HEXLOWER;

use super::lease::{Lease, from_unix, unix};
use crate::identity::SpiffeId;
use crate::text::Str;

/// Writes and recognises `<notAfter>-<renewAt>-<generation>-<identity>-<mac>`.
///
/// Envoy hands the version back after a reconnect, to whichever replica it reaches. The MAC's key comes
/// from the CA's, so each replica of one CA knows the versions of all, and no client can make one up.
pub struct Seal {
    key: hmac::Key,
    generation: String,
}

/// Bytes of a hash that name a generation or an identity within one mesh.
const NAME: usize = 8;
const MAC: usize = 16;

impl Seal {
    /// `secret` is the CA's private key; `signer` names the certificate that signs.
    pub fn new(secret: &[u8], signer: &[u8]) -> Option<Self> {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"fairlead").extract(secret);
        let okm = prk
            .expand(&[b"version of an issued certificate"], hmac::HMAC_SHA256)
            .ok()?;
        Some(Self {
            key: hmac::Key::from(okm),
            generation: name(signer),
        })
    }

    pub fn version(&self, identity: &SpiffeId, lease: Lease) -> Str {
        let body = format!(
            "{}-{}-{}-{}",
            unix(lease.not_after),
            unix(lease.renew_at),
            self.generation,
            name(identity.to_string().as_bytes()),
        );
        let mac = self.mac(&body);
        Str::new(format!("{body}-{mac}"))
    }

    /// The lease, if this CA issued the version to `identity` under the generation that signs now.
    pub fn recognise(&self, version: &str, identity: &SpiffeId) -> Option<Lease> {
        let (body, mac) = version.rsplit_once('-')?;
        let expected = self.mac(body);
        constant_time::verify_slices_are_equal(expected.as_bytes(), mac.as_bytes()).ok()?;
        let fields: Vec<&str> = body.split('-').collect();
        let [not_after, renew_at, generation, id] = fields[..] else {
            return None;
        };
        let ours = generation == self.generation && id == name(identity.to_string().as_bytes());
        ours.then_some(Lease {
            not_after: from_unix(not_after.parse().ok()?)?,
            renew_at: from_unix(renew_at.parse().ok()?)?,
        })
    }

    fn mac(&self, body: &str) -> String {
        HEXLOWER.encode(&hmac::sign(&self.key, body.as_bytes()).as_ref()[..MAC])
    }
}

fn name(of: &[u8]) -> String {
    HEXLOWER.encode(&digest(&SHA256, of).as_ref()[..NAME])
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    fn id(name: &str) -> SpiffeId {
        SpiffeId::new("cluster.local", "shop", name).unwrap()
    }

    fn lease(issued: u64, life: u64) -> Lease {
        let at = |s| UNIX_EPOCH + Duration::from_secs(s);
        Lease::new(at(issued), at(issued + life), issued ^ life)
    }

    proptest! {
        #[test]
        fn a_version_is_recognised_by_its_own_ca_and_identity_alone(
            issued in 0u64..4_000_000_000, life in 1u64..10_000_000,
            a in "[a-z]{1,8}", b in "[a-z]{1,8}", secret in any::<[u8; 32]>(),
        ) {
            let seal = Seal::new(&secret, b"root 1").unwrap();
            let replica = Seal::new(&secret, b"root 1").unwrap();
            let lease = lease(issued, life);
            let version = seal.version(&id(&a), lease);
            prop_assert_eq!(replica.recognise(&version, &id(&a)), Some(lease));
            if a != b {
                prop_assert_eq!(seal.recognise(&version, &id(&b)), None);
            }
            let rotated = Seal::new(&secret, b"root 2").unwrap();
            prop_assert_eq!(rotated.recognise(&version, &id(&a)), None);
            let stranger = Seal::new(b"other", b"root 1").unwrap();
            prop_assert_eq!(stranger.recognise(&version, &id(&a)), None);
        }

        #[test]
        fn a_changed_version_is_not_recognised(at in 0usize..90, to in "[0-9a-f-]") {
            let seal = Seal::new(b"secret", b"root").unwrap();
            let version = seal.version(&id("a"), lease(1_000_000_000, 86_400)).to_string();
            let at = at % version.len();
            let mut changed = version.clone();
            changed.replace_range(at..=at, &to);
            if changed != version {
                prop_assert_eq!(seal.recognise(&changed, &id("a")), None);
            }
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".{0,200}") {
            let seal = Seal::new(b"secret", b"root").unwrap();
            prop_assert_eq!(seal.recognise(&text, &id("a")), None);
        }
    }
}
