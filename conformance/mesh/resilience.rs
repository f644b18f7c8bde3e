//! What a DestinationRule bounds, and what it leaves out, as a client sees it.

use std::time::Duration;

use anyhow::{Result, ensure};
use fairlead::clock;

use crate::harness::client::{Call, Target};
use crate::harness::suite::Scenario;
use crate::harness::wait::eventually;
use crate::shop::Shop;

pub(crate) const SCENARIOS: &[Scenario] = &[
    (
        "a_circuit_breaker_opens_under_load_and_closes_after_it",
        breaker,
    ),
    ("an_endpoint_that_fails_is_ejected", ejection),
    (
        "an_endpoint_that_does_not_answer_is_given_up_in_time",
        connect_timeout,
    ),
];

const REVIEWS: &str = "http://reviews:9080/";

fn breaker() -> Result<()> {
    let shop = Shop::enter()?;
    let rule = shop.apply(
        "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  trafficPolicy:
    connectionPool:
      tcp: {maxConnections: 1}
      http: {http1MaxPendingRequests: 1}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - retries: {attempts: 0}
    route: [{destination: {host: reviews}}]
",
    )?;
    let slow = shop.storefront.call(REVIEWS)?;
    let slow = slow.header("echo-delay-ms", "400");
    eventually("requests beyond the bounds are refused at once", || {
        let replies = at_once(&shop, &slow, 10)?;
        let refused = replies.iter().filter(|status| **status == 503).count();
        let answered = replies.iter().filter(|status| **status == 200).count();
        ensure!(refused >= 5 && answered >= 2, "{replies:?}");
        Ok(())
    })?;
    // One by one they stay within.
    for _request in 0..10 {
        ensure!(shop.storefront.get(REVIEWS)?.status == 200);
    }
    drop(rule);
    shop.until_as_before()
}

/// The statuses of `n` requests that are sent together.
fn at_once(shop: &Shop, call: &Call, n: usize) -> Result<Vec<u16>> {
    std::thread::scope(|scope| {
        let send = || shop.storefront.send(call).map(|reply| reply.status);
        let running: Vec<_> = (0..n).map(|_| scope.spawn(send)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<u16>>| {
            thread
                .join()
                .unwrap_or_else(|_| anyhow::bail!("a client panicked"))
        };
        running.into_iter().map(join).collect()
    })
}

/// A host with an endpoint that answers, and another.
fn two(shop: &Shop, other: &str) -> String {
    let ip = shop.stranger.ip();
    format!(
        "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: two, namespace: shop}}
spec:
  hosts: [two.example.com]
  ports: [{{number: 8087, name: http, protocol: HTTP, targetPort: 8080}}]
  resolution: STATIC
  endpoints:
  - {{address: {ip}}}
  - {other}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: two, namespace: shop}}
spec:
  hosts: [two.example.com]
  http:
  - retries: {{attempts: 0}}
    route: [{{destination: {{host: two.example.com}}}}]
"
    )
}

fn ask_two(shop: &Shop) -> Result<u16> {
    let to = Target::Tcp(shop.stranger.at(8087));
    let reply = shop
        .storefront
        .send(&Call::get(to, "two.example.com", "/"))?;
    Ok(reply.status)
}

fn ejection() -> Result<()> {
    let shop = Shop::enter()?;
    // Its second endpoint refuses connections.
    let other = format!("{{address: {}, ports: {{http: 8099}}}}", shop.stranger.ip());
    let two = shop.apply(&two(&shop, &other))?;
    eventually("the endpoint that fails is met", || {
        let mut statuses = Vec::new();
        for _request in 0..20 {
            statuses.push(ask_two(&shop)?);
        }
        ensure!(
            statuses.contains(&200) && statuses.contains(&503),
            "{statuses:?}"
        );
        Ok(())
    })?;
    let rule = shop.mesh.apply(
        "outliers",
        "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: two, namespace: shop}
spec:
  host: two.example.com
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 2, interval: 1s, baseEjectionTime: 60s, maxEjectionPercent: 100}
",
    )?;
    eventually("the endpoint that fails is met no more", || {
        for _request in 0..30 {
            let status = ask_two(&shop)?;
            ensure!(status == 200, "{status}");
        }
        Ok(())
    })?;
    let ejected = "cluster.outbound|8087||two.example.com;.outlier_detection.ejections_active";
    let ejected = shop.storefront.stat(ejected)?;
    ensure!(ejected == 1, "{ejected} endpoints are ejected");
    drop((rule, two));
    shop.until_as_before()
}

fn connect_timeout() -> Result<()> {
    let shop = Shop::enter()?;
    // Packets to it go nowhere.
    let two = shop.apply(&two(&shop, "{address: 240.0.0.1}"))?;
    let rule = shop.mesh.apply(
        "timeout",
        "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: two, namespace: shop}
spec:
  host: two.example.com
  trafficPolicy: {connectionPool: {tcp: {connectTimeout: 0.2s}}}
",
    )?;
    eventually("no request waits long", || {
        let mut given_up = 0;
        for _request in 0..10 {
            let before = clock::mono();
            given_up += u32::from(ask_two(&shop)? == 503);
            let took = clock::mono() - before;
            ensure!(took < Duration::from_secs(3), "it took {took:?}");
        }
        ensure!(given_up > 0, "the endpoint was not met");
        Ok(())
    })?;
    drop((rule, two));
    shop.until_as_before()
}
