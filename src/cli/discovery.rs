//! `fairlead discovery`: the control plane.

use std::process::ExitCode;

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use super::logging;
use super::settings::Settings;
use crate::app;

pub fn run(settings: &Settings) -> Result<ExitCode> {
    let home = settings.check()?;
    logging::start(&settings.log_output_level, settings.log_format())?;
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.context("start the runtime")?;
    runtime.block_on(app::serve(settings, &home))?;
    Ok(ExitCode::SUCCESS)
}

/// Every proxy is a socket, and the soft limit is often 1,024; the hard one is what the machine allows.
fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "raise the limit of open files");
    }
}
