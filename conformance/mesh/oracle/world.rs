//! Random Gateways, VirtualServices and requests, of so few words that they often meet.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::land::Asked;

/// What is applied, and what is asked of it.
#[derive(Clone, Debug)]
pub struct World {
    pub objects: Vec<Value>,
    pub requests: Vec<Asked>,
}

const HOSTS: &[&str] = &[
    "a.oracle.tale",
    "b.oracle.tale",
    "*.oracle.tale",
    "*.b.oracle.tale",
    "books.shop.svc.cluster.local",
];
const ASKED_HOSTS: &[&str] = &[
    "a.oracle.tale",
    "A.Oracle.Tale",
    "a.oracle.tale:80",
    "b.oracle.tale",
    "c.oracle.tale",
    "x.b.oracle.tale",
    "books.shop",
    "books.shop.svc.cluster.local",
    "nobody.tale",
];
const PATHS: &[&str] = &["/", "/a", "/a/", "/a/b", "/ab", "/A", "/c"];
const WORDS: &[&str] = &["1", "2", "12"];
const REGEXES: &[&str] = &["1+", "[12]", ".*2", ""];
const METHODS: &[&str] = &["GET", "PUT", "POST"];
const REWRITES: &[&str] = &["/", "/new", "/new/"];

pub fn worlds() -> impl Strategy<Value = World> {
    let virtuals = prop::collection::vec(virtual_service(), 1..5);
    let requests = prop::collection::vec(request(), 24);
    (virtuals, prop::bool::ANY, requests).prop_map(|(virtuals, redirects, requests)| {
        let named = virtuals.into_iter().enumerate().map(|(i, spec)| {
            json!({
                "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
                "metadata": {"name": format!("v{i}-{{n}}"), "namespace": "shop"}, "spec": spec,
            })
        });
        World {
            objects: std::iter::once(gateway(redirects)).chain(named).collect(),
            requests,
        }
    })
}

fn gateway(redirects: bool) -> Value {
    let mut servers = vec![json!({
        "port": {"number": 80, "name": "http", "protocol": "HTTP"},
        "hosts": ["a.oracle.tale", "*.b.oracle.tale", "books.shop.svc.cluster.local"],
    })];
    if redirects {
        servers.push(json!({
            "port": {"number": 80, "name": "http-led", "protocol": "HTTP"},
            "hosts": ["b.oracle.tale"], "tls": {"httpsRedirect": true},
        }));
    }
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "Gateway",
        "metadata": {"name": "oracle", "namespace": "edge"},
        "spec": {"selector": {"app": "edge"}, "servers": servers},
    })
}

fn one_of(words: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(words)
}

fn virtual_service() -> impl Strategy<Value = Value> {
    let hosts = prop::sample::subsequence(HOSTS, 1..3);
    let places = prop::sample::select(vec![
        json!(["mesh"]),
        json!(["edge/oracle"]),
        json!(["mesh", "edge/oracle"]),
    ]);
    let rules = prop::collection::vec(rule(), 1..4);
    (hosts, places, rules).prop_map(
        |(hosts, gateways, http)| json!({"hosts": hosts, "gateways": gateways, "http": http}),
    )
}

fn rule() -> impl Strategy<Value = Value> {
    let matches = prop::collection::vec(condition(), 0..3);
    (matches, action()).prop_map(|(matches, action)| {
        let mut rule = action;
        if !matches.is_empty() {
            rule.insert("match".to_owned(), matches.into());
        }
        rule.into()
    })
}

