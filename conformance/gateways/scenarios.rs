//! Proxies at the edge, as clients outside of the mesh and behind them meet them.

use anyhow::{Result, ensure};

use crate::edge::{Edge, bound, gateway};
use crate::harness::client::{self, Call, Protocol, Reply, Target};
use crate::harness::load::Connections;
use crate::harness::network::User;
use crate::harness::pki::{Pair, Pki};
use crate::harness::suite::Scenario;
use crate::harness::wait::eventually;

pub const SCENARIOS: &[Scenario] = &[
    ("a_request_from_outside_reaches_the_mesh_with_mtls", plain),
    ("rules_hold_at_the_gateway_as_in_the_mesh", rules),
    ("a_virtual_service_is_bound_where_it_says", binding),
    ("a_gateway_shows_the_certificate_of_a_secret", simple),
    ("a_secret_that_is_written_anew_is_shown_at_once", rotated),
    ("a_missing_secret_closes_its_own_server_alone", missing),
    (
        "certificates_by_file_are_taken_in_anew_and_one_that_is_missing_hurts_nobody_else",
        by_file,
    ),
    ("a_client_proves_itself_where_it_must", mutual),
    ("plaintext_is_led_to_https", redirected),
    ("tls_goes_through_by_the_name_it_asks_for", through),
    ("bytes_go_through_with_and_without_tls", bytes),
    ("a_new_server_disturbs_no_request", hitless),
    ("a_gateway_outlives_the_control_plane", outlives),
    ("what_leaves_the_mesh_goes_by_the_egress_gateway", egress),
    ("a_gateway_proves_itself_outside_by_a_secret", originated),
    ("a_client_says_nothing_of_who_it_is", sanitized),
    ("nearer_endpoints_are_called_first", nearer),
];

const HTTP: &str = "  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*.example.com']}
";

const REVIEWS: &str = "  hosts: [shop.example.com]
  gateways: [edge/public]
  http:
  - route: [{destination: {host: reviews}}]
";

const STRICT: &str = "---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: all, namespace: shop}
spec: {mtls: {mode: STRICT}}
";

const SUBSETS: &str = "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
";

fn plain() -> Result<()> {
    let edge = Edge::enter()?;
    let _applied = edge.apply(&format!("{}{STRICT}", bound(HTTP, REVIEWS)))?;
    let reply = edge.until(&edge.call("shop.example.com", "/"), 200)?;
    ensure!(reply.header("server") == "istio-envoy", "{reply:?}");
    ensure!(
        reply.seen()?["name"]
            .as_str()
            .unwrap_or_default()
            .starts_with("reviews")
    );
    // With a port too, and over HTTP/2.
    edge.until(&edge.call("shop.example.com:80", "/"), 200)?;
    edge.until(
        &edge.call("shop.example.com", "/").over(Protocol::Http2),
        200,
    )?;
    // Another name of the server's is nobody's, nor is one of no server.
    for host in ["other.example.com", "shop.example.org"] {
        edge.until(&edge.call(host, "/"), 404)?;
    }
    Ok(())
}

fn rules() -> Result<()> {
    let edge = Edge::enter()?;
    let spec = "  hosts: [shop.example.com]
  gateways: [edge/public, mesh]
  http:
  - match: [{uri: {prefix: /v2}}]
    rewrite: {uri: /}
    headers: {response: {set: {x-by: gateway}}}
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{uri: {prefix: /inside}, gateways: [mesh]}]
    directResponse: {status: 418}
  - match: [{uri: {prefix: /teapot}, gateways: [edge/public]}]
    directResponse: {status: 418}
  - route: [{destination: {host: reviews, subset: v1}}]
";
    let _applied = edge.apply(&format!("{}{SUBSETS}", bound(HTTP, spec)))?;
    edge.until(&edge.call("shop.example.com", "/teapot"), 418)?;
    for (path, version) in [("/v2/x", "v2"), ("/inside", "v1")] {
        for _request in 0..8 {
            let reply = edge.ask("shop.example.com", path)?;
            let said = reply.seen()?;
            ensure!(said["version"] == version, "{path}: {said}");
            let by = if version == "v2" { "gateway" } else { "" };
            ensure!(reply.header("x-by") == by, "{path}: {reply:?}");
        }
    }
    Ok(())
}

