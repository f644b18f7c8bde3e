//! A suite of scenarios as a program: private namespaces first, then each scenario is a test.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

use super::isolation;

/// A scenario: its name is the sentence that it proves.
pub type Scenario = (&'static str, fn() -> Result<()>);

/// Runs the trials in namespaces that hold these programs. Only their list needs none.
pub fn run(
    suite: &str,
    programs: Result<Vec<(&str, PathBuf)>>,
    trials: impl IntoIterator<Item = Trial>,
) -> ExitCode {
    run_with(&Arguments::from_args(), suite, programs, trials)
}

/// The same for scenarios that have the whole network to themselves.
pub fn run_one_by_one(
    suite: &str,
    programs: Result<Vec<(&str, PathBuf)>>,
    trials: impl IntoIterator<Item = Trial>,
) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    run_with(&arguments, suite, programs, trials)
}

fn run_with(
    arguments: &Arguments,
    suite: &str,
    programs: Result<Vec<(&str, PathBuf)>>,
    trials: impl IntoIterator<Item = Trial>,
) -> ExitCode {
    let entered = match arguments.list {
        true => Ok(()),
        false => programs.and_then(|programs| isolation::enter(&programs)),
    };
    if let Err(fault) = entered {
        return broken(suite, &fault);
    }
    libtest_mimic::run(arguments, trials.into_iter().collect()).exit_code()
}

/// What keeps a suite from having any test.
#[expect(clippy::print_stderr, reason = "there is no test to report")]
pub fn broken(suite: &str, fault: &anyhow::Error) -> ExitCode {
    eprintln!("{suite}: {fault:#}");
    ExitCode::FAILURE
}

/// One scenario's outcome, as the runner takes it.
pub fn outcome(result: Result<()>) -> Result<(), Failed> {
    result.map_err(|fault| Failed::from(format!("{fault:#}")))
}
