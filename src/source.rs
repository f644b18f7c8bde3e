//! Where objects come from, as events in the words of Kubernetes' watches. What is valid is not decided here.

pub mod file;
pub mod kube;

use std::time::Instant;

pub use crate::config::event::Event;

/// Events that belong together, and the moment when their cause was seen.
pub type Batch = (Vec<Event>, Instant);
