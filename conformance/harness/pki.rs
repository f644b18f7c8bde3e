//! Certificates of somebody outside of the mesh, and a client that checks them.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// An authority that clients outside may trust.
pub struct Pki {
    issuer: Issuer<'static, KeyPair>,
    root: String,
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    pub chain: String,
    pub key: String,
}

/// How a client speaks TLS.
#[derive(Clone, Debug)]
pub struct Tls {
    /// What it asks for, and what the server's certificate must be for.
    pub name: String,
    /// Whom it trusts, in PEM.
    pub roots: String,
    pub client: Option<Pair>,
}

impl Pki {
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let root = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        Ok(Self { issuer, root })
    }

    pub fn root(&self) -> &str {
        &self.root
    }

    /// For a server or a client of these names.
    pub fn issue(&self, names: &[&str]) -> Result<Pair> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate()?;
        Ok(Pair {
            chain: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
        })
    }

    /// A client that trusts this authority.
    pub fn client(&self, name: &str) -> Tls {
        Tls {
            name: name.to_owned(),
            roots: self.root.clone(),
            client: None,
        }
    }
}

impl Tls {
    pub fn with(self, pair: &Pair) -> Self {
        Self {
            client: Some(pair.clone()),
            ..self
        }
    }

    pub(super) async fn over(&self, tcp: TcpStream, alpn: &[u8]) -> Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(self.roots.as_bytes()) {
            roots.add(root?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match &self.client {
            None => config.with_no_client_auth(),
            Some(pair) => {
                let chain = CertificateDer::pem_slice_iter(pair.chain.as_bytes());
                let chain = chain.collect::<Result<Vec<_>, _>>()?;
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes())?;
                config.with_client_auth_cert(chain, key)?
            }
        };
        if !alpn.is_empty() {
            config.alpn_protocols = vec![alpn.to_vec()];
        }
        let name = ServerName::try_from(self.name.clone())?;
        let connected = TlsConnector::from(Arc::new(config)).connect(name, tcp);
        connected.await.context("shake hands")
    }
}
