//! Envoy's statistics and the application's own on one page, as Istio's agent serves them.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::pages::ADMIN;
use super::typed;
use crate::text::Str;

/// Where Prometheus finds both.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub address: SocketAddr,
    /// None where the application has none: the page is then Envoy's alone.
    pub app: Option<AppMetrics>,
}

/// A page of the application's, on the loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppMetrics {
    pub port: u16,
    path: Str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a path begins with `/` and has at most {MAX_PATH} letters of ASCII, no quotes, no backslash, no space"
)]
pub struct PathError;

const MAX_PATH: usize = 1024;
/// Both pages together; larger ones are answered by an error.
pub(super) const MAX_PAGE: u32 = 4 << 20;
const PAGE: &str = "/stats/prometheus";
const CLUSTER: &str = "app-metrics";
const FILTER: &str = "app-metrics";
/// Prometheus waits ten seconds, unless it is told otherwise.
const TIMEOUT_MS: u32 = 5000;

impl AppMetrics {
    /// The path stands in a script, so that much is looked at.
    pub fn new(port: u16, path: &str) -> Result<Self, PathError> {
        let plain = |c: char| c.is_ascii_graphic() && !['\'', '"', '\\'].contains(&c);
        let sound = path.starts_with('/') && path.len() <= MAX_PATH && path.chars().all(plain);
        let path = sound.then(|| Str::new(path)).ok_or(PathError)?;
        Ok(Self { port, path })
    }
}

impl Metrics {
    pub(super) fn route(&self) -> Value {
        let mut route = json!({
            "match": {"path": PAGE, "headers": [{"name": ":method", "string_match": {"exact": "GET"}}]},
            "route": {"cluster": ADMIN},
            // Text, so that the application's can follow it.
            "request_headers_to_remove": ["accept", "accept-encoding"],
        });
        if self.app.is_some() {
            let on = json!({"@type": typed("envoy.config.route.v3.FilterConfig"), "config": {}});
            route["typed_per_filter_config"] = json!({FILTER: on});
        }
        route
    }

    /// Off for every route that does not turn it on.
    pub(super) fn filter(&self) -> Option<Value> {
        let app = self.app.as_ref()?;
        Some(json!({
            "name": FILTER,
            "disabled": true,
            "typed_config": {
                "@type": typed("envoy.extensions.filters.http.lua.v3.Lua"),
                "default_source_code": {"inline_string": script(app)},
            },
        }))
    }

    pub(super) fn cluster(&self) -> Option<Value> {
        let app = self.app.as_ref()?;
        Some(json!({
            "name": CLUSTER,
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": {"cluster_name": CLUSTER, "endpoints": [{"lb_endpoints": [{"endpoint": {
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": app.port}},
            }}]}]},
        }))
    }
}

/// An application that does not answer costs its own part of the page, and the page says so. What was got of Envoy before
/// the script waited is no more after it: only text lasts.
fn script(app: &AppMetrics) -> String {
    let AppMetrics { port, path } = app;
    format!(
        "function envoy_on_response(handle)\n\
         \x20 local own = handle:body()\n\
         \x20 if own == nil then return end\n\
         \x20 local page = own:getBytes(0, own:length())\n\
         \x20 local headers, text = handle:httpCall('{CLUSTER}', {{[':method'] = 'GET', [':path'] = '{path}', [':authority'] = 'localhost:{port}'}}, '', {TIMEOUT_MS})\n\
         \x20 local status = headers and headers[':status'] or 'nothing'\n\
         \x20 if status ~= '200' then text = '# the application answered ' .. status .. ' at port {port}, path {path}\\n' end\n\
         \x20 handle:body():setBytes(page .. (text or ''))\n\
         end"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_could_end_the_script_is_refused() {
        for bad in [
            "", "metrics", "/a'b", "/a\"b", "/a\\b", "/a b", "/ä", "/a\nb",
        ] {
            assert_eq!(AppMetrics::new(80, bad), Err(PathError), "{bad:?}");
        }
        let app = AppMetrics::new(8080, "/metrics?format=prometheus").unwrap();
        assert!(script(&app).contains("[':path'] = '/metrics?format=prometheus'"));
    }
}
