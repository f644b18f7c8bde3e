//! Runs every test suite, writes JUnit XML, and ends with the count. Not a test framework.
//!
//! The suites are ordinary cargo test targets; this asks cargo which there are, runs each one under
//! a deadline with the seed of the run in its environment, and adds up what they report as JSON.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "the entry point: it reads arguments and starts its reader threads"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use fairlead::clock;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde::Deserialize;

/// A suite that takes longer hangs: it is ended and counts as failed.
const DEADLINE: Duration = Duration::from_secs(20 * 60);

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tally: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let seed = seed()?;
    println!("seed {seed} (repeat this run with FAIRLEAD_SEED={seed})");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let suites = suites(root)?;
    let mut total = Outcome::default();
    for (name, program) in suites {
        let outcome = run_suite(&name, &program, root, seed)?;
        println!("{name}: {outcome}");
        write_junit(&root.join("target/junit"), &name, &outcome)?;
        total.absorb(&name, outcome);
    }
    Ok(close(&total))
}

fn seed() -> Result<u64> {
    match std::env::var("FAIRLEAD_SEED") {
        Ok(text) => text
            .parse()
            .with_context(|| format!("read FAIRLEAD_SEED `{text}` as a number")),
        Err(_) => Ok(u64::from(
            clock::wall().duration_since(UNIX_EPOCH)?.subsec_nanos(),
        )),
    }
}

/// Test programs by target name, the unit tests first: they are the quickest to tell.
fn suites(root: &Path) -> Result<Vec<(String, PathBuf)>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "test",
            "--no-run",
            "--locked",
            "--message-format=json-render-diagnostics",
        ])
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .context("run cargo test --no-run")?;
    if !output.status.success() {
        bail!("cargo test --no-run: {}", output.status);
    }
    let text = String::from_utf8(output.stdout)?;
    let artifacts = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Artifact>(line).ok());
    let mut found: Vec<(String, PathBuf)> = artifacts
        .filter(|a| a.profile.test)
        .filter_map(|a| Some((a.target.name, a.executable?)))
        .collect();
    found.sort_by_key(|(name, _)| (name != "fairlead", name.clone()));
    if found.is_empty() {
        bail!("cargo named no test program");
    }
    Ok(found)
}

/// What of cargo's `compiler-artifact` message is needed.
#[derive(Deserialize)]
struct Artifact {
    target: Target,
    profile: Profile,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// A line of libtest's JSON (libtest-mimic writes the same).
#[derive(Debug, Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    event: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    stdout: String,
    #[serde(default)]
    message: String,
}

#[derive(Default)]
struct Outcome {
    passed: BTreeMap<String, Duration>,
    failed: BTreeMap<String, String>,
    skipped: BTreeMap<String, String>,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} passed, {} failed",
            self.passed.len(),
            self.failed.len()
        )?;
        if self.skipped.is_empty() {
            Ok(())
        } else {
            write!(f, ", {} skipped", self.skipped.len())
        }
    }
}

impl Outcome {
    fn absorb(&mut self, suite: &str, other: Self) {
        let named = |name: String| format!("{suite}::{name}");
        self.passed
            .extend(other.passed.into_iter().map(|(n, t)| (named(n), t)));
        self.failed
            .extend(other.failed.into_iter().map(|(n, t)| (named(n), t)));
        self.skipped
            .extend(other.skipped.into_iter().map(|(n, t)| (named(n), t)));
    }

    fn record(&mut self, event: Event, took: Duration) {
        match event.event.as_str() {
            "ok" => {
                self.passed.insert(event.name, took);
            }
            "failed" => {
                self.failed
                    .insert(event.name, event.stdout + &event.message);
            }
            "ignored" => {
                self.skipped.insert(event.name, event.message);
            }
            _ => {}
        }
    }
}

