//! Virtual hosts of every shape the renderer can be given.

use std::collections::BTreeMap;
use std::time::Duration;

use fairlead::config::destination_rule::HttpCookie;
use fairlead::config::http_action::{
    Abort, CorsPolicy, Delay, HeaderChanges, HeaderOperations, HttpFaultInjection, HttpRedirect,
    Percent, RegexRewrite,
};
use fairlead::config::value::{Span, StringMatch};
use fairlead::config::virtual_service::{HeaderMatch, HttpMatchRequest, HttpRetry};
use fairlead::ir::{
    Action, Also, Forward, HashPolicy, HttpTarget, Mirror, Redirect, Response, Rewrite, Route,
    VirtualHost,
};
use fairlead::text::Str;

use super::Case;

pub fn virtual_hosts() -> Vec<Case<VirtualHost>> {
    let cases: Vec<(&'static str, Vec<Route>)> = vec![
        ("no route", vec![]),
        ("to one cluster", vec![route(forward())]),
        ("blocked", vec![respond(502, "")]),
        ("by path", matches().into_iter().map(matching).collect()),
        ("by header", headers().into_iter().map(matching).collect()),
        ("weighted", vec![weighted()]),
        ("with a timeout", vec![timed()]),
        ("retried", retries().into_iter().map(retried).collect()),
        ("hashed", vec![hashed()]),
        ("of a VirtualService", vec![owned()]),
        ("answered", vec![respond(418, "short and stout")]),
        ("redirected", redirects()),
        ("rewritten", rewritten()),
        ("and more", vec![also()]),
    ];
    let host = |(label, routes): (&'static str, Vec<Route>)| {
        let host = VirtualHost {
            redirects: false,
            name: Str::new(label),
            domains: vec![
                Str::new(label.replace(' ', "-")),
                Str::new(format!("{}.shop", label.replace(' ', "-"))),
            ],
            routes,
        };
        (label, host)
    };
    cases.into_iter().map(host).collect()
}

fn route(action: Action) -> Route {
    Route {
        name: "default".into(),
        matches: None,
        action,
        config: Str::default(),
        operation: Str::default(),
        also: None,
    }
}

fn respond(status: u16, body: &str) -> Route {
    let body = body.as_bytes().to_vec();
    route(Action::Respond(Response { status, body }))
}

fn redirects() -> Vec<Route> {
    let redirect =
        |spec: HttpRedirect, port| route(Action::Redirect(Box::new(Redirect { spec, port })));
    let https = HttpRedirect {
        scheme: "https".into(),
        redirect_code: 308,
        ..HttpRedirect::default()
    };
    let elsewhere = HttpRedirect {
        uri: "/new".into(),
        authority: "new.example.com".into(),
        ..HttpRedirect::default()
    };
    let prefix = HttpRedirect {
        prefix_rewrite: "/other".into(),
        ..HttpRedirect::default()
    };
    vec![
        redirect(https, Some(8443)),
        redirect(elsewhere, None),
        redirect(prefix, None),
    ]
}

fn rewritten() -> Vec<Route> {
    let rewrite = |rewrite: Rewrite| {
        route(Action::Forward(Forward {
            rewrite: Some(Box::new(rewrite)),
            mirrors: vec![Mirror {
                cluster: "outbound|80||archive.shop.svc.cluster.local".into(),
                share: Percent(125_000),
            }],
            ..to("outbound|80||reviews.shop.svc.cluster.local")
        }))
    };
    let regex = RegexRewrite {
        matches: "^/a/(.*)$".into(),
        rewrite: "/\\1".into(),
    };
    vec![
        rewrite(Rewrite {
            prefix: "/b".into(),
            authority: "b.example.com".into(),
            ..Rewrite::default()
        }),
        rewrite(Rewrite {
            regex: Some(regex),
            ..Rewrite::default()
        }),
    ]
}

fn also() -> Route {
    let also = Also {
        headers: vec![changes(), changes()],
        fault: Some(HttpFaultInjection {
            delay: Some(Delay {
                percentage: Some(Percent(1000)),
                fixed_delay: Some(Span(Duration::from_secs(5))),
                ..Delay::default()
            }),
            abort: Some(Abort {
                percentage: Some(Percent::ALL),
                http_status: Some(503),
                ..Abort::default()
            }),
        }),
        cors: Some(CorsPolicy {
            allow_origins: vec![exact("https://example.com")],
            max_age: Some(Span(Duration::from_secs(60))),
            ..CorsPolicy::default()
        }),
        stat_prefix: "named".into(),
    };
    Route {
        also: Some(Box::new(also)),
        ..route(forward())
    }
}

fn changes() -> HeaderChanges {
    let one = |name: &str| BTreeMap::from([(Str::new(name), "1".into())]);
    HeaderChanges {
        request: HeaderOperations {
            set: one("x-set"),
            add: one("x-add"),
            remove: vec!["x-gone".into()],
        },
        response: HeaderOperations {
            set: one("x-back"),
            ..HeaderOperations::default()
        },
    }
}

fn forward() -> Action {
    Action::Forward(to("outbound|80||reviews.shop.svc.cluster.local"))
}

