//! Gateway: what a proxy at the edge of the mesh listens on.
//!
//! Field meaning: <https://istio.io/latest/docs/reference/config/networking/gateway/>.

use serde::{Deserialize, Serialize};

use super::meta::Labels;
use crate::text::{Hostname, Str};

/// The ciphers below TLS 1.3 that Envoy's TLS library knows.
pub const CIPHERS: &[&str] = &[
    "AES128-GCM-SHA256",
    "AES128-SHA",
    "AES256-GCM-SHA384",
    "AES256-SHA",
    "DES-CBC3-SHA",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-SHA",
    "ECDHE-RSA-CHACHA20-POLY1305",
];
pub const CURVES: &[&str] = &["P-256", "P-384", "P-521", "X25519", "X25519MLKEM768"];

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Gateway {
    /// Labels of the proxies that serve it, in any namespace.
    pub selector: Labels,
    pub servers: Vec<Server>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Server {
    pub port: ServerPort,
    /// An IP address; empty is all of them.
    pub bind: Str,
    /// `<host>` or `<namespace>/<host>`, namespace one of `*`, `.`, or a name.
    pub hosts: Vec<Str>,
    pub tls: Option<Box<ServerTls>>,
    pub name: Str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerPort {
    pub number: u16,
    pub protocol: Str,
    pub name: Str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerTls {
    pub https_redirect: bool,
    pub mode: TlsMode,
    /// Paths in the proxy's file system.
    pub server_certificate: Str,
    pub private_key: Str,
    pub ca_certificates: Str,
    pub ca_crl: Str,
    /// Names of Secrets in the proxy's namespace.
    pub credential_name: Str,
    pub credential_names: Vec<Str>,
    pub ca_cert_credential_name: Str,
    pub tls_certificates: Vec<ServerCertificate>,
    pub subject_alt_names: Vec<Str>,
    pub verify_certificate_spki: Vec<Str>,
    pub verify_certificate_hash: Vec<Str>,
    pub min_protocol_version: TlsVersion,
    pub max_protocol_version: TlsVersion,
    pub cipher_suites: Vec<Str>,
    pub ecdh_curves: Vec<Str>,
    pub insecure_skip_verify: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerCertificate {
    pub server_certificate: Str,
    pub private_key: Str,
    pub ca_certificates: Str,
}

/// A block without a mode means PASSTHROUGH (enum zero of Istio's ServerTLSSettings).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TlsMode {
    #[default]
    Passthrough,
    Simple,
    Mutual,
    AutoPassthrough,
    IstioMutual,
    OptionalMutual,
}

#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum TlsVersion {
    /// 1.2 at least, whatever the proxy can do at most.
    #[default]
    #[serde(rename = "TLS_AUTO")]
    Auto,
    #[serde(rename = "TLSV1_0")]
    V1_0,
    #[serde(rename = "TLSV1_1")]
    V1_1,
    #[serde(rename = "TLSV1_2")]
    V1_2,
    #[serde(rename = "TLSV1_3")]
    V1_3,
}

/// What a server does with what comes to its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sort {
    /// HTTP in plaintext.
    Http,
    /// Bytes in plaintext.
    Tcp,
    /// HTTP within TLS that ends here.
    Https,
    /// Bytes within TLS that ends here.
    Tls,
    /// TLS that ends elsewhere, told apart by the name that its client asks for.
    Passthrough,
    /// The same, to the Service, port and subset that the name itself says.
    AutoPassthrough,
}

impl Sort {
    pub fn is_plaintext(self) -> bool {
        matches!(self, Self::Http | Self::Tcp)
    }

    /// Whether its requests are routed by a table.
    pub fn has_table(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }
}

impl Server {
    /// None where its protocol is none that gateways serve.
    pub fn sort(&self) -> Option<Sort> {
        let mode = self.tls.as_ref().map(|tls| tls.mode);
        let ends = match mode {
            Some(TlsMode::Passthrough) => Some(Sort::Passthrough),
            Some(TlsMode::AutoPassthrough) => Some(Sort::AutoPassthrough),
            Some(_) | None => None,
        };
        match self.port.protocol.to_ascii_uppercase().as_str() {
            "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" => Some(Sort::Http),
            "TCP" | "MONGO" if mode.is_none() => Some(Sort::Tcp),
            "TCP" | "MONGO" | "TLS" => Some(ends.unwrap_or(Sort::Tls)),
            "HTTPS" => Some(ends.unwrap_or(Sort::Https)),
            _ => None,
        }
    }

    pub fn redirects(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.https_redirect)
    }
}

/// A host of a server: of VirtualServices in which namespaces it takes which names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServedHost {
    /// None is any namespace.
    pub namespace: Option<Str>,
    pub name: Hostname,
}

impl ServedHost {
    /// `own` is the Gateway's namespace. None for what is no host.
    pub fn parse(text: &str, own: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/').unwrap_or(("*", text));
        Some(Self {
            namespace: match namespace {
                "*" => None,
                "." => Some(Str::new(own)),
                named => Some(Str::new(named)),
            },
            name: Hostname::parse(name).ok()?,
        })
    }

    pub fn takes_from(&self, namespace: &str) -> bool {
        self.namespace.as_ref().is_none_or(|own| own == namespace)
    }
}

/// Those of its ciphers that Envoy knows.
pub fn known_ciphers(tls: &ServerTls) -> Vec<Str> {
    known(CIPHERS, &tls.cipher_suites)
}

/// Those of its curves that Envoy knows.
pub fn known_curves(tls: &ServerTls) -> Vec<Str> {
    known(CURVES, &tls.ecdh_curves)
}

fn known(words: &[&str], given: &[Str]) -> Vec<Str> {
    let known = given.iter().filter(|word| words.contains(&word.as_str()));
    known.cloned().collect()
}
