//! What the API server is told before it keeps an object.

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use super::harness::suite::Scenario;
use super::installed::Cluster;

pub const SCENARIOS: &[Scenario] = &[
    (
        "a_faulty_object_is_refused_with_its_field_and_a_pod_that_cannot_be_injected_too",
        refused,
    ),
    (
        "what_is_found_in_an_object_that_was_taken_is_an_event_of_it",
        told,
    ),
];

fn refusal(done: Result<()>) -> Result<String> {
    match done {
        Ok(()) => bail!("it was taken"),
        Err(why) => Ok(format!("{why:#}")),
    }
}

fn refused() -> Result<()> {
    let cluster = Cluster::installed(&["base.validationFailurePolicy=Fail"])?;
    cluster.apply_yaml("{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio-injection: enabled}}}")?;
    let bad = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http: [{route: [{destination: {host: reviews}, weight: -1}]}]
";
    let why = cluster.eventually("the validator answers", || refusal(cluster.apply_yaml(bad)))?;
    ensure!(why.contains("spec.http[0].route[0].weight"), "{why}");
    cluster.apply_yaml(&bad.replace("-1", "1"))?;
    let pod = "
apiVersion: v1
kind: Pod
metadata:
  name: odd
  namespace: shop
  annotations: {traffic.sidecar.istio.io/excludeInboundPorts: 'eighty'}
spec: {containers: [{name: app, image: 'fairlead:1'}]}
";
    let why = cluster.eventually("the injector answers", || {
        let why = refusal(cluster.apply_yaml(pod))?;
        ensure!(!why.contains("serviceaccount"), "{why}");
        Ok(why)
    })?;
    ensure!(
        why.contains("excludeInboundPorts") && why.contains("eighty"),
        "{why}"
    );
    Ok(())
}

fn told() -> Result<()> {
    let cluster = Cluster::installed(&[])?;
    cluster.apply_yaml(
        "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - fault: {abort: {http2Error: x}}
    route: [{destination: {host: reviews}}]
",
    )?;
    let objects = "/apis/networking.istio.io/v1/namespaces/shop/virtualservices/reviews";
    let uid = cluster.get(objects)?["metadata"]["uid"].clone();
    ensure!(uid.is_string(), "{uid}");
    cluster.eventually("an Event says so", || {
        let list = cluster.get("/apis/events.k8s.io/v1/namespaces/shop/events")?;
        let events = list["items"].as_array().into_iter().flatten();
        let of_it = |event: &&Value| event["regarding"]["uid"] == uid;
        let said = |event: &&Value| {
            let note = event["note"].as_str().unwrap_or_default();
            event["reason"] == "NotYetInEffect"
                && note.starts_with("spec.http[0].fault.abort.http2Error: ")
        };
        let event = events.filter(of_it).find(said);
        ensure!(event.is_some_and(|e| e["type"] == "Warning"), "{list}");
        Ok(())
    })
}
