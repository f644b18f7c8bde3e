//! TLS of our own listeners: certificate and roots swapped live, peer identity read. Issuing is not here.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, sign::any_supported_type};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, VerifierBuilderError,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    ServerConnection, SignatureScheme,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::identity::SpiffeId;

/// What our listeners present and whom they trust, replaced while they serve.
///
/// A handshake sees the certificate and the roots of its moment; open connections keep theirs.
pub struct Live {
    provider: Arc<CryptoProvider>,
    presented: RwLock<Arc<CertifiedKey>>,
    clients: RwLock<Arc<dyn ClientCertVerifier>>,
}

/// A client certificate that the handshake verified against the mesh's roots.
#[derive(Clone)]
pub struct Peer {
    leaf: Arc<CertificateDer<'static>>,
}

/// What a verified client certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    pub identity: SpiffeId,
    pub not_after: SystemTime,
}

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PeerError {
    #[error("the client certificate cannot be read")]
    Malformed,
    #[error("the client certificate names no workload, or more than one")]
    NoIdentity,
}

impl Live {
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'_>,
        roots: RootCertStore,
    ) -> Result<Self, Error> {
        Ok(Self {
            provider: provider(),
            presented: RwLock::new(certified(chain, key)?),
            clients: RwLock::new(client_verifier(roots)?),
        })
    }

    /// Presents another certificate from the next handshake on.
    pub fn present(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'_>,
    ) -> Result<(), Error> {
        let next = certified(chain, key)?;
        *self
            .presented
            .write()
            .unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// Accepts clients of these roots, and of no others, from the next handshake on.
    pub fn trust(&self, roots: RootCertStore) -> Result<(), Error> {
        let next = client_verifier(roots)?;
        *self.clients.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    fn clients(&self) -> Arc<dyn ClientCertVerifier> {
        let clients = self.clients.read();
        clients.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// TLS 1.3 and HTTP/2 alone; a client certificate is verified if there is one.
///
/// No resumption: a ticket would carry a client's identity past the end of its certificate.
pub fn server_config(live: Arc<Live>) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(live.provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(live.clone())
        .with_cert_resolver(live);
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// For the webhooks: the same certificate, for the API server, which shows none of its own.
pub fn webhook_config(live: Arc<Live>) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(live.provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(live);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// For questions to other replicas: servers of these roots alone, and a certificate to be known by.
pub fn client_config(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'_>,
    roots: RootCertStore,
) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key.clone_key())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Accepts clients without a certificate, and those whose certificate leads to `roots`.
pub fn client_verifier(roots: RootCertStore) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .allow_unauthenticated()
        .build()
        .map_err(|e| match e {
            VerifierBuilderError::InvalidCrl(e) => Error::InvalidCertRevocationList(e),
            e => Error::General(e.to_string()),
        })
}

pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(default_provider())
}

/// Borrows the key, so that its owner can wipe it.
fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'_>,
) -> Result<Arc<CertifiedKey>, Error> {
    let certified = CertifiedKey::new(chain, any_supported_type(key)?);
    certified.keys_match()?;
    Ok(Arc::new(certified))
}

impl Peer {
    /// `None` if the client showed no certificate. Call it once the handshake is done.
    pub fn of(connection: &ServerConnection) -> Option<Self> {
        let leaf = connection.peer_certificates()?.first()?;
        Some(Self {
            leaf: Arc::new(leaf.clone().into_owned()),
        })
    }

    /// Exactly one URI name, and that a workload's.
    pub fn identity(&self) -> Result<PeerIdentity, PeerError> {
        let (_, leaf) = X509Certificate::from_der(&self.leaf).map_err(|_| PeerError::Malformed)?;
        let names = leaf
            .subject_alternative_name()
            .map_err(|_| PeerError::Malformed)?;
        let names = names.ok_or(PeerError::NoIdentity)?;
        let mut uris = names.value.general_names.iter().filter_map(|n| match n {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        let (Some(uri), None) = (uris.next(), uris.next()) else {
            return Err(PeerError::NoIdentity);
        };
        let seconds = leaf.validity().not_after.timestamp();
        let seconds = u64::try_from(seconds).map_err(|_| PeerError::Malformed)?;
        Ok(PeerIdentity {
            identity: SpiffeId::parse(uri).map_err(|_| PeerError::NoIdentity)?,
            not_after: SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds),
        })
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Live {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let presented = self.presented.read();
        Some(presented.unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl ClientCertVerifier for Live {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hint: the roots may change, and a client with a certificate then always shows it.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.clients()
            .verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients().supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;
    use crate::ca::authority::Authority;
    use crate::ca::key::LeafKey;
    use crate::ca::testing::{authority, chain_and_key, client, handshake, id, trusting};
    use crate::clock;
    use crate::text::Str;

    type Credential = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

    fn workload(ca: &Authority, name: &str) -> Credential {
        let secret = ca.secret("default", &id(name), clock::wall()).unwrap();
        chain_and_key(&secret.encoded)
    }

    fn server_certificate(ca: &Authority) -> Credential {
        let key = LeafKey::generate().unwrap();
        let names = [Str::new("istiod")];
        let day = Duration::from_secs(86_400);
        let signed = ca.sign_server(&names, &key, day, clock::wall()).unwrap();
        let key = key.der().unwrap().clone_key();
        (signed.chain, key)
    }

    fn of(leaf: CertificateDer<'static>) -> Peer {
        Peer {
            leaf: Arc::new(leaf),
        }
    }

    fn live(ca: &Authority) -> Arc<Live> {
        let (chain, key) = server_certificate(ca);
        Arc::new(Live::new(chain, &key, trusting(ca)).unwrap())
    }

    #[test]
    fn a_client_without_a_certificate_is_served_and_nobody() {
        let ca = authority(clock::wall());
        let config = server_config(live(&ca)).unwrap();
        let (client, server) = handshake(client(trusting(&ca), None), config, "istiod").unwrap();
        assert!(Peer::of(&server).is_none());
        assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]));
        assert_eq!(
            client.protocol_version(),
            Some(rustls::ProtocolVersion::TLSv1_3)
        );
    }

    #[test]
    fn a_workloads_certificate_says_who_it_is_and_until_when() {
        let ca = authority(clock::wall());
        let config = server_config(live(&ca)).unwrap();
        let client = client(trusting(&ca), Some(workload(&ca, "reviews")));
        let (_, server) = handshake(client, config, "istiod").unwrap();
        let peer = Peer::of(&server).unwrap().identity().unwrap();
        assert_eq!(peer.identity, id("reviews"));
        assert!(peer.not_after > clock::wall() + Duration::from_secs(86_000));
    }

    #[test]
    fn a_strangers_certificate_is_refused() {
        let (ca, other) = (authority(clock::wall()), authority(clock::wall()));
        let config = server_config(live(&ca)).unwrap();
        let client = client(trusting(&ca), Some(workload(&other, "reviews")));
        let refused = handshake(client, config, "istiod").unwrap_err();
        assert!(
            matches!(refused, Error::InvalidCertificate(_)),
            "{refused:?}"
        );
    }

    #[test]
    fn a_client_of_another_protocol_is_refused() {
        let ca = authority(clock::wall());
        let mut client = client(trusting(&ca), None);
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        let refused = handshake(client, server_config(live(&ca)).unwrap(), "istiod").unwrap_err();
        assert_eq!(refused, Error::NoApplicationProtocol);
    }

    #[test]
    fn the_next_handshake_sees_the_new_certificate() {
        let ca = authority(clock::wall());
        let live = live(&ca);
        let config = server_config(live.clone()).unwrap();
        let shown = || {
            let client = client(trusting(&ca), None);
            let (client, _) = handshake(client, config.clone(), "istiod").unwrap();
            client.peer_certificates().unwrap()[0].clone().into_owned()
        };
        let first = shown();
        assert_eq!(first, shown());
        let (chain, key) = server_certificate(&ca);
        live.present(chain.clone(), &key).unwrap();
        assert_eq!(shown(), chain[0]);
        assert_ne!(first, chain[0]);
    }

    #[test]
    fn the_next_handshake_trusts_the_new_roots_alone() {
        let (ca, next) = (authority(clock::wall()), authority(clock::wall()));
        let live = live(&ca);
        let config = server_config(live.clone()).unwrap();
        let enters = |who: &Authority| {
            let client = client(trusting(&ca), Some(workload(who, "a")));
            handshake(client, config.clone(), "istiod").is_ok()
        };
        assert_eq!((enters(&ca), enters(&next)), (true, false));
        let both = ca.bundle().with(&next.bundle()).unwrap();
        live.trust(both.store().unwrap()).unwrap();
        assert_eq!((enters(&ca), enters(&next)), (true, true));
        live.trust(trusting(&next)).unwrap();
        assert_eq!((enters(&ca), enters(&next)), (false, true));
    }

    #[test]
    fn a_certificate_with_no_or_two_names_is_nobodys() {
        let peer = |names: &[&str]| {
            let mut params = CertificateParams::default();
            params.subject_alt_names = names
                .iter()
                .map(|n| SanType::URI((*n).try_into().unwrap()))
                .collect();
            let key = KeyPair::generate().unwrap();
            let leaf = params.self_signed(&key).unwrap();
            of(leaf.into()).identity()
        };
        let (a, b) = ("spiffe://td/ns/n/sa/a", "spiffe://td/ns/n/sa/b");
        assert!(peer(&[a]).is_ok());
        assert_eq!(peer(&[a, b]), Err(PeerError::NoIdentity));
        assert_eq!(peer(&[]), Err(PeerError::NoIdentity));
        assert_eq!(peer(&["https://td/ns/n/sa/a"]), Err(PeerError::NoIdentity));
        let garbage = of(CertificateDer::from(vec![0; 8]));
        assert_eq!(garbage.identity(), Err(PeerError::Malformed));
    }

    /// What Envoy does: the chain against the roots, then the name against the list.
    #[test]
    fn two_workloads_meet_with_what_they_were_issued() {
        let ca = authority(clock::wall());
        let (chain, key) = workload(&ca, "ratings");
        let server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_client_cert_verifier(client_verifier(trusting(&ca)).unwrap())
            .with_single_cert(chain, key)
            .unwrap();
        let roots = Arc::new(trusting(&ca));
        let mut client = client(trusting(&ca), Some(workload(&ca, "reviews")));
        client.alpn_protocols.clear();
        client
            .dangerous()
            .set_certificate_verifier(Arc::new(ByRoots { roots }));
        let (client, server) = handshake(client, Arc::new(server), "any.name").unwrap();
        assert_eq!(
            Peer::of(&server).unwrap().identity().unwrap().identity,
            id("reviews")
        );
        let leaf = client.peer_certificates().unwrap()[0].clone().into_owned();
        assert_eq!(of(leaf).identity().unwrap().identity, id("ratings"));
    }

    #[derive(Debug)]
    struct ByRoots {
        roots: Arc<RootCertStore>,
    }

    impl rustls::client::danger::ServerCertVerifier for ByRoots {
        fn verify_server_cert(
            &self,
            end_entity: &CertificateDer<'_>,
            intermediates: &[CertificateDer<'_>],
            _: &rustls::pki_types::ServerName<'_>,
            _: &[u8],
            now: UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, Error> {
            let leaf = rustls::server::ParsedCertificate::try_from(end_entity)?;
            let algorithms = provider().signature_verification_algorithms.all;
            rustls::client::verify_server_cert_signed_by_trust_anchor(
                &leaf,
                &self.roots,
                intermediates,
                now,
                algorithms,
            )?;
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::PeerIncompatible(
                rustls::PeerIncompatible::Tls12NotOffered,
            ))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = provider().signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            provider()
                .signature_verification_algorithms
                .supported_schemes()
        }
    }
}
