//! Subscriptions, versions, answers: each clause seen from the client's side.

use std::collections::BTreeMap;
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use fairlead::config::Kind;
use fairlead::delivery::{Access, Limits};
use fairlead::xds::ResourceType::{Cluster as C, Endpoint as E, Listener as L, Route as R};

use crate::client::{Client, names, versions};
use crate::plane::Plane;

const TEA: &str = "outbound|80||tea.shop.svc.cluster.local";
const CUPS: &str = "outbound|80||cups.shop.svc.cluster.local";

/// Another endpoint for tea.
const MORE_TEA: &str = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: tea-1, namespace: shop, labels: {kubernetes.io/service-name: tea}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
- {addresses: [10.0.0.1], conditions: {ready: true}}
- {addresses: [10.0.0.3], conditions: {ready: true}}
";

/// Other settings for tea's cluster.
const TEA_RULE: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: tea, namespace: shop}
spec:
  host: tea
  trafficPolicy: {loadBalancer: {simple: RANDOM}}
";

/// A third service.
const SPOONS: &str = "
apiVersion: v1
kind: Service
metadata: {name: spoons, namespace: shop}
spec:
  clusterIP: 10.96.0.12
  ports: [{name: http, port: 80}]
";

/// A route to a host that nobody defines.
const LOST: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: tea, namespace: shop}
spec:
  hosts: [tea]
  http:
  - route: [{destination: {host: nowhere.example}}]
";

/// Subscribes as Envoy does and acknowledges all.
async fn settled(plane: &Plane) -> (Client, Held) {
    let mut client = Client::connect(plane).await;
    let mut held = Held::default();
    for (kind, names) in [
        (C, vec![]),
        (E, vec![TEA, CUPS]),
        (L, vec![]),
        (R, vec!["80"]),
    ] {
        client.subscribe(kind, &names).await;
        let message = client.next(kind).await;
        client.ack(&message).await;
        held.0.insert(kind, versions(&message));
    }
    client.fence().await;
    (client, held)
}

#[derive(Default)]
struct Held(BTreeMap<fairlead::xds::ResourceType, BTreeMap<String, String>>);

impl Held {
    /// A new stream of a client that kept everything.
    async fn resume(&self, plane: &Plane) -> Client {
        let mut client = Client::connect(plane).await;
        client.resume(C, &[], &self.0[&C]).await;
        client.resume(E, &[TEA, CUPS], &self.0[&E]).await;
        client.resume(L, &[], &self.0[&L]).await;
        client.resume(R, &["80"], &self.0[&R]).await;
        client
    }
}

#[tokio::test]
async fn a_wildcard_brings_all_and_names_bring_these() {
    let plane = Plane::start().await;
    let mut client = Client::connect(&plane).await;
    client.subscribe(C, &[]).await;
    let clusters = names(&client.next(C).await);
    assert!(
        [TEA, CUPS]
            .iter()
            .all(|c| clusters.contains(&(*c).to_owned())),
        "{clusters:?}"
    );
    // A stream's first request for endpoints is answered for every cluster sent on it, named or not.
    client.subscribe(E, &[TEA]).await;
    let mut got = names(&client.next(E).await);
    got.extend(names(&client.next(E).await));
    got.sort();
    assert_eq!(got, [CUPS, TEA]);
    client.fence().await;
}

#[tokio::test]
async fn named_clusters_become_all_by_a_star() {
    let plane = Plane::start().await;
    let mut client = Client::connect(&plane).await;
    client.subscribe(C, &[TEA]).await;
    assert_eq!(names(&client.next(C).await), [TEA]);
    client.fence().await;
    client.subscribe(C, &["*"]).await;
    assert!(names(&client.next(C).await).contains(&CUPS.to_owned()));
}

#[tokio::test]
async fn an_unsubscribed_name_changes_in_silence() {
    let plane = Plane::start().await;
    let (mut client, _) = settled(&plane).await;
    client.unsubscribe(E, &[TEA]).await;
    client.fence().await;
    plane.apply(MORE_TEA).await;
    client.fence().await;
    client.subscribe(E, &[TEA]).await;
    assert_eq!(names(&client.next(E).await), [TEA]);
}

