//! Where objects come from, as events in the words of Kubernetes' watches. What is valid is not decided here.

pub mod file;

pub use crate::config::event::Event;
