//! An Ingress in a cluster: served by a gateway's pod, and told where it is reached.

use anyhow::{Result, ensure};
use serde_json::json;

use super::gateway::{EDGE, STRANGER};
use super::harness::client::{Call, Target};
use super::harness::network::User;
use super::harness::suite::Scenario;
use super::installed::Cluster;
use super::mesh::SHOP;

pub const SCENARIOS: &[Scenario] =
    &[("an_ingress_is_served_and_says_where_it_is_reached", reached)];

const FRONT: &str = "
apiVersion: v1
kind: Service
metadata: {name: front, namespace: istio-system}
spec:
  type: LoadBalancer
  selector: {istio: ingress}
  ports: [{name: http2, port: 80, targetPort: 8080}]
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: mesh}
spec: {controller: istio.io/ingress-controller}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop, namespace: shop}
spec:
  ingressClassName: mesh
  rules:
  - host: shop.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: reviews, port: {name: http}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: other, namespace: shop}
spec:
  ingressClassName: another
  defaultBackend: {service: {name: reviews, port: {name: http}}}
";

fn reached() -> Result<()> {
    let settings = [
        "meshConfig.ingressService=front",
        "meshConfig.ingressSelector=ingress",
    ];
    let cluster = Cluster::installed(&settings)?;
    for yaml in [EDGE, SHOP, STRANGER] {
        cluster.apply_yaml(yaml)?;
    }
    cluster.install_gateway("istio-ingress", "edge", &[])?;
    cluster.wait_ready("edge", "istio-ingress", 1)?;
    cluster.wait_ready("shop", "reviews", 2)?;
    cluster.apply_yaml(FRONT)?;
    let given = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}});
    let front = "/api/v1/namespaces/istio-system/services/front/status";
    cluster.patch(front, &given)?;

    let stranger = cluster.network_of("default", "stranger")?;
    let to = Target::Tcp(cluster.service("edge", "istio-ingress", 80)?);
    let call = Call::get(to, "shop.example.com", "/");
    cluster.eventually("a stranger is answered", || {
        let reply = call.send(&stranger, User::App)?;
        ensure!(reply.status == 200, "{}", reply.status);
        Ok(())
    })?;
    let path = "/apis/networking.k8s.io/v1/namespaces/shop/ingresses";
    cluster.eventually("the Ingress says where it is reached", || {
        let ingress = cluster.get(&format!("{path}/shop"))?;
        let said = &ingress["status"]["loadBalancer"]["ingress"];
        ensure!(said[0]["ip"] == "192.0.2.7", "{said}");
        Ok(())
    })?;
    // One of another controller is that one's to speak of.
    let other = cluster.get(&format!("{path}/other"))?;
    let said = &other["status"]["loadBalancer"]["ingress"];
    ensure!(said.is_null(), "{said}");
    Ok(())
}
