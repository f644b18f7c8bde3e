//! Where requests go: names, subsets, matches, retries, timeouts, the unknown.

use std::time::Duration;

use anyhow::{Result, ensure};
use fairlead::clock;

use crate::Scenario;
use crate::harness::manifest::ServiceSpec;
use crate::harness::pod::{App, Pod, PodSpec};
use crate::harness::wait::eventually;
use crate::shop::{SUBSETS, Shop, rules};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("a_service_answers_to_each_of_its_names", names),
    ("without_rules_requests_are_balanced", balanced),
    ("weights_split_requests_over_subsets", weights),
    ("headers_choose_the_subset", headers),
    ("paths_and_methods_choose_the_route_in_order", paths),
    (
        "a_failed_request_is_tried_again_as_often_as_the_rule_says",
        retries,
    ),
    ("a_slow_answer_ends_at_the_timeout", timeout),
    (
        "the_unknown_is_passed_through_unless_the_registry_is_all",
        unknown,
    ),
    (
        "a_sidecar_object_limits_what_its_workload_reaches",
        sidecar_egress,
    ),
    (
        "a_service_that_is_not_exported_is_unknown_elsewhere",
        not_exported,
    ),
    ("requests_with_equal_keys_stay_with_one_workload", sticky),
    (
        "a_workload_that_joins_takes_requests_and_one_that_leaves_does_not",
        endpoints,
    ),
    (
        "a_route_to_a_subset_that_is_not_there_yet_waits_for_it",
        waits,
    ),
    ("a_broken_rule_leaves_the_last_good_one_in_force", broken),
    ("plain_tcp_reaches_its_service", plain_tcp),
    (
        "a_rule_leads_byte_streams_elsewhere_for_some_clients",
        tcp_rule,
    ),
    (
        "traffic_goes_on_without_the_control_plane_and_changes_arrive_after_it",
        outage,
    ),
];

const REVIEWS: &str = "http://reviews:9080/";

fn names() -> Result<()> {
    let shop = Shop::enter()?;
    let vip = shop.storefront.address("ratings:80")?;
    let named = [
        "ratings",
        "ratings:80",
        "ratings.shop",
        "ratings.shop.svc",
        "ratings.shop.svc.cluster.local",
    ];
    for host in named
        .map(str::to_owned)
        .into_iter()
        .chain([vip.to_string(), vip.ip().to_string()])
    {
        let seen = shop
            .storefront
            .get(&format!("http://{host}/book"))?
            .seen()?;
        ensure!(
            seen["name"] == "ratings" && seen["path"] == "/book",
            "{host}: {seen}"
        );
        ensure!(
            seen["authority"] == host,
            "{host} became {}",
            seen["authority"]
        );
    }
    // From another namespace the short name is not enough, the rest is.
    let seen = shop.neighbour.get("http://ratings.shop/")?.seen()?;
    ensure!(seen["name"] == "ratings");
    Ok(())
}

fn balanced() -> Result<()> {
    let shop = Shop::enter()?;
    let counts = shop.versions(REVIEWS, 60)?;
    ensure!(
        counts.len() == 2 && counts.values().all(|n| *n >= 15),
        "{counts:?}"
    );
    Ok(())
}

fn weights() -> Result<()> {
    let shop = Shop::enter()?;
    let split = |v1: u32, v2: u32| {
        rules(&format!(
            "  - route:
    - {{destination: {{host: reviews, subset: v1}}, weight: {v1}}}
    - {{destination: {{host: reviews, subset: v2}}, weight: {v2}}}
"
        ))
    };
    let first = shop.apply(&split(0, 100))?;
    eventually("v2 alone answers", || {
        let counts = shop.versions(REVIEWS, 20)?;
        ensure!(counts.keys().eq(["v2"]), "{counts:?}");
        Ok(())
    })?;
    let second = shop.apply(&split(90, 10))?;
    shop.until_first_answer_from(REVIEWS, "v1")?;
    // Five standard deviations of 500 draws of one in ten on either side.
    let counts = shop.versions(REVIEWS, 500)?;
    let v2 = counts.get("v2").copied().unwrap_or(0);
    ensure!((17..=83).contains(&v2), "{counts:?}");
    drop((first, second));
    shop.until_as_before()
}

