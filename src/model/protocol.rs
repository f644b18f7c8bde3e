//! Which protocol a port speaks, from its name, appProtocol and number.
//!
//! <https://istio.io/latest/docs/ops/configuration/traffic-management/protocol-selection/>

use serde::Serialize;

use crate::config::core::Transport;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Protocol {
    Http,
    Http2,
    Grpc,
    GrpcWeb,
    Https,
    Tls,
    Tcp,
    /// Nothing is said: detected per connection.
    Auto,
    /// Never proxied.
    Udp,
}

/// What a listener must tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Class {
    Http,
    Tcp,
    Auto,
}

/// Ports whose servers speak first or whose protocol is no HTTP, and that detection would break.
const WELL_KNOWN_TCP: [u16; 4] = [25, 53, 3306, 27017];

impl Protocol {
    /// `appProtocol` wins over the port's name, whose prefix up to the first `-` counts.
    pub fn select(
        transport: Transport,
        app_protocol: Option<&str>,
        name: &str,
        number: u16,
    ) -> Protocol {
        if transport != Transport::Tcp {
            return Self::Udp;
        }
        app_protocol
            .and_then(Self::of_app_protocol)
            .or_else(|| Self::of_port_name(name))
            .unwrap_or(if WELL_KNOWN_TCP.contains(&number) {
                Self::Tcp
            } else {
                Self::Auto
            })
    }

    /// A Sidecar listener's `protocol`, such as `HTTP`. Unknown words mean detection.
    pub fn of_word(word: &str) -> Protocol {
        Self::named(&word.to_ascii_lowercase().replace('_', "-")).unwrap_or(Self::Auto)
    }

    pub fn class(self) -> Class {
        match self {
            Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb => Class::Http,
            Self::Https | Self::Tls | Self::Tcp | Self::Udp => Class::Tcp,
            Self::Auto => Class::Auto,
        }
    }

    fn of_app_protocol(value: &str) -> Option<Protocol> {
        match value.to_ascii_lowercase().as_str() {
            "kubernetes.io/h2c" => Some(Self::Http2),
            "kubernetes.io/ws" => Some(Self::Http),
            "kubernetes.io/wss" => Some(Self::Https),
            other => Self::of_port_name(other),
        }
    }

    fn of_port_name(name: &str) -> Option<Protocol> {
        let name = name.to_ascii_lowercase();
        if name == "grpc-web" || name.starts_with("grpc-web-") {
            return Some(Self::GrpcWeb);
        }
        Self::named(name.split('-').next().unwrap_or_default())
    }

    fn named(word: &str) -> Option<Protocol> {
        match word {
            "http" | "http-proxy" | "http_proxy" => Some(Self::Http),
            "http2" => Some(Self::Http2),
            "grpc" => Some(Self::Grpc),
            "grpc-web" => Some(Self::GrpcWeb),
            "https" => Some(Self::Https),
            "tls" => Some(Self::Tls),
            // Istio's own filters for these speak TCP below; stock Envoy proxies the bytes.
            "tcp" | "mongo" | "mysql" | "redis" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(app: Option<&str>, name: &str, number: u16) -> Protocol {
        Protocol::select(Transport::Tcp, app, name, number)
    }

    #[test]
    fn the_name_counts_up_to_its_first_dash() {
        assert_eq!(of(None, "http-web", 80), Protocol::Http);
        assert_eq!(of(None, "grpc-web", 80), Protocol::GrpcWeb);
        assert_eq!(of(None, "grpc-echo", 80), Protocol::Grpc);
        assert_eq!(of(None, "httpx", 80), Protocol::Auto);
    }

    #[test]
    fn app_protocol_wins_and_well_known_ports_are_tcp() {
        assert_eq!(of(Some("kubernetes.io/h2c"), "tcp", 80), Protocol::Http2);
        assert_eq!(of(Some("example.com/odd"), "http", 80), Protocol::Http);
        assert_eq!(of(None, "", 3306), Protocol::Tcp);
        assert_eq!(
            Protocol::select(Transport::Udp, None, "http", 80),
            Protocol::Udp
        );
    }
}
