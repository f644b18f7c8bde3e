//! Certificate requests: which keys are signed, and for how long. Names never come from a request.

use std::time::{Duration, SystemTime};

use rcgen::SubjectPublicKeyInfo;
use rustls::pki_types::pem::{PemObject, SectionKind};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use super::authenticate::Credential;
use super::authority::{Authority, Lifetimes, Refused};
use super::pem;

/// A request with an RSA-4096 key is under 3 KiB.
const MAX_REQUEST: usize = 16 << 10;
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// Why a request is not signed.
#[derive(Debug, thiserror::Error)]
pub enum CsrError {
    #[error("the request is larger than {MAX_REQUEST} bytes")]
    TooLarge,
    #[error("the request is not one PEM block `CERTIFICATE REQUEST`")]
    Pem,
    #[error("the request is not a PKCS#10 message")]
    Malformed,
    #[error("the request's key is none of ECDSA P-256, P-384, RSA of 2048 to 4096 bits")]
    Key,
    #[error("the request is not signed by its key")]
    Signature,
    #[error("a validity of {asked} s is over the limit of {limit:?}")]
    Validity { asked: i64, limit: Duration },
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Signs the key of `request` for the caller: leaf, intermediates, and the roots as the last element.
pub fn sign(
    authority: &Authority,
    caller: &Credential,
    request: &str,
    seconds: i64,
    now: SystemTime,
) -> Result<Vec<String>, CsrError> {
    let ttl = validity(seconds, authority.lifetimes())?;
    let key = public_key(request)?;
    let signed = authority.sign(&caller.identity, &key, ttl, now)?;
    let mut chain: Vec<String> = signed
        .chain
        .iter()
        .map(|c| pem::encode_certificates(std::slice::from_ref(c)))
        .collect();
    chain.push(authority.bundle().pem());
    Ok(chain)
}

/// The key, once it is proven that the caller owns its private half.
fn public_key(request: &str) -> Result<SubjectPublicKeyInfo, CsrError> {
    if request.len() > MAX_REQUEST {
        return Err(CsrError::TooLarge);
    }
    let mut blocks = <(SectionKind, Vec<u8>)>::pem_slice_iter(request.as_bytes());
    let (Some(Ok((SectionKind::Csr, der))), None) = (blocks.next(), blocks.next()) else {
        return Err(CsrError::Pem);
    };
    let (rest, request) =
        X509CertificationRequest::from_der(&der).map_err(|_| CsrError::Malformed)?;
    if !rest.is_empty() {
        return Err(CsrError::Malformed);
    }
    // Before the signature is looked at: a huge key makes that slow.
    if !is_accepted(&request) {
        return Err(CsrError::Key);
    }
    request
        .verify_signature()
        .map_err(|_| CsrError::Signature)?;
    let key = request.certification_request_info.subject_pki.raw;
    SubjectPublicKeyInfo::from_der(key).map_err(|_| CsrError::Key)
}

fn is_accepted(request: &X509CertificationRequest<'_>) -> bool {
    let key = &request.certification_request_info.subject_pki;
    let kind = &key.algorithm.algorithm;
    if *kind == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = key.algorithm.parameters.as_ref();
        return curve
            .and_then(|p| p.as_oid().ok())
            .is_some_and(|c| c == OID_EC_P256 || c == OID_NIST_EC_P384);
    }
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => {
            *kind == OID_PKCS1_RSAENCRYPTION && RSA_BITS.contains(&rsa.key_size())
        }
        Ok(_) | Err(_) => false,
    }
}

