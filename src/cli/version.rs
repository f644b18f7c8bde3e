//! `fairlead version`: which build this is.

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;
use serde_json::json;

#[derive(clap::Args)]
pub struct Args {
    /// How to print it.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let version = env!("CARGO_PKG_VERSION");
    match args.output {
        Output::Text => println!("fairlead {version}"),
        Output::Json => println!("{}", json!({ "version": version })),
    }
    Ok(ExitCode::SUCCESS)
}
