//! A Deployment's whole life in the mesh, from its label to its end.

use anyhow::{Result, ensure};

use super::harness::load::{Connections, Load};
use super::harness::network::User;
use super::harness::suite::Scenario;
use super::installed::Cluster;

pub const SCENARIOS: &[Scenario] = &[(
    "a_labelled_namespace_is_injected_identified_and_rolled_without_a_lost_request",
    life,
)];

pub const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: reviews, namespace: shop}
---
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: reviews}}
  template:
    metadata: {labels: {app: reviews, version: v1}}
    spec:
      serviceAccountName: reviews
      terminationGracePeriodSeconds: 20
      containers:
      - name: app
        image: fairlead:1
        args: [echo, --name, reviews, --http, '0.0.0.0:8080']
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}
        livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
        lifecycle: {preStop: {sleep: {seconds: 2}}}
        securityContext: {runAsUser: 1000}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: client, namespace: shop}
spec:
  selector: {matchLabels: {app: client}}
  template:
    metadata: {labels: {app: client}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - {name: app, image: 'fairlead:1', args: [echo, --name, client, --http, '0.0.0.0:8080']}
";

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
";

fn life() -> Result<()> {
    let cluster = Cluster::installed(&[])?;
    cluster.apply_yaml(SHOP)?;
    cluster.wait_ready("shop", "reviews", 2)?;
    cluster.wait_ready("shop", "client", 1)?;
    let client = cluster.network_of("shop", "client")?;
    let call = cluster.call("shop", "reviews", 80, "/")?;

    // By the mesh, with an identity.
    let seen = call.send(&client, User::App)?.seen()?;
    let peer = seen["headers"]["x-forwarded-client-cert"].to_string();
    ensure!(
        peer.contains("spiffe://cluster.local/ns/shop/sa/default"),
        "the callee saw {seen}"
    );

    // A rollout under load loses nothing.
    let load = Load::start(&client, &call, &[Connections::Kept, Connections::Fresh])?;
    cluster.rollout_restart("shop", "reviews")?;
    cluster.wait_ready("shop", "reviews", 2)?;
    cluster.told(load.stop().is_flawless(20))?;

    // STRICT keeps strangers out, and nobody else.
    cluster.apply_yaml(STRICT)?;
    cluster.apply_yaml("
apiVersion: v1
kind: Pod
metadata: {name: stranger, namespace: default}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: app, image: 'fairlead:1', args: [echo, --name, stranger, --http, '0.0.0.0:8080']}]
")?;
    let stranger = cluster.eventually("the stranger runs", || {
        cluster.network_of("default", "stranger")
    })?;
    cluster.eventually("a stranger is kept out", || {
        let reply = call.send(&stranger, User::App);
        ensure!(reply.is_err(), "it was answered");
        Ok(())
    })?;
    ensure!(
        call.send(&client, User::App)?.status == 200,
        "a member is kept out"
    );

    // The control plane is rolled under load.
    let load = Load::start(&client, &call, &[Connections::Kept, Connections::Fresh])?;
    cluster.rollout_restart("istio-system", "istiod")?;
    cluster.wait_ready("istio-system", "istiod", 1)?;
    cluster.rollout_restart("shop", "reviews")?;
    cluster.wait_ready("shop", "reviews", 2)?;
    cluster.told(load.stop().is_flawless(20))
}