#[tokio::test]
async fn an_endpoint_change_is_one_small_response() {
    let plane = Plane::start().await;
    let (mut client, held) = settled(&plane).await;
    plane.apply(MORE_TEA).await;
    let message = client.next(E).await;
    assert_eq!(names(&message), [TEA]);
    assert_ne!(versions(&message)[TEA], held.0[&E][TEA]);
    client.ack(&message).await;
    // The same content again: nothing.
    plane.apply(MORE_TEA).await;
    client.fence().await;
}

#[tokio::test]
async fn a_name_asked_for_again_is_answered_again() {
    let plane = Plane::start().await;
    let (mut client, held) = settled(&plane).await;
    client.subscribe(E, &[TEA]).await;
    let again = client.next(E).await;
    assert_eq!(versions(&again)[TEA], held.0[&E][TEA]);
}

#[tokio::test]
async fn a_changed_cluster_takes_its_endpoints_along() {
    let plane = Plane::start().await;
    let (mut client, held) = settled(&plane).await;
    plane.apply(TEA_RULE).await;
    assert_eq!(names(&client.next(C).await), [TEA]);
    let behind = client.next(E).await;
    assert_eq!(names(&behind), [TEA]);
    assert_eq!(versions(&behind)[TEA], held.0[&E][TEA]);
}

#[tokio::test]
async fn a_refused_cluster_is_known_and_recovers() {
    let plane = Plane::start().await;
    let (mut client, _) = settled(&plane).await;
    plane.apply(TEA_RULE).await;
    let bad = client.next(C).await;
    let behind = client.next(E).await;
    client.ack(&behind).await;
    client.nack(&bad, "random is out of fashion").await;
    client.fence().await;
    let standing = &plane.streams().await[0].types[C as usize];
    assert_eq!((standing.nacked, standing.pending), (1, 0));
    assert_eq!(&*standing.refusals[0].1.message, "random is out of fashion");
    // Nothing is sent again until the content is another.
    plane.apply(TEA_RULE).await;
    client.fence().await;
    plane.delete(Kind::DestinationRule, "shop", "tea").await;
    let good = client.next(C).await;
    let behind = client.next(E).await;
    client.ack(&good).await;
    client.ack(&behind).await;
    client.fence().await;
    assert_eq!(plane.streams().await[0].types[C as usize].nacked, 0);
    assert_eq!(plane.metrics.rejects.of(C as usize).get(), 1);
}

#[tokio::test]
async fn a_stale_nonce_is_counted_and_changes_nothing() {
    let plane = Plane::start().await;
    let (mut client, _) = settled(&plane).await;
    client.answer(C.type_url(), "ffffffff", None).await;
    client.fence().await;
    assert_eq!(plane.metrics.stale.of(C as usize).get(), 1);
}

#[tokio::test]
async fn who_comes_back_with_everything_is_sent_nothing() {
    let plane = Plane::start().await;
    let (client, held) = settled(&plane).await;
    drop(client);
    let sent = plane.metrics.resources.of(C as usize).get();
    let mut client = held.resume(&plane).await;
    client.fence().await;
    assert_eq!(plane.metrics.resources.of(C as usize).get(), sent);
}

#[tokio::test]
async fn who_comes_back_is_sent_the_difference() {
    let plane = Plane::start().await;
    let (client, held) = settled(&plane).await;
    drop(client);
    plane.apply(MORE_TEA).await;
    plane.delete(Kind::Service, "shop", "cups").await;
    let mut client = held.resume(&plane).await;
    let endpoints = client.next(E).await;
    assert_eq!(names(&endpoints), [TEA]);
    let routes = client.next(R).await;
    assert_eq!(names(&routes), ["80"]);
    let clusters = client.next(C).await;
    assert_eq!(names(&clusters), Vec::<String>::new());
    assert_eq!(clusters.removed_resources, [CUPS]);
}

