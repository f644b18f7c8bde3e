//! Rate limits and routes as EnvoyFilters make them, as a client sees them.

use anyhow::{Result, ensure};

use crate::harness::client::{Call, Target};
use crate::harness::suite::Scenario;
use crate::harness::wait::eventually;
use crate::patches::{BEFORE_ROUTER, filter, get, with};
use crate::rate_limits::{Limiter, local};
use crate::shop::Shop;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("a_patched_workload_bounds_its_requests", local_limit),
    ("a_patched_route_bounds_its_requests", limit_of_a_route),
    ("a_patched_proxy_asks_a_rate_limit_service", global_limit),
    (
        "patched_tables_hosts_and_routes_have_their_headers",
        headers,
    ),
    ("a_patch_puts_a_route_first_and_removes_another", routes),
    ("a_patch_adds_a_virtual_host_and_removes_one", virtual_hosts),
];

/// How many of `n` requests that go out one after the other come back with each of 200 and 429.
fn answers(shop: &Shop, path: &str, n: u32) -> Result<(u32, u32)> {
    let (mut taken, mut refused) = (0, 0);
    for _request in 0..n {
        match get(shop, path)?.status {
            200 => taken += 1,
            429 => refused += 1,
            other => anyhow::bail!("{other}"),
        }
    }
    Ok((taken, refused))
}

fn local_limit() -> Result<()> {
    let patch = filter(
        "limit",
        &format!(
            "
  workloadSelector: {{labels: {{app: reviews}}}}
  configPatches:
  - applyTo: HTTP_FILTER
    match:
      context: SIDECAR_INBOUND{BEFORE_ROUTER}
      value:
        name: envoy.filters.http.local_ratelimit
        typed_config:
{}
",
            local("          ", 4)
        ),
    );
    // Two pods of four requests each.
    with(&patch, "eight requests of twenty are served", |shop| {
        let got = answers(shop, "/", 20)?;
        ensure!(got == (0, 20), "not yet all used up: {got:?}");
        Ok(())
    })
}

fn limit_of_a_route() -> Result<()> {
    let rules = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - name: dear
    match: [{uri: {prefix: /dear}}]
    route: [{destination: {host: reviews}}]
  - name: cheap
    route: [{destination: {host: reviews}}]
";
    let patch = filter(
        "limit",
        &format!(
            "
  workloadSelector: {{labels: {{app: storefront}}}}
  configPatches:
  - applyTo: HTTP_FILTER
    match:
      context: SIDECAR_OUTBOUND{BEFORE_ROUTER}
      value:
        name: envoy.filters.http.local_ratelimit
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
          stat_prefix: limit
  - applyTo: HTTP_ROUTE
    match:
      context: SIDECAR_OUTBOUND
      routeConfiguration:
        name: '9080'
        vhost:
          name: reviews.shop.svc.cluster.local:9080
          route: {{name: dear, action: ROUTE}}
    patch:
      operation: MERGE
      value:
        typed_per_filter_config:
          envoy.filters.http.local_ratelimit:
{}
",
            local("            ", 2)
        ),
    );
    with(&format!("{rules}{patch}"), "one route is bounded", |shop| {
        let dear = answers(shop, "/dear", 4)?;
        ensure!(dear == (0, 4), "not yet all used up: {dear:?}");
        let cheap = answers(shop, "/", 6)?;
        ensure!(cheap == (6, 0), "{cheap:?}");
        Ok(())
    })
}

fn global_limit() -> Result<()> {
    let shop = Shop::enter()?;
    let limiter = Limiter::start(shop.mesh.network().node(), 3)?;
    let patch = filter("global", &limiter.patches());
    let applied = shop.apply(&patch)?;
    eventually("the service has refused some", || {
        let got = answers(&shop, "/counted", 8)?;
        ensure!(got == (0, 8), "not yet all used up: {got:?}");
        Ok(())
    })?;
    ensure!(limiter.taken() == 3, "{} were let through", limiter.taken());
    // What has no descriptor is not asked about.
    let asked = limiter.asked();
    ensure!(get(&shop, "/")?.status == 200);
    ensure!(limiter.asked() == asked, "it was asked about that too");
    drop(applied);
    shop.until_as_before()
}

