//! Renders the TLS of a gateway's own servers: certificates of its users, and what its clients must prove.

use envoy_types::pb::envoy::config::core::v3::TransportSocket;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::certificate_validation_context::TrustChainVerification;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext,
    SubjectAltNameMatcher, TlsParameters,
};
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

use super::filter_chain::SERVER_CIPHERS;
use super::{proto, tls};
use crate::config::gateway::TlsVersion;
use crate::ir::{ClientProof, ClientRoots, ServerTls};
use crate::text::Str;

pub fn socket(node: &ServerTls) -> TransportSocket {
    let mut common = CommonTlsContext {
        tls_params: Some(parameters(node)),
        alpn_protocols: node.alpn.iter().map(Str::to_string).collect(),
        validation_context_type: node.clients.as_ref().map(validation),
        ..Default::default()
    };
    tls::show(&mut common, &node.certificates);
    let required = node
        .clients
        .as_ref()
        .is_some_and(|clients| !clients.optional);
    tls::socket(&DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: proto::boolean(required),
        ..Default::default()
    })
}

fn parameters(node: &ServerTls) -> TlsParameters {
    let usual: Vec<&str> = SERVER_CIPHERS.to_vec();
    let own: Vec<&str> = node.cipher_suites.iter().map(Str::as_str).collect();
    let suites = if own.is_empty() { usual } else { own };
    let protocol = |version, auto: TlsProtocol| match version {
        TlsVersion::Auto => auto,
        TlsVersion::V1_0 => TlsProtocol::TlSv10,
        TlsVersion::V1_1 => TlsProtocol::TlSv11,
        TlsVersion::V1_2 => TlsProtocol::TlSv12,
        TlsVersion::V1_3 => TlsProtocol::TlSv13,
    };
    TlsParameters {
        tls_minimum_protocol_version: protocol(node.least, TlsProtocol::TlSv12).into(),
        tls_maximum_protocol_version: protocol(node.most, TlsProtocol::TlSv13).into(),
        ecdh_curves: node.ecdh_curves.iter().map(Str::to_string).collect(),
        ..tls::parameters(&suites)
    }
}

fn validation(clients: &ClientProof) -> ValidationContextType {
    let dns = |name: &Str| {
        let kind = match name.contains("://") {
            true => SanType::Uri,
            false => SanType::Dns,
        };
        tls::san(kind, MatchPattern::Exact(name.to_string()))
    };
    let believed: Vec<SubjectAltNameMatcher> = clients.subject_alt_names.iter().map(dns).collect();
    let texts = |all: &[Str]| all.iter().map(Str::to_string).collect::<Vec<String>>();
    let context = CertificateValidationContext {
        match_typed_subject_alt_names: believed,
        verify_certificate_spki: texts(&clients.certificate_spki),
        verify_certificate_hash: texts(&clients.certificate_hash),
        trust_chain_verification: match clients.unverified {
            true => TrustChainVerification::AcceptUntrusted.into(),
            false => TrustChainVerification::VerifyTrustChain.into(),
        },
        ..Default::default()
    };
    match &clients.roots {
        ClientRoots::Secret(name) => {
            let combined = CombinedCertificateValidationContext {
                default_validation_context: Some(context),
                validation_context_sds_secret_config: Some(tls::secret(name)),
                ..Default::default()
            };
            ValidationContextType::CombinedValidationContext(combined)
        }
        ClientRoots::None => ValidationContextType::ValidationContext(context),
    }
}
