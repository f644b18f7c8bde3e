//! A gateway as its chart installs it: what the API server takes, what the webhook makes of its pod, and who is served.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::harness::client::{Call, Target};
use super::harness::load::{Connections, Load};
use super::harness::network::User;
use super::harness::pki::Pki;
use super::harness::suite::Scenario;
use super::installed::Cluster;
use super::mesh::SHOP;

pub const SCENARIOS: &[Scenario] = &[
    (
        "a_gateway_serves_strangers_and_is_rolled_without_a_lost_request",
        life,
    ),
    (
        "a_gateways_pod_becomes_an_envoy_without_capture_or_privilege",
        injected,
    ),
    ("a_gateways_account_alone_reads_secrets", secrets),
    (
        "the_api_server_takes_all_that_a_gateways_chart_makes",
        taken,
    ),
    (
        "a_gateway_on_every_node_is_made_and_stands_behind_its_service",
        everywhere,
    ),
];

/// Without a label: the pods ask for themselves. Kubernetes lets in only what keeps its strictest profile.
pub const EDGE: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: edge, labels: {pod-security.kubernetes.io/enforce: restricted}}
";

pub const STRANGER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: stranger, namespace: default}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: app, image: 'fairlead:1', args: [echo, --name, stranger, --http, '0.0.0.0:8080']}]
";

/// The shop, for whom its namespace's gateway speaks plaintext and TLS, and for nobody without mTLS.
const OPEN: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: public, namespace: edge}
spec:
  selector: {istio: ingress}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['shop/shop.example.com']}
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: ['shop/shop.example.com']
    tls: {mode: SIMPLE, credentialName: shop-example-com}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [shop.example.com]
  gateways: [edge/public]
  http:
  - route: [{destination: {host: reviews, port: {number: 80}}}]
";

fn life() -> Result<()> {
    let cluster = installed(&["replicaCount=2"])?;
    cluster.apply_yaml(SHOP)?;
    cluster.apply_yaml(OPEN)?;
    cluster.apply_yaml(STRANGER)?;
    let pki = Pki::new("outside")?;
    let pair = pki.issue(&["shop.example.com"])?;
    cluster.apply_all(&[json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": "shop-example-com", "namespace": "edge"},
        "stringData": {"tls.crt": pair.chain, "tls.key": pair.key},
    })])?;
    cluster.wait_ready("edge", "istio-ingress", 2)?;
    cluster.wait_ready("shop", "reviews", 2)?;
    let stranger = cluster.network_of("default", "stranger")?;

    // At ports that only the kernel's setting lets it bind, to a workload that takes nothing but mTLS.
    let to = |port| cluster.service("edge", "istio-ingress", port);
    let host = "shop.example.com";
    let plain = Call::get(Target::Tcp(to(80)?), host, "/");
    let secure = Call::get(Target::Tcp(to(443)?), host, "/").within(pki.client(host));
    for call in [&plain, &secure] {
        let seen = cluster.eventually("a stranger is answered", || {
            call.send(&stranger, User::App)?.seen()
        })?;
        let peer = seen["headers"]["x-forwarded-client-cert"].to_string();
        let account = "spiffe://cluster.local/ns/edge/sa/istio-ingress";
        ensure!(peer.contains(account), "the callee saw {seen}");
    }

    // Answers take their time, so that some are on their way whenever a pod ends.
    let slow = plain.header("echo-delay-ms", "700");
    let clients = [[Connections::Kept; 4], [Connections::Fresh; 4]].concat();
    let load = Load::start(&stranger, &slow, &clients)?;
    cluster.rollout_restart("edge", "istio-ingress")?;
    cluster.wait_ready("edge", "istio-ingress", 2)?;
    cluster.told(load.stop().is_flawless(20))
}

fn installed(settings: &[&str]) -> Result<Cluster> {
    let cluster = Cluster::installed(&[])?;
    cluster.apply_yaml(EDGE)?;
    cluster.install_gateway("istio-ingress", "edge", settings)?;
    Ok(cluster)
}

fn pod(cluster: &Cluster) -> Result<Value> {
    cluster.eventually("the gateway has a pod", || {
        let list = cluster.get("/api/v1/namespaces/edge/pods?labelSelector=istio=ingress")?;
        list["items"].get(0).cloned().context("none")
    })
}

fn injected() -> Result<()> {
    let cluster = installed(&["resources.limits.cpu=1"])?;
    let pod = pod(&cluster)?;
    let spec = &pod["spec"];
    ensure!(spec["initContainers"].is_null(), "{spec}");
    let proxy = &spec["containers"][0];
    let image = proxy["image"].to_string();
    ensure!(image.contains("envoyproxy/envoy"), "{image}");
    ensure!(proxy["resources"]["limits"]["cpu"] == "1", "{proxy}");
    let sysctl = &spec["securityContext"]["sysctls"][0]["name"];
    ensure!(*sysctl == "net.ipv4.ip_unprivileged_port_start", "{spec}");
    let args = proxy["args"].to_string();
    ensure!(args.contains("router~$(INSTANCE_IP)~"), "{args}");
    let probe = &proxy["readinessProbe"]["httpGet"];
    ensure!(probe["path"] == "/healthz/ready", "{probe}");
    Ok(())
}