fn binding() -> Result<()> {
    let edge = Edge::enter()?;
    let servers = "  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['office/*', 'shop/shop.example.com']}
";
    let hosts = "  hosts: [shop.example.com, more.example.com]
  gateways: [edge/public]
  http:
  - route: [{destination: {host: reviews}}]
";
    let of_office = "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: office, namespace: office}
spec:
  hosts: [office.example.com]
  gateways: [edge/public]
  http:
  - route: [{destination: {host: reviews.shop.svc.cluster.local}}]
";
    let applied = edge.apply(&format!("{}{of_office}", bound(servers, hosts)))?;
    edge.until(&edge.call("shop.example.com", "/"), 200)?;
    edge.until(&edge.call("office.example.com", "/"), 200)?;
    edge.until(&edge.call("more.example.com", "/"), 404)?;
    // What is exported to its own namespace alone does not reach the gateway's.
    let private = format!("{hosts}  exportTo: [.]\n");
    let again = edge.apply(&format!("{}{of_office}", bound(servers, &private)))?;
    applied.keep();
    edge.until(&edge.call("shop.example.com", "/"), 404)?;
    edge.until(&edge.call("office.example.com", "/"), 200)?;
    drop(again);
    Ok(())
}

fn https(name: &str, host: &str, tls: &str) -> String {
    format!(
        "  - {{port: {{number: 443, name: {name}, protocol: HTTPS}}, hosts: [{host}], tls: {tls}}}\n"
    )
}

/// A server that shows the certificate of the Secret `shop`.
fn by_secret() -> String {
    https(
        "shop",
        "shop.example.com",
        "{mode: SIMPLE, credentialName: shop}",
    )
}

fn simple() -> Result<()> {
    let edge = Edge::enter()?;
    let pair = edge.pki.issue(&["shop.example.com"])?;
    let _applied = edge.apply(&bound(&by_secret(), REVIEWS))?;
    let _secret = edge.secret("shop", &pair, None)?;
    let call = edge.secure(edge.pki.client("shop.example.com"), "/");
    edge.until(&call, 200)?;
    edge.until(&call.clone().over(Protocol::Http2), 200)?;
    // Who asks for another name is not let in.
    let other = edge.secure(edge.pki.client("other.example.com"), "/");
    edge.until_refused(&other)
}

fn rotated() -> Result<()> {
    let edge = Edge::enter()?;
    let _applied = edge.apply(&bound(&by_secret(), REVIEWS))?;
    let first = edge.secret("shop", &edge.pki.issue(&["shop.example.com"])?, None)?;
    let by_first = edge.secure(edge.pki.client("shop.example.com"), "/");
    edge.until(&by_first, 200)?;
    let other = Pki::new("another")?;
    let _second = edge.secret("shop", &other.issue(&["shop.example.com"])?, None)?;
    first.keep();
    edge.until(&edge.secure(other.client("shop.example.com"), "/"), 200)?;
    edge.until_refused(&by_first)
}

fn missing() -> Result<()> {
    let edge = Edge::enter()?;
    let pair = edge.pki.issue(&["shop.example.com"])?;
    let servers = [
        https(
            "shop",
            "shop.example.com",
            "{mode: SIMPLE, credentialName: shop}",
        ),
        https(
            "late",
            "late.example.com",
            "{mode: SIMPLE, credentialName: late}",
        ),
    ];
    let spec = "  hosts: [shop.example.com, late.example.com]
  gateways: [edge/public]
  http:
  - route: [{destination: {host: reviews}}]
";
    let _applied = edge.apply(&bound(&servers.concat(), spec))?;
    let _secret = edge.secret("shop", &pair, None)?;
    edge.until(&edge.secure(edge.pki.client("shop.example.com"), "/"), 200)?;
    let late = edge.secure(edge.pki.client("late.example.com"), "/");
    edge.until_refused(&late)?;
    let _late = edge.secret("late", &edge.pki.issue(&["late.example.com"])?, None)?;
    edge.until(&late, 200).map(drop)
}

fn by_file() -> Result<()> {
    let edge = Edge::enter()?;
    let folder = edge.ingress.folder().join("certificates");
    std::fs::create_dir_all(&folder)?;
    let write = |pair: &Pair| -> Result<()> {
        for (name, text) in [("key.pem", &pair.key), ("chain.pem", &pair.chain)] {
            let new = folder.join(format!("{name}.new"));
            std::fs::write(&new, text)?;
            std::os::unix::fs::chown(&new, Some(User::Envoy.id()), Some(User::Envoy.id()))?;
            std::fs::rename(&new, folder.join(name))?;
        }
        Ok(())
    };
    write(&edge.pki.issue(&["shop.example.com"])?)?;
    let at = |name: &str| {
        let folder = folder.display();
        format!(
            "{{mode: SIMPLE, serverCertificate: {folder}/{name}chain.pem, privateKey: {folder}/{name}key.pem}}"
        )
    };
    let servers = [
        https("gone", "gone.example.com", &at("gone-")),
        https("shop", "shop.example.com", &at("")),
    ];
    let _applied = edge.apply(&bound(&servers.concat(), REVIEWS))?;
    let call = edge.secure(edge.pki.client("shop.example.com"), "/");
    edge.until(&call, 200)?;
    let other = Pki::new("another")?;
    write(&other.issue(&["shop.example.com"])?)?;
    edge.until(&edge.secure(other.client("shop.example.com"), "/"), 200)?;
    edge.until_refused(&call)
}

