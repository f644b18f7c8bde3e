//! How the release is linked. What is compiled is said in Cargo.toml.

use std::env;

/// Where Rust links by its own lld, which knows these flags.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Text and tables that are mapped count as memory: functions of the same code are one, and the
/// addresses that the loader fills in are listed by bits, not by 24 bytes each (glibc 2.36).
const FLAGS: &[&str] = &["--icf=all", "-z,pack-relative-relocs"];

#[allow(
    clippy::disallowed_methods,
    reason = "what cargo tells a build script is in its environment"
)]
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    if is("PROFILE", "release") && is("TARGET", TARGET) {
        for flag in FLAGS {
            println!("cargo::rustc-link-arg-bins=-Wl,{flag}");
        }
    }
}