fn action() -> impl Strategy<Value = Map<String, Value>> {
    let object = |value: Value| value.as_object().cloned().unwrap_or_default();
    let respond = prop::sample::select(vec![204, 418, 451]);
    let redirect = prop::sample::select(vec![301, 302, 303, 307, 308]);
    let weights = prop::collection::vec((destination(), 0..3u32), 1..3);
    let rewrite = prop::option::of(one_of(REWRITES));
    let forward = (weights, rewrite, prop::bool::ANY);
    prop_oneof![
        1 => respond.prop_map(move |status| object(json!({"directResponse": {"status": status}}))),
        1 => redirect.prop_map(move |code| {
            object(json!({"redirect": {"authority": "led.tale", "redirectCode": code}}))
        }),
        4 => forward.prop_map(move |(targets, uri, host)| {
            let mut route: Vec<Value> = Vec::new();
            for (destination, weight) in targets {
                route.push(json!({"destination": destination, "weight": weight}));
            }
            if route.len() > 1 && route.iter().all(|r| r["weight"] == 0) {
                route[0]["weight"] = 1.into();
            }
            let mut rule = object(json!({"route": route}));
            let mut rewrite = Map::new();
            if let Some(uri) = uri {
                rewrite.insert("uri".to_owned(), uri.into());
            }
            if host {
                rewrite.insert("authority".to_owned(), "inside.tale".into());
            }
            if !rewrite.is_empty() {
                rule.insert("rewrite".to_owned(), rewrite.into());
            }
            rule
        }),
    ]
}

fn destination() -> impl Strategy<Value = Value> {
    let books = "books.shop.svc.cluster.local";
    prop::sample::select(vec![
        json!({"host": books, "subset": "v1"}),
        json!({"host": books, "subset": "v2"}),
        json!({"host": "ratings.shop.svc.cluster.local", "port": {"number": 80}}),
        json!({"host": "nobody.tale"}),
    ])
}

fn text() -> impl Strategy<Value = Value> {
    prop_oneof![
        one_of(WORDS).prop_map(|word| json!({"exact": word})),
        one_of(WORDS).prop_map(|word| json!({"prefix": word})),
        one_of(REGEXES).prop_map(|regex| match regex {
            "" => json!({}),
            regex => json!({"regex": regex}),
        }),
    ]
}

fn condition() -> impl Strategy<Value = Value> {
    let uri = prop_oneof![
        one_of(PATHS).prop_map(|path| json!({"exact": path})),
        one_of(PATHS).prop_map(|path| json!({"prefix": path})),
        Just(json!({"regex": "/a.*"})),
    ];
    let method = one_of(METHODS).prop_map(|method| json!({"exact": method}));
    let parts = (
        prop::option::of(uri),
        prop::bool::ANY,
        prop::option::weighted(0.3, text()),
        prop::option::weighted(0.3, text()),
        prop::option::weighted(0.3, text()),
        prop::option::weighted(0.2, method),
    );
    parts.prop_map(|(uri, fold, header, without, query, method)| {
        let mut m = Map::new();
        let ignores = fold && uri.as_ref().is_some_and(|uri| uri.get("regex").is_none());
        let parts = [
            ("uri", uri),
            ("method", method),
            ("headers", header.map(|text| json!({"x-h": text}))),
            ("withoutHeaders", without.map(|text| json!({"x-g": text}))),
            ("queryParams", query.map(|text| json!({"q": text}))),
            ("ignoreUriCase", ignores.then(|| true.into())),
        ];
        for (name, value) in parts {
            if let Some(value) = value {
                m.insert(name.to_owned(), value);
            }
        }
        if m.is_empty() {
            m.insert("uri".to_owned(), json!({"prefix": "/"}));
        }
        m.into()
    })
}

fn request() -> impl Strategy<Value = Asked> {
    let query = prop::option::of(one_of(&["q=1", "q=2", "q", "p=1&q=12", "p=1"]));
    let header = || prop::option::of(one_of(WORDS));
    let parts = (one_of(ASKED_HOSTS), one_of(METHODS), one_of(PATHS), query);
    (parts, header(), header()).prop_map(|((host, method, path, query), h, g)| {
        let headers = [("x-h", h), ("x-g", g)];
        let there = headers
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        Asked {
            host: host.to_owned(),
            method: method.to_owned(),
            path: match query {
                Some(query) => format!("{path}?{query}"),
                None => path.to_owned(),
            },
            headers: there.map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
        }
    })
}
