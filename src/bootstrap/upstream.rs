//! How Envoy reaches the control plane, proves itself, and knows it.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{FilePath, typed};
use crate::text::{Hostname, Str};

/// The control plane as the workload sees it.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    pub endpoint: Endpoint,
    /// SNI, and the DNS name that its certificate must have.
    pub server_name: Hostname,
    /// The workload's token; its folder is watched, so a renewed token is used at once.
    pub token: FilePath,
    /// Root certificates in PEM; their folder is watched, so that roots can be rotated.
    pub root: FilePath,
    /// Where [`ControlPlane::root_secret`] is put for Envoy to read.
    pub root_secret_file: FilePath,
}

/// Host and port of the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Name(Hostname),
    Ip(IpAddr),
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("discovery address `{0}` is not of the form host:port")]
pub struct EndpointError(pub Str);

impl Endpoint {
    /// `istiod.istio-system.svc:15012`, `10.0.0.1:15012` or `[fd00::1]:15012`.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        let bad = || EndpointError(Str::new(text));
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().ok().filter(|p| *p != 0).ok_or_else(bad)?;
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = match bare.unwrap_or(host).parse() {
            Ok(ip) => Host::Ip(ip),
            Err(_) => match Hostname::parse(host) {
                Ok(name) if !name.is_wildcard() => Host::Name(name),
                Ok(_) | Err(_) => return Err(bad()),
            },
        };
        Ok(Self { host, port })
    }

    /// The name by which the server is checked unless the user gives one.
    pub fn name(&self) -> Option<&Hostname> {
        match &self.host {
            Host::Name(name) => Some(name),
            Host::Ip(_) => None,
        }
    }
}

const CLUSTER: &str = "xds-grpc";
const ROOT_SECRET: &str = "control-plane-root";

/// Everything by one delta stream. `0s`: wait for configuration rather than start without any.
pub(super) fn dynamic_resources() -> Value {
    let by_ads = json!({"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"});
    json!({
        "cds_config": by_ads,
        "lds_config": by_ads,
        "ads_config": {
            "api_type": "DELTA_GRPC",
            "transport_api_version": "V3",
            "set_node_on_first_message_only": true,
            "grpc_services": [{"envoy_grpc": {
                "cluster_name": CLUSTER,
                // Else the pod's address and Envoy's own marks go to the control plane as headers.
                "skip_envoy_headers": true,
                // Well within the time that a request waits for a cluster on demand, whatever went before.
                "retry_policy": {"retry_back_off": {"base_interval": "0.5s", "max_interval": "5s"}},
            }}],
        },
    })
}

impl ControlPlane {
    pub(super) fn cluster(&self) -> Value {
        let (discovery, address) = match &self.endpoint.host {
            Host::Name(name) => ("STRICT_DNS", name.to_string()),
            Host::Ip(ip) => ("STATIC", ip.to_string()),
        };
        let port = self.endpoint.port;
        json!({
            "name": CLUSTER,
            "type": discovery,
            "dns_lookup_family": "ALL",
            "connect_timeout": "2s",
            "load_assignment": {"cluster_name": CLUSTER, "endpoints": [{"lb_endpoints": [{"endpoint": {
                "address": {"socket_address": {"address": address, "port_value": port}},
            }}]}]},
            "upstream_connection_options": {"tcp_keepalive": {"keepalive_time": 300}},
            "transport_socket": self.tls(),
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": self.protocol(),
            },
        })
    }

    fn tls(&self) -> Value {
        json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": typed("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
                "sni": self.server_name.as_str(),
                "common_tls_context": {
                    // Envoy as a client stops at 1.2 unless the maximum is set too.
                    "tls_params": {
                        "tls_minimum_protocol_version": "TLSv1_3",
                        "tls_maximum_protocol_version": "TLSv1_3",
                    },
                    "alpn_protocols": ["h2"],
                    // By path: a root written here inline would never be read again.
                    "validation_context_sds_secret_config": {
                        "name": ROOT_SECRET,
                        "sds_config": {
                            "path_config_source": {"path": self.root_secret_file.as_str()},
                            "resource_api_version": "V3",
                        },
                    },
                },
            },
        })
    }

    /// HTTP/2 with pings, and the token on every request.
    fn protocol(&self) -> Value {
        let token = format!(
            "%FILE_CONTENT({}:{})%",
            self.token.as_str(),
            self.token.folder()
        );
        json!({
            "@type": typed("envoy.extensions.upstreams.http.v3.HttpProtocolOptions"),
            "explicit_http_config": {"http2_protocol_options": {
                "connection_keepalive": {"interval": "30s", "timeout": "10s"},
            }},
            "http_filters": [
                {
                    "name": "envoy.filters.http.header_mutation",
                    "typed_config": {
                        "@type": typed("envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"),
                        "mutations": {
                            "formatters": [{
                                "name": "envoy.formatter.file_content",
                                "typed_config": {
                                    "@type": typed("envoy.extensions.formatter.file_content.v3.FileContent"),
                                },
                            }],
                            "request_mutations": [{"append": {
                                "header": {"key": "authorization", "value": format!("Bearer {token}")},
                                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                            }}],
                        },
                    },
                },
                {
                    "name": "envoy.filters.http.upstream_codec",
                    "typed_config": {
                        "@type": typed("envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"),
                    },
                },
            ],
        })
    }

    /// The file at `root_secret_file`: which roots the control plane may have, read again when they change.
    pub fn root_secret(&self) -> Value {
        json!({"resources": [{
            "@type": typed("envoy.extensions.transport_sockets.tls.v3.Secret"),
            "name": ROOT_SECRET,
            "validation_context": {
                "trusted_ca": {"filename": self.root.as_str()},
                "watched_directory": {"path": self.root.folder()},
                "match_typed_subject_alt_names": [
                    {"san_type": "DNS", "matcher": {"exact": self.server_name.as_str()}},
                ],
            },
        }]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_discovery_address_is_a_name_or_an_ip_with_a_port() {
        let name = Endpoint::parse("istiod.istio-system.svc:15012").unwrap();
        assert_eq!(name.name().unwrap().as_str(), "istiod.istio-system.svc");
        for ip in ["10.0.0.1:15012", "[fd00::1]:15012"] {
            assert_eq!(Endpoint::parse(ip).unwrap().name(), None, "{ip}");
        }
        for bad in [
            "istiod",
            "istiod:",
            ":15012",
            "a b:1",
            "istiod:0",
            "*.svc:1",
            "istiod:70000",
        ] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }
}
