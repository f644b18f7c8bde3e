//! What a VirtualService's rules do with requests besides choosing their way, as a client sees it.

use std::time::Duration;

use anyhow::{Result, ensure};
use fairlead::clock;
use http::Method;
use serde_json::Value;

use crate::harness::client::{Protocol, Reply};
use crate::harness::suite::Scenario;
use crate::harness::wait::eventually;
use crate::shop::{Shop, rules};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("a_redirect_leads_where_it_says", redirect),
    ("a_direct_response_comes_from_the_sidecar", direct_response),
    ("a_rewrite_changes_path_and_host", rewrite),
    ("headers_change_on_the_way_there_and_back", headers),
    ("an_abort_answers_its_share_of_requests", abort),
    ("a_delay_holds_a_request_up", delay),
    ("a_mirror_gets_copies_and_nobody_waits_for_it", mirror),
    ("a_preflight_is_answered_by_the_sidecar", cors),
    ("a_delegate_routes_within_its_root", delegate),
];

const REVIEWS: &str = "http://reviews:9080";

/// Applies rules, waits until `check` holds, and takes them away again.
fn with(http: &str, what: &str, check: impl Fn(&Shop) -> Result<()>) -> Result<()> {
    let shop = Shop::enter()?;
    let rules = shop.apply(&rules(http))?;
    eventually(what, || check(&shop))?;
    drop(rules);
    shop.until_as_before()
}

fn get(shop: &Shop, path: &str) -> Result<Reply> {
    shop.storefront.get(&format!("{REVIEWS}{path}"))
}

fn location(reply: &Reply) -> (u16, &str) {
    (reply.status, reply.header("location"))
}

fn redirect() -> Result<()> {
    let http = "
  - match: [{uri: {exact: /old}}]
    redirect: {uri: /new, authority: new.example.com, redirectCode: 302}
  - match: [{uri: {prefix: /secure}}]
    redirect: {scheme: https, port: 8443}
  - match: [{uri: {prefix: /port}}]
    redirect: {port: 8081, redirectCode: 308}
  - match: [{uri: {prefix: /derived}}]
    redirect: {derivePort: FROM_REQUEST_PORT, authority: other, redirectCode: 307}
  - match: [{uri: {prefix: /prefix}}]
    redirect: {prefixRewrite: /other, redirectCode: 303}
  - route: [{destination: {host: reviews}}]
";
    with(http, "requests are led elsewhere", |shop| {
        for (path, wanted) in [
            ("/old", (302, "http://new.example.com/new")),
            ("/secure/a?b", (301, "https://reviews:8443/secure/a?b")),
            ("/port", (308, "http://reviews:8081/port")),
            ("/derived", (307, "http://other:9080/derived")),
            ("/prefix/a", (303, "http://reviews:9080/other/a")),
        ] {
            let reply = get(shop, path)?;
            ensure!(location(&reply) == wanted, "{path}: {:?}", location(&reply));
        }
        ensure!(get(shop, "/elsewhere")?.status == 200);
        Ok(())
    })
}

fn direct_response() -> Result<()> {
    let http = "
  - match: [{uri: {prefix: /teapot}}]
    directResponse: {status: 418, body: {string: short and stout}}
  - match: [{uri: {prefix: /bytes}}]
    directResponse: {status: 200, body: {bytes: aGVsbG8=}}
    headers: {response: {set: {content-type: text/x-greeting}}}
  - match: [{uri: {prefix: /closed}}]
    directResponse: {status: 503}
  - route: [{destination: {host: reviews}}]
";
    with(http, "the sidecar answers by itself", |shop| {
        let teapot = get(shop, "/teapot")?;
        let said = (teapot.status, teapot.text());
        ensure!(said == (418, "short and stout".to_owned()), "{said:?}");
        let bytes = get(shop, "/bytes")?;
        ensure!(bytes.text() == "hello", "{bytes:?}");
        ensure!(
            bytes.header("content-type") == "text/x-greeting",
            "{bytes:?}"
        );
        ensure!(get(shop, "/closed")?.status == 503);
        ensure!(get(shop, "/open")?.status == 200);
        Ok(())
    })
}

fn rewrite() -> Result<()> {
    let http = r"
  - match: [{uri: {prefix: /v1/}}]
    rewrite: {uri: /, authority: v1.example.com}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {exact: /exactly}}]
    rewrite: {uri: /whole}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {regex: '/items/[0-9]+'}}]
    rewrite: {uriRegexRewrite: {match: '^/items/([0-9]+)$', rewrite: '/item?id=\1'}}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /host}}]
    headers: {request: {set: {Host: set.example.com}}}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /shared}}]
    route:
    - destination: {host: reviews, subset: v1}
      weight: 50
      headers: {request: {set: {':authority': one.example.com}}}
    - destination: {host: reviews, subset: v2}
      weight: 50
      headers: {request: {set: {':authority': two.example.com}}}
  - route: [{destination: {host: reviews}}]
