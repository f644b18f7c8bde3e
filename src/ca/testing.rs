//! CAs and identities for tests.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use envoy_types::pb::envoy::config::core::v3::DataSource;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{Secret, secret};
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use prost::Message;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::authority::{Authority, Lifetimes};
use super::lease::unix;
use super::pem;
use super::signer::{Parts, Signer, self_signed};
use super::token::{AUDIENCE, Bearer, TokenIssuer, new_key};
use crate::identity::SpiffeId;
use crate::tls;
use crate::xds::Encoded;

pub fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

pub fn after(seconds: u64) -> SystemTime {
    now() + Duration::from_secs(seconds)
}

pub fn id(service_account: &str) -> SpiffeId {
    SpiffeId::new("cluster.local", "shop", service_account).unwrap()
}

/// A token of `reviews`, as Kubernetes binds it to a pod.
pub fn bound_token(issuer: &TokenIssuer, pod: &str, uid: Option<&str>) -> String {
    let bearer = Bearer {
        namespace: "shop",
        service_account: "reviews",
        pod: Some(pod),
    };
    let hour = Duration::from_secs(3600);
    let mut claims = bearer.claims(AUDIENCE, hour, now()).unwrap();
    let bound = claims.kubernetes.pod.as_mut().unwrap();
    bound.uid = uid.map(str::to_owned);
    issuer.sign(&claims).unwrap()
}

pub fn root_parts(now: SystemTime) -> Parts {
    let key = KeyPair::generate().unwrap();
    let certificate = self_signed(&key, "cluster.local", now).unwrap();
    Parts {
        roots: vec![certificate.clone()],
        certificate,
        key: private(&key),
        chain: Vec::new(),
    }
}

/// A CA below `root` whose certificate ends after `life`.
pub fn intermediate(root: &Parts, life: Duration, now: SystemTime) -> Parts {
    let root_key = KeyPair::try_from(&*root.key).unwrap();
    let issuer = Issuer::from_ca_cert_der(&root.certificate, root_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let date = |t| OffsetDateTime::from_unix_timestamp(unix(t) as i64).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "Intermediate CA");
    params.not_before = date(now - Duration::from_secs(60));
    params.not_after = date(now + life);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.use_authority_key_identifier_extension = true;
    let certificate = CertificateDer::from(params.signed_by(&key, &issuer).unwrap());
    Parts {
        chain: vec![certificate.clone(), root.certificate.clone()],
        roots: root.roots.clone(),
        certificate,
        key: private(&key),
    }
}

pub fn signer(now: SystemTime) -> Signer {
    Signer::new(root_parts(now), now).unwrap()
}

/// Issues certificates for a day.
pub fn authority(now: SystemTime) -> Authority {
    Authority::new(signer(now), Lifetimes::default())
}

pub fn token_issuer() -> TokenIssuer {
    TokenIssuer::parse(new_key().unwrap().as_bytes()).unwrap()
}

/// The same one for many cases: an RSA key takes a while.
pub fn shared_token_issuer() -> &'static TokenIssuer {
    static SHARED: OnceLock<TokenIssuer> = OnceLock::new();
    SHARED.get_or_init(token_issuer)
}

/// What a proxy makes of an encoded secret.
pub fn received(encoded: &Encoded) -> Secret {
    let wire = encoded.chunks.concat();
    let response = DeltaDiscoveryResponse::decode(&wire[..]).unwrap();
    let resource = response.resources[0].resource.as_ref().unwrap();
    Secret::decode(&resource.value[..]).unwrap()
}

pub fn chain_and_key(encoded: &Encoded) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let Some(secret::Type::TlsCertificate(tls)) = received(encoded).r#type else {
        panic!("no certificate in {encoded:?}");
    };
    let chain = text(tls.certificate_chain);
    let key = text(tls.private_key);
    (
        pem::certificates(chain.as_bytes()).unwrap(),
        pem::private_key(key.as_bytes()).unwrap().clone_key(),
    )
}

fn text(source: Option<DataSource>) -> String {
    match source.unwrap().specifier.unwrap() {
        Specifier::InlineString(text) => text,
        other => panic!("not inline: {other:?}"),
    }
}

fn private(key: &KeyPair) -> Zeroizing<PrivateKeyDer<'static>> {
    Zeroizing::new(PrivatePkcs8KeyDer::from(key.serialize_der()).into())
}

/// Root store of the CA that `authority` is.
pub fn trusting(authority: &Authority) -> RootCertStore {
    authority.bundle().store().unwrap()
}

/// A client that knows `roots` and shows `credential`, if any.
pub fn client(
    roots: RootCertStore,
    credential: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match credential {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// Both ends after a handshake in memory, or the first end's complaint.
pub fn handshake(
    client: ClientConfig,
    server: Arc<ServerConfig>,
    name: &str,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name)?;
    let mut server = ServerConnection::new(server)?;
    // The server has the last word: a client is done before its certificate was looked at.
    for _ in 0..4 {
        let mut flight = Vec::new();
        client.write_tls(&mut flight).unwrap();
        server.read_tls(&mut &flight[..]).unwrap();
        server.process_new_packets()?;
        let mut flight = Vec::new();
        server.write_tls(&mut flight).unwrap();
        client.read_tls(&mut &flight[..]).unwrap();
        client.process_new_packets()?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}
