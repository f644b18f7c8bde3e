//! Signs certificates with the CA's key. Where the key is kept is not here.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use super::CaError;
use super::bundle::Bundle;
use super::issuer_name;
use super::key::LeafKey;
use super::lease::{Lease, from_unix, unix, whole_seconds};
use super::version::Seal;
use crate::identity::SpiffeId;
use crate::text::Str;
use crate::tls;

/// For clocks that are a little behind ours.
const BACKDATE: Duration = Duration::from_secs(120);
pub const ROOT_LIFE: Duration = Duration::from_secs(3650 * 24 * 3600);

/// What a CA consists of, as its files give it.
pub struct Parts {
    pub certificate: CertificateDer<'static>,
    pub key: Zeroizing<PrivateKeyDer<'static>>,
    /// From the signing certificate to a root; either end may be in it or not.
    pub chain: Vec<CertificateDer<'static>>,
    pub roots: Vec<CertificateDer<'static>>,
}

/// A CA key with everything that signing and checking need. Immutable; rotation makes another.
pub struct Signer {
    issuer: Issuer<'static, KeyPair>,
    /// The CA's name, if rcgen would write it otherwise.
    odd_name: Option<Box<[u8]>>,
    /// Sent behind each leaf, in order; the roots are not among them.
    intermediates: Vec<CertificateDer<'static>>,
    not_after: SystemTime,
    root_not_after: SystemTime,
    pub bundle: Bundle,
    pub seal: Seal,
}

/// Whose certificate it is.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    Workload(&'a SpiffeId),
    /// Host names and IP addresses of a server of ours.
    Server(&'a [Str]),
}

/// A fresh certificate: the leaf, then intermediates; the root is not in it.
#[derive(Debug)]
pub struct Signed {
    pub chain: Vec<CertificateDer<'static>>,
    pub lease: Lease,
    pub serial: Serial,
}

/// 127 random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Serial([u8; 16]);

impl Signer {
    /// Checks that key, certificate, chain and roots belong together by signing and verifying a leaf.
    pub fn new(parts: Parts, now: SystemTime) -> Result<Self, CaError> {
        let ca = parse(&parts.certificate)?;
        if !ca.is_ca() {
            return Err(CaError::NotCa);
        }
        let key = KeyPair::try_from(&*parts.key).map_err(CaError::Key)?;
        if key.public_key_raw() != ca.public_key().subject_public_key.data.as_ref() {
            return Err(CaError::KeyMismatch);
        }
        let name = [ca.subject().as_raw(), ca.public_key().raw].concat();
        let seal = Seal::new(parts.key.secret_der(), &name).ok_or(CaError::Random)?;
        let bundle = Bundle::new(parts.roots)?;
        let intermediates = intermediates(&parts.certificate, &parts.chain, &bundle)?;
        let root_not_after = ends(bundle.roots())?.max();
        let root_not_after = root_not_after.ok_or(CaError::NoRoot)?;
        let links = ends(&intermediates)?.chain([end(&parts.certificate)?]);
        let not_after = links.fold(root_not_after, SystemTime::min);
        let mut signer = Self {
            odd_name: None,
            issuer: Issuer::from_ca_cert_der(&parts.certificate, key).map_err(CaError::Key)?,
            intermediates,
            not_after,
            root_not_after,
            bundle,
            seal,
        };
        let subject = ca.subject().as_raw();
        if parse(&signer.probe(now)?.chain[0])?.issuer().as_raw() != subject {
            signer.odd_name = Some(subject.into());
        }
        signer.prove(now)?;
        Ok(signer)
    }

    /// The last second for which this CA can vouch: the first end of any link.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    pub fn root_not_after(&self) -> SystemTime {
        self.root_not_after
    }

    pub fn intermediates(&self) -> &[CertificateDer<'static>] {
        &self.intermediates
    }

    /// Signs for `ttl`, or for as long as the CA itself is good if that is less.
    pub fn sign(
        &self,
        subject: Subject<'_>,
        key: &impl PublicKeyData,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Signed, CaError> {
        let now = whole_seconds(now);
        if self.not_after <= now {
            return Err(CaError::Expired(unix(self.not_after)));
        }
        let serial = Serial::random()?;
        let not_after = whole_seconds(now + ttl).min(self.not_after);
        let params = leaf_params(subject, serial, not_after, now)?;
        let leaf = params
            .signed_by(key, &self.issuer)
            .map_err(CaError::Signing)?;
        let mut chain = Vec::with_capacity(1 + self.intermediates.len());
        chain.push(match &self.odd_name {
            None => leaf.into(),
            Some(name) => issuer_name::replace(leaf.der(), name, self.issuer.key())?,
        });
        chain.extend(self.intermediates.iter().cloned());
        Ok(Signed {
            chain,
            lease: Lease::new(now, not_after, serial.seed()),
            serial,
        })
    }

    fn probe(&self, now: SystemTime) -> Result<Signed, CaError> {
        let names = [Str::new_static("probe")];
        let key = LeafKey::generate()?;
        self.sign(Subject::Server(&names), &key, BACKDATE, now)
    }

    fn prove(&self, now: SystemTime) -> Result<(), CaError> {
        let probe = self.probe(now)?;
        let verifier = tls::client_verifier(self.bundle.store()?).map_err(CaError::Unverifiable)?;
        let (leaf, rest) = probe.chain.split_first().ok_or(CaError::NoRoot)?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(unix(now)));
        verifier
            .verify_client_cert(leaf, rest, now)
            .map_err(CaError::Unverifiable)?;
        Ok(())
    }
}

