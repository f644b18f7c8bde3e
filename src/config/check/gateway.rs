//! Gateway: servers, their hosts, the certificates that they show.

use std::collections::BTreeSet;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};

use super::{fault, host, ip, is_label, port, selector};
use crate::config::decode::reader::Fault;
use crate::config::gateway::{
    CIPHERS, CURVES, Gateway, Server, ServerTls, Sort, TlsMode, TlsVersion,
};
use crate::diagnostic::Code;

/// One certificate of each kind of key, as Istio has it.
const MOST_CREDENTIALS: usize = 2;

pub(super) fn faults(spec: &Gateway) -> Vec<Fault> {
    let mut out = selector("spec.selector", &spec.selector);
    if spec.servers.is_empty() {
        out.push(fault("spec.servers", "a Gateway needs at least one server"));
    }
    let mut names = BTreeSet::new();
    for (i, one) in spec.servers.iter().enumerate() {
        let path = format!("spec.servers[{i}]");
        out.extend(server(&path, one));
        if one.port.name.is_empty() {
            out.push(fault(format!("{path}.port.name"), "a port needs a name"));
        } else if !names.insert(&one.port.name) {
            let message = format!("another server's port is named `{}` too", one.port.name);
            out.push(fault(format!("{path}.port.name"), message));
        }
    }
    out
}

fn server(path: &str, one: &Server) -> Vec<Fault> {
    let mut out = Vec::new();
    out.extend(port(&format!("{path}.port.number"), one.port.number));
    out.extend(bind(&format!("{path}.bind"), &one.bind));
    if one.hosts.is_empty() {
        let message = "a server needs at least one host; `*` takes all";
        out.push(fault(format!("{path}.hosts"), message));
    }
    for (i, text) in one.hosts.iter().enumerate() {
        let path = format!("{path}.hosts[{i}]");
        out.extend(served(&path, text));
        let name = text.rsplit('/').next().unwrap_or_default();
        let partial = name.len() > 1 && name.starts_with('*') && !name.starts_with("*.");
        if partial && one.sort().is_some_and(|sort| !sort.is_plaintext()) {
            let message =
                "Envoy tells connections of TLS apart by whole labels alone: this host is left out";
            out.push(Fault::warning(Code::NotYetInEffect, path, message));
        }
    }
    let Some(sort) = one.sort() else {
        let message = format!(
            "`{}` is none of HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, MONGO, TCP, TLS",
            one.port.protocol
        );
        out.push(fault(format!("{path}.port.protocol"), message));
        return out;
    };
    let tls_path = format!("{path}.tls");
    match &one.tls {
        None if !sort.is_plaintext() => {
            let message = format!("a server of {} needs `tls`", one.port.protocol);
            out.push(fault(tls_path, message));
        }
        None => {}
        Some(tls) if sort == Sort::Http => {
            let only = ServerTls {
                https_redirect: tls.https_redirect,
                ..ServerTls::default()
            };
            if **tls != only {
                let message = "a server of plaintext HTTP takes `httpsRedirect` alone";
                out.push(fault(tls_path, message));
            }
        }
        Some(settings) => out.extend(tls(&tls_path, settings)),
    }
    out
}

fn bind(path: &str, text: &str) -> Option<Fault> {
    if text.is_empty() {
        return None;
    }
    if text.starts_with("unix://") {
        let message = "a server at a socket is not in effect yet: nothing listens there";
        return Some(Fault::warning(Code::NotYetInEffect, path, message));
    }
    ip(path, text)
}

/// `<host>`, or `<namespace>/<host>`.
fn served(path: &str, text: &str) -> Option<Fault> {
    let Some((namespace, name)) = text.split_once('/') else {
        return host(path, text);
    };
    if !matches!(namespace, "*" | ".") && !is_label(namespace) {
        let message = format!("`{namespace}` is none of `*`, `.`, a namespace");
        return Some(fault(path, message));
    }
    host(path, name)
}