fn mutual() -> Result<()> {
    let edge = Edge::enter()?;
    let pair = edge.pki.issue(&["must.example.com", "may.example.com"])?;
    let servers = [
        https(
            "must",
            "must.example.com",
            "{mode: MUTUAL, credentialName: shop, subjectAltNames: [friend.example]}",
        ),
        https(
            "may",
            "may.example.com",
            "{mode: OPTIONAL_MUTUAL, credentialName: shop}",
        ),
    ];
    let spec = "  hosts: [must.example.com, may.example.com]
  gateways: [edge/public]
  http:
  - route: [{destination: {host: reviews}}]
";
    let _applied = edge.apply(&bound(&servers.concat(), spec))?;
    let clients = Pki::new("clients")?;
    let _secret = edge.secret("shop", &pair, Some(clients.root()))?;
    let (must, may) = (
        edge.pki.client("must.example.com"),
        edge.pki.client("may.example.com"),
    );
    let friend = clients.issue(&["friend.example"])?;
    let other = clients.issue(&["other.example"])?;
    let stranger = Pki::new("strangers")?.issue(&["friend.example"])?;
    edge.until(&edge.secure(must.clone().with(&friend), "/"), 200)?;
    edge.until_refused(&edge.secure(must.clone(), "/"))?;
    edge.until_refused(&edge.secure(must.clone().with(&other), "/"))?;
    edge.until_refused(&edge.secure(must.with(&stranger), "/"))?;
    edge.until(&edge.secure(may.clone(), "/"), 200)?;
    edge.until(&edge.secure(may.clone().with(&other), "/"), 200)?;
    edge.until_refused(&edge.secure(may.with(&stranger), "/"))
}

fn redirected() -> Result<()> {
    let edge = Edge::enter()?;
    let servers = "  - {port: {number: 80, name: http, protocol: HTTP}, hosts: [shop.example.com, silent.example.com], tls: {httpsRedirect: true}}
";
    let _applied = edge.apply(&bound(servers, REVIEWS))?;
    for host in ["shop.example.com", "silent.example.com"] {
        let reply = edge.until(&edge.call(host, "/a?b=c"), 301)?;
        let location = reply.header("location");
        ensure!(location == format!("https://{host}/a?b=c"), "{location}");
    }
    Ok(())
}

/// TLS ends at another server of the same proxy, which the one that does not open it leads to.
fn through() -> Result<()> {
    let edge = Edge::enter()?;
    let pair = edge.pki.issue(&["shop.example.com"])?;
    let servers = [
        https("shop", "shop.example.com", "{mode: SIMPLE, credentialName: shop}"),
        "  - {port: {number: 9443, name: through, protocol: TLS}, hosts: ['*.example.com'], tls: {mode: PASSTHROUGH}}\n".to_owned(),
    ];
    let spec = "  hosts: [shop.example.com]
  gateways: [edge/public]
  http:
  - route: [{destination: {host: reviews}}]
  tls:
  - match: [{port: 9443, sniHosts: [shop.example.com]}]
    route: [{destination: {host: ingress.edge.svc.cluster.local, port: {number: 443}}}]
";
    let _applied = edge.apply(&bound(&servers.concat(), spec))?;
    let _secret = edge.secret("shop", &pair, None)?;
    let at = |tls| Call {
        target: Target::Tcp(edge.ingress.at(9443)),
        ..edge.secure(tls, "/")
    };
    edge.until(&at(edge.pki.client("shop.example.com")), 200)?;
    edge.until_refused(&at(edge.pki.client("other.example.com")))
}

