//! The application's own probes, answered by its sidecar: the kubelet has no certificate, so it cannot ask itself.
//!
//! An HTTP probe is passed on. A TCP or gRPC probe becomes an active health check of Envoy's, whose outcome is the answer.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::metrics::{MAX_PAGE, Metrics};
use super::pages::{self, PROBES};
use super::typed;
use crate::config::value::Span;
use crate::text::Str;

/// Where the kubelet asks, and whom Envoy asks in its place.
#[derive(Clone, Debug)]
pub struct AppProbes {
    pub address: SocketAddr,
    /// The pod's own address: where the kubelet would have asked.
    pub host: Str,
    pub probes: Vec<AppProbe>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppProbe {
    /// Such as `/app-health/<container>/readyz`.
    pub path: Str,
    /// Of the application.
    pub port: u16,
    /// None for what the kubelet bounds itself: a hook.
    pub timeout: Option<Duration>,
    pub check: Check,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    Http {
        /// With its query.
        path: Str,
        headers: Vec<(Str, Str)>,
        scheme: Scheme,
    },
    Tcp {
        period: Duration,
    },
    Grpc {
        service: Str,
        period: Duration,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    /// The certificate is not looked at, as the kubelet does not.
    Https,
}

/// Capture lets what comes from this address pass, to the application and not to Envoy again.
const FROM: &str = "127.0.0.6";
const FROM_V6: &str = "::6";

/// One listener for what is asked of the application in its sidecar's stead.
pub(super) fn listener(probes: Option<&AppProbes>, metrics: Option<&Metrics>) -> Option<Value> {
    let address = metrics.map(|m| m.address).or(probes.map(|p| p.address))?;
    let mut routes: Vec<Value> = probes.into_iter().flat_map(AppProbes::routes).collect();
    let mut filters: Vec<Value> = probes.into_iter().flat_map(AppProbes::filters).collect();
    routes.extend(metrics.map(Metrics::route));
    filters.extend(metrics.and_then(Metrics::filter));
    let mut listener = pages::listener(PROBES, address, &routes, &filters);
    if metrics.is_some() {
        listener["per_connection_buffer_limit_bytes"] = json!(MAX_PAGE);
        // A page stays as long as it is read slowly: one for each connection.
        let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
        manager["codec_type"] = json!("HTTP1");
    }
    Some(listener)
}

impl AppProbes {
    fn routes(&self) -> impl Iterator<Item = Value> {
        let numbered = self.probes.iter().enumerate();
        numbered.filter_map(|(n, probe)| probe.route(n))
    }

    fn filters(&self) -> impl Iterator<Item = Value> {
        let numbered = self.probes.iter().enumerate();
        numbered.filter_map(|(n, probe)| probe.filter(n))
    }

    /// Statistics by which Envoy's health check filter answers: without them every answer is no.
    pub(super) fn stats(&self) -> impl Iterator<Item = Str> {
        let numbered = self.probes.iter().enumerate();
        let checked = numbered.filter(|(_, probe)| !matches!(probe.check, Check::Http { .. }));
        checked.map(|(n, _)| Str::new(format!("cluster.{}.membership_", name(n))))
    }

    pub(super) fn clusters(&self) -> impl Iterator<Item = Value> {
        let numbered = self.probes.iter().enumerate();
        numbered.map(|(n, probe)| probe.cluster(n, &self.host))
    }
}

/// The first one of a name replaces what the kubelet sends by itself; the next ones join it.
fn added(headers: &[(Str, Str)]) -> Vec<Value> {
    let set = |(i, (key, value)): (usize, &(Str, Str))| {
        let again = headers[..i]
            .iter()
            .any(|(k, _)| k.eq_ignore_ascii_case(key));
        let action = match again {
            true => "APPEND_IF_EXISTS_OR_ADD",
            false => "OVERWRITE_IF_EXISTS_OR_ADD",
        };
        // Envoy would take a percent sign for a command.
        let value = value.replace('%', "%%");
        json!({"header": {"key": key, "value": value}, "append_action": action})
    };
    let all = headers.iter().enumerate();
    let others = all.filter(|(_, (key, _))| !key.eq_ignore_ascii_case("host"));
    others.map(set).collect()
}

fn name(n: usize) -> String {
    format!("app-probe-{n}")
}

impl AppProbe {
    fn route(&self, n: usize) -> Option<Value> {
        let Check::Http { path, headers, .. } = &self.check else {
            return None;
        };
        let host = headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case("host"));
        let timeout = Span(self.timeout.unwrap_or_default());
        let mut action = json!({
            "cluster": name(n),
            "prefix_rewrite": path,
            "timeout": timeout,
            "idle_timeout": timeout,
        });
        if let Some((_, host)) = host {
            action["host_rewrite_literal"] = json!(host);
        }
        Some(json!({
            "match": {"path": self.path},
            "route": action,
            "request_headers_to_add": added(headers),
            // The kubelet would follow it to this port, where nothing else is. That there is one is an answer, too.
            "response_headers_to_remove": ["location"],
        }))
    }

    /// Answers from what the health check found last.
    fn filter(&self, n: usize) -> Option<Value> {
        if matches!(self.check, Check::Http { .. }) {
            return None;
        }
        Some(json!({
            "name": name(n),
            "typed_config": {
                "@type": typed("envoy.extensions.filters.http.health_check.v3.HealthCheck"),
                "pass_through_mode": false,
                "headers": [{"name": ":path", "string_match": {"exact": self.path}}],
                "cluster_min_healthy_percentages": {name(n): {"value": 100}},
            },
        }))
    }

    fn cluster(&self, n: usize, host: &str) -> Value {
        let mut cluster = json!({
            "name": name(n),
            "type": "STATIC",
            "connect_timeout": Span(self.connect_timeout()),
            "load_assignment": {"cluster_name": name(n), "endpoints": [{"lb_endpoints": [{"endpoint": {
                "address": {"socket_address": {"address": host, "port_value": self.port}},
            }}]}]},
            "upstream_bind_config": {
                "source_address": {"address": FROM, "port_value": 0},
                "extra_source_addresses": [{"address": {"address": FROM_V6, "port_value": 0}}],
            },
            // One answer a connection, as the kubelet has it.
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": typed("envoy.extensions.upstreams.http.v3.HttpProtocolOptions"),
                    "common_http_protocol_options": {"max_requests_per_connection": 1},
                    "explicit_http_config": match self.check {
                        Check::Grpc { .. } => json!({"http2_protocol_options": {}}),
                        Check::Http { .. } | Check::Tcp { .. } => json!({"http_protocol_options": {}}),
                    },
                },
            },
        });
        match &self.check {
            Check::Http {
                scheme: Scheme::Https,
                ..
            } => {
                cluster["transport_socket"] = json!({
                    "name": "envoy.transport_sockets.tls",
                    "typed_config": {
                        "@type": typed("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
                        "common_tls_context": {"tls_params": {"tls_maximum_protocol_version": "TLSv1_3"}},
                    },
                })
            }
            Check::Http {
                scheme: Scheme::Http,
                ..
            } => {}
            Check::Tcp { period } => {
                cluster["health_checks"] =
                    json!([self.health_check(*period, json!({"tcp_health_check": {}}))]);
            }
            Check::Grpc { service, period } => {
                let check = json!({"grpc_health_check": {"service_name": service}});
                cluster["health_checks"] = json!([self.health_check(*period, check)]);
            }
        }
        cluster
    }

    fn connect_timeout(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_secs(5))
    }

    /// Once in every period, with or without traffic; how often it must fail is the kubelet's to count.
    fn health_check(&self, period: Duration, mut check: Value) -> Value {
        let period = Span(period);
        for field in [
            "interval",
            "no_traffic_interval",
            "no_traffic_healthy_interval",
        ] {
            check[field] = json!(period);
        }
        check["timeout"] = json!(Span(self.connect_timeout()));
        check["healthy_threshold"] = json!(1);
        check["unhealthy_threshold"] = json!(1);
        check["reuse_connection"] = json!(false);
        check
    }
}
