//! What the program counts of itself. Logs are set up in `cli`.

pub mod exposition;
pub mod metrics;
pub mod objects;
pub mod retries;
pub mod watching;
