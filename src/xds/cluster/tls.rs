//! Transport sockets of a cluster: Istio mTLS, automatic mTLS, the user's own TLS.

use envoy_types::pb::envoy::config::cluster::v3::cluster::TransportSocketMatch;
use envoy_types::pb::envoy::config::core::v3::TransportSocket;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, SubjectAltNameMatcher, TlsCertificate,
    UpstreamTlsContext,
};
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::google::protobuf::Struct;

use crate::ir::{MutualTls, Origination, Roots, UpstreamTls};
use crate::text::Str;
use crate::xds::{proto, tls};

/// The system's roots, where Debian and the Envoy images keep them. (`system_root_certs` reads well,
/// but Envoy ignores it and would then verify nothing.)
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

#[derive(Default)]
pub struct Sockets {
    /// For every endpoint alike; none is plaintext.
    pub every: Option<TransportSocket>,
    /// By the endpoint's `tlsMode`, first match wins.
    pub by_endpoint: Vec<TransportSocketMatch>,
}

pub fn sockets(mode: &UpstreamTls) -> Sockets {
    match mode {
        UpstreamTls::Off => Sockets::default(),
        UpstreamTls::Auto(mutual) => Sockets {
            every: None,
            by_endpoint: vec![
                TransportSocketMatch {
                    name: "tlsMode-istio".to_owned(),
                    r#match: Some(proto::structure([("tlsMode", proto::text("istio"))])),
                    transport_socket: Some(istio(mutual)),
                },
                TransportSocketMatch {
                    name: "tlsMode-disabled".to_owned(),
                    r#match: Some(Struct::default()),
                    transport_socket: Some(tls::plaintext()),
                },
            ],
        },
        UpstreamTls::Mutual(mutual) => every(istio(mutual)),
        UpstreamTls::Originate(origination) => every(originate(origination)),
    }
}

/// Whether the server's certificate is looked at. Without roots Envoy takes any, and refuses a SAN match.
pub fn verifies(origination: &Origination) -> bool {
    match origination.roots {
        Roots::System | Roots::File(_) => true,
        Roots::Unverified => false,
    }
}

fn every(socket: TransportSocket) -> Sockets {
    Sockets {
        every: Some(socket),
        by_endpoint: Vec::new(),
    }
}

fn istio(mutual: &MutualTls) -> TransportSocket {
    let exact = |uri: &Str| tls::san(SanType::Uri, MatchPattern::Exact(uri.to_string()));
    let believed = mutual.subject_alt_names.iter().map(exact).collect();
    tls::socket(&UpstreamTlsContext {
        common_tls_context: Some(tls::mutual(tls::parameters(&[]), &mutual.alpn, believed)),
        sni: mutual.sni.to_string(),
        ..Default::default()
    })
}

fn originate(origination: &Origination) -> TransportSocket {
    let certificate = |(chain, key): &(Str, Str)| TlsCertificate {
        certificate_chain: Some(proto::file(chain)),
        private_key: Some(proto::file(key)),
        ..Default::default()
    };
    let common = CommonTlsContext {
        tls_params: Some(tls::parameters(&[])),
        tls_certificates: origination.client.iter().map(certificate).collect(),
        alpn_protocols: origination.alpn.iter().map(Str::to_string).collect(),
        validation_context_type: Some(ValidationContextType::ValidationContext(validation(
            origination,
        ))),
        ..Default::default()
    };
    tls::socket(&UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: origination.sni.to_string(),
        ..Default::default()
    })
}

fn validation(origination: &Origination) -> CertificateValidationContext {
    let roots = match &origination.roots {
        Roots::System => SYSTEM_ROOTS,
        Roots::File(path) => path,
        Roots::Unverified => return CertificateValidationContext::default(),
    };
    CertificateValidationContext {
        trusted_ca: Some(proto::file(roots)),
        match_typed_subject_alt_names: origination
            .subject_alt_names
            .iter()
            .map(|s| named(s))
            .collect(),
        ..Default::default()
    }
}

/// Envoy wants to know of which kind a name is; its form tells.
fn named(name: &str) -> SubjectAltNameMatcher {
    let kind = if name.contains("://") {
        SanType::Uri
    } else if name.parse::<std::net::IpAddr>().is_ok() {
        SanType::IpAddress
    } else if name.contains('@') {
        SanType::Email
    } else {
        SanType::Dns
    };
    tls::san(kind, MatchPattern::Exact(name.to_owned()))
}
