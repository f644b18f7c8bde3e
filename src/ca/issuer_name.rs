//! Puts a CA's name into a certificate byte for byte, where rcgen would not.
//!
//! rcgen keeps one value per attribute, so `DC=example, DC=com` loses a part on its way through it, and
//! a leaf that does not repeat its CA's name exactly leads nowhere.

use rcgen::{KeyPair, SigningKey};
use rustls::pki_types::CertificateDer;

use super::CaError;

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

/// The same certificate under another issuer's name, signed again. `name` is a whole DER `Name`.
pub fn replace(
    certificate: &[u8],
    name: &[u8],
    key: &KeyPair,
) -> Result<CertificateDer<'static>, CaError> {
    let odd = || CaError::Certificate("not what was signed".into());
    let (_, outer) = content(certificate).ok_or_else(odd)?;
    let (signed, rest) = split(outer).ok_or_else(odd)?;
    let (algorithm, _) = split(rest).ok_or_else(odd)?;
    let (_, fields) = content(signed).ok_or_else(odd)?;
    // Version, serial number and algorithm come before the issuer.
    let mut after = fields;
    for _ in 0..3 {
        (_, after) = split(after).ok_or_else(odd)?;
    }
    let before = &fields[..fields.len() - after.len()];
    let (_, after) = split(after).ok_or_else(odd)?;

    let signed = element(SEQUENCE, &[before, name, after]);
    let signature = key.sign(&signed).map_err(CaError::Signing)?;
    let signature = element(BIT_STRING, &[&[0], &signature]);
    let whole = element(SEQUENCE, &[&signed, algorithm, &signature]);
    Ok(CertificateDer::from(whole))
}

/// The first element as it is, and what follows it.
fn split(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, content) = content(der)?;
    der.split_at_checked(header + content.len())
}

/// The length of the first element's header, and its content.
fn content(der: &[u8]) -> Option<(usize, &[u8])> {
    let first = *der.get(1)?;
    let (header, length) = match first {
        0..=0x7f => (2, usize::from(first)),
        0x81..=0x84 => {
            let bytes = usize::from(first & 0x7f);
            let digits = der.get(2..2 + bytes)?;
            let length = digits.iter().fold(0, |n, b| n << 8 | usize::from(*b));
            (2 + bytes, length)
        }
        _ => return None,
    };
    Some((header, der.get(header..header.checked_add(length)?)?))
}

fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|p| p.len()).sum();
    let mut der = vec![tag];
    let digits = length.to_be_bytes();
    let digits = &digits[digits.iter().take_while(|b| **b == 0).count()..];
    if length >= 0x80 {
        der.push(0x80 | digits.len() as u8);
    }
    match length {
        0 => der.push(0),
        _ => der.extend_from_slice(digits),
    }
    der.extend(parts.iter().copied().flatten());
    der
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;
    use crate::ca::testing::{now, root_parts};

    #[test]
    fn only_the_name_and_the_signature_change() {
        let parts = root_parts(now());
        let key = KeyPair::try_from(&*parts.key).unwrap();
        // Long enough that every length around it grows by a byte.
        let value = element(0x0c, &[&[b'x'; 150]]);
        let attribute = element(SEQUENCE, &[&[0x06, 3, 0x55, 4, 3], &value]);
        let name = element(SEQUENCE, &[&element(0x31, &[&attribute])]);
        let changed = replace(&parts.certificate, &name, &key).unwrap();
        let (rest, new) = X509Certificate::from_der(&changed).unwrap();
        let (_, old) = X509Certificate::from_der(&parts.certificate).unwrap();
        assert!(rest.is_empty());
        assert_eq!(new.issuer().as_raw(), name);
        assert_eq!(new.subject(), old.subject());
        assert_eq!(new.raw_serial(), old.raw_serial());
        assert_eq!(new.extensions(), old.extensions());
        assert_eq!(new.validity(), old.validity());
        new.verify_signature(Some(old.public_key())).unwrap();
        let own = replace(&parts.certificate, old.issuer().as_raw(), &key).unwrap();
        let (_, own) = X509Certificate::from_der(&own).unwrap();
        assert_eq!(own.tbs_certificate.as_ref(), old.tbs_certificate.as_ref());
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let key = KeyPair::generate().unwrap();
        for der in [
            &[][..],
            &[SEQUENCE],
            &[SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[SEQUENCE, 0x80, 0, 0],
            &[SEQUENCE, 4, SEQUENCE, 2, 5, 0],
        ] {
            assert!(replace(der, &[SEQUENCE, 0], &key).is_err(), "{der:?}");
        }
    }
}
