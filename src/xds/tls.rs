//! TLS contexts: what both directions share. Who verifies whom is in `cluster/tls` and `filter_chain`.

use envoy_types::pb::envoy::config::core::v3::{TransportSocket, transport_socket};
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, SdsSecretConfig, SubjectAltNameMatcher,
    TlsCertificate, TlsParameters,
};
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use prost::{Message, Name};

use super::proto;
use super::secret::{ROOTS, WORKLOAD};
use crate::ir::Certificates;
use crate::text::Str;

const PATIENCE_SECONDS: i64 = 2;

/// The workload's certificate and the mesh's roots over SDS, and whom of those with one to believe.
pub fn mutual(
    parameters: TlsParameters,
    alpn: &[Str],
    believed: Vec<SubjectAltNameMatcher>,
) -> CommonTlsContext {
    let validation = CombinedCertificateValidationContext {
        default_validation_context: Some(CertificateValidationContext {
            match_typed_subject_alt_names: believed,
            ..Default::default()
        }),
        validation_context_sds_secret_config: Some(sds(ROOTS)),
        ..Default::default()
    };
    CommonTlsContext {
        tls_params: Some(parameters),
        tls_certificate_sds_secret_configs: vec![sds(WORKLOAD)],
        alpn_protocols: alpn.iter().map(Str::to_string).collect(),
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(validation)),
        ..Default::default()
    }
}

/// Both ends of the range: Envoy's client goes up to 1.2 only, where no maximum is said.
pub fn parameters(cipher_suites: &[&str]) -> TlsParameters {
    TlsParameters {
        tls_minimum_protocol_version: TlsProtocol::TlSv12.into(),
        tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
        cipher_suites: cipher_suites.iter().map(|s| (*s).to_owned()).collect(),
        ..Default::default()
    }
}

/// By which certificates one proves to be who one is, from Secrets or files.
pub fn show(common: &mut CommonTlsContext, certificates: &Certificates) {
    match certificates {
        Certificates::Secrets(names) => {
            let secrets = names.iter().map(|name| secret(name));
            common.tls_certificate_sds_secret_configs = secrets.collect();
        }
        Certificates::Files(files) => {
            let pair = |(chain, key): &(Str, Str)| TlsCertificate {
                certificate_chain: Some(proto::file(chain)),
                private_key: Some(proto::file(key)),
                ..Default::default()
            };
            common.tls_certificates = files.iter().map(pair).collect();
        }
    }
}

pub fn san(kind: SanType, pattern: MatchPattern) -> SubjectAltNameMatcher {
    SubjectAltNameMatcher {
        san_type: kind.into(),
        matcher: Some(StringMatcher {
            match_pattern: Some(pattern),
            ignore_case: false,
        }),
        ..Default::default()
    }
}

pub fn socket<M: Message + Name>(context: &M) -> TransportSocket {
    transport_socket("envoy.transport_sockets.tls", context)
}

pub fn plaintext() -> TransportSocket {
    transport_socket("envoy.transport_sockets.raw_buffer", &RawBuffer {})
}

pub fn transport_socket<M: Message + Name>(name: &str, config: &M) -> TransportSocket {
    TransportSocket {
        name: name.to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(proto::any(
            config,
        ))),
    }
}

/// A Secret of the proxy's namespace. One that is missing keeps what needs it closed, and nothing else: who waits for
/// it waits no longer than this.
pub fn secret(name: &str) -> SdsSecretConfig {
    SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(proto::ads(proto::seconds(PATIENCE_SECONDS))),
    }
}

/// `0s` keeps a listener or cluster warming until the secret comes: never plaintext by mistake.
fn sds(name: &str) -> SdsSecretConfig {
    SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(proto::ads(proto::seconds(0))),
    }
}