";
    with(http, "the server sees what was rewritten", |shop| {
        for (path, wanted) in [
            ("/v1/cart?a=b", ("/cart?a=b", "v1.example.com")),
            ("/exactly", ("/whole", "reviews:9080")),
            ("/items/42", ("/item?id=42", "reviews:9080")),
            ("/host", ("/host", "set.example.com")),
        ] {
            let seen = get(shop, path)?.seen()?;
            let got = (&seen["path"], &seen["authority"]);
            ensure!(
                got == (&Value::from(wanted.0), &Value::from(wanted.1)),
                "{path}: {seen}"
            );
        }
        for _request in 0..8 {
            let seen = get(shop, "/shared")?.seen()?;
            let host = match seen["version"].as_str() {
                Some("v1") => "one.example.com",
                _ => "two.example.com",
            };
            ensure!(seen["authority"] == host, "{seen}");
        }
        Ok(())
    })
}

fn headers() -> Result<()> {
    let http = "
  - match: [{uri: {prefix: /one}}]
    headers:
      request: {set: {x-rule: a, x-both: rule}, add: {x-more: '2', x-client: '%PROTOCOL%'}, remove: [x-secret]}
      response: {set: {x-back: b}, remove: [x-envoy-upstream-service-time]}
    route:
    - destination: {host: reviews}
      headers: {request: {set: {x-both: destination}}, response: {add: {x-served: 100%%}}}
  - route:
    - destination: {host: reviews, subset: v1}
      weight: 50
      headers: {request: {set: {x-share: one}}}
    - destination: {host: reviews, subset: v2}
      weight: 50
      headers: {request: {set: {x-share: two}}}
";
    with(http, "headers are changed", |shop| {
        let call = shop.storefront.call(&format!("{REVIEWS}/one"))?;
        let call = call.header("x-secret", "s").header("x-more", "1");
        let reply = shop.storefront.send(&call)?;
        let seen = reply.seen()?;
        let there = &seen["headers"];
        for (name, wanted) in [
            ("x-rule", "a"),
            ("x-both", "destination"),
            ("x-more", "1,2"),
            ("x-client", "HTTP/1.1"),
        ] {
            let got = there[name].as_str().unwrap_or_default().replace(", ", ",");
            ensure!(got == wanted, "{name}: {there}");
        }
        ensure!(there.get("x-secret").is_none(), "{there}");
        ensure!(
            reply.header("x-back") == "b" && reply.header("x-served") == "100%",
            "{reply:?}"
        );
        ensure!(
            reply.header("x-envoy-upstream-service-time").is_empty(),
            "{reply:?}"
        );
        let shared = get(shop, "/")?.seen()?;
        let share = if shared["version"] == "v1" {
            "one"
        } else {
            "two"
        };
        ensure!(shared["headers"]["x-share"] == share, "{shared}");
        Ok(())
    })
}

fn abort() -> Result<()> {
    let http = "
  - match: [{uri: {prefix: /always}}]
    fault: {abort: {percentage: {value: 100}, httpStatus: 451}}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /half}}]
    fault: {abort: {percentage: {value: 50}, httpStatus: 500}}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /never}}]
    fault: {abort: {httpStatus: 500}}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /grpc}}]
    fault: {abort: {percentage: {value: 100}, grpcStatus: RESOURCE_EXHAUSTED}}
    route: [{destination: {host: reviews}}]
  - route: [{destination: {host: reviews}}]
";
    with(http, "requests are aborted", |shop| {
        ensure!(get(shop, "/always")?.status == 451);
        let mut aborted = 0;
        for _request in 0..60 {
            aborted += u32::from(get(shop, "/half")?.status == 500);
            ensure!(get(shop, "/never")?.status == 200);
        }
        ensure!((10..=50).contains(&aborted), "{aborted} of 60");
        let call = shop.storefront.call(&format!("{REVIEWS}/grpc"))?;
        let reply = shop.storefront.send(&call.over(Protocol::Grpc))?;
        ensure!(reply.header("grpc-status") == "8", "{reply:?}");
        Ok(())
    })
}

fn delay() -> Result<()> {
    let http = "
  - match: [{uri: {prefix: /slow}}]
    fault: {delay: {percentage: {value: 100}, fixedDelay: 0.4s}}
    route: [{destination: {host: reviews}}]
  - route: [{destination: {host: reviews}}]
";
    with(http, "requests are held up", |shop| {
        let before = clock::mono();
        ensure!(get(shop, "/slow")?.status == 200);
        let took = clock::mono() - before;
        ensure!(took >= Duration::from_millis(400), "it took {took:?}");
        Ok(())
    })
}