fn taken() -> Result<()> {
    let cluster = Cluster::bare()?;
    cluster.apply_yaml(EDGE)?;
    // Each a release of its own, with what the others leave out.
    let releases: [(&str, &[&str]); 4] = [
        (
            "scaled",
            &[
                "autoscaling.enabled=true",
                "autoscaling.targetMemoryUtilizationPercentage=70",
                "autoscaling.autoscaleBehavior.scaleDown.stabilizationWindowSeconds=60",
                "podDisruptionBudget.minAvailable=1",
                "service.externalTrafficPolicy=Local",
                "service.loadBalancerSourceRanges={10.0.0.0/8}",
                "service.loadBalancerIP=10.9.9.9",
                "service.allocateLoadBalancerNodePorts=false",
            ],
        ),
        (
            "everywhere",
            &[
                "kind=DaemonSet",
                "strategy.type=OnDelete",
                "service.type=ClusterIP",
                "service.clusterIP=None",
                "nodeSelector.edge=true",
                "tolerations[0].key=edge",
                "tolerations[0].operator=Exists",
            ],
        ),
        (
            "between",
            &["networkGateway=north", "service.ipFamilyPolicy=SingleStack"],
        ),
        (
            "own",
            &[
                "serviceAccount.create=false",
                "service.type=None",
                "labels.tier=1",
                "podAnnotations.sure=true",
                "env.LEVEL=3",
                "volumes[0].name=v",
                "volumes[0].emptyDir.medium=Memory",
                "volumeMounts[0].name=v",
                "volumeMounts[0].mountPath=/v",
                "topologySpreadConstraints[0].maxSkew=1",
                "topologySpreadConstraints[0].topologyKey=zone",
                "topologySpreadConstraints[0].whenUnsatisfiable=ScheduleAnyway",
            ],
        ),
    ];
    for (release, settings) in releases {
        let taken = cluster.install_gateway(release, "edge", settings);
        taken.with_context(|| format!("release {release}"))?;
    }
    Ok(())
}

/// What Kubernetes makes of a DaemonSet and a Service for a load balancer; the balancer itself is a cloud's.
fn everywhere() -> Result<()> {
    let cluster = Cluster::installed(&[])?;
    cluster.apply_yaml(EDGE)?;
    // Nobody here says that the node is ready.
    let settings = [
        "kind=DaemonSet",
        "service.type=LoadBalancer",
        "tolerations[0].key=node.kubernetes.io/not-ready",
        "tolerations[0].operator=Exists",
    ];
    cluster.eventually("the webhook answers", || {
        cluster.install_gateway("everywhere", "edge", &settings)
    })?;
    cluster.eventually("the node's pod is ready", || {
        let set = cluster.get("/apis/apps/v1/namespaces/edge/daemonsets/everywhere")?;
        ensure!(set["status"]["numberReady"] == 1, "{}", set["status"]);
        Ok(())
    })?;
    let slices = "/apis/discovery.k8s.io/v1/namespaces/edge/endpointslices?labelSelector=kubernetes.io/service-name=everywhere";
    cluster.eventually("the pod is behind the Service", || {
        let slices = cluster.get(slices)?;
        let ready = &slices["items"][0]["endpoints"][0]["conditions"]["ready"];
        ensure!(*ready == true, "{slices}");
        Ok(())
    })?;
    let service = cluster.get("/api/v1/namespaces/edge/services/everywhere")?;
    let ports = service["spec"]["ports"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let open = |port: &Value| port["nodePort"].as_u64().is_some_and(|p| p > 0);
    ensure!(ports.len() == 3 && ports.iter().all(open), "{service}");
    // Prometheus finds it as it finds sidecars.
    let pods = cluster.get("/api/v1/namespaces/edge/pods?labelSelector=app=everywhere")?;
    let pod = &pods["items"][0];
    ensure!(
        pod["metadata"]["annotations"]["prometheus.io/port"] == "15020",
        "{pod}"
    );
    let stranger =
        cluster.network_of("edge", pod["metadata"]["name"].as_str().unwrap_or_default())?;
    for port in [15020, 15090] {
        let at = Target::Tcp((stranger.ip(), port).into());
        let reply = Call::get(at, "gateway", "/stats/prometheus").send_from_node()?;
        ensure!(
            reply.status == 200 && reply.text().contains("envoy_server_live"),
            "{port}"
        );
    }
    Ok(())
}

fn secrets() -> Result<()> {
    let cluster = installed(&[])?;
    let may_list = |account: &str, namespace: &str| -> Result<bool> {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": format!("system:serviceaccount:edge:{account}"),
                "resourceAttributes": {"verb": "list", "resource": "secrets", "namespace": namespace},
            },
        });
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let answer = cluster.create(path, &review)?;
        Ok(answer["status"]["allowed"] == true)
    };
    // Roles come to the API server's authorizer a moment later.
    cluster.eventually("the gateway's account may", || {
        ensure!(may_list("istio-ingress", "edge")?, "it may not");
        Ok(())
    })?;
    ensure!(!may_list("default", "edge")?, "another account may");
    ensure!(
        !may_list("istio-ingress", "default")?,
        "in another namespace, too"
    );
    Ok(())
}
