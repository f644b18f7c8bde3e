//! Kubernetes' Ingresses, as clients outside of the mesh meet them.

use anyhow::{Result, ensure};

use crate::edge::Edge;
use crate::harness::suite::Scenario;

pub const SCENARIOS: &[Scenario] = &[
    ("an_ingress_leads_by_host_and_path", by_path),
    ("an_ingress_shows_the_certificate_of_a_secret", by_tls),
    ("an_ingress_of_another_class_is_left_alone", by_class),
    (
        "a_port_of_a_backend_is_found_by_its_name_when_it_comes",
        by_name,
    ),
    (
        "an_extension_stands_at_the_gateway_for_what_an_ingress_serves",
        extended,
    ),
];

fn ingress(name: &str, spec: &str) -> String {
    format!(
        "---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {name}, namespace: shop}}
spec:
  ingressClassName: mesh
{spec}"
    )
}

fn class(controller: &str) -> String {
    format!(
        "---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {{name: mesh}}
spec: {{controller: {controller}}}
"
    )
}

const OURS: &str = "istio.io/ingress-controller";

const TO_REVIEWS: &str = "backend: {service: {name: reviews, port: {number: 9080}}}";
/// Nobody answers there, which is told from the answer.
const TO_NOBODY: &str = "backend: {service: {name: nobody, port: {number: 80}}}";

