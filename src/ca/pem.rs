//! PEM text of certificates and keys. Which of them are good is not decided here.

use data_encoding::BASE64;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

/// 48 bytes are 64 characters, the line length of RFC 7468.
const LINE_BYTES: usize = 48;

pub fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    CertificateDer::pem_slice_iter(text).collect()
}

/// The first private key, in any of PKCS#8, SEC1 and PKCS#1.
pub fn private_key(text: &[u8]) -> Result<Zeroizing<PrivateKeyDer<'static>>, pem::Error> {
    PrivateKeyDer::from_pem_slice(text).map(Zeroizing::new)
}

/// Why a key cannot be read, and what to do.
pub fn explain(error: &pem::Error) -> String {
    let what = match error {
        pem::Error::NoItemsFound => "there is no private key in it".to_owned(),
        other => other.to_string(),
    };
    format!("{what}; restore it from a backup")
}

pub fn encode_certificates(chain: &[CertificateDer<'_>]) -> String {
    chain.iter().map(|c| encode("CERTIFICATE", c)).collect()
}

/// Wiped when dropped.
pub fn encode_private_key(pkcs8: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(encode("PRIVATE KEY", pkcs8))
}

/// The text never outgrows its first buffer, so no copy of a key stays behind.
fn encode(label: &str, der: &[u8]) -> String {
    let lines = der.len().div_ceil(LINE_BYTES);
    let frame = 2 * ("-----BEGIN -----\n".len() + label.len());
    let mut text = String::with_capacity(frame + der.len().div_ceil(3) * 4 + lines);
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    for line in der.chunks(LINE_BYTES) {
        BASE64.encode_append(line, &mut text);
        text.push('\n');
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes_and_fits_its_first_buffer() {
        for len in [0, 1, 2, 3, 47, 48, 49, 96, 1000] {
            let der: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let text = encode("CERTIFICATE", &der);
            assert!(text.lines().all(|l| l.len() <= 64));
            let back = certificates(text.as_bytes()).unwrap();
            assert_eq!(back, [CertificateDer::from(der)], "{len}");
            let room = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".len();
            let exact = String::with_capacity(text.len() + 4).capacity();
            assert!(text.capacity() <= exact.max(room + 4), "{len}");
        }
    }
}
