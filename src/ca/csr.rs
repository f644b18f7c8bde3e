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
use super::authority::{Authority, Lifetimes};
use super::signer::Subject;
use super::{CaError, pem};

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
    Ca(#[from] CaError),
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
    let signed = authority.sign(Subject::Workload(&caller.identity), &key, ttl, now)?;
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