fn headers() -> Result<()> {
    let shop = Shop::enter()?;
    let rules = shop.apply(&rules(
        "  - match:
    - headers: {x-exact: {exact: tester}}
    - headers: {x-prefix: {prefix: te}}
    - headers: {x-regex: {regex: 't.*r'}}
    route: [{destination: {host: reviews, subset: v2}}]
  - route: [{destination: {host: reviews, subset: v1}}]
",
    ))?;
    let with = |name: &str, value: &str| -> Result<String> {
        let call = shop.storefront.call(REVIEWS)?.header(name, value);
        Ok(shop.storefront.send(&call)?.seen()?["version"].to_string())
    };
    shop.until_answered_by(REVIEWS, "v1")?;
    let cases = [
        ("x-exact", "tester", "v2"),
        ("x-exact", "testers", "v1"),
        ("x-prefix", "tester", "v2"),
        ("x-prefix", "xte", "v1"),
        ("x-regex", "toner", "v2"),
        ("x-regex", "toners", "v1"),
    ];
    for (name, value, version) in cases {
        let got = with(name, value)?;
        ensure!(
            got == format!("\"{version}\""),
            "{name}: {value} went to {got}"
        );
    }
    drop(rules);
    shop.until_as_before()
}

fn paths() -> Result<()> {
    let shop = Shop::enter()?;
    let rules = shop.apply(&rules(
        "  - match: [{uri: {exact: /one}, method: {exact: GET}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{uri: {prefix: /two/}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{uri: {regex: '/three/[0-9]+'}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{uri: {prefix: /}}]
    route: [{destination: {host: reviews, subset: v1}}]
",
    ))?;
    shop.until_answered_by("http://reviews:9080/one", "v2")?;
    let cases = [
        ("/one", "v2"),
        ("/one?x=1", "v2"),
        ("/one/more", "v1"),
        ("/two/x", "v2"),
        ("/two", "v1"),
        ("/three/33", "v2"),
        ("/three/33x", "v1"),
        ("/", "v1"),
    ];
    for (path, version) in cases {
        let got = shop.version_of(&format!("http://reviews:9080{path}"))?;
        ensure!(got == version, "{path} went to {got}");
    }
    let posted = shop
        .storefront
        .call("http://reviews:9080/one")?
        .method(http::Method::POST);
    ensure!(shop.storefront.send(&posted)?.seen()?["version"] == "v1");
    drop(rules);
    shop.until_as_before()
}

fn retries() -> Result<()> {
    let shop = Shop::enter()?;
    // Each request names itself, for the workload to count its attempts.
    let ask = |id: &str, fail: &str| {
        let call = shop.storefront.call("http://reviews:9080/")?;
        shop.storefront.send(
            &call
                .header("x-request-id", id)
                .header("echo-fail-first", fail),
        )
    };
    let rule = |retries: &str| {
        rules(&format!(
            "  - route: [{{destination: {{host: reviews, subset: v1}}}}]\n    retries: {retries}\n"
        ))
    };
    let thrice = shop.apply(&rule("{attempts: 3, perTryTimeout: 2s, retryOn: 5xx}"))?;
    let mut n = 0;
    eventually("the rule is in force", || {
        n += 1;
        let seen = ask(&format!("try-{n}"), "3")?.seen()?;
        ensure!(seen["attempt"] == 4, "{seen}");
        Ok(())
    })?;
    let gave_up = ask("gives-up", "4")?;
    ensure!(gave_up.status == 503, "{gave_up:?}");
    let never = shop.apply(&rule("{attempts: 0}"))?;
    eventually("nothing is tried again", || {
        n += 1;
        let reply = ask(&format!("once-{n}"), "1")?;
        ensure!(reply.status == 503, "{reply:?}");
        Ok(())
    })?;
    drop((thrice, never));
    shop.until_as_before()
}

