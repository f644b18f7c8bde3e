//! What EnvoyFilters change, as a client sees it.

use std::time::Duration;

use anyhow::{Result, ensure};
use fairlead::clock;

use crate::harness::client::{Call, Reply, Target};
use crate::harness::suite::Scenario;
use crate::harness::wait::eventually;
use crate::shop::Shop;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("a_patched_cluster_gives_up_in_its_own_time", cluster_merge),
    ("a_patch_puts_lua_in_front_of_the_workload", lua),
    ("a_patch_adds_a_listener", listener),
    ("a_patched_chain_refuses_connections", network_filter),
    ("a_patched_listener_bounds_connections", listener_filter),
    ("a_patch_removes_a_chain", chain_removed),
    ("patches_act_by_priority_then_root_then_own", order),
    ("a_patch_is_for_those_that_it_selects", selected),
    ("a_patch_that_is_refused_changes_nothing", refused),
];

/// An EnvoyFilter in the shop's namespace.
pub(crate) fn filter(name: &str, spec: &str) -> String {
    in_namespace("shop", name, spec)
}

fn in_namespace(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {{name: {name}, namespace: {namespace}}}
spec:
{spec}"
    )
}

/// Applies objects, waits until `check` holds, takes them away again.
pub(crate) fn with(yaml: &str, what: &str, check: impl Fn(&Shop) -> Result<()>) -> Result<()> {
    let shop = Shop::enter()?;
    let applied = shop.apply(yaml)?;
    eventually(what, || check(&shop))?;
    drop(applied);
    shop.until_as_before()
}

/// A filter of Lua that adds a header to answers.
fn adding(name: &str, header: &str, value: &str) -> String {
    format!(
        "
      value:
        name: {name}
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
          default_source_code:
            inline_string: |
              function envoy_on_response(handle)
                handle:headers():add('{header}', '{value}')
              end
"
    )
}

pub(crate) const BEFORE_ROUTER: &str = "
      listener:
        filterChain:
          filter:
            name: envoy.filters.network.http_connection_manager
            subFilter: {name: envoy.filters.http.router}
    patch:
      operation: INSERT_BEFORE";

pub(crate) fn get(shop: &Shop, path: &str) -> Result<Reply> {
    shop.storefront.get(&format!("http://reviews:9080{path}"))
}

fn cluster_merge() -> Result<()> {
    let shop = Shop::enter()?;
    // Packets to it go nowhere.
    let entry = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: nowhere, namespace: shop}
spec:
  hosts: [nowhere.example.com]
  ports: [{number: 8087, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 240.0.0.1}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: nowhere, namespace: shop}
spec:
  hosts: [nowhere.example.com]
  http:
  - retries: {attempts: 0}
    route: [{destination: {host: nowhere.example.com}}]
";
    let patch = filter(
        "timeout",
        "
  configPatches:
  - applyTo: CLUSTER
    match:
      context: SIDECAR_OUTBOUND
      cluster: {service: nowhere.example.com, portNumber: 8087}
    patch:
      operation: MERGE
      value: {connect_timeout: 0.3s}
",
    );
    let applied = shop.apply(&format!("{entry}{patch}"))?;
    eventually("the connection is given up in time", || {
        let to = Target::Tcp(shop.stranger.at(8087));
        let before = clock::mono();
        let call = Call::get(to, "nowhere.example.com", "/");
        let status = shop.storefront.send(&call)?.status;
        let took = clock::mono() - before;
        ensure!(status == 503, "{status}");
        let wanted = Duration::from_millis(250)..Duration::from_secs(2);
        ensure!(wanted.contains(&took), "it took {took:?}");
        Ok(())
    })?;
    drop(applied);
    shop.until_as_before()
}