/// A root of our own: O=<trust domain>, ten years.
pub fn self_signed(
    key: &KeyPair,
    trust_domain: &str,
    now: SystemTime,
) -> Result<CertificateDer<'static>, CaError> {
    let now = whole_seconds(now);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, trust_domain);
    params.serial_number = Some(Serial::random()?.der());
    params.not_before = date(now.checked_sub(BACKDATE).unwrap_or(now))?;
    params.not_after = date(now + ROOT_LIFE)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root = params.self_signed(key).map_err(CaError::Signing)?;
    Ok(root.into())
}

/// Whether a certificate names itself as its issuer.
pub fn is_self_issued(certificate: &CertificateDer<'_>) -> Result<bool, CaError> {
    let parsed = parse(certificate)?;
    Ok(parsed.subject() == parsed.issuer())
}

fn leaf_params(
    subject: Subject<'_>,
    serial: Serial,
    not_after: SystemTime,
    now: SystemTime,
) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = subject.names()?;
    params.serial_number = Some(serial.der());
    params.not_before = date(now.checked_sub(BACKDATE).unwrap_or(now))?;
    params.not_after = date(not_after)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    Ok(params)
}

impl Subject<'_> {
    fn names(self) -> Result<Vec<SanType>, CaError> {
        let ia5 = |text: &str| {
            text.try_into()
                .map_err(|_| CaError::ServerName(Str::new(text)))
        };
        match self {
            Self::Workload(id) => Ok(vec![SanType::URI(ia5(&id.to_string())?)]),
            Self::Server(names) => names
                .iter()
                .map(|n| match n.parse::<IpAddr>() {
                    Ok(ip) => Ok(SanType::IpAddress(ip)),
                    Err(_) => Ok(SanType::DnsName(ia5(n)?)),
                })
                .collect(),
        }
    }
}