fn timeout() -> Result<()> {
    let shop = Shop::enter()?;
    let rules = shop.apply(&rules(
        "  - route: [{destination: {host: reviews, subset: v1}}]\n    timeout: 0.3s\n",
    ))?;
    let slow = |ms: &str| {
        let call = shop.storefront.call(REVIEWS)?.header("echo-delay-ms", ms);
        shop.storefront.send(&call)
    };
    eventually("the rule is in force", || {
        let before = clock::mono();
        let reply = slow("2000")?;
        let took = clock::mono() - before;
        ensure!(reply.status == 504, "{reply:?}");
        ensure!(took < Duration::from_millis(1500), "it took {took:?}");
        Ok(())
    })?;
    ensure!(slow("1")?.status == 200);
    drop(rules);
    shop.until_as_before()
}

fn unknown() -> Result<()> {
    let shop = Shop::enter()?;
    let web = format!("http://{}/", shop.stranger.at(8080));
    let tcp = shop.stranger.at(7000);
    ensure!(shop.storefront.get(&web)?.seen()?["name"] == "stranger");
    ensure!(shop.storefront.tcp(tcp)?.name == "stranger");
    let only = shop.apply(
        "
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: shop}
spec:
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
  egress: [{hosts: ['*/*']}]
",
    )?;
    eventually("the unknown is refused", || {
        let reply = shop.storefront.get(&web);
        ensure!(
            reply.as_ref().map_or(true, |r| r.status == 502),
            "{reply:?}"
        );
        Ok(())
    })?;
    ensure!(shop.storefront.tcp(tcp).is_err());
    let host = shop.storefront.call("http://ratings/")?;
    let host = crate::harness::client::Call {
        authority: "nobody.example".to_owned(),
        ..host
    };
    ensure!(shop.storefront.send(&host)?.status == 502);
    // The registry itself is still reached.
    ensure!(shop.storefront.get("http://ratings/")?.status == 200);
    drop(only);
    eventually("the unknown is passed through again", || {
        ensure!(shop.storefront.get(&web)?.status == 200);
        Ok(())
    })
}

fn sidecar_egress() -> Result<()> {
    let shop = Shop::enter()?;
    let only = shop.apply(
        "
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: storefront, namespace: shop}
spec:
  workloadSelector: {labels: {app: storefront}}
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
  egress: [{hosts: ['./ratings.shop.svc.cluster.local']}]
",
    )?;
    eventually("reviews are out of reach", || {
        let reply = shop.storefront.get(REVIEWS);
        ensure!(
            reply.as_ref().map_or(true, |r| r.status == 502),
            "{reply:?}"
        );
        Ok(())
    })?;
    ensure!(shop.storefront.get("http://ratings/")?.status == 200);
    // The selector names one workload; the others reach what they reached.
    ensure!(shop.neighbour.get("http://reviews.shop:9080/")?.status == 200);
    drop(only);
    shop.until_as_before()
}

fn not_exported() -> Result<()> {
    let shop = Shop::enter()?;
    let secret = ServiceSpec::new("shop", "secret").annotation("networking.istio.io/exportTo", ".");
    shop.mesh.add_service(secret.port("http", 80, 8080))?;
    let spec = PodSpec::new("secret")
        .in_namespace("shop")
        .label("app", "secret");
    let pod = Pod::start(&shop.mesh, spec.serves(8080, App::Http))?;
    eventually("its own namespace reaches it", || {
        ensure!(shop.storefront.get("http://secret/")?.status == 200);
        Ok(())
    })?;
    // To the neighbour its address is as unknown as any: it leads nowhere.
    let reply = shop.neighbour.get("http://secret.shop/");
    ensure!(
        reply.as_ref().map_or(true, |r| r.status == 503),
        "{reply:?}"
    );
    shop.mesh.remove_pod(&pod.spec)
}

