//! The program `fairlead`: allocator, cryptography, command line. The rest is in the library.

use std::process::ExitCode;

// Long-lived fragmentation decides the resident size of a control plane; jemalloc keeps it low.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Fails only when another provider is installed already, and nothing ran before this line.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    fairlead::cli::run()
}