fn bytes() -> Result<()> {
    let edge = Edge::enter()?;
    let servers = "  - {port: {number: 7000, name: tcp, protocol: TCP}, hosts: ['*']}
  - {port: {number: 7443, name: tls, protocol: TLS}, hosts: [ledger.example.com], tls: {mode: SIMPLE, credentialName: ledger}}
";
    let spec = "  hosts: ['*']
  gateways: [edge/public]
  tcp:
  - route: [{destination: {host: ledger, port: {number: 7000}}}]
";
    let _applied = edge.apply(&bound(servers, spec))?;
    let pair = edge.pki.issue(&["ledger.example.com"])?;
    let _secret = edge.secret("ledger", &pair, None)?;
    let from = edge.stranger.namespace();
    eventually("the ledger answers in plaintext", || {
        let greeting = client::tcp(from, User::App, edge.ingress.at(7000), b"hello")?;
        ensure!(greeting.name == "ledger", "{greeting:?}");
        Ok(())
    })?;
    let tls = edge.pki.client("ledger.example.com");
    eventually("the ledger answers within TLS", || {
        let greeting = client::tls(from, edge.ingress.at(7443), &tls, b"hello")?;
        ensure!(greeting.name == "ledger", "{greeting:?}");
        Ok(())
    })
}

fn hitless() -> Result<()> {
    let edge = Edge::enter()?;
    let applied = edge.apply(&bound(HTTP, REVIEWS))?;
    let call = edge.call("shop.example.com", "/");
    edge.until(&call, 200)?;
    let load = crate::harness::load::Load::start(
        edge.stranger.namespace(),
        &call,
        &[Connections::Kept, Connections::Fresh],
    )?;
    let more = format!(
        "{HTTP}  - {{port: {{number: 8000, name: more, protocol: HTTP}}, hosts: [more.example.com]}}\n"
    );
    let spec = REVIEWS.replace("shop.example.com", "shop.example.com, more.example.com");
    let again = edge.apply(&bound(&more, &spec))?;
    applied.keep();
    let at = Call {
        target: Target::Tcp(edge.ingress.at(8000)),
        ..edge.call("more.example.com", "/")
    };
    edge.until(&at, 200)?;
    let last = edge.apply(&bound(HTTP, REVIEWS))?;
    again.keep();
    edge.until_refused(&at)?;
    let before = load.answered();
    eventually("more is answered", || {
        ensure!(load.answered() > before + 100);
        Ok(())
    })?;
    load.stop().is_flawless(100)?;
    drop(last);
    Ok(())
}

fn outlives() -> Result<()> {
    let edge = Edge::enter()?;
    let pair = edge.pki.issue(&["shop.example.com"])?;
    let _applied = edge.apply(&bound(&by_secret(), REVIEWS))?;
    let _secret = edge.secret("shop", &pair, None)?;
    let call = edge.secure(edge.pki.client("shop.example.com"), "/");
    edge.until(&call, 200)?;
    edge.mesh.control_plane()?.kill();
    for _request in 0..20 {
        let reply = edge.stranger.send(&call)?;
        ensure!(reply.status == 200, "{reply:?}");
    }
    edge.mesh.control_plane()?.restart()?;
    let other = Pki::new("another")?;
    let _second = edge.secret("shop", &other.issue(&["shop.example.com"])?, None)?;
    edge.until(&edge.secure(other.client("shop.example.com"), "/"), 200)
        .map(drop)
}

/// Storefront → egress gateway, by the mesh's TLS → a host outside.
fn egress() -> Result<()> {
    let edge = Edge::enter()?;
    let ip = edge.stranger.ip();
    let servers = "  - {port: {number: 443, name: out, protocol: HTTPS}, hosts: [api.example.org], tls: {mode: ISTIO_MUTUAL}}
";
    let gateway = gateway("out", "egress", servers);
    let yaml = format!(
        "{gateway}---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: api, namespace: shop}}
spec:
  hosts: [api.example.org]
  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: 8090}}]
  resolution: STATIC
  endpoints: [{{address: {ip}}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: egress, namespace: shop}}
spec:
  host: egress.edge.svc.cluster.local
  subsets:
  - name: api
    trafficPolicy: {{tls: {{mode: ISTIO_MUTUAL, sni: api.example.org}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: api, namespace: shop}}
spec:
  hosts: [api.example.org]
  gateways: [mesh, edge/out]
  http:
  - match: [{{gateways: [mesh], port: 80}}]
    route: [{{destination: {{host: egress.edge.svc.cluster.local, subset: api, port: {{number: 443}}}}}}]
  - match: [{{gateways: [edge/out], port: 443}}]
    headers: {{request: {{set: {{x-by: egress}}}}}}
    route: [{{destination: {{host: api.example.org, port: {{number: 80}}}}}}]
"
    );
    let _applied = edge.apply(&yaml)?;
    let call = Call::get(Target::Tcp(edge.stranger.at(80)), "api.example.org", "/");
    eventually("the egress gateway leads outside", || {
        let seen = edge.storefront.send(&call)?.seen()?;
        ensure!(seen["name"] == "stranger", "{seen}");
        ensure!(seen["headers"]["x-by"] == "egress", "{seen}");
        Ok(())
    })
}

