//! The mesh as indexed, immutable facts. No Envoy here.

pub mod proxy;