fn run_suite(name: &str, program: &Path, root: &Path, seed: u64) -> Result<Outcome> {
    let mut child = Command::new(program)
        .args(["-Zunstable-options", "--format", "json"])
        // libtest gives JSON only to those who accept that its form may change; nothing is compiled here.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("FAIRLEAD_SEED", seed.to_string())
        .env("PROPTEST_RNG_SEED", seed.to_string())
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {}", program.display()))?;
    let lines = lines_of(&mut child)?;
    let mut outcome = Outcome::default();
    let mut running = BTreeMap::new();
    let deadline = clock::mono() + DEADLINE;
    loop {
        let left = deadline.saturating_duration_since(clock::mono());
        match lines.recv_timeout(left) {
            Ok(line) => follow(&line, &mut outcome, &mut running),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                end_group(&child);
                outcome
                    .failed
                    .insert(name.to_owned(), format!("still running after {DEADLINE:?}"));
                break;
            }
        }
    }
    let status = child.wait()?;
    for unfinished in running.into_keys() {
        outcome.failed.insert(
            unfinished,
            format!("did not finish: the suite ended with {status}"),
        );
    }
    if !status.success() && outcome.failed.is_empty() {
        outcome
            .failed
            .insert(name.to_owned(), format!("the suite ended with {status}"));
    }
    Ok(outcome)
}

fn lines_of(child: &mut Child) -> Result<mpsc::Receiver<String>> {
    let stdout = child.stdout.take().context("the suite's output is piped")?;
    // A suite that prints faster than it is read waits in its pipe.
    let (sender, receiver) = mpsc::sync_channel(64);
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stdout).lines();
        while let Some(Ok(line)) = lines.next() {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    Ok(receiver)
}

fn follow(line: &str, outcome: &mut Outcome, running: &mut BTreeMap<String, Instant>) {
    let Ok(event) = serde_json::from_str::<Event>(line) else {
        println!("{line}");
        return;
    };
    if event.kind != "test" {
        return;
    }
    if event.event == "started" {
        running.insert(event.name, clock::mono());
        return;
    }
    if event.event == "failed" {
        println!("FAILED {}\n{}{}", event.name, event.stdout, event.message);
    }
    if event.event == "timeout" {
        // Only libtest's word that a test takes long; its outcome still comes.
        return;
    }
    let started = running.remove(&event.name);
    let took = started.map_or(Duration::ZERO, |s| {
        clock::mono().saturating_duration_since(s)
    });
    outcome.record(event, took);
}

/// Ends the suite with all it started (Envoys, servers).
fn end_group(child: &Child) {
    let group = format!("-{}", child.id());
    if let Err(error) = Command::new("kill").args(["-KILL", "--", &group]).status() {
        eprintln!("kill {group}: {error}");
    }
}

fn write_junit(folder: &Path, name: &str, outcome: &Outcome) -> Result<()> {
    let mut suite = TestSuite::new(name);
    for (test, took) in &outcome.passed {
        let mut case = TestCase::new(test.as_str(), TestCaseStatus::success());
        case.set_time(*took);
        suite.add_test_case(case);
    }
    for (test, text) in &outcome.failed {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        status.set_description(text.as_str());
        suite.add_test_case(TestCase::new(test.as_str(), status));
    }
    for (test, reason) in &outcome.skipped {
        let mut status = TestCaseStatus::skipped();
        status.set_message(reason.as_str());
        suite.add_test_case(TestCase::new(test.as_str(), status));
    }
    let mut report = Report::new("fairlead");
    report.add_test_suite(suite);
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let path = folder.join(format!("{name}.xml"));
    std::fs::write(&path, report.to_string()?).with_context(|| format!("write {}", path.display()))
}

/// Prints what a person must see last; a skipped test fails where CI is set.
fn close(total: &Outcome) -> ExitCode {
    for (test, reason) in &total.skipped {
        println!("skipped: {test}: {reason}");
    }
    for test in total.failed.keys() {
        println!("failed: {test}");
    }
    let hidden = std::env::var_os("CI").is_some() && !total.skipped.is_empty();
    if hidden {
        println!("CI is set: a skipped test counts as a failure");
    }
    println!("{total}");
    if hidden || !total.failed.is_empty() || total.passed.is_empty() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
