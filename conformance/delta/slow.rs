//! A client that does not read: it is capped, costs nobody else anything, and is closed.

use std::time::Duration;

use fairlead::delivery::{Access, Limits};
use fairlead::xds::ResourceType::{Cluster as C, Endpoint as E};

use crate::client::{Call, Client, names};
use crate::plane::Plane;

const TEA: &str = "outbound|80||tea.shop.svc.cluster.local";
const CUPS: &str = "outbound|80||cups.shop.svc.cluster.local";

fn slice(last: u32) -> String {
    format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, \
        metadata: {{name: tea-1, namespace: shop, labels: {{kubernetes.io/service-name: tea}}}}, \
        addressType: IPv4, ports: [{{name: http, port: 8080, protocol: TCP}}], \
        endpoints: [{{addresses: [10.1.{}.{}], conditions: {{ready: true}}}}]}}",
        last / 200,
        last % 200 + 1
    )
}

#[tokio::test]
async fn a_client_that_does_not_read_is_capped_and_closed_and_delays_nobody() {
    let limits = Limits {
        window_bytes: 3000,
        stall: Duration::from_millis(300),
        ..Limits::default()
    };
    let plane = Plane::with(limits, Access::default()).await;
    let token = Some(plane.token("shop", "caller"));
    let window = Some(100);
    let mut slow = Client::call(
        &plane,
        Call {
            token,
            window,
            ..Call::default()
        },
    )
    .await;
    slow.subscribe(C, &[]).await;
    slow.subscribe(E, &[TEA, CUPS]).await;
    let mut quick = Client::connect(&plane).await;
    quick.subscribe(C, &[]).await;
    quick.next(C).await;
    quick.subscribe(E, &[TEA, CUPS]).await;
    quick.next(E).await;
    let mut most = 0;
    for last in 0..400 {
        plane.apply(&slice(last)).await;
        let message = quick.next(E).await;
        assert_eq!(names(&message), [TEA]);
        quick.ack(&message).await;
        most = most.max(plane.summary().await.in_flight);
    }
    // Its window, one response over it, and what the quick one had not taken yet.
    assert!(
        most > 0 && most < 10_000,
        "{most} bytes are kept for two clients"
    );
    // It reads again only after it was given up.
    while plane.metrics.closed.get() == 0 {
        plane.summary().await;
    }
    assert_eq!(slow.end().await, "8");
    // It comes back, and is sent the latest.
    let mut back = Client::connect(&plane).await;
    back.subscribe(C, &[]).await;
    back.next(C).await;
    back.subscribe(E, &[TEA, CUPS]).await;
    back.next(E).await;
    back.fence().await;
}

#[tokio::test]
async fn a_connection_of_age_ends_in_peace_and_its_client_resumes() {
    let access = Access {
        age: Duration::from_millis(200),
        ..Access::default()
    };
    let plane = Plane::with(Limits::default(), access).await;
    let mut client = Client::connect(&plane).await;
    client.subscribe(C, &[]).await;
    let clusters = client.next(C).await;
    client.ack(&clusters).await;
    assert_eq!(client.end().await, "0");
    let mut client = Client::connect(&plane).await;
    client
        .resume(C, &[], &crate::client::versions(&clusters))
        .await;
    client.fence().await;
}

#[tokio::test]
async fn a_connection_of_nobody_is_closed_and_one_with_a_stream_is_not() {
    let access = Access {
        introduction: Duration::from_millis(300),
        ..Access::default()
    };
    let plane = Plane::with(Limits::default(), access).await;
    let mut client = Client::connect(&plane).await;
    client.subscribe(C, &[]).await;
    let clusters = client.next(C).await;
    client.ack(&clusters).await;
    Client::refused(&plane).await;
    plane.apply(&slice(1)).await;
    client.fence().await;
}
