//! `fairlead token`: a service-account token for a workload without Kubernetes.

use std::io::{IsTerminal, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use super::span;
use crate::ca::token::{AUDIENCE, Bearer, TokenIssuer};
use crate::clock;
use crate::state::StateDir;

#[derive(clap::Args)]
pub struct Args {
    /// The state directory of `fairlead discovery`; it may be running.
    #[arg(long, env = "FAIRLEAD_STATE_DIR", value_name = "DIR")]
    state_dir: PathBuf,

    /// Namespace of the workload.
    #[arg(long, short)]
    namespace: String,

    /// Service account of the workload: with the namespace, its identity.
    #[arg(long)]
    service_account: String,

    /// Pod (or instance) that the token is bound to: a proxy of another name is refused with it.
    #[arg(long, value_name = "POD")]
    name: Option<String>,

    /// How long the token is good.
    #[arg(long, default_value = "24h", value_parser = span::parse)]
    ttl: Duration,

    /// Who is to accept it.
    #[arg(long, default_value = AUDIENCE)]
    audience: String,
}

/// Prints the token; a line end only for eyes: Envoy sends what a file holds, and a header has none.
pub fn run(args: &Args) -> Result<ExitCode> {
    let dir = StateDir::existing(&args.state_dir)?;
    if !TokenIssuer::is_there(&dir) {
        let path = args.state_dir.display();
        eprintln!(
            "fairlead: {path} has no key for tokens yet and is given one; a server that runs elsewhere refuses them"
        );
    }
    let issuer = TokenIssuer::beside(dir)?;
    let bearer = Bearer {
        namespace: &args.namespace,
        service_account: &args.service_account,
        pod: args.name.as_deref(),
    };
    let token = issuer.issue(bearer, &args.audience, args.ttl, clock::wall())?;
    let end = if stdout().is_terminal() { "\n" } else { "" };
    print!("{token}{end}");
    Ok(ExitCode::SUCCESS)
}
