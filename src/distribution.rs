//! How far configuration got: which form of an object each replica has, and how many of its proxies hold that.
//!
//! Nothing is kept by proxy and object: a replica knows since when each of its proxies owes an answer, and when the
//! present form of each object came. What its peers know it asks them, over the mesh's own TLS.

pub mod board;
pub mod peers;
pub mod service;
pub mod tally;
