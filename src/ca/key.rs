//! A workload's private key, from its making to its text.

use aws_lc_rs::pkcs8::Document;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::{CaError, pem};

/// ECDSA P-256. Lives until its certificate is encoded; no copy is kept.
pub struct LeafKey {
    pair: EcdsaKeyPair,
}

impl LeafKey {
    pub fn generate() -> Result<Self, CaError> {
        let pair =
            EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| CaError::Random)?;
        Ok(Self { pair })
    }

    /// PKCS#8 as Envoy reads it. The document in between is wiped as well.
    pub fn pem(&self) -> Result<Zeroizing<String>, CaError> {
        Ok(pem::encode_private_key(self.pkcs8()?.as_ref()))
    }

    pub fn der(&self) -> Result<Zeroizing<PrivateKeyDer<'static>>, CaError> {
        let der = PrivatePkcs8KeyDer::from(self.pkcs8()?.as_ref().to_vec());
        Ok(Zeroizing::new(der.into()))
    }

    fn pkcs8(&self) -> Result<Document, CaError> {
        self.pair.to_pkcs8v1().map_err(|_| CaError::Random)
    }
}

impl PublicKeyData for LeafKey {
    fn der_bytes(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}