impl Serial {
    fn random() -> Result<Self, CaError> {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| CaError::Random)?;
        bytes[0] &= 0x7f;
        Ok(Self(bytes))
    }

    fn der(self) -> SerialNumber {
        SerialNumber::from_slice(&self.0)
    }

    fn seed(self) -> u64 {
        self.0[8..].iter().fold(0, |n, b| n << 8 | u64::from(*b))
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

fn intermediates(
    certificate: &CertificateDer<'static>,
    chain: &[CertificateDer<'static>],
    bundle: &Bundle,
) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let mut found: Vec<CertificateDer<'static>> = Vec::new();
    for link in std::iter::once(certificate).chain(chain) {
        let known = found.contains(link) || bundle.roots().contains(link);
        if !known && !is_self_issued(link)? {
            found.push(link.clone());
        }
    }
    Ok(found)
}

fn ends(certificates: &[CertificateDer<'_>]) -> Result<impl Iterator<Item = SystemTime>, CaError> {
    let ends: Result<Vec<_>, _> = certificates.iter().map(end).collect();
    Ok(ends?.into_iter())
}

fn end(certificate: &CertificateDer<'_>) -> Result<SystemTime, CaError> {
    let seconds = parse(certificate)?.validity().not_after.timestamp();
    Ok(u64::try_from(seconds)
        .ok()
        .and_then(from_unix)
        .unwrap_or(SystemTime::UNIX_EPOCH))
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CaError> {
    let (rest, parsed) =
        X509Certificate::from_der(certificate).map_err(|e| CaError::Certificate(e.to_string()))?;
    if !rest.is_empty() {
        return Err(CaError::Certificate("bytes after its end".into()));
    }
    Ok(parsed)
}

fn date(time: SystemTime) -> Result<OffsetDateTime, CaError> {
    i64::try_from(unix(time))
        .ok()
        .and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok())
        .ok_or(CaError::Date)
}

#[cfg(test)]
mod tests {
    use x509_parser::extensions::{GeneralName, ParsedExtension};

    use super::*;
    use crate::ca::testing::{after, id, intermediate, now, root_parts, signer};

    const HOUR: Duration = Duration::from_secs(3600);

    fn leaf(signer: &Signer, ttl: Duration) -> Signed {
        let id = id("reviews");
        let key = LeafKey::generate().unwrap();
        signer
            .sign(Subject::Workload(&id), &key, ttl, now())
            .unwrap()
    }

    #[test]
    fn a_workload_certificate_says_who_it_is_and_nothing_else() {
        let signed = leaf(&signer(now()), HOUR);
        let cert = parse(&signed.chain[0]).unwrap();
        assert_eq!(cert.subject().iter().count(), 0);
        let names = cert.subject_alternative_name().unwrap().unwrap();
        assert!(names.critical);
        assert_eq!(
            names.value.general_names,
            [GeneralName::URI(
                "spiffe://cluster.local/ns/shop/sa/reviews"
            )]
        );
        assert!(!cert.is_ca());
        let usage = cert.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
        let extended = cert.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.server_auth && extended.client_auth && !extended.any);
        let (begin, end) = (cert.validity().not_before, cert.validity().not_after);
        assert_eq!(begin.timestamp() as u64, unix(now()) - 120);
        assert_eq!(end.timestamp() as u64, unix(now()) + 3600);
        assert_eq!(cert.raw_serial().len(), signed.serial.0.len());
    }

    #[test]
    fn a_leaf_names_the_key_that_signed_it() {
        let signer = signer(now());
        let signed = leaf(&signer, HOUR);
        let root = parse(&signer.bundle.roots()[0]).unwrap();
        let of = |cert: &X509Certificate<'_>| {
            cert.extensions()
                .iter()
                .find_map(|e| match e.parsed_extension() {
                    ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                    _ => None,
                })
        };
        let cert = parse(&signed.chain[0]).unwrap();
        let authority = cert
            .extensions()
            .iter()
            .find_map(|e| match e.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    id.key_identifier.as_ref().map(|k| k.0.to_vec())
                }
                _ => None,
            });
        assert!(authority.is_some());
        assert_eq!(authority, of(&root));
        assert_ne!(authority, of(&cert));
    }

    #[test]
    fn serials_and_keys_differ_each_time() {
        let signer = signer(now());
        let (one, two) = (leaf(&signer, HOUR), leaf(&signer, HOUR));
        assert_ne!(one.serial, two.serial);
        let keys = [&one, &two].map(|s| parse(&s.chain[0]).unwrap().public_key().raw.to_vec());
        assert_ne!(keys[0], keys[1]);
    }

    #[test]
    fn behind_an_intermediate_goes_its_certificate_but_not_the_root() {
        let root = root_parts(now());
        let parts = intermediate(&root, 10 * HOUR, now());
        let between = parts.certificate.clone();
        let signer = Signer::new(parts, now()).unwrap();
        let signed = leaf(&signer, HOUR);
        assert_eq!(signed.chain[1..], [between]);
    }

    /// As the CAs of a directory service are called (`DC=example, DC=com`).
    #[test]
    fn a_ca_whose_name_repeats_an_attribute_signs_too() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, "Example");
        name.push(DnType::CustomDnType(vec![2, 5, 4, 3]), "Issuing");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = CertificateDer::from(params.self_signed(&key).unwrap());
        let parts = Parts {
            roots: vec![root.clone()],
            certificate: root,
            key: Zeroizing::new(PrivateKeyDer::try_from(key.serialize_der()).unwrap()),
            chain: Vec::new(),
        };
        let signer = Signer::new(parts, now()).unwrap();
        let signed = leaf(&signer, HOUR);
        let issuer = parse(&signed.chain[0]).unwrap().issuer().to_string();
        assert_eq!(issuer, "CN=Example, CN=Issuing");
    }

    #[test]
    fn no_certificate_outlives_its_signer() {
        let parts = intermediate(&root_parts(now()), 2 * HOUR, now());
        let signer = Signer::new(parts, now()).unwrap();
        assert_eq!(leaf(&signer, 24 * HOUR).lease.not_after, after(2 * 3600));
        let id = id("late");
        let key = LeafKey::generate().unwrap();
        let late = signer.sign(Subject::Workload(&id), &key, HOUR, after(2 * 3600));
        assert!(matches!(late, Err(CaError::Expired(_))), "{late:?}");
    }

    #[test]
    fn parts_that_do_not_fit_are_no_ca() {
        let one = root_parts(now());
        let two = root_parts(now());
        let stranger = Parts {
            key: Zeroizing::new(two.key.clone_key()),
            ..root_parts(now())
        };
        assert!(matches!(
            Signer::new(stranger, now()),
            Err(CaError::KeyMismatch)
        ));
        let other_root = Parts {
            roots: two.roots,
            ..intermediate(&one, HOUR, now())
        };
        assert!(matches!(
            Signer::new(other_root, now()),
            Err(CaError::Unverifiable(_))
        ));
        let key = LeafKey::generate().unwrap();
        let id = id("a");
        let leaf = signer(now())
            .sign(Subject::Workload(&id), &key, HOUR, now())
            .unwrap();
        let no_ca = Parts {
            certificate: leaf.chain[0].clone(),
            key: key.der().unwrap(),
            chain: vec![],
            roots: one.roots,
        };
        assert!(matches!(Signer::new(no_ca, now()), Err(CaError::NotCa)));
        let expired = root_parts(now() - 2 * ROOT_LIFE);
        assert!(matches!(
            Signer::new(expired, now()),
            Err(CaError::Expired(_))
        ));
    }
}
