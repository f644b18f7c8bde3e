//! Messages as canonical proto-JSON for people and tools, secrets hidden. Nothing here reaches Envoy.

#[cfg(test)]
use prost::Message;
use prost_reflect::DynamicMessage;
use serde_json::Value;

use super::Encoded;
use crate::schema;

/// Fields whose inline content nobody may read (`udpa.annotations.sensitive` in Envoy's API).
const SENSITIVE: &[&str] = &[
    "authPassword",
    "genericSecret",
    "password",
    "pkcs12",
    "privateKey",
    "sessionTicketKeys",
];
/// What a sensitive field may still say: where its content is.
const PLACES: &[&str] = &["environmentVariable", "filename", "watchedDirectory"];
const REDACTED: &str = "[redacted]";

#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    #[error("no descriptor of `{0}` in proto/envoy.bin")]
    UnknownType(String),
    #[error("decode a `{0}`: {1}")]
    Malformed(String, prost::DecodeError),
    #[error("write a `{0}` as JSON: {1}")]
    Unwritable(String, serde_json::Error),
}

/// What an encoded resource carries, as JSON.
pub fn resource(encoded: &Encoded) -> Result<Value, JsonError> {
    let url = encoded.kind.type_url();
    to_json(url, &encoded.body().unwrap_or_default())
}

/// Keys are sorted, each `Any` is expanded, 64-bit numbers are strings, and defaults are left out.
pub fn to_json(type_url: &str, body: &[u8]) -> Result<Value, JsonError> {
    let name = type_url.rsplit_once('/').map_or(type_url, |(_, name)| name);
    let descriptor =
        schema::message(name).ok_or_else(|| JsonError::UnknownType(name.to_owned()))?;
    let message = DynamicMessage::decode(descriptor, body)
        .map_err(|e| JsonError::Malformed(name.to_owned(), e))?;
    let mut value =
        serde_json::to_value(&message).map_err(|e| JsonError::Unwritable(name.to_owned(), e))?;
    redact(&mut value);
    Ok(value)
}

fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                if SENSITIVE.contains(&key.as_str()) {
                    hide(field);
                } else {
                    redact(field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn hide(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let content = fields
                .iter_mut()
                .filter(|(k, _)| !PLACES.contains(&k.as_str()));
            content.for_each(|(_, field)| hide(field));
        }
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::String(_) | Value::Number(_) => *value = Value::String(REDACTED.to_owned()),
        Value::Null | Value::Bool(_) => {}
    }
}

/// A message as its JSON, by which tests of renderers say what they expect.
#[cfg(test)]
pub(super) fn shown<M: Message + prost::Name>(message: &M) -> Value {
    to_json(&M::type_url(), &message.encode_to_vec()).unwrap()
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;
    use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
    use envoy_types::pb::envoy::config::core::v3::{DataSource, TransportSocket, transport_socket};
    use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
        CommonTlsContext, TlsCertificate, UpstreamTlsContext,
    };
    use serde_json::json;

    use super::*;
    use crate::xds::ResourceType;
    use crate::xds::proto::{any, file};

    fn cluster_with_key(private_key: DataSource) -> Cluster {
        let context = UpstreamTlsContext {
            common_tls_context: Some(CommonTlsContext {
                tls_certificates: vec![TlsCertificate {
                    private_key: Some(private_key),
                    ..Default::default()
                }],
                ..Default::default()
            }),
            sni: "a.example".to_owned(),
            ..Default::default()
        };
        Cluster {
            name: "c".to_owned(),
            transport_socket: Some(TransportSocket {
                name: "tls".to_owned(),
                config_type: Some(transport_socket::ConfigType::TypedConfig(any(&context))),
            }),
            ..Default::default()
        }
    }

    #[test]
    fn an_any_is_expanded_and_a_key_inside_it_hidden() {
        let inline = DataSource {
            specifier: Some(Specifier::InlineBytes(b"-----BEGIN".to_vec())),
            ..Default::default()
        };
        let expected = json!({
            "name": "c",
            "transportSocket": {
                "name": "tls",
                "typedConfig": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                    "commonTlsContext": {
                        "tlsCertificates": [{"privateKey": {"inlineBytes": "[redacted]"}}]
                    },
                    "sni": "a.example"
                }
            }
        });
        assert_eq!(shown(&cluster_with_key(inline)), expected);
    }

    #[test]
    fn the_path_of_a_key_is_no_secret() {
        let text = shown(&cluster_with_key(file("/etc/certs/key.pem"))).to_string();
        assert!(
            text.contains(r#""privateKey":{"filename":"/etc/certs/key.pem"}"#),
            "{text}"
        );
    }

    #[test]
    fn keys_are_sorted_at_every_depth() {
        let text = shown(&cluster_with_key(file("k"))).to_string();
        let keys = [
            r#"{"name""#,
            r#""transportSocket""#,
            r#"{"@type""#,
            r#""commonTlsContext""#,
        ];
        let at: Vec<usize> = keys.iter().map(|k| text.find(k).unwrap()).collect();
        assert!(at.is_sorted(), "{text}");
    }

    #[test]
    fn every_served_type_has_a_descriptor() {
        for kind in ResourceType::ALL {
            assert_eq!(
                to_json(kind.type_url(), &[]).unwrap(),
                json!({}),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn what_cannot_be_shown_says_what_it_was() {
        let unknown = to_json("type.googleapis.com/a.B", &[]).unwrap_err();
        assert_eq!(
            unknown.to_string(),
            "no descriptor of `a.B` in proto/envoy.bin"
        );
        let broken = to_json(ResourceType::Cluster.type_url(), &[0x0a, 0xff]).unwrap_err();
        assert!(
            broken
                .to_string()
                .starts_with("decode a `envoy.config.cluster.v3.Cluster`")
        );
    }
}