/// Stranger → egress gateway, in plaintext → another's server that wants a certificate.
fn originated() -> Result<()> {
    let edge = Edge::enter()?;
    let clients = Pki::new("clients")?;
    let servers = https(
        "shop",
        "shop.example.com",
        "{mode: MUTUAL, credentialName: shop}",
    );
    let out = "  - {port: {number: 80, name: http, protocol: HTTP}, hosts: [shop.example.com]}\n";
    let ip = edge.ingress.ip();
    let yaml = format!(
        "{}---{}---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: shop, namespace: edge}}
spec:
  hosts: [shop.example.com]
  ports: [{{number: 443, name: http-tls, protocol: HTTP, targetPort: 8443}}]
  resolution: STATIC
  endpoints: [{{address: {ip}}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: shop, namespace: edge}}
spec:
  host: shop.example.com
  trafficPolicy: {{tls: {{mode: MUTUAL, credentialName: own, sni: shop.example.com, subjectAltNames: [shop.example.com]}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: out, namespace: edge}}
spec:
  hosts: [shop.example.com]
  gateways: [edge/out]
  http:
  - route: [{{destination: {{host: shop.example.com, port: {{number: 443}}}}}}]
",
        bound(&servers, REVIEWS),
        gateway("out", "egress", out)
    );
    let _applied = edge.apply(&yaml)?;
    let server = edge.pki.issue(&["shop.example.com"])?;
    let _server = edge.secret("shop", &server, Some(clients.root()))?;
    let call = Call {
        target: Target::Tcp(edge.egress.at(8080)),
        ..edge.call("shop.example.com", "/")
    };
    edge.until(&call, 503)?;
    let own = clients.issue(&["gateway.example"])?;
    let _own = edge.secret("own", &own, Some(edge.pki.root()))?;
    edge.until(&call, 200).map(drop)
}

fn sanitized() -> Result<()> {
    let edge = Edge::enter()?;
    let _applied = edge.apply(&bound(HTTP, REVIEWS))?;
    let call = edge.call("shop.example.com", "/");
    let call = call
        .header(
            "x-forwarded-client-cert",
            "By=spiffe://cluster.local/ns/shop/sa/forged",
        )
        .header("x-forwarded-for", "1.2.3.4");
    let seen = edge.until(&call, 200)?.seen()?;
    let said = |name: &str| {
        seen["headers"][name]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    ensure!(
        !said("x-forwarded-client-cert").contains("forged"),
        "{seen}"
    );
    let address = edge.stranger.ip().to_string();
    ensure!(said("x-forwarded-for").ends_with(&address), "{seen}");
    Ok(())
}

/// Reviews v1 is where the storefront is, v2 where the ingress is.
fn nearer() -> Result<()> {
    let edge = Edge::enter()?;
    let rule = |balancer: &str| {
        format!(
            "{}---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: reviews, namespace: shop}}
spec:
  host: reviews
  exportTo: ['*']
  trafficPolicy:
    outlierDetection: {{consecutive5xxErrors: 5}}
{balancer}",
            bound(HTTP, REVIEWS)
        )
    };
    let by = |calls: &dyn Fn() -> Result<Reply>, version: &str| {
        eventually(&format!("{version} alone answers"), || {
            for _request in 0..16 {
                let seen = calls()?.seen()?;
                ensure!(seen["version"] == version, "{seen}");
            }
            Ok(())
        })
    };
    let inside = || edge.storefront.get("http://reviews:9080/");
    let outside = || edge.ask("shop.example.com", "/");
    let first = edge.apply(&rule(""))?;
    by(&inside, "v1")?;
    by(&outside, "v2")?;
    let shares = "    loadBalancer: {localityLbSetting: {distribute: [{from: here/*, to: {'there/*': 100}}]}}\n";
    let second = edge.apply(&rule(shares))?;
    first.keep();
    by(&inside, "v2")?;
    let labels = "    loadBalancer: {localityLbSetting: {failoverPriority: ['version=v1']}}\n";
    let third = edge.apply(&rule(labels))?;
    second.keep();
    by(&inside, "v1")?;
    by(&outside, "v1")?;
    let off = edge.apply(&rule(
        "    loadBalancer: {localityLbSetting: {enabled: false}}\n",
    ))?;
    third.keep();
    eventually("both answer", || {
        let mut seen = std::collections::BTreeSet::new();
        for _request in 0..30 {
            seen.insert(inside()?.seen()?["version"].to_string());
        }
        ensure!(seen.len() == 2, "{seen:?}");
        Ok(())
    })?;
    drop(off);
    Ok(())
}
