//! Sends each Envoy what it lacks: delta sessions, their hub, the ADS endpoint.
//!
//! `delivery` never asks why something changed: it compares resource versions.

pub mod accept;
pub mod body;
pub mod credentials;
pub mod frame;
pub mod grpc;
pub mod hub;
pub mod issue;
pub mod lists;
pub mod outlet;
pub mod pool;
pub mod registrar;
pub mod roster;
pub mod server;
pub mod session;
pub mod strangers;
pub mod stream;
pub mod wire;

use std::time::Duration;

/// What bounds one stream. Every value can be set; `Default` is what is documented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// One request's bytes.
    pub request_bytes: usize,
    /// Names subscribed of one type, and versions brought at its first request.
    pub names: usize,
    pub name_bytes: usize,
    /// A response is closed when it has this much; a larger resource goes alone.
    pub frame_bytes: usize,
    /// Bytes and frames handed to a connection that it has not taken yet. Past them nothing is rendered
    /// for it: changes gather by name, and the latest content goes when there is room again.
    pub window_bytes: usize,
    pub window_frames: usize,
    /// A client that takes nothing for this long, with its window full, is closed.
    pub stall: Duration,
    /// How long a cluster may warm before routes that name it are sent all the same.
    pub warm: Duration,
    /// How long a reconnecting client may take to name its listeners and routes before clusters
    /// that are gone are removed under them.
    pub resume: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes: 4 << 20,
            names: 100_000,
            name_bytes: 1024,
            frame_bytes: 1 << 20,
            window_bytes: 2 << 20,
            window_frames: 64,
            stall: Duration::from_secs(30),
            warm: Duration::from_secs(5),
            resume: Duration::from_secs(1),
        }
    }
}

/// What bounds connections and callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Connections of one listener.
    pub connections: usize,
    /// Connections of one address that have not opened a stream yet: many proxies behind one address come
    /// back together, but one address alone must not take all the room.
    pub strangers_per_address: usize,
    /// How long a connection may take from its handshake to its first stream.
    pub introduction: Duration,
    /// A Deployment's pods share an identity: this is about one gone wild, not about pods.
    pub streams_per_identity: usize,
    /// A connection ends after this long, with jitter; its proxy comes back and resumes.
    pub age: Duration,
    /// Over how long connections are told to go when the program stops.
    pub parting: Duration,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            connections: 20_000,
            strangers_per_address: 5_000,
            introduction: Duration::from_secs(10),
            streams_per_identity: 5_000,
            age: Duration::from_secs(30 * 60),
            parting: Duration::from_secs(2),
        }
    }
}