fn to(cluster: &str) -> Forward {
    Forward {
        targets: vec![HttpTarget {
            weight: 100,
            ..HttpTarget::only(cluster.into())
        }],
        timeout: Span(Duration::ZERO),
        retries: None,
        hash: vec![],
        rewrite: None,
        mirrors: vec![],
    }
}

fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.into())
}

fn prefix(text: &str) -> StringMatch {
    StringMatch::Prefix(text.into())
}

fn regex(text: &str) -> StringMatch {
    StringMatch::Regex(text.into())
}

fn matching(matches: HttpMatchRequest) -> Route {
    Route {
        matches: Some(matches),
        ..route(forward())
    }
}

fn matches() -> Vec<HttpMatchRequest> {
    let by_uri = |uri| HttpMatchRequest {
        uri: Some(uri),
        ..HttpMatchRequest::default()
    };
    vec![
        HttpMatchRequest::default(),
        by_uri(exact("/reviews")),
        by_uri(prefix("/reviews/")),
        by_uri(prefix("")),
        by_uri(regex("/reviews/[0-9]+")),
        by_uri(regex("*")),
        by_uri(regex("")),
        HttpMatchRequest {
            ignore_uri_case: true,
            ..by_uri(exact("/Reviews"))
        },
        HttpMatchRequest {
            scheme: Some(exact("http")),
            method: Some(regex("GET|HEAD")),
            authority: Some(prefix("reviews")),
            ..by_uri(prefix("/"))
        },
    ]
}

fn headers() -> Vec<HttpMatchRequest> {
    let all = || -> BTreeMap<Str, HeaderMatch> {
        let value = HeaderMatch::Value;
        let pairs = [
            ("x-present", HeaderMatch::Present),
            ("x-exact", value(exact("a"))),
            ("x-prefix", value(prefix("a"))),
            ("x-regex", value(regex("a.*"))),
            ("x-star", value(regex("*"))),
            ("x-empty", value(exact(""))),
        ];
        pairs.into_iter().map(|(k, v)| (Str::new(k), v)).collect()
    };
    vec![
        HttpMatchRequest {
            headers: all(),
            ..HttpMatchRequest::default()
        },
        HttpMatchRequest {
            without_headers: all(),
            ..HttpMatchRequest::default()
        },
        HttpMatchRequest {
            query_params: all(),
            ..HttpMatchRequest::default()
        },
    ]
}

fn weighted() -> Route {
    let target = |subset: &str, weight| HttpTarget {
        cluster: Str::new(format!(
            "outbound|80|{subset}|reviews.shop.svc.cluster.local"
        )),
        weight,
        headers: Some(Box::new(changes())),
    };
    route(Action::Forward(Forward {
        targets: vec![target("v1", 90), target("v2", 10)],
        ..to("")
    }))
}

fn timed() -> Route {
    route(Action::Forward(Forward {
        timeout: Span(Duration::from_millis(1500)),
        ..to("outbound|80||reviews.shop.svc.cluster.local")
    }))
}

fn retries() -> Vec<(HttpRetry, Vec<HashPolicy>)> {
    let on = |conditions: &str| HttpRetry {
        attempts: 3,
        retry_on: conditions.into(),
        ..HttpRetry::default()
    };
    vec![
        (HttpRetry::standard(), vec![]),
        (HttpRetry::standard(), vec![HashPolicy::SourceIp]),
        (HttpRetry::default(), vec![]),
        (on(""), vec![]),
        (on("5xx, 429 ,reset"), vec![]),
        (on("503,retriable-status-codes"), vec![]),
        (
            HttpRetry {
                per_try_timeout: Some(Span(Duration::from_secs(2))),
                retry_remote_localities: Some(true),
                retry_ignore_previous_hosts: Some(false),
                backoff: Some(Span(Duration::from_millis(25))),
                ..on("gateway-error")
            },
            vec![],
        ),
        (
            HttpRetry {
                per_try_timeout: Some(Span(Duration::ZERO)),
                backoff: Some(Span(Duration::ZERO)),
                ..on("gateway-error")
            },
            vec![],
        ),
    ]
}

fn retried((retries, hash): (HttpRetry, Vec<HashPolicy>)) -> Route {
    route(Action::Forward(Forward {
        retries: Some(retries),
        hash,
        ..to("outbound|80||reviews.shop.svc.cluster.local")
    }))
}

fn hashed() -> Route {
    let cookie = |name: &str, ttl| {
        HashPolicy::Cookie(HttpCookie {
            attributes: Vec::new(),
            name: name.into(),
            path: "/".into(),
            ttl,
        })
    };
    route(Action::Forward(Forward {
        hash: vec![
            HashPolicy::Header("x-user".into()),
            cookie("session", Some(Span(Duration::ZERO))),
            cookie("given", None),
            HashPolicy::SourceIp,
            HashPolicy::QueryParameter("user".into()),
        ],
        ..to("outbound|80||reviews.shop.svc.cluster.local")
    }))
}

fn owned() -> Route {
    Route {
        name: "canary".into(),
        config: "/apis/networking.istio.io/v1/namespaces/shop/virtual-service/reviews".into(),
        operation: "reviews.shop.svc.cluster.local:80/*".into(),
        ..route(forward())
    }
}
