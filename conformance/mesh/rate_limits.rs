//! A rate limit service of Envoy's own protocol, and the patches that lead to one.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use bytes::{BufMut as _, Bytes, BytesMut};
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;

/// `LocalRateLimit` of so many requests in an hour, each line behind `indent`.
pub(crate) fn local(indent: &str, requests: u32) -> String {
    [
        "'@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix: limit",
        &format!("token_bucket: {{max_tokens: {requests}, tokens_per_fill: 1, fill_interval: 3600s}}"),
        "filter_enabled: {default_value: {numerator: 100, denominator: HUNDRED}}",
        "filter_enforced: {default_value: {numerator: 100, denominator: HUNDRED}}",
    ]
    .map(|line| format!("{indent}{line}\n"))
    .concat()
}

/// Lets the first requests through that have a descriptor `counted`, and no others of these.
pub(crate) struct Limiter {
    at: SocketAddr,
    counts: Arc<Counts>,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Default)]
struct Counts {
    allowed: u32,
    asked: AtomicU32,
    taken: AtomicU32,
}

impl Limiter {
    pub(crate) fn start(node: Ipv4Addr, allowed: u32) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("start a runtime")?;
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind((node, 0)))
            .context("listen for proxies")?;
        let at = listener.local_addr().context("where it listens")?;
        let counts = Arc::new(Counts {
            allowed,
            ..Counts::default()
        });
        runtime.spawn(serve(listener, counts.clone()));
        Ok(Self {
            at,
            counts,
            _runtime: runtime,
        })
    }

    pub(crate) fn asked(&self) -> u32 {
        self.counts.asked.load(Ordering::Relaxed)
    }

    pub(crate) fn taken(&self) -> u32 {
        self.counts.taken.load(Ordering::Relaxed)
    }

    /// The usual shape: the filter, the service's cluster, and what is asked about.
    pub(crate) fn patches(&self) -> String {
        let (ip, port) = (self.at.ip(), self.at.port());
        format!(
            "
  workloadSelector: {{labels: {{app: storefront}}}}
  configPatches:
  - applyTo: HTTP_FILTER
    match:
      context: SIDECAR_OUTBOUND
      listener:
        filterChain:
          filter:
            name: envoy.filters.network.http_connection_manager
            subFilter: {{name: envoy.filters.http.router}}
    patch:
      operation: INSERT_BEFORE
      value:
        name: envoy.filters.http.ratelimit
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
          domain: shop
          failure_mode_deny: true
          timeout: 5s
          rate_limit_service:
            grpc_service: {{envoy_grpc: {{cluster_name: rate_limit_cluster, authority: limiter}}}}
            transport_api_version: V3
  - applyTo: CLUSTER
    patch:
      operation: ADD
      value:
        name: rate_limit_cluster
        type: STATIC
        connect_timeout: 5s
        typed_extension_protocol_options:
          envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
            '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
            explicit_http_config: {{http2_protocol_options: {{}}}}
        load_assignment:
          cluster_name: rate_limit_cluster
          endpoints:
          - lb_endpoints:
            - endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}
  - applyTo: VIRTUAL_HOST
    match:
      context: SIDECAR_OUTBOUND
      routeConfiguration: {{vhost: {{name: 'reviews.shop.svc.cluster.local:9080'}}}}
    patch:
      operation: MERGE
      value:
        rate_limits:
        - actions:
          - header_value_match:
              descriptor_value: counted
              headers: [{{name: ':path', string_match: {{prefix: /counted}}}}]
"
        )
    }
}

async fn serve(listener: tokio::net::TcpListener, counts: Arc<Counts>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let counts = counts.clone();
        let answer = service_fn(move |request| answer(request, counts.clone()));
        let protocol = http2::Builder::new(TokioExecutor::new());
        connections.spawn(protocol.serve_connection(TokioIo::new(stream), answer));
    }
}

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

async fn answer(
    request: Request<Incoming>,
    counts: Arc<Counts>,
) -> Result<Response<Body>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    // One message, behind a byte of flags and its length.
    let asked = RateLimitRequest::decode(body.get(5..).unwrap_or_default()).unwrap_or_default();
    let entries = asked.descriptors.iter().flat_map(|d| &d.entries);
    let counted = entries.into_iter().any(|entry| entry.value == "counted");
    counts.asked.fetch_add(1, Ordering::Relaxed);
    let within = !counted || {
        let one = |taken: u32| (taken < counts.allowed).then_some(taken + 1);
        let taken = &counts.taken;
        taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one)
            .is_ok()
    };
    let code = if within { Code::Ok } else { Code::OverLimit };
    let said = RateLimitResponse {
        overall_code: code.into(),
        ..RateLimitResponse::default()
    };
    Ok(grpc(&said.encode_to_vec()))
}

fn grpc(message: &[u8]) -> Response<Body> {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.len().try_into().unwrap_or_default());
    framed.put_slice(message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(framed.freeze()).with_trailers(async { Some(Ok(trailers)) });
    let mut response = Response::new(body.boxed());
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", kind);
    response
}