fn headers() -> Result<()> {
    let added = |of: &str| {
        format!(
            "{{response_headers_to_add: [{{header: {{key: x-{of}, value: merged}}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}]}}"
        )
    };
    let spec = format!(
        "
  configPatches:
  - applyTo: ROUTE_CONFIGURATION
    match:
      context: SIDECAR_OUTBOUND
      routeConfiguration: {{portNumber: 9080}}
    patch: {{operation: MERGE, value: {}}}
  - applyTo: VIRTUAL_HOST
    match:
      context: SIDECAR_OUTBOUND
      routeConfiguration: {{vhost: {{domainName: reviews.shop}}}}
    patch: {{operation: MERGE, value: {}}}
  - applyTo: HTTP_ROUTE
    match:
      context: SIDECAR_INBOUND
      routeConfiguration: {{vhost: {{name: 'inbound|http|9080', route: {{name: default}}}}}}
    patch: {{operation: MERGE, value: {}}}
",
        added("table"),
        added("host"),
        added("route")
    );
    with(&filter("headers", &spec), "all three are merged", |shop| {
        let reply = get(shop, "/")?;
        let got = ["x-table", "x-host", "x-route"].map(|name| reply.header(name));
        ensure!(got == ["merged"; 3], "{got:?}");
        let other = shop.storefront.get("http://ratings:80/")?;
        ensure!(other.header("x-table").is_empty() && other.header("x-host").is_empty());
        Ok(())
    })
}

fn routes() -> Result<()> {
    let rules = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - name: gone
    match: [{uri: {prefix: /gone}}]
    directResponse: {status: 410}
  - name: all
    route: [{destination: {host: reviews}}]
";
    let vhost = "vhost: {name: 'reviews.shop.svc.cluster.local:9080'";
    let spec = format!(
        "
  configPatches:
  - applyTo: HTTP_ROUTE
    match: {{context: SIDECAR_OUTBOUND, routeConfiguration: {{{vhost}}}}}}}
    patch:
      operation: INSERT_FIRST
      value:
        name: teapot
        match: {{path: /teapot}}
        direct_response: {{status: 418}}
  - applyTo: HTTP_ROUTE
    match: {{context: SIDECAR_OUTBOUND, routeConfiguration: {{{vhost}, route: {{name: gone}}}}}}}}
    patch: {{operation: REMOVE}}
"
    );
    let yaml = format!("{rules}{}", filter("routes", &spec));
    with(&yaml, "one route more, and one less", |shop| {
        let got = ["/teapot", "/gone", "/"].map(|path| get(shop, path).map(|r| r.status));
        let got: Vec<u16> = got.into_iter().collect::<Result<_>>()?;
        ensure!(got == [418, 200, 200], "{got:?}");
        Ok(())
    })
}

fn virtual_hosts() -> Result<()> {
    let spec = "
  configPatches:
  - applyTo: VIRTUAL_HOST
    match: {context: SIDECAR_OUTBOUND, routeConfiguration: {name: '9080'}}
    patch:
      operation: ADD
      value:
        name: patched
        domains: [patched.example]
        routes:
        - match: {prefix: /}
          direct_response: {status: 203}
  - applyTo: VIRTUAL_HOST
    match: {context: SIDECAR_OUTBOUND, routeConfiguration: {vhost: {name: 'ratings.shop.svc.cluster.local:80'}}}
    patch: {operation: REMOVE}
";
    with(
        &filter("hosts", spec),
        "one host more, and one less",
        |shop| {
            let to = Target::Tcp(shop.storefront.address("reviews:9080")?);
            let added = shop
                .storefront
                .send(&Call::get(to, "patched.example", "/"))?;
            ensure!(added.status == 203, "{}", added.status);
            // Passed on as it came, for want of a host: nothing has the Service's own address.
            let removed = shop.storefront.get("http://ratings:80/");
            ensure!(removed.map_or(true, |reply| reply.status != 200));
            Ok(())
        },
    )
}