fn by_path() -> Result<()> {
    let edge = Edge::enter()?;
    let spec = format!(
        "  rules:
  - host: shop.example.com
    http:
      paths:
      - {{path: /, pathType: Prefix, {TO_NOBODY}}}
      - {{path: /shop, pathType: Prefix, {TO_REVIEWS}}}
      - {{path: /shop/closed, pathType: Exact, {TO_NOBODY}}}
  - host: '*.example.org'
    http: {{paths: [{{path: /all/*, pathType: ImplementationSpecific, {TO_REVIEWS}}}]}}
"
    );
    let _applied = edge.apply(&format!("{}{}", class(OURS), ingress("shop", &spec)))?;
    // What was there before said nothing of this path.
    edge.until(&edge.call("shop.example.com", "/shop/closed"), 503)?;
    let reply = edge.ask("shop.example.com", "/shop/any/thing?x=1")?;
    let name = reply.seen()?["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    ensure!(name.starts_with("reviews"), "{name}");
    for (host, path, status) in [
        ("shop.example.com", "/shop/", 200),
        ("shop.example.com:80", "/shop", 200),
        ("shop.example.com", "/shop/closed", 503),
        ("shop.example.com", "/shop/closed/too", 200),
        ("shop.example.com", "/shopping", 503),
        ("shop.example.com", "/", 503),
        ("one.example.org", "/all/x", 200),
        ("one.example.org", "/other", 404),
        ("unknown.example", "/shop", 404),
    ] {
        let reply = edge.ask(host, path)?;
        ensure!(reply.status == status, "{host}{path}: {}", reply.status);
    }
    // What another one says of the same host stands beside it, and so does what takes all the rest.
    let more = format!(
        "  defaultBackend: {{service: {{name: reviews, port: {{number: 9080}}}}}}
  rules:
  - host: shop.example.com
    http: {{paths: [{{path: /shop/closed/too, pathType: Prefix, {TO_NOBODY}}}]}}
"
    );
    let _more = edge.mesh.apply("more", &ingress("more", &more))?;
    edge.until(&edge.call("unknown.example", "/"), 200)?;
    for (host, path, status) in [
        ("shop.example.com", "/shop/closed/too", 503),
        ("shop.example.com", "/shop/closed/other", 200),
        ("one.example.org", "/other", 404),
    ] {
        let reply = edge.ask(host, path)?;
        ensure!(reply.status == status, "{host}{path}: {}", reply.status);
    }
    Ok(())
}

fn by_tls() -> Result<()> {
    let edge = Edge::enter()?;
    let rule = |host: &str| {
        format!(
            "  - host: {host}
    http: {{paths: [{{path: /, pathType: Prefix, {TO_REVIEWS}}}]}}
"
        )
    };
    let tls = |host: &str| format!("  tls: [{{hosts: [{host}], secretName: shop}}]\n");
    let secured = format!(
        "{}  rules:\n{}{}",
        tls("shop.example.com"),
        rule("shop.example.com"),
        rule("plain.example.com")
    );
    let _secret = edge.secret("shop", &edge.pki.issue(&["shop.example.com"])?, None)?;
    let _applied = edge.apply(&format!("{}{}", class(OURS), ingress("shop", &secured)))?;
    edge.until(&edge.secure(edge.pki.client("shop.example.com"), "/"), 200)?;
    edge.until(&edge.call("shop.example.com", "/"), 200)?;
    edge.until(&edge.call("plain.example.com", "/"), 200)?;
    let plain = edge.secure(edge.pki.client("plain.example.com"), "/");
    edge.until_refused(&plain)?;
    // A path that another Ingress gives the host is there within TLS too.
    let more = format!(
        "  rules:
  - host: shop.example.com
    http: {{paths: [{{path: /closed, pathType: Prefix, {TO_NOBODY}}}]}}
"
    );
    let _more = edge.mesh.apply("more", &ingress("more", &more))?;
    let closed = edge.secure(edge.pki.client("shop.example.com"), "/closed");
    edge.until(&closed, 503).map(drop)
}

fn extended() -> Result<()> {
    let edge = Edge::enter()?;
    let spec = format!(
        "  rules:
  - host: shop.example.com
    http: {{paths: [{{path: /, pathType: Prefix, {TO_REVIEWS}}}]}}
"
    );
    let script = "---
apiVersion: extensions.istio.io/v1alpha1
kind: TrafficExtension
metadata: {name: guard, namespace: edge}
spec:
  selector: {matchLabels: {istio: ingressgateway}}
  phase: AUTHZ
  match: [{mode: CLIENT, ports: [{number: 80}]}]
  lua:
    inlineCode: |
      function envoy_on_request(handle)
        if handle:headers():get(':path') == '/admin' then
          handle:respond({[':status'] = '403'}, 'not here')
        end
      end
";
    let _applied = edge.apply(&format!("{}{}", class(OURS), ingress("shop", &spec)))?;
    let admin = edge.call("shop.example.com", "/admin");
    edge.until(&admin, 200)?;
    let script = edge.mesh.apply("guard", script)?;
    edge.until(&admin, 403)?;
    edge.until(&edge.call("shop.example.com", "/"), 200)?;
    drop(script);
    edge.until(&admin, 200).map(drop)
}

fn by_class() -> Result<()> {
    let edge = Edge::enter()?;
    let spec = format!(
        "  rules:
  - host: shop.example.com
    http: {{paths: [{{path: /, pathType: Prefix, {TO_REVIEWS}}}]}}
"
    );
    let _applied = edge.apply(&ingress("shop", &spec))?;
    let call = edge.call("shop.example.com", "/");
    edge.until_refused(&call)?;
    let ours = edge.mesh.apply("class", &class(OURS))?;
    edge.until(&call, 200)?;
    let _others = edge.mesh.apply("class", &class("example.com/controller"))?;
    ours.keep();
    edge.until_refused(&call)
}

fn by_name() -> Result<()> {
    let edge = Edge::enter()?;
    let spec = "  rules:
  - host: shop.example.com
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: reviews, port: {name: http}}}}
      - {path: /late, pathType: Prefix, backend: {service: {name: late, port: {name: web}}}}
";
    let _applied = edge.apply(&format!("{}{}", class(OURS), ingress("shop", spec)))?;
    edge.until(&edge.call("shop.example.com", "/"), 200)?;
    edge.until(&edge.call("shop.example.com", "/late"), 503)?;
    let late = "---
apiVersion: v1
kind: Service
metadata: {name: late, namespace: shop}
spec:
  clusterIP: 10.96.77.7
  selector: {app: reviews}
  ports: [{name: web, port: 80, targetPort: 9080}]
";
    let _late = edge.mesh.apply("late", late)?;
    edge.until(&edge.call("shop.example.com", "/late"), 200)
        .map(drop)
}
