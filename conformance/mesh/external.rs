//! Hosts of ServiceEntries, as a client in the mesh reaches them.

use std::net::SocketAddr;

use anyhow::{Result, ensure};

use crate::harness::client::{Call, Reply, Target};
use crate::harness::suite::Scenario;
use crate::harness::wait::eventually;
use crate::shop::Shop;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("listed_endpoints_answer_for_an_external_host", listed),
    ("bytes_to_an_external_address_go_to_its_endpoints", bytes),
    (
        "with_registry_only_a_host_is_reached_once_it_has_an_entry",
        registry_only,
    ),
    (
        "workloads_that_an_entry_selects_are_called_with_mtls",
        selected,
    ),
    ("a_route_leads_to_an_external_host", routed),
    (
        "an_entry_of_another_namespace_counts_where_it_is_exported",
        exported,
    ),
];

/// Where nobody listens, and says so at once: whoever answers there was chosen by the sidecar.
fn nowhere(shop: &Shop, port: u16) -> SocketAddr {
    shop.stranger.at(port)
}

/// A request for a name, at an address.
fn ask(shop: &Shop, host: &str, to: impl Into<SocketAddr>) -> Result<Reply> {
    let call = Call::get(Target::Tcp(to.into()), host, "/");
    shop.storefront.send(&call)
}

fn name_of(reply: &Reply) -> Result<String> {
    Ok(reply.seen()?["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned())
}

/// Waits until the named one answers.
fn until_answered(shop: &Shop, host: &str, port: u16, name: &str) -> Result<()> {
    eventually(&format!("{host} is answered by {name}"), || {
        let got = name_of(&ask(shop, host, nowhere(shop, port))?)?;
        ensure!(got.starts_with(name), "by {got}");
        Ok(())
    })
}

fn entry(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: {namespace}}}
spec:
{spec}"
    )
}

fn listed() -> Result<()> {
    let shop = Shop::enter()?;
    let ip = shop.stranger.ip();
    let spec = |resolution: &str, port: u16| {
        format!(
            "  hosts: [api.example.com]
  ports: [{{number: 8088, name: http, protocol: HTTP, targetPort: {port}}}]
  resolution: {resolution}
  endpoints: [{{address: {ip}}}]
"
        )
    };
    for resolution in ["STATIC", "DNS", "DNS_ROUND_ROBIN"] {
        let entry = shop.apply(&entry("api", "shop", &spec(resolution, 8080)))?;
        until_answered(&shop, "api.example.com", 8088, "stranger")?;
        let seen = ask(&shop, "api.example.com", nowhere(&shop, 8088))?.seen()?;
        // Nobody outside is told who calls.
        ensure!(
            seen["headers"].get("x-forwarded-client-cert").is_none(),
            "{seen}"
        );
        ensure!(seen["authority"] == "api.example.com", "{seen}");
        drop(entry);
    }
    shop.until_as_before()
}

fn bytes() -> Result<()> {
    let shop = Shop::enter()?;
    let ip = shop.stranger.ip();
    let spec = format!(
        "  hosts: [ledger.example.com]
  addresses: [240.0.0.7, 240.1.0.0/16]
  ports: [{{number: 5432, name: tcp, protocol: TCP, targetPort: 7000}}]
  resolution: STATIC
  endpoints: [{{address: {ip}}}]
"
    );
    let entry = shop.apply(&entry("ledger", "shop", &spec))?;
    for address in [[240, 0, 0, 7], [240, 1, 2, 3]] {
        eventually("the ledger answers", || {
            let greeting = shop.storefront.tcp((address, 5432).into())?;
            ensure!(greeting.name == "stranger", "{greeting:?}");
            Ok(())
        })?;
    }
    // Another address of the same port is none of the entry's.
    ensure!(shop.storefront.tcp(nowhere(&shop, 5432)).is_err());
    drop(entry);
    shop.until_as_before()
}

