//! What the API server is told before it keeps an object.

use anyhow::{Result, bail, ensure};

use super::harness::suite::Scenario;
use super::installed::Cluster;

pub const SCENARIOS: &[Scenario] = &[(
    "a_faulty_object_is_refused_with_its_field_and_a_pod_that_cannot_be_injected_too",
    refused,
)];

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
