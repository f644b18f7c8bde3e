//! The delta protocol over real connections: what a client asks, and exactly what it is sent.
//!
//! No Envoy here: the client says what Envoy would, and what it never would. That nothing is sent is
//! proven by a fence, a question whose answer must be the next message.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

#[path = "delta/client.rs"]
mod client;
#[path = "delta/full_sockets.rs"]
mod full_sockets;
#[path = "delta/plane.rs"]
mod plane;
#[path = "delta/protocol.rs"]
mod protocol;
#[path = "delta/slow.rs"]
mod slow;
#[path = "delta/trust.rs"]
mod trust;
