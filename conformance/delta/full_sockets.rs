//! A client whose socket is full although HTTP/2 lets everything out: what waits for it is bounded, and comes whole.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use fairlead::delivery::{Access, Limits};
use fairlead::xds::ResourceType::{Cluster as C, Endpoint as E};
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::client::{Call, Came, Client, names};
use crate::plane::Plane;

const TEA: &str = "outbound|80||tea.shop.svc.cluster.local";
const CUPS: &str = "outbound|80||cups.shop.svc.cluster.local";
/// So much that flow control holds nothing back.
const WINDOW: Option<u32> = Some(1 << 30);

/// Ears that may be stopped.
#[derive(Default)]
struct Ears {
    stopped: AtomicBool,
    waker: AtomicWaker,
}

impl Ears {
    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    fn open(&self) {
        self.stopped.store(false, Ordering::SeqCst);
        self.waker.wake();
    }
}

/// A connection of which nothing is read meanwhile.
struct Heard<I> {
    io: I,
    ears: Arc<Ears>,
}

impl<I: AsyncRead + Unpin> AsyncRead for Heard<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.ears.waker.register(cx.waker());
        if self.ears.stopped.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Heard<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// `count` endpoints, the last of which tells versions apart.
fn slice(count: usize, version: usize) -> String {
    let address = |n: usize| format!("{{addresses: [10.1.{}.{}]}}", n / 250, n % 250 + 1);
    let mut endpoints: Vec<String> = (0..count).map(address).collect();
    endpoints.push(format!(
        "{{addresses: [10.2.{}.{}]}}",
        version / 250,
        version % 250 + 1
    ));
    format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, \
        metadata: {{name: tea-1, namespace: shop, labels: {{kubernetes.io/service-name: tea}}}}, \
        addressType: IPv4, ports: [{{name: http, port: 8080, protocol: TCP}}], \
        endpoints: [{}]}}",
        endpoints.join(", ")
    )
}

/// A client that has all there is, over TLS.
async fn settled(plane: &Plane) -> (Client, Arc<Ears>) {
    let ears = Arc::new(Ears::default());
    let io = Heard {
        io: plane.secured(None).await,
        ears: ears.clone(),
    };
    let call = Call {
        token: Some(plane.token("shop", "caller")),
        window: WINDOW,
        ..Call::default()
    };
    let mut client = Client::over(io, plane.tls, call).await;
    client.subscribe(C, &[]).await;
    let clusters = client.next(C).await;
    client.ack(&clusters).await;
    client.subscribe(E, &[TEA, CUPS]).await;
    let endpoints = client.next(E).await;
    client.ack(&endpoints).await;
    client.fence().await;
    (client, ears)
}

#[tokio::test]
async fn a_client_whose_socket_is_full_is_capped_and_closed_whatever_its_windows_say() {
    let limits = Limits {
        window_bytes: 50_000,
        stall: Duration::from_millis(300),
        ..Limits::default()
    };
    let plane = Plane::with(limits, Access::default()).await;
    let (_client, ears) = settled(&plane).await;
    ears.stop();
    // Less than a record of TLS each: they come one by one.
    const EDITS: usize = 10_000;
    let mut edits = 0;
    while plane.metrics.closed.get() == 0 && edits < EDITS {
        plane.apply(&slice(40, edits)).await;
        plane.summary().await;
        edits += 1;
    }
    let closed = async {
        while plane.metrics.closed.get() == 0 {
            plane.summary().await;
        }
    };
    let closed = tokio::time::timeout(Duration::from_secs(10), closed).await;
    assert!(closed.is_ok(), "still open after {edits} edits");
}

#[tokio::test]
async fn what_waited_for_a_full_socket_comes_whole_and_ends_with_the_latest() {
    let plane = Plane::start().await;
    let (mut client, ears) = settled(&plane).await;
    ears.stop();
    const EDITS: usize = 400;
    for edit in 0..EDITS {
        plane.apply(&slice(600, edit)).await;
        plane.summary().await;
    }
    ears.open();
    let latest = format!("10.2.{}.{}", (EDITS - 1) / 250, (EDITS - 1) % 250 + 1);
    loop {
        let Came::Message(message) = client.came().await else {
            panic!("the stream ended");
        };
        assert_eq!(names(&message), [TEA]);
        client.ack(&message).await;
        let body = &message.resources[0].resource.as_ref().unwrap().value;
        if body.windows(latest.len()).any(|w| w == latest.as_bytes()) {
            break;
        }
    }
    client.fence().await;
}

#[tokio::test]
async fn responses_of_any_length_about_a_record_of_tls_come_whole() {
    let plane = Plane::start().await;
    let (mut client, _ears) = settled(&plane).await;
    let mut lengths = Vec::new();
    for count in (1..700).step_by(7) {
        plane.apply(&slice(count, count)).await;
        let message = client.next(E).await;
        assert_eq!(names(&message), [TEA]);
        lengths.push(message.resources[0].resource.as_ref().unwrap().value.len());
        client.ack(&message).await;
    }
    assert!(lengths.is_sorted());
    assert!(lengths[0] < 16_000 && *lengths.last().unwrap() > 2 * 16_384);
}
