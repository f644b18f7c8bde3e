//! Fairlead: Istio's APIs in, delta xDS for stock Envoy out.
//!
//! ```text
//!  source ─▶ acceptance ─▶ model (Snapshot) ─▶ ir (joins) ─▶ xds (render once) ─▶ view (per scope) ─▶ delivery ─▶ Envoy
//! ```
//!
//! Modules are listed in pipeline order; a module imports only from those above it.
//! `conformance/layers.rs` holds the arrows.

pub mod backoff;
pub mod clock;
pub mod diagnostic;
pub mod identity;
pub mod state;
pub mod text;
pub mod tls;

pub mod schema;

pub mod config;

pub mod acceptance;
pub mod analyze;
pub mod source;

pub mod model;

pub mod ir;

pub mod xds;

pub mod ca;

pub mod view;

pub mod telemetry;

pub mod delivery;
pub mod distribution;

pub mod debug;

pub mod bootstrap;
pub mod capture;
pub mod echo;
pub mod inject;

pub mod admission;
pub mod controllers;

pub mod dump;
pub mod offline;

pub mod app;
pub mod cli;
