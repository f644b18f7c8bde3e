//! Secrets, pruned to what gateways show. Nothing in one is a fault: most are of others, and say nothing to a mesh.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::config::secret::{PrivateKey, Secret};
use crate::text::Str;

/// Far more than a chain needs. A Secret may have a mebibyte.
const LONGEST: usize = 256 << 10;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct SecretManifest {
    /// Encoded by base64.
    data: BTreeMap<Str, Str>,
    /// As it is; it stands in files alone, and goes before.
    string_data: BTreeMap<Str, Str>,
}

impl SecretManifest {
    pub(super) fn prune(self) -> Secret {
        let pair = self.pair("tls.crt", "tls.key");
        Secret {
            pair: pair.or_else(|| self.pair("cert", "key")),
            roots: self
                .certificates("ca.crt")
                .or_else(|| self.certificates("cacert")),
            revoked: self.revoked("ca.crl").or_else(|| self.revoked("crl")),
        }
    }

    fn text(&self, name: &str) -> Option<Zeroizing<String>> {
        if let Some(plain) = self.string_data.get(name) {
            return Some(Zeroizing::new(plain.to_string()));
        }
        let encoded = self.data.get(name).filter(|text| text.len() <= LONGEST)?;
        let bytes = BASE64.decode(encoded.as_bytes()).ok()?;
        String::from_utf8(bytes).ok().map(Zeroizing::new)
    }

    fn pair(&self, chain: &str, key: &str) -> Option<(Str, PrivateKey)> {
        let chain = self.certificates(chain)?;
        let key = self.text(key)?;
        belong_together(&chain, &key).then(|| (chain, PrivateKey::new(key)))
    }

    fn certificates(&self, name: &str) -> Option<Str> {
        let text = self.text(name)?;
        let all = CertificateDer::pem_slice_iter(text.as_bytes());
        let all: Result<Vec<_>, _> = all.collect();
        let some = all.is_ok_and(|all| !all.is_empty());
        some.then(|| Str::new(text.as_str()))
    }

    fn revoked(&self, name: &str) -> Option<Str> {
        let text = self.text(name)?;
        let list = CertificateRevocationListDer::from_pem_slice(text.as_bytes());
        list.is_ok().then(|| Str::new(text.as_str()))
    }
}

/// Whether the key is that of the chain's first certificate: Envoy takes no other pair.
fn belong_together(chain: &str, key: &str) -> bool {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes());
    let (Ok(chain), Ok(key)) = (chain, key) else {
        return false;
    };
    let Ok(key) = any_supported_type(&key) else {
        return false;
    };
    match CertifiedKey::new(chain, key).keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => true,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["shop.example.com".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn manifest(pairs: &[(&str, String)]) -> SecretManifest {
        let encoded = |(name, text): &(&str, String)| {
            (Str::new(name), Str::new(BASE64.encode(text.as_bytes())))
        };
        SecretManifest {
            data: pairs.iter().map(encoded).collect(),
            ..SecretManifest::default()
        }
    }

    #[test]
    fn both_shapes_are_read_and_the_key_is_shown_to_nobody() {
        let (certificate, key) = pair();
        for names in [["tls.crt", "tls.key", "ca.crt"], ["cert", "key", "cacert"]] {
            let texts = [&certificate, &key, &certificate].map(Clone::clone);
            let pairs: Vec<_> = names.into_iter().zip(texts).collect();
            let secret = manifest(&pairs).prune();
            let (chain, private) = secret.pair.clone().unwrap();
            assert_eq!(
                (chain.as_str(), private.reveal().as_str()),
                (&*certificate, &*key)
            );
            assert_eq!(secret.roots.as_deref(), Some(certificate.as_str()));
            assert!(!format!("{secret:?}").contains("PRIVATE"));
            assert!(!serde_json::to_string(&secret).unwrap().contains("PRIVATE"));
        }
    }

    #[test]
    fn what_is_no_certificate_is_left_alone() {
        let password = manifest(&[("key", "secret".to_owned()), ("cert", "x".to_owned())]);
        assert!(password.prune().is_empty());
        let (chain, _) = pair();
        for key in [String::new(), pair().1] {
            let other = manifest(&[("tls.crt", chain.clone()), ("tls.key", key)]);
            assert!(other.prune().is_empty());
        }
    }
}