fn validity(seconds: i64, lifetimes: Lifetimes) -> Result<Duration, CsrError> {
    let Some(asked) = u64::try_from(seconds).ok().filter(|s| *s > 0) else {
        return Ok(lifetimes.workload());
    };
    let limit = lifetimes.max();
    let asked = Duration::from_secs(asked);
    if asked > limit {
        return Err(CsrError::Validity {
            asked: seconds,
            limit,
        });
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{
        BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, KeyPair,
        PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256,
        PublicKeyData, RsaKeySize, SanType, SignatureAlgorithm, SigningKey,
    };
    use x509_parser::extensions::GeneralName;
    use x509_parser::prelude::X509Certificate;

    use super::*;
    use crate::ca::signer::Signer;
    use crate::ca::testing::{after, authority, id, intermediate, now, root_parts};

    fn caller() -> Credential {
        Credential {
            identity: id("reviews"),
            pod: None,
            expires: after(3600),
        }
    }

    fn request(params: &CertificateParams, key: &KeyPair) -> String {
        params.serialize_request(key).unwrap().pem().unwrap()
    }

    fn plain(key: &KeyPair) -> String {
        request(&CertificateParams::default(), key)
    }

    fn ask(request: &str, seconds: i64) -> Result<Vec<String>, CsrError> {
        sign(&authority(now()), &caller(), request, seconds, now())
    }

    #[test]
    fn only_the_callers_own_name_is_ever_signed() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["*.example.com".to_owned()]).unwrap();
        let other = "spiffe://cluster.local/ns/istio-system/sa/istiod";
        params
            .subject_alt_names
            .push(SanType::URI(other.try_into().unwrap()));
        params
            .distinguished_name
            .push(DnType::CommonName, "cluster-admin");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let chain = ask(&request(&params, &key), 0).unwrap();
        let der = pem::certificates(chain[0].as_bytes()).unwrap();
        let (_, leaf) = X509Certificate::from_der(&der[0]).unwrap();
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        let own = "spiffe://cluster.local/ns/shop/sa/reviews";
        assert_eq!(names.value.general_names, [GeneralName::URI(own)]);
        assert!(!leaf.is_ca());
        assert_eq!(leaf.subject().iter().count(), 0);
        assert_eq!(
            leaf.public_key().subject_public_key.data,
            key.public_key_raw()
        );
    }

    #[test]
    fn the_chain_goes_from_the_leaf_to_the_root() {
        let root = root_parts(now());
        let parts = intermediate(&root, Duration::from_secs(86_400), now());
        let between = pem::encode_certificates(std::slice::from_ref(&parts.certificate));
        let signer = Signer::new(parts, now()).unwrap();
        let ca = Authority::new(signer, Lifetimes::default());
        let key = KeyPair::generate().unwrap();
        let chain = sign(&ca, &caller(), &plain(&key), 0, now()).unwrap();
        assert_eq!(chain.len(), 3);
        assert_eq!(chain[1], between);
        assert_eq!(chain[2], pem::encode_certificates(&root.roots));
    }

    #[test]
    fn keys_of_the_usual_kinds_are_signed_and_odd_ones_not() {
        let make = |alg| KeyPair::generate_for(alg).unwrap();
        let rsa = |size| KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, size).unwrap();
        for key in [
            KeyPair::generate().unwrap(),
            make(&PKCS_ECDSA_P384_SHA384),
            rsa(RsaKeySize::_2048),
        ] {
            let chain = ask(&plain(&key), 0).unwrap();
            let der = pem::certificates(chain[0].as_bytes()).unwrap();
            let (_, leaf) = X509Certificate::from_der(&der[0]).unwrap();
            assert_eq!(
                leaf.public_key().subject_public_key.data,
                key.public_key_raw()
            );
        }
        for key in [make(&PKCS_ED25519), make(&PKCS_ECDSA_P521_SHA512)] {
            assert!(matches!(ask(&plain(&key), 0), Err(CsrError::Key)));
        }
    }

    /// A key that signs nothing: what is asked is whether anybody tries to verify with it.
    struct Rsa {
        der: Vec<u8>,
    }

    impl Rsa {
        fn of_bits(bits: usize) -> Self {
            let integer = |bytes: &[u8]| [&[2][..], &length(bytes.len()), bytes].concat();
            let modulus = [&[0][..], &vec![0xff; bits / 8]].concat();
            let body = [integer(&modulus), integer(&[1, 0, 1])].concat();
            Self {
                der: [&[0x30][..], &length(body.len()), &body].concat(),
            }
        }
    }

    fn length(n: usize) -> Vec<u8> {
        match n {
            0..128 => vec![n as u8],
            _ => vec![0x82, (n >> 8) as u8, n as u8],
        }
    }

    impl PublicKeyData for Rsa {
        fn der_bytes(&self) -> &[u8] {
            &self.der
        }

        fn algorithm(&self) -> &'static SignatureAlgorithm {
            &PKCS_RSA_SHA256
        }
    }

    impl SigningKey for Rsa {
        fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
            Ok(vec![0; 256])
        }
    }

    #[test]
    fn rsa_keys_too_short_or_too_long_are_refused_before_their_signature_is_read() {
        let refused = |bits| {
            let csr = CertificateParams::default().serialize_request(&Rsa::of_bits(bits));
            ask(&csr.unwrap().pem().unwrap(), 0).unwrap_err()
        };
        for bits in [1024, 2040, 4104, 8192, 16_384] {
            assert!(matches!(refused(bits), CsrError::Key), "{bits}");
        }
        assert!(matches!(refused(4096), CsrError::Signature));
    }

    #[test]
    fn extensions_of_a_request_count_for_nothing() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        // Name constraints, an unknown one, and many of them.
        params.custom_extensions = (0..100)
            .map(|n| CustomExtension::from_oid_content(&[2, 5, 29, 30 + n], vec![0x30, 0]))
            .collect();
        let chain = ask(&request(&params, &key), 0).unwrap();
        let der = pem::certificates(chain[0].as_bytes()).unwrap();
        let (_, leaf) = X509Certificate::from_der(&der[0]).unwrap();
        assert_eq!(leaf.extensions().len(), 6);
        assert!(leaf.name_constraints().unwrap().is_none());
    }

    #[test]
    fn a_key_whose_owner_did_not_sign_is_not_certified() {
        let (mine, victims) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let params = CertificateParams::default();
        let request = params.serialize_request(&mine).unwrap();
        let mut der = request.der().to_vec();
        let at = der
            .windows(65)
            .position(|w| w == mine.public_key_raw())
            .unwrap();
        der[at..at + 65].copy_from_slice(victims.public_key_raw());
        let swapped = block("CERTIFICATE REQUEST", &der);
        assert!(matches!(ask(&swapped, 0), Err(CsrError::Signature)));
    }

    fn block(label: &str, der: &[u8]) -> String {
        let body = data_encoding::BASE64.encode(der);
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    }

    #[test]
    fn anything_but_one_request_is_refused() {
        let key = KeyPair::generate().unwrap();
        let good = plain(&key);
        let der = CertificateParams::default()
            .serialize_request(&key)
            .unwrap()
            .der()
            .to_vec();
        let trailing = [&der[..], &[0]].concat();
        let root = authority(now()).bundle().pem();
        for bad in [
            "",
            "garbage",
            &format!("{good}{good}"),
            &format!("{good}{root}"),
            &root,
            &block("PRIVATE KEY", &der),
        ] {
            assert!(matches!(ask(bad, 0), Err(CsrError::Pem)), "{bad}");
        }
        for bad in [&trailing[..], &der[..der.len() - 1], &[0x30, 0x80], &[]] {
            let got = ask(&block("CERTIFICATE REQUEST", bad), 0);
            assert!(got.is_err(), "{bad:?}");
        }
        let huge = "x".repeat(MAX_REQUEST + 1);
        assert!(matches!(ask(&huge, 0), Err(CsrError::TooLarge)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn a_request_changed_on_its_way_is_never_signed(at in 0usize..1000, byte in any::<u8>()) {
            let key = KeyPair::generate().unwrap();
            let request = CertificateParams::default().serialize_request(&key).unwrap();
            let mut der = request.der().to_vec();
            let at = at % der.len();
            der[at] = byte;
            let got = public_key(&block("CERTIFICATE REQUEST", &der));
            if let Ok(got) = got {
                // The same request, or another writing of the same signature.
                prop_assert_eq!(got.der_bytes(), key.public_key_raw());
            }
        }

        #[test]
        fn any_bytes_are_refused_without_panic(der in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(public_key(&block("CERTIFICATE REQUEST", &der)).is_err());
        }
    }

    #[test]
    fn validity_is_the_default_or_what_was_asked_within_the_limit() {
        let key = KeyPair::generate().unwrap();
        let ends = |seconds| {
            let chain = ask(&plain(&key), seconds)?;
            let der = pem::certificates(chain[0].as_bytes()).unwrap();
            let (_, leaf) = X509Certificate::from_der(&der[0]).unwrap();
            Ok::<_, CsrError>(leaf.validity().not_after.timestamp())
        };
        let at = |seconds: i64| 1_800_000_000 + seconds;
        assert_eq!(ends(0).unwrap(), at(86_400));
        assert_eq!(ends(-5).unwrap(), at(86_400));
        assert_eq!(ends(60).unwrap(), at(60));
        assert_eq!(ends(90 * 86_400).unwrap(), at(90 * 86_400));
        for far in [90 * 86_400 + 1, 100 * 365 * 86_400, i64::MAX] {
            assert!(matches!(ends(far), Err(CsrError::Validity { .. })));
        }
    }
}
