//! Secrets as Envoy takes them over SDS. Who may have which is not decided here.

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::{DataSource, WatchedDirectory};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::secret;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate,
};
use prost::{DecodeError, Message};
use zeroize::{Zeroize, Zeroizing};

use super::encode::encode_owned;
use super::{Encoded, ResourceType, proto};
use crate::text::Str;

/// SDS name of the workload's own certificate and key.
pub const WORKLOAD: &str = "default";
/// SDS name of the mesh's roots.
pub const ROOTS: &str = "ROOTCA";

/// What stands in a dump where a key would.
const REDACTED: &str = "[redacted]";

/// The key's bytes are wiped when the last reference to the resource is dropped. Copies made beyond
/// our reach (TLS records, socket buffers) are not.
pub fn workload(version: Str, chain: String, key: Zeroizing<String>) -> Encoded {
    pair(&Str::new_static(WORKLOAD), version, chain, key)
}

/// The same under any name: what a gateway shows.
pub fn pair(name: &Str, version: Str, chain: String, mut key: Zeroizing<String>) -> Encoded {
    let mut message = Secret {
        name: name.to_string(),
        r#type: Some(secret::Type::TlsCertificate(TlsCertificate {
            certificate_chain: Some(inline(chain)),
            private_key: Some(inline(std::mem::take(&mut *key))),
            ..Default::default()
        })),
    };
    let body = Zeroizing::new(message.encode_to_vec());
    wipe(&mut message);
    encode_owned(ResourceType::Secret, name, version, Bytes::from_owner(body))
}

/// Files of the proxy's own, which Envoy reads anew when their folder changes.
pub fn pair_of_files(name: &Str, version: Str, chain: &str, key: &str) -> Encoded {
    let message = Secret {
        name: name.to_string(),
        r#type: Some(secret::Type::TlsCertificate(TlsCertificate {
            certificate_chain: Some(proto::file(chain)),
            private_key: Some(proto::file(key)),
            watched_directory: folder(chain),
            ..Default::default()
        })),
    };
    let body = Bytes::from(message.encode_to_vec());
    encode_owned(ResourceType::Secret, name, version, body)
}

/// The same of roots, and of what was revoked, if that is said.
pub fn roots_of_files(name: &Str, version: Str, roots: &str, revoked: &str) -> Encoded {
    let message = Secret {
        name: name.to_string(),
        r#type: Some(secret::Type::ValidationContext(
            CertificateValidationContext {
                trusted_ca: Some(proto::file(roots)),
                crl: (!revoked.is_empty()).then(|| proto::file(revoked)),
                watched_directory: folder(roots),
                ..Default::default()
            },
        )),
    };
    let body = Bytes::from(message.encode_to_vec());
    encode_owned(ResourceType::Secret, name, version, body)
}

fn folder(file: &str) -> Option<WatchedDirectory> {
    let (folder, _) = file.rsplit_once('/')?;
    Some(WatchedDirectory {
        path: folder.to_owned(),
        ..Default::default()
    })
}

/// By whom clients of a gateway must be signed, and what of it was revoked.
pub fn client_roots(name: &Str, version: Str, roots: &str, revoked: Option<&str>) -> Encoded {
    let message = Secret {
        name: name.to_string(),
        r#type: Some(secret::Type::ValidationContext(
            CertificateValidationContext {
                trusted_ca: Some(inline(roots.to_owned())),
                crl: revoked.map(|list| inline(list.to_owned())),
                ..Default::default()
            },
        )),
    };
    let body = Bytes::from(message.encode_to_vec());
    encode_owned(ResourceType::Secret, name, version, body)
}

pub fn roots(version: Str, bundle: String) -> Encoded {
    let message = Secret {
        name: ROOTS.into(),
        r#type: Some(secret::Type::ValidationContext(
            CertificateValidationContext {
                trusted_ca: Some(inline(bundle)),
                ..Default::default()
            },
        )),
    };
    let name = Str::new_static(ROOTS);
    let body = Bytes::from(message.encode_to_vec());
    encode_owned(ResourceType::Secret, &name, version, body)
}

/// An encoded `Secret` without its private key, for dumps and debug pages.
pub fn redact(body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut message = Secret::decode(body)?;
    wipe(&mut message);
    if let Some(key) = private_key(&mut message) {
        *key = inline(REDACTED.into());
    }
    Ok(message.encode_to_vec())
}

fn inline(text: String) -> DataSource {
    DataSource {
        specifier: Some(Specifier::InlineString(text)),
        ..Default::default()
    }
}

fn private_key(message: &mut Secret) -> Option<&mut DataSource> {
    match &mut message.r#type {
        Some(secret::Type::TlsCertificate(tls)) => tls.private_key.as_mut(),
        Some(
            secret::Type::ValidationContext(_)
            | secret::Type::SessionTicketKeys(_)
            | secret::Type::GenericSecret(_),
        )
        | None => None,
    }
}

fn wipe(message: &mut Secret) {
    match private_key(message).and_then(|k| k.specifier.as_mut()) {
        Some(Specifier::InlineString(key)) => key.zeroize(),
        Some(Specifier::InlineBytes(key)) => key.zeroize(),
        Some(Specifier::Filename(_) | Specifier::EnvironmentVariable(_)) | None => {}
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;

    use super::*;

    fn decode(encoded: &Encoded) -> (String, String, Vec<u8>) {
        let wire = encoded.chunks.concat();
        assert_eq!(wire.len(), encoded.len);
        let mut response = DeltaDiscoveryResponse::decode(&wire[..]).unwrap();
        let resource = response.resources.remove(0);
        let any = resource.resource.unwrap();
        assert_eq!(any.type_url, ResourceType::Secret.type_url());
        (resource.name, resource.version, any.value)
    }

    #[test]
    fn a_certificate_goes_out_with_its_key_and_is_dumped_without() {
        let key = Zeroizing::new("KEY".to_owned());
        let encoded = workload(Str::new("7"), "CHAIN".into(), key);
        let (name, version, body) = decode(&encoded);
        assert_eq!((&*name, &*version), ("default", "7"));
        let Some(secret::Type::TlsCertificate(tls)) = Secret::decode(&body[..]).unwrap().r#type
        else {
            panic!("no certificate")
        };
        assert_eq!(tls.private_key, Some(inline("KEY".into())));
        assert_eq!(tls.certificate_chain, Some(inline("CHAIN".into())));

        let dumped = redact(&body).unwrap();
        let text = String::from_utf8_lossy(&dumped);
        assert!(text.contains("CHAIN") && text.contains(REDACTED) && !text.contains("KEY"));
        assert!(!format!("{encoded:?}").contains("KEY"));
    }

    #[test]
    fn roots_go_out_as_a_validation_context() {
        let (name, version, body) = decode(&roots(Str::new("9"), "ROOT".into()));
        assert_eq!((&*name, &*version), ("ROOTCA", "9"));
        let Some(secret::Type::ValidationContext(roots)) =
            Secret::decode(&body[..]).unwrap().r#type
        else {
            panic!("no roots")
        };
        assert_eq!(roots.trusted_ca, Some(inline("ROOT".into())));
        assert_eq!(redact(&body).unwrap(), body);
    }
}