fn lua() -> Result<()> {
    let spec = format!(
        "
  workloadSelector: {{labels: {{app: reviews, version: v1}}}}
  configPatches:
  - applyTo: HTTP_FILTER
    match:
      context: SIDECAR_INBOUND{BEFORE_ROUTER}{}",
        adding("stamp", "x-stamp", "by-lua")
    );
    with(&filter("lua", &spec), "answers of v1 are stamped", |shop| {
        let mut seen = std::collections::BTreeSet::new();
        for _request in 0..20 {
            let reply = get(shop, "/")?;
            let version = reply.seen()?["version"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            seen.insert((version, reply.header("x-stamp").to_owned()));
        }
        let wanted = [("v1", "by-lua"), ("v2", "")];
        let wanted = wanted.map(|(v, stamp)| (v.to_owned(), stamp.to_owned()));
        ensure!(seen == wanted.into(), "{seen:?}");
        Ok(())
    })
}

fn listener() -> Result<()> {
    let spec = "
  workloadSelector: {labels: {app: storefront}}
  configPatches:
  - applyTo: LISTENER
    match: {context: SIDECAR_OUTBOUND}
    patch:
      operation: ADD
      value:
        name: of-the-patch
        address: {socket_address: {address: 127.0.0.1, port_value: 18099}}
        enable_reuse_port: false
        filter_chains:
        - filters:
          - name: envoy.filters.network.http_connection_manager
            typed_config:
              '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
              stat_prefix: of-the-patch
              route_config:
                virtual_hosts:
                - name: all
                  domains: ['*']
                  routes: [{match: {prefix: /}, direct_response: {status: 203}}]
              http_filters:
              - name: envoy.filters.http.router
                typed_config:
                  '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
";
    with(&filter("listener", spec), "the listener answers", |shop| {
        let to = Target::Tcp(([127, 0, 0, 1], 18099).into());
        let reply = shop.storefront.send(&Call::get(to, "any", "/"))?;
        ensure!(reply.status == 203, "{}", reply.status);
        Ok(())
    })
}

/// Whether bytes to the ratings' ledger come back.
fn ledger(shop: &Shop) -> Result<bool> {
    let to = shop.storefront.address("ratings:7000")?;
    Ok(shop.storefront.tcp(to).is_ok())
}

fn network_filter() -> Result<()> {
    let spec = "
  workloadSelector: {labels: {app: ratings}}
  configPatches:
  - applyTo: NETWORK_FILTER
    match:
      context: SIDECAR_INBOUND
      listener:
        name: virtualInbound
        filterChain:
          destinationPort: 7000
          filter: {name: envoy.filters.network.tcp_proxy}
    patch:
      operation: INSERT_BEFORE
      value:
        name: envoy.filters.network.rbac
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC
          stat_prefix: nobody
          rules: {action: ALLOW}
";
    with(&filter("nobody", spec), "nobody comes through", |shop| {
        ensure!(!ledger(shop)?, "bytes came back");
        ensure!(shop.storefront.get("http://ratings:80/")?.status == 200);
        Ok(())
    })?;
    let shop = Shop::enter()?;
    eventually("bytes come back again", || {
        ensure!(ledger(&shop)?);
        Ok(())
    })
}

fn listener_filter() -> Result<()> {
    let spec = "
  workloadSelector: {labels: {app: ratings}}
  configPatches:
  - applyTo: LISTENER_FILTER
    match: {context: SIDECAR_INBOUND, listener: {name: virtualInbound}}
    patch:
      operation: INSERT_FIRST
      value:
        name: envoy.filters.listener.local_ratelimit
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.listener.local_ratelimit.v3.LocalRateLimit
          stat_prefix: connections
          token_bucket: {max_tokens: 2, tokens_per_fill: 1, fill_interval: 3600s}
";
    with(
        &filter("connections", spec),
        "few connections come",
        |shop| {
            let mut came = 0;
            for _connection in 0..6 {
                came += u32::from(ledger(shop)?);
            }
            ensure!(came == 0, "not yet all used up: {came}");
            Ok(())
        },
    )?;
    let shop = Shop::enter()?;
    eventually("bytes come back again", || {
        ensure!(ledger(&shop)?);
        Ok(())
    })
}

fn chain_removed() -> Result<()> {
    let spec = "
  workloadSelector: {labels: {app: reviews}}
  configPatches:
  - applyTo: FILTER_CHAIN
    match:
      context: SIDECAR_INBOUND
      listener:
        portNumber: 9080
        filterChain: {transportProtocol: raw_buffer}
    patch: {operation: REMOVE}
";
    let shop = Shop::enter()?;
    let reviews = {
        let seen = get(&shop, "/")?.seen()?;
        seen["name"].as_str().unwrap_or_default().to_owned()
    };
    let ip = shop.pod_ip(&reviews)?;
    let plain = || {
        let to = Target::Tcp((ip, 9080).into());
        shop.stranger.send(&Call::get(to, "reviews", "/"))
    };
    ensure!(plain()?.status == 200, "in plaintext by default");
    let applied = shop.apply(&filter("no-plaintext", spec))?;
    eventually("plaintext is refused", || {
        ensure!(plain().map_or(true, |reply| reply.status != 200));
        Ok(())
    })?;
    ensure!(
        get(&shop, "/")?.status == 200,
        "within the mesh's TLS it goes on"
    );
    drop(applied);
    eventually("plaintext is taken again", || {
        ensure!(plain()?.status == 200);
        Ok(())
    })?;
    shop.until_as_before()
}

/// Each adds the name of its own as a header, so that the order of filters shows in the answer: the last one is the
/// first to see it.
fn order() -> Result<()> {
    let one = |namespace: &str, name: &str, priority: i32| {
        let spec = format!(
            "
  priority: {priority}
  configPatches:
  - applyTo: HTTP_FILTER
    match:
      context: SIDECAR_OUTBOUND{BEFORE_ROUTER}{}",
            adding(name, "x-order", name)
        );
        in_namespace(namespace, name, &spec)
    };
    let yaml = [
        one("shop", "own-b", 0),
        one("shop", "own-a", 0),
        one("shop", "own-early", -5),
        one("istio-system", "root", 0),
        one("istio-system", "root-late", 7),
    ]
    .concat();
    with(&yaml, "the order is theirs", |shop| {
        let reply = get(shop, "/")?;
        let all = reply.headers.get_all("x-order").iter();
        let all: Vec<&str> = all.filter_map(|v| v.to_str().ok()).collect();
        let wanted = ["root-late", "own-b", "own-a", "root", "own-early"];
        ensure!(all == wanted, "{all:?}");
        Ok(())
    })
}

fn selected() -> Result<()> {
    let one = |name: &str, selector: &str, proxy: &str| {
        let spec = format!(
            "{selector}
  configPatches:
  - applyTo: HTTP_FILTER
    match:
      context: SIDECAR_OUTBOUND
      proxy: {proxy}{BEFORE_ROUTER}{}",
            adding(name, "x-for", name)
        );
        filter(name, &spec)
    };
    let yaml = [
        one(
            "storefront",
            "  workloadSelector: {labels: {app: storefront}}",
            "{metadata: {NAMESPACE: shop}}",
        ),
        one(
            "others",
            "  workloadSelector: {labels: {app: ratings}}",
            "{}",
        ),
        one("version", "", "{proxyVersion: '^1[.].*'}"),
        one("version-of-old", "", "{proxyVersion: '^0[.].*'}"),
        one("cluster", "", "{metadata: {CLUSTER_ID: elsewhere}}"),
    ]
    .concat();
    with(&yaml, "those that are meant have them", |shop| {
        let of = |reply: &Reply| {
            let all = reply.headers.get_all("x-for").iter();
            let mut all: Vec<String> = all
                .filter_map(|v| v.to_str().ok().map(str::to_owned))
                .collect();
            all.sort();
            all
        };
        let own = of(&get(shop, "/")?);
        ensure!(own == ["storefront", "version"], "{own:?}");
        let neighbour = of(&shop.neighbour.get("http://reviews.shop:9080/")?);
        ensure!(neighbour.is_empty(), "{neighbour:?}");
        Ok(())
    })
}

const REFUSED: &str = "listener_manager.lds.update_rejected";

fn refused() -> Result<()> {
    let shop = Shop::enter()?;
    // A header of its own: connections that are about to end may still bear that of another scenario.
    let good = format!(
        "
  workloadSelector: {{labels: {{app: storefront}}}}
  configPatches:
  - applyTo: HTTP_FILTER
    match:
      context: SIDECAR_OUTBOUND{BEFORE_ROUTER}{}",
        adding("stamp", "x-kept", "good")
    );
    let stamped = |shop: &Shop| {
        let reply = get(shop, "/")?;
        ensure!(reply.header("x-kept") == "good", "no stamp: {reply:?}");
        Ok(())
    };
    let applied = shop.apply(&filter("lua", &good))?;
    eventually("answers are stamped", || stamped(&shop))?;
    // What the control plane can know to be wrong it does not send: the version before stands.
    let unknown = good.replace("default_source_code:", "default_sauce_code:");
    let again = shop.apply(&filter("lua", &unknown))?;
    for _request in 0..20 {
        stamped(&shop)?;
    }
    // What Envoy alone can know to be wrong it refuses: what it has goes on.
    let broken = good.replace("envoy_on_response(handle)", "envoy_on_response(");
    let refused = shop.storefront.stat(REFUSED)?;
    let once_more = shop.apply(&filter("lua", &broken))?;
    eventually("Envoy refuses the script", || {
        ensure!(shop.storefront.stat(REFUSED)? > refused, "not yet");
        Ok(())
    })?;
    for _request in 0..20 {
        stamped(&shop)?;
    }
    drop((applied, again, once_more));
    shop.until_as_before()
}
