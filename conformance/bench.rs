//! The bench's own parts, tested: what its clients understand, and what makes a run void.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "a program's code, of which tests use a part")]

#[path = "../benches/push.rs"]
mod push;

#[path = "bench/bars.rs"]
mod bars;
#[path = "bench/growth.rs"]
mod growth;
#[path = "bench/http2.rs"]
mod http2;
#[path = "bench/probe.rs"]
mod probe;
#[path = "bench/proxy.rs"]
mod proxy;
#[path = "bench/scoped.rs"]
mod scoped;
#[path = "bench/void.rs"]
mod void;
#[path = "bench/wire.rs"]
mod wire;