pub(super) fn tls(path: &str, tls: &ServerTls) -> Vec<Fault> {
    let mut out = Vec::new();
    if tls.https_redirect {
        let message = "a server of TLS has nothing to redirect from";
        out.push(fault(format!("{path}.httpsRedirect"), message));
    }
    match tls.mode {
        TlsMode::Passthrough | TlsMode::AutoPassthrough => {}
        TlsMode::IstioMutual => out.extend(of_mesh(path, tls)),
        TlsMode::Simple => out.extend(certificate(path, tls)),
        TlsMode::Mutual | TlsMode::OptionalMutual => {
            out.extend(certificate(path, tls));
            out.extend(roots(path, tls));
        }
    }
    out.extend(pins(path, tls));
    let (least, most) = (tls.min_protocol_version, tls.max_protocol_version);
    if most != TlsVersion::Auto && least > most {
        let message = "it is later than `maxProtocolVersion`";
        out.push(fault(format!("{path}.minProtocolVersion"), message));
    }
    out.extend(known(path, "cipherSuites", CIPHERS, &tls.cipher_suites));
    out.extend(known(path, "ecdhCurves", CURVES, &tls.ecdh_curves));
    out
}

/// Hashes of a client's certificate, as Envoy takes them.
fn pins(path: &str, tls: &ServerTls) -> Vec<Fault> {
    let hex = |text: &str| {
        let bare = text.replace(':', "");
        HEXLOWER_PERMISSIVE
            .decode(bare.as_bytes())
            .is_ok_and(|bytes| bytes.len() == SHA256)
    };
    let base64 = |text: &str| {
        BASE64
            .decode(text.as_bytes())
            .is_ok_and(|bytes| bytes.len() == SHA256)
    };
    let hashes = tls.verify_certificate_hash.iter().enumerate();
    let hashes = hashes.filter(|(_, text)| !hex(text)).map(|(i, text)| {
        let message = format!("`{text}` is no SHA-256 in hexadecimal");
        fault(format!("{path}.verifyCertificateHash[{i}]"), message)
    });
    let keys = tls.verify_certificate_spki.iter().enumerate();
    let keys = keys.filter(|(_, text)| !base64(text)).map(|(i, text)| {
        let message = format!("`{text}` is no SHA-256 in base64");
        fault(format!("{path}.verifyCertificateSpki[{i}]"), message)
    });
    hashes.chain(keys).collect()
}

/// Bytes of a hash.
const SHA256: usize = 32;

/// Istio leaves out words that it does not know, and so do we; but not in silence.
fn known(
    path: &str,
    field: &str,
    words: &[&str],
    given: &[crate::text::Str],
) -> impl Iterator<Item = Fault> {
    let unknown = given.iter().enumerate();
    let unknown = unknown.filter(|(_, word)| !words.contains(&word.as_str()));
    let faults: Vec<Fault> = unknown
        .map(|(i, word)| {
            let message = format!("`{word}` is not known to Envoy and is left out");
            Fault::warning(
                Code::NotYetInEffect,
                format!("{path}.{field}[{i}]"),
                message,
            )
        })
        .collect();
    faults.into_iter()
}

fn of_mesh(path: &str, tls: &ServerTls) -> Option<Fault> {
    let own = [
        &tls.server_certificate,
        &tls.private_key,
        &tls.ca_certificates,
        &tls.credential_name,
    ];
    own.iter().any(|text| !text.is_empty()).then(|| {
        let message =
            "ISTIO_MUTUAL takes the mesh's own certificates, and none that are named here";
        fault(path, message)
    })
}

