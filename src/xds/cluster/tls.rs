//! Transport sockets of a cluster: Istio mTLS, automatic mTLS, the user's own TLS.

use envoy_types::pb::envoy::config::cluster::v3::cluster::TransportSocketMatch;
use envoy_types::pb::envoy::config::core::v3::TransportSocket;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, SubjectAltNameMatcher, UpstreamTlsContext,
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
        Roots::System | Roots::Files(..) | Roots::Secret(_) => true,
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
    let mut common = CommonTlsContext {
        tls_params: Some(tls::parameters(&[])),
        alpn_protocols: origination.alpn.iter().map(Str::to_string).collect(),
        validation_context_type: Some(validation(origination)),
        ..Default::default()
    };
    if let Some(certificates) = &origination.client {
        tls::show(&mut common, certificates);
    }
    tls::socket(&UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: origination.sni.to_string(),
        ..Default::default()
    })
}

fn validation(origination: &Origination) -> ValidationContextType {
    let names = origination.subject_alt_names.iter();
    let believed = CertificateValidationContext {
        match_typed_subject_alt_names: names.map(|s| named(s)).collect(),
        ..Default::default()
    };
    let by_files = |roots: &str, revoked: &str| {
        ValidationContextType::ValidationContext(CertificateValidationContext {
            trusted_ca: Some(proto::file(roots)),
            crl: (!revoked.is_empty()).then(|| proto::file(revoked)),
            ..believed.clone()
        })
    };
    match &origination.roots {
        Roots::System => by_files(SYSTEM_ROOTS, ""),
        Roots::Files(roots, revoked) => by_files(roots, revoked),
        Roots::Secret(name) => {
            ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
                default_validation_context: Some(believed),
                validation_context_sds_secret_config: Some(tls::secret(name)),
                ..Default::default()
            })
        }
        Roots::Unverified => ValidationContextType::ValidationContext(Default::default()),
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
