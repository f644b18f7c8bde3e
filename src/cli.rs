//! The command line: subcommands, and how each one ends. What they do is in the files beside.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "commands answer on the terminal; everything below them logs or returns"
)]

pub mod address;
pub mod analyze;
pub mod bootstrap;
pub mod demo;
pub mod discovery;
pub mod dump;
pub mod echo;
pub mod folder;
pub mod init;
pub mod inject;
pub mod logging;
pub mod settings;
pub mod span;
pub mod terminal;
pub mod token;
pub mod version;

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, Parser, Subcommand};

/// A control plane for Istio's APIs that drives stock Envoy.
#[derive(Parser)]
#[command(name = "fairlead", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve proxies from a folder of configuration or from a Kubernetes API server.
    Discovery(Box<settings::Settings>),
    /// Print what is wrong or waits in a folder of configuration.
    Analyze(analyze::Args),
    /// Print what a proxy would be sent, and which objects made it.
    Dump(dump::Args),
    /// Print the bootstrap by which a stock Envoy joins the mesh as a workload.
    Bootstrap(bootstrap::Args),
    /// Capture a pod's traffic for its sidecar (IPv4, by iptables' REDIRECT), or fail.
    Init(init::Args),
    /// Give the pods of manifests their sidecars, as the webhook would.
    Inject(inject::Args),
    /// Run a workload that describes each request it gets.
    Echo(echo::Args),
    /// Show all of it on this machine, checked with real requests.
    Demo(demo::Args),
    /// Print a service-account token for a workload.
    Token(token::Args),
    /// Print the version of this program.
    Version(version::Args),
}

/// Runs the command line and says how it ended: 0, 1 for a failure, 2 for a misuse (clap's).
pub fn run() -> ExitCode {
    let done = match parse().command {
        Command::Discovery(settings) => discovery::run(&settings),
        Command::Analyze(args) => analyze::run(&args),
        Command::Dump(args) => dump::run(&args),
        Command::Bootstrap(args) => bootstrap::run(&args),
        Command::Init(args) => init::run(&args),
        Command::Inject(args) => inject::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Echo(args) => echo::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Version(args) => version::run(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("fairlead: {error:#}");
        ExitCode::FAILURE
    })
}

/// The command line, or an end that says what is wrong, and with which variable if it was none of the flags.
fn parse() -> Cli {
    Cli::try_parse().unwrap_or_else(|mut error| {
        let variable = variable(&error).filter(|name| settings::is_in_environment(name));
        if let Some(variable) = variable {
            let variable = variable.to_string_lossy();
            let hint =
                format!("where the flag is not given, {variable} of the environment says it");
            error.insert(
                ContextKind::Suggested,
                ContextValue::StyledStrs(vec![hint.into()]),
            );
        }
        error.exit()
    })
}

/// The variable of the setting that an error names.
fn variable(error: &clap::Error) -> Option<OsString> {
    let Some(ContextValue::String(named)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let mut command = Cli::command();
    // Before that, an argument does not know how it is shown.
    command.build();
    let mut args = command
        .get_subcommands()
        .flat_map(clap::Command::get_arguments);
    args.find_map(|arg| arg.get_env().filter(|_| arg.to_string() == *named))
        .map(OsStr::to_owned)
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_wrong_value_names_the_variable_that_may_have_said_it() {
        let of = |line: &[&str]| variable(&Cli::try_parse_from(line).err().unwrap());
        let named = of(&["fairlead", "discovery", "--hold-unresolved=x"]);
        assert_eq!(named.unwrap(), "FAIRLEAD_HOLD_UNRESOLVED");
        let named = of(&["fairlead", "analyze", "--config-dir=a", "--domain=a..b"]);
        assert_eq!(named.unwrap(), "FAIRLEAD_DOMAIN");
        assert_eq!(of(&["fairlead", "bootstrap", "--max-connections=0"]), None);
    }
}