fn registry_only() -> Result<()> {
    let shop = Shop::enter()?;
    let only = shop.mesh.apply(
        "registry-only",
        "
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: shop}
spec:
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
  egress: [{hosts: ['*/*']}]
",
    )?;
    let there = shop.stranger.at(8080);
    eventually("the unknown is refused", || {
        let reply = ask(&shop, "api.example.com", there);
        ensure!(
            reply.as_ref().map_or(true, |r| r.status == 502),
            "{reply:?}"
        );
        Ok(())
    })?;
    let spec = "  hosts: ['*.example.com']
  ports: [{number: 8080, name: http, protocol: HTTP}]
";
    let entry = shop.apply(&entry("wild", "shop", spec))?;
    eventually("the host is reached where it was called", || {
        let got = name_of(&ask(&shop, "api.example.com", there)?)?;
        ensure!(got == "stranger", "by {got}");
        Ok(())
    })?;
    let other = ask(&shop, "api.example.org", there)?;
    ensure!(other.status == 502, "{other:?}");
    drop((entry, only));
    shop.until_as_before()
}

fn selected() -> Result<()> {
    let shop = Shop::enter()?;
    let spec = "  hosts: [legacy.internal]
  location: MESH_INTERNAL
  ports: [{number: 8089, name: http, protocol: HTTP, targetPort: 9080}]
  resolution: STATIC
  workloadSelector: {labels: {app: reviews}}
";
    let entry = shop.apply(&entry("legacy", "shop", spec))?;
    until_answered(&shop, "legacy.internal", 8089, "reviews")?;
    let seen = ask(&shop, "legacy.internal", nowhere(&shop, 8089))?.seen()?;
    let peer = seen["headers"]["x-forwarded-client-cert"].to_string();
    ensure!(peer.contains("ns/shop/sa/storefront"), "{seen}");
    drop(entry);
    shop.until_as_before()
}

fn routed() -> Result<()> {
    let shop = Shop::enter()?;
    let ip = shop.stranger.ip();
    let spec = format!(
        "  hosts: [api.example.com]
  ports: [{{number: 8088, name: http, protocol: HTTP, targetPort: 8080}}]
  resolution: STATIC
  endpoints: [{{address: {ip}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews, namespace: shop}}
spec:
  hosts: [reviews]
  http:
  - match: [{{uri: {{prefix: /out}}}}]
    rewrite: {{authority: api.example.com}}
    route: [{{destination: {{host: api.example.com}}}}]
  - route: [{{destination: {{host: reviews}}}}]
"
    );
    let entry = shop.apply(&entry("api", "shop", &spec))?;
    eventually("a route leads outside", || {
        let seen = shop.storefront.get("http://reviews:9080/out")?.seen()?;
        let wanted = seen["name"] == "stranger" && seen["authority"] == "api.example.com";
        ensure!(wanted, "{seen}");
        Ok(())
    })?;
    ensure!(name_of(&shop.storefront.get("http://reviews:9080/")?)?.starts_with("reviews"));
    drop(entry);
    shop.until_as_before()
}

fn exported() -> Result<()> {
    let shop = Shop::enter()?;
    let ip = shop.stranger.ip();
    let spec = |export_to: &str| {
        format!(
            "  hosts: [api.example.com]
  ports: [{{number: 8088, name: http, protocol: HTTP, targetPort: 8080}}]
  resolution: STATIC
  endpoints: [{{address: {ip}}}]
  exportTo: ['{export_to}']
"
        )
    };
    let own = shop.apply(&entry("api", "office", &spec(".")))?;
    let call = Call::get(Target::Tcp(nowhere(&shop, 8088)), "api.example.com", "/");
    eventually("its own namespace reaches it", || {
        let got = name_of(&shop.neighbour.send(&call)?)?;
        ensure!(got == "stranger", "by {got}");
        Ok(())
    })?;
    let reply = ask(&shop, "api.example.com", nowhere(&shop, 8088));
    ensure!(
        reply.as_ref().map_or(true, |r| r.status != 200),
        "{reply:?}"
    );
    drop(own);
    let all = shop.apply(&entry("api", "office", &spec("*")))?;
    until_answered(&shop, "api.example.com", 8088, "stranger")?;
    drop(all);
    shop.until_as_before()
}