#[tokio::test]
async fn a_removed_service_leaves_its_cluster_last() {
    let plane = Plane::start().await;
    let (mut client, _) = settled(&plane).await;
    plane.delete(Kind::Service, "shop", "cups").await;
    assert_eq!(names(&client.next(R).await), ["80"]);
    assert_eq!(client.next(C).await.removed_resources, [CUPS]);
}

#[tokio::test]
async fn a_new_service_comes_cluster_first_and_its_subscribe_is_no_question() {
    let plane = Plane::start().await;
    let (mut client, _) = settled(&plane).await;
    plane.apply(SPOONS).await;
    let spoons = "outbound|80||spoons.shop.svc.cluster.local";
    let cluster = client.next(C).await;
    assert_eq!(names(&cluster), [spoons]);
    assert_eq!(names(&client.next(E).await), [spoons]);
    // This client holds no certificate, so the cluster warms: its route waits for the answer.
    client.ack(&cluster).await;
    assert_eq!(names(&client.next(R).await), ["80"]);
    client.subscribe(E, &[spoons]).await;
    client.fence().await;
}

#[tokio::test]
async fn a_type_nobody_serves_leaves_the_stream_alone() {
    let plane = Plane::start().await;
    let (mut client, _) = settled(&plane).await;
    client
        .send(DeltaDiscoveryRequest {
            type_url: "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig".to_owned(),
            resource_names_subscribe: vec!["x".to_owned()],
            ..Default::default()
        })
        .await;
    client.fence().await;
}

#[tokio::test]
async fn two_streams_of_one_node_are_two() {
    let plane = Plane::start().await;
    let (mut first, _) = settled(&plane).await;
    let (mut second, _) = settled(&plane).await;
    assert_eq!(plane.streams().await.len(), 2);
    plane.apply(MORE_TEA).await;
    assert_eq!(names(&first.next(E).await), [TEA]);
    assert_eq!(names(&second.next(E).await), [TEA]);
    drop(first);
    plane.apply(TEA_RULE).await;
    assert_eq!(names(&second.next(C).await), [TEA]);
}

#[tokio::test]
async fn a_route_to_nowhere_waits_for_nothing() {
    let plane = Plane::start().await;
    let (mut client, _) = settled(&plane).await;
    plane.apply(LOST).await;
    assert_eq!(names(&client.next(R).await), ["80"]);
    client.fence().await;
}

#[tokio::test]
async fn endpoints_of_nothing_are_answered() {
    let plane = Plane::start().await;
    let (mut client, _) = settled(&plane).await;
    client.subscribe(E, &["outbound|80||nobody"]).await;
    assert_eq!(names(&client.next(E).await), ["outbound|80||nobody"]);
}

#[tokio::test]
async fn a_cluster_answer_that_never_comes_holds_nothing_back_for_long() {
    let limits = Limits {
        warm: Duration::from_millis(50),
        ..Limits::default()
    };
    let plane = Plane::with(limits, Access::default()).await;
    let mut client = Client::connect(&plane).await;
    client.subscribe(C, &[]).await;
    client.next(C).await;
    // Envoy withholds its answer while a cluster warms, and here it never asks for endpoints.
    client.subscribe(L, &[]).await;
    client.next(L).await;
    client.subscribe(R, &["80"]).await;
    client.next(R).await;
    assert!(plane.metrics.warming.get() > 0);
    plane.apply(TEA_RULE).await;
    assert_eq!(names(&client.next(C).await), [TEA]);
    client.fence().await;
}

#[tokio::test]
async fn endpoints_asked_for_before_clusters_are_all_answered() {
    let plane = Plane::start().await;
    let (client, held) = settled(&plane).await;
    drop(client);
    let mut client = Client::connect(&plane).await;
    client.resume(E, &[TEA, CUPS], &held.0[&E]).await;
    let answered = names(&client.next(E).await);
    assert_eq!(answered.len(), 2, "{answered:?}");
    client.resume(C, &[], &held.0[&C]).await;
    client.fence().await;
}