fn mirror() -> Result<()> {
    let http = "
  - match: [{uri: {prefix: /copied}}]
    mirrors: [{destination: {host: ratings, port: {number: 80}}}]
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /never}}]
    mirrors: [{destination: {host: ratings, port: {number: 80}}, percentage: {value: 0}}]
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /in-force}}]
    directResponse: {status: 204}
  - route: [{destination: {host: reviews}}]
";
    let copies = |shop: &Shop| {
        let name = "cluster.outbound|80||ratings.shop.svc.cluster.local;.upstream_rq_total";
        let other = "cluster.outbound|80||ratings.shop.svc.cluster.local.upstream_rq_total";
        let stat = shop.storefront.stat(name);
        stat.or_else(|_| shop.storefront.stat(other))
    };
    with(http, "copies arrive", |shop| {
        ensure!(get(shop, "/in-force")?.status == 204, "not yet");
        // On demand, Envoy has the mirror's cluster once a request has needed it.
        ensure!(shop.storefront.get("http://ratings/")?.status == 200);
        let before = copies(shop)?;
        for _request in 0..10 {
            ensure!(get(shop, "/copied")?.status == 200);
        }
        eventually("ten copies", || {
            let now = copies(shop)?;
            ensure!(now == before + 10, "{before} {now}");
            Ok(())
        })?;
        for _request in 0..10 {
            ensure!(get(shop, "/never")?.status == 200);
        }
        let now = copies(shop)?;
        ensure!(now == before + 10, "{before} {now}");
        Ok(())
    })
}

fn cors() -> Result<()> {
    let http = r"
  - corsPolicy:
      allowOrigins: [{exact: 'http://exact.example'}, {prefix: 'http://pre.'}, {regex: 'http://[a-z]+\.re'}]
      allowMethods: [GET, PUT]
      allowHeaders: [x-asked]
      exposeHeaders: [x-shown]
      maxAge: 10m
      allowCredentials: true
    route: [{destination: {host: reviews}}]
";
    with(http, "preflights are answered", |shop| {
        let ask = |origin: &str| {
            let call = shop.storefront.call(REVIEWS)?.method(Method::OPTIONS);
            let call = call.header("origin", origin);
            shop.storefront
                .send(&call.header("access-control-request-method", "PUT"))
        };
        for origin in [
            "http://exact.example",
            "http://pre.example",
            "http://abc.re",
        ] {
            let reply = ask(origin)?;
            for (name, wanted) in [
                ("access-control-allow-origin", origin),
                ("access-control-allow-methods", "GET,PUT"),
                ("access-control-allow-headers", "x-asked"),
                ("access-control-max-age", "600"),
                ("access-control-allow-credentials", "true"),
            ] {
                ensure!(reply.header(name) == wanted, "{origin} {name}: {reply:?}");
            }
            ensure!(reply.body.is_empty(), "{reply:?}");
        }
        // Others go on to the server, as Istio has it where nothing else is said.
        let other = ask("http://other.example")?;
        ensure!(
            other.header("access-control-allow-origin").is_empty(),
            "{other:?}"
        );
        ensure!(other.seen()?["method"] == "OPTIONS", "{other:?}");
        let call = shop.storefront.call(REVIEWS)?;
        let call = call.header("origin", "http://exact.example");
        let reply = shop.storefront.send(&call)?;
        ensure!(
            reply.header("access-control-expose-headers") == "x-shown",
            "{reply:?}"
        );
        Ok(())
    })
}

fn delegate() -> Result<()> {
    let shop = Shop::enter()?;
    let root = "
  - match: [{uri: {prefix: /cart}}]
    headers: {response: {set: {x-root: 'yes'}}}
    delegate: {name: cart, namespace: office}
  - match: [{uri: {prefix: /missing}}]
    delegate: {name: nobody}
  - route: [{destination: {host: reviews, subset: v1}}]
";
    let delegate = |path: &str| {
        format!(
            "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: cart, namespace: office}}
spec:
  http:
  - match: [{{uri: {{prefix: {path}}}}}]
    route: [{{destination: {{host: reviews.shop.svc.cluster.local, subset: v2}}}}]
"
        )
    };
    let rules = shop.apply(&rules(root))?;
    let first = shop.mesh.apply("delegate", &delegate("/cart/items"))?;
    let answered = |path: &str, version: &str, of_root: &str| {
        eventually(&format!("{path} is answered by {version}"), || {
            for _request in 0..8 {
                let reply = get(&shop, path)?;
                let said = (&reply.seen()?["version"], reply.header("x-root"));
                ensure!(said == (&Value::from(version), of_root), "{said:?}");
            }
            Ok(())
        })
    };
    answered("/cart/items/1", "v2", "yes")?;
    answered("/cart/other", "v1", "")?;
    answered("/missing", "v1", "")?;
    drop(first);
    answered("/cart/items/1", "v1", "")?;
    let second = shop.mesh.apply("delegate", &delegate("/cart/other"))?;
    answered("/cart/other", "v2", "yes")?;
    drop((second, rules));
    shop.until_as_before()
}
