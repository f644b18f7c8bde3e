//! Meshes of real Envoys on one machine: each pod in a network namespace of its own.
//!
//! A suite calls [`isolation::enter`] first: from then on it runs in private namespaces that the kernel takes
//! away with it, however it ends. Then [`mesh::Mesh`] starts a control plane and [`pod::Pod`]s.
//! Nothing here knows what a scenario expects.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "it is compiled into each suite, which uses the part it needs"
)]

pub mod api_server;
pub mod client;
pub mod control_plane;
pub mod controllers;
pub mod fixed;
pub mod isolation;
pub mod kubelet;
pub mod load;
pub mod manifest;
pub mod mesh;
pub mod network;
pub mod packing;
pub mod pki;
pub mod pod;
pub mod process;
pub mod script;
pub mod suite;
pub mod validate;
pub mod wait;
