//! What EnvoyFilters change of proxies at the edge.

use anyhow::{Result, ensure};

use crate::edge::{Edge, bound};
use crate::harness::suite::Scenario;
use crate::harness::wait::eventually;

pub const SCENARIOS: &[Scenario] = &[
    ("a_patched_gateway_bounds_the_requests_of_one_host", limit),
    ("a_patched_gateway_runs_lua_in_front_of_its_routes", lua),
];

const HTTP: &str = "  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*.example.com']}
";

fn reviews() -> String {
    let rule = "  hosts: [shop.example.com, other.example.com]
  gateways: [edge/public]
  http:
  - route: [{destination: {host: reviews}}]
";
    bound(HTTP, rule)
}

/// The filter for all, without a bound, and the bound for one host: Istio's usual shape. The port is the server's, whatever the
/// proxy listens on.
const LIMIT: &str = "---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: limit, namespace: edge}
spec:
  workloadSelector: {labels: {app: ingress}}
  configPatches:
  - applyTo: HTTP_FILTER
    match:
      context: GATEWAY
      listener:
        filterChain:
          filter:
            name: envoy.filters.network.http_connection_manager
            subFilter: {name: envoy.filters.http.router}
    patch:
      operation: INSERT_BEFORE
      value:
        name: envoy.filters.http.local_ratelimit
        typed_config:
          '@type': type.googleapis.com/udpa.type.v1.TypedStruct
          type_url: type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
          value: {stat_prefix: limit}
  - applyTo: VIRTUAL_HOST
    match:
      context: GATEWAY
      routeConfiguration: {portNumber: 80, vhost: {name: 'shop.example.com:80'}}
    patch:
      operation: MERGE
      value:
        typed_per_filter_config:
          envoy.filters.http.local_ratelimit:
            '@type': type.googleapis.com/udpa.type.v1.TypedStruct
            type_url: type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
            value:
              stat_prefix: limit
              token_bucket: {max_tokens: 3, tokens_per_fill: 1, fill_interval: 3600s}
              filter_enabled: {default_value: {numerator: 100, denominator: HUNDRED}}
              filter_enforced: {default_value: {numerator: 100, denominator: HUNDRED}}
              response_headers_to_add:
              - {append_action: OVERWRITE_IF_EXISTS_OR_ADD, header: {key: x-limited, value: 'yes'}}
";

fn limit() -> Result<()> {
    let edge = Edge::enter()?;
    let _applied = edge.apply(&format!("{}{LIMIT}", reviews()))?;
    let shop = edge.call("shop.example.com", "/");
    let refused = edge.until(&shop, 429)?;
    ensure!(refused.header("x-limited") == "yes", "{refused:?}");
    for _request in 0..10 {
        ensure!(edge.ask("shop.example.com", "/")?.status == 429);
        ensure!(edge.ask("other.example.com", "/")?.status == 200);
    }
    // The other gateway has none of it.
    let status = edge.storefront.get("http://reviews:9080/")?.status;
    ensure!(status == 200, "{status}");
    Ok(())
}

fn lua() -> Result<()> {
    let edge = Edge::enter()?;
    let stamp = "---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: stamp, namespace: edge}
spec:
  configPatches:
  - applyTo: HTTP_FILTER
    match: {context: GATEWAY, listener: {portNumber: 8080}}
    patch:
      operation: INSERT_FIRST
      value:
        name: stamp
        config_discovery:
          config_source: {ads: {}}
          type_urls: [type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua]
  - applyTo: EXTENSION_CONFIG
    match: {context: GATEWAY}
    patch:
      operation: ADD
      value:
        name: stamp
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
          default_source_code:
            inline_string: |
              function envoy_on_request(handle)
                handle:headers():add('x-stamp', 'of-the-edge')
              end
";
    let _applied = edge.apply(&format!("{}{stamp}", reviews()))?;
    eventually("requests are stamped", || {
        let seen = edge.ask("shop.example.com", "/")?.seen()?;
        let stamp = &seen["headers"]["x-stamp"];
        ensure!(stamp == "of-the-edge", "{stamp}");
        Ok(())
    })
}
