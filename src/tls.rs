//! TLS of our own listeners: certificate and roots swapped live, peer identity read. Issuing is not here.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, VerifierBuilderError,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, ServerConnection,
    SignatureScheme,
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
    leaf: CertificateDer<'static>,
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
        key: PrivateKeyDer<'static>,
        roots: RootCertStore,
    ) -> Result<Self, Error> {
        let provider = provider();
        let presented = CertifiedKey::from_der(chain, key, &provider)?;
        Ok(Self {
            provider,
            presented: RwLock::new(Arc::new(presented)),
            clients: RwLock::new(client_verifier(roots)?),
        })
    }

    /// Presents another certificate from the next handshake on.
    pub fn present(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), Error> {
        let next = Arc::new(CertifiedKey::from_der(chain, key, &self.provider)?);
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
    Arc::new(aws_lc_rs::default_provider())
}

impl Peer {
    /// `None` if the client showed no certificate. Call it once the handshake is done.
    pub fn of(connection: &ServerConnection) -> Option<Self> {
        let leaf = connection.peer_certificates()?.first()?;
        Some(Self {
            leaf: leaf.clone().into_owned(),
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