fn certificate(path: &str, tls: &ServerTls) -> Vec<Fault> {
    let names = &tls.credential_names;
    let several = !names.is_empty();
    let ways = [
        !tls.credential_name.is_empty(),
        several,
        !tls.tls_certificates.is_empty(),
    ];
    if ways.iter().filter(|way| **way).count() > 1 {
        let message = "only one of credentialName, credentialNames, tlsCertificates can be given";
        return vec![fault(path, message)];
    }
    if let Some(i) = names.iter().position(|name| name.is_empty()) {
        let message = "it names no Secret";
        return vec![fault(format!("{path}.credentialNames[{i}]"), message)];
    }
    if names.len() > MOST_CREDENTIALS || tls.tls_certificates.len() > MOST_CREDENTIALS {
        let message = "at most two certificates, one with an RSA key and one with an ECDSA key";
        return vec![fault(path, message)];
    }
    if ways.contains(&true) {
        return tls
            .tls_certificates
            .iter()
            .enumerate()
            .filter(|(_, c)| c.server_certificate.is_empty() || c.private_key.is_empty())
            .map(|(i, _)| {
                let message = "it needs `serverCertificate` and `privateKey`";
                fault(format!("{path}.tlsCertificates[{i}]"), message)
            })
            .collect();
    }
    let mut out = Vec::new();
    for (field, value) in [
        ("serverCertificate", &tls.server_certificate),
        ("privateKey", &tls.private_key),
    ] {
        if value.is_empty() {
            let message = "this mode needs a certificate: `credentialName`, or `serverCertificate` and `privateKey`";
            out.push(fault(format!("{path}.{field}"), message));
        }
    }
    out
}

/// By whom a client's certificate must be signed. A Secret may have it beside the certificate.
fn roots(path: &str, tls: &ServerTls) -> Option<Fault> {
    let by_secret = !tls.credential_name.is_empty()
        || !tls.credential_names.is_empty()
        || !tls.ca_cert_credential_name.is_empty();
    let by_file = !tls.ca_certificates.is_empty()
        || tls
            .tls_certificates
            .iter()
            .any(|c| !c.ca_certificates.is_empty());
    (!by_secret && !by_file).then(|| {
        let message =
            "this mode needs the roots of its clients: `credentialName` or `caCertificates`";
        fault(format!("{path}.caCertificates"), message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(spec: &serde_json::Value) -> Vec<String> {
        let spec: Gateway = serde_json::from_value(spec.clone()).unwrap();
        faults(&spec).into_iter().map(|f| f.path).collect()
    }

    fn with(server: &serde_json::Value) -> Vec<String> {
        of(&serde_json::json!({"servers": [server]}))
    }

    #[test]
    fn a_server_needs_port_name_hosts_and_a_protocol_of_gateways() {
        let sound = serde_json::json!({
            "port": {"number": 80, "name": "http", "protocol": "HTTP"},
            "hosts": ["*.example.com", "shop/*", "./reviews"],
        });
        assert_eq!(with(&sound), Vec::<String>::new());
        let poor = serde_json::json!({"port": {"number": 0, "protocol": "UDP"}, "hosts": ["A/b"]});
        let paths = ["port.number", "port.protocol", "port.name"];
        let paths = paths.map(|p| format!("spec.servers[0].{p}"));
        let found = with(&poor);
        for path in paths {
            assert!(found.contains(&path), "{path} {found:?}");
        }
        assert_eq!(of(&serde_json::json!({})), ["spec.servers"]);
    }

    #[test]
    fn each_mode_says_which_certificates_it_lacks() {
        let tls = |tls: serde_json::Value| {
            with(&serde_json::json!({
                "port": {"number": 443, "name": "https", "protocol": "HTTPS"},
                "hosts": ["*"], "tls": tls,
            }))
        };
        assert!(tls(serde_json::json!({"mode": "SIMPLE", "credentialName": "c"})).is_empty());
        assert!(tls(serde_json::json!({"mode": "PASSTHROUGH"})).is_empty());
        assert_eq!(tls(serde_json::json!({"mode": "SIMPLE"})).len(), 2);
        let files = serde_json::json!({
            "mode": "MUTUAL", "serverCertificate": "/c", "privateKey": "/k",
        });
        assert_eq!(tls(files), ["spec.servers[0].tls.caCertificates"]);
        let mesh = serde_json::json!({"mode": "ISTIO_MUTUAL", "credentialName": "c"});
        assert_eq!(tls(mesh), ["spec.servers[0].tls"]);
        let versions = serde_json::json!({
            "mode": "SIMPLE", "credentialName": "c",
            "minProtocolVersion": "TLSV1_3", "maxProtocolVersion": "TLSV1_2",
        });
        assert_eq!(tls(versions), ["spec.servers[0].tls.minProtocolVersion"]);
    }
}