fn sticky() -> Result<()> {
    let shop = Shop::enter()?;
    let rule = shop.apply(
        "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-reader}}}
",
    )?;
    let reader = |name: &str| -> Result<String> {
        let call = shop.storefront.call(REVIEWS)?.header("x-reader", name);
        Ok(shop.storefront.send(&call)?.seen()?["version"].to_string())
    };
    eventually("each reader has one version, and both have readers", || {
        let mut all = std::collections::BTreeSet::new();
        for name in ["ann", "ben", "cleo", "dan", "eve", "fay", "gus", "hal"] {
            let first = reader(name)?;
            for _request in 0..8 {
                ensure!(reader(name)? == first, "{name} moved");
            }
            all.insert(first);
        }
        ensure!(all.len() == 2, "all went to {all:?}");
        Ok(())
    })?;
    drop(rule);
    shop.until_as_before()
}

fn endpoints() -> Result<()> {
    let shop = Shop::enter()?;
    let spec = PodSpec::new("reviews-v3")
        .in_namespace("shop")
        .service_account("reviews");
    let spec = spec
        .label("app", "reviews")
        .label("version", "v3")
        .serves(9080, App::Http);
    let v3 = Pod::start(&shop.mesh, spec)?;
    shop.until_first_answer_from(REVIEWS, "v3")?;
    shop.mesh.remove_pod(&v3.spec)?;
    eventually("v3 is out of rotation", || {
        let counts = shop.versions(REVIEWS, 30)?;
        ensure!(!counts.contains_key("v3"), "{counts:?}");
        Ok(())
    })?;
    drop(v3);
    let counts = shop.versions(REVIEWS, 30)?;
    ensure!(counts.len() == 2, "{counts:?}");
    Ok(())
}

fn waits() -> Result<()> {
    let shop = Shop::enter()?;
    let to = |subset: &str| {
        format!(
            "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews, namespace: shop}}
spec:
  hosts: [reviews]
  http: [{{route: [{{destination: {{host: reviews, subset: {subset}}}}}]}}]
"
        )
    };
    let subsets = shop.mesh.apply("scenario-subsets", SUBSETS)?;
    let route = shop.apply(&to("v1"))?;
    eventually("v1 alone answers", || {
        let counts = shop.versions(REVIEWS, 16)?;
        ensure!(counts.keys().eq(["v1"]), "{counts:?}");
        Ok(())
    })?;
    let early = shop.apply(&to("new"))?;
    // Something that is told later is in force, so the route has been seen, and waits.
    let marker = shop.mesh.apply("scenario-marker", MARKER)?;
    until_marker(&shop, 504)?;
    let counts = shop.versions(REVIEWS, 30)?;
    ensure!(
        counts.keys().eq(["v1"]),
        "the route did not wait: {counts:?}"
    );
    let arrived = SUBSETS.replace("name: v2", "name: new");
    let late = shop.mesh.apply("scenario-subsets", &arrived)?;
    shop.until_answered_by(REVIEWS, "v2")?;
    drop((early, route, marker, late, subsets));
    shop.until_as_before()
}

/// A rule of ratings by which one path has no time, to see that configuration has arrived.
const MARKER: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings, namespace: shop}
spec:
  hosts: [ratings]
  http:
  - match: [{uri: {exact: /marker}}]
    route: [{destination: {host: ratings}}]
    timeout: 0.05s
  - route: [{destination: {host: ratings}}]
";

/// Waits until `MARKER`, written last, is in force (504), or no longer (200).
fn until_marker(shop: &Shop, status: u16) -> Result<()> {
    let marked = shop
        .storefront
        .call("http://ratings/marker")?
        .header("echo-delay-ms", "300");
    eventually("a later change has arrived", || {
        let reply = shop.storefront.send(&marked)?;
        ensure!(reply.status == status, "{reply:?}");
        Ok(())
    })
}

