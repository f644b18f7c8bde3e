//! `fairlead discovery`: the control plane.

use std::process::ExitCode;

use anyhow::{Context, Result};

use super::logging;
use super::settings::Settings;
use crate::app;

pub fn run(settings: &Settings) -> Result<ExitCode> {
    let home = settings.check()?;
    logging::start(&settings.log_output_level, settings.log_format())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.context("start the runtime")?;
    runtime.block_on(app::serve(settings, &home))?;
    Ok(ExitCode::SUCCESS)
}