fn broken() -> Result<()> {
    let shop = Shop::enter()?;
    let good = rules("  - route: [{destination: {host: reviews, subset: v2}}]\n");
    let mut replaced = vec![shop.apply(&good)?];
    eventually("v2 alone answers", || {
        let counts = shop.versions(REVIEWS, 16)?;
        ensure!(counts.keys().eq(["v2"]), "{counts:?}");
        Ok(())
    })?;
    for fault in [
        good.replace("subset: v2}}]", "subset: v1}, weight: -1}]"),
        good.replace("  - route: [{destination", "  - rout: [{destination"),
        good.replace("  - route:", "  - match: [{uri: {regex: '['}}]\n    route:"),
    ] {
        ensure!(fault != good);
        let bad = shop.apply(&fault)?;
        let marker = shop.mesh.apply("scenario-marker", MARKER)?;
        until_marker(&shop, 504)?;
        let counts = shop.versions(REVIEWS, 20)?;
        ensure!(counts.keys().eq(["v2"]), "{counts:?} with {fault}");
        replaced.push(bad);
        drop(marker);
        until_marker(&shop, 200)?;
    }
    drop(replaced);
    shop.until_as_before()
}

fn plain_tcp() -> Result<()> {
    let shop = Shop::enter()?;
    let ledger = shop.storefront.address("ratings:7000")?;
    let greeting = shop.storefront.tcp(ledger)?;
    ensure!(greeting.name == "ratings", "{greeting:?}");
    Ok(())
}

fn tcp_rule() -> Result<()> {
    let shop = Shop::enter()?;
    let ip = shop.stranger.ip();
    let rule = shop.apply(&format!(
        "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: archive, namespace: shop}}
spec:
  hosts: [archive.example.com]
  ports: [{{number: 7000, name: tcp, protocol: TCP}}]
  addresses: [240.0.0.5]
  resolution: STATIC
  endpoints: [{{address: {ip}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: ratings, namespace: shop}}
spec:
  hosts: [ratings]
  tcp:
  - match: [{{port: 7000, sourceLabels: {{app: storefront}}}}]
    route: [{{destination: {{host: archive.example.com}}}}]
"
    ))?;
    let ledger = shop.storefront.address("ratings:7000")?;
    eventually("the rule is in force", || {
        let greeting = shop.storefront.tcp(ledger)?;
        ensure!(greeting.name == "stranger", "{greeting:?}");
        Ok(())
    })?;
    // It is for others.
    let greeting = shop.neighbour.tcp(ledger)?;
    ensure!(greeting.name == "ratings", "{greeting:?}");
    // HTTP of the same Service is as it was.
    ensure!(shop.storefront.get("http://ratings/")?.seen()?["name"] == "ratings");
    drop(rule);
    eventually("bytes reach the Service again", || {
        let greeting = shop.storefront.tcp(ledger)?;
        ensure!(greeting.name == "ratings", "{greeting:?}");
        Ok(())
    })
}

fn outage() -> Result<()> {
    let shop = Shop::enter()?;
    let load = shop
        .storefront
        .load(REVIEWS, &[crate::harness::load::Connections::Fresh])?;
    shop.mesh.control_plane()?.kill();
    let before = load.answered();
    eventually("traffic goes on", || {
        ensure!(
            load.answered() > before + 200,
            "{} requests",
            load.answered() - before
        );
        Ok(())
    })?;
    shop.mesh.control_plane()?.restart()?;
    let rules = shop.apply(&rules(
        "  - route: [{destination: {host: reviews, subset: v2}}]\n",
    ))?;
    eventually("a change arrives after the restart", || {
        let counts = shop.versions(REVIEWS, 16)?;
        ensure!(counts.keys().eq(["v2"]), "{counts:?}");
        Ok(())
    })?;
    load.stop().is_flawless(200)?;
    drop(rules);
    shop.until_as_before()
}
