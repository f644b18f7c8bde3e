//! Private namespaces for a whole test program: network, mounts, processes.
//!
//! All that a suite starts lives and dies with them, also after a panic, Ctrl-C or `kill -9`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

/// Set by the first start of the program for the second one.
const INSIDE: &str = "FAIRLEAD_TEST_ISOLATED";
/// Programs under a path that every user may enter, wherever the checkout is.
const PROGRAMS: &str = "/run/bin";

const NAMESPACES: &[&str] = &[
    "--mount",
    "--net",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
];
/// For who is not root: to be root inside, with a range of other users for Envoy and the workloads.
const AS_ROOT_INSIDE: &[&str] = &["--user", "--map-root-user", "--map-auto"];

/// Returns inside the private namespaces. The first call replaces the program by itself started in them.
pub fn enter(programs: &[(&str, PathBuf)]) -> Result<()> {
    if variable(INSIDE).is_none() {
        return Err(start_again());
    }
    end_on_signals()?;
    shell("mount -t tmpfs -o mode=755 tmpfs /run && mkdir /run/bin && ip link set lo up")?;
    for (name, path) in programs {
        ensure!(path.exists(), "{name}: no program at {}", path.display());
        let place = program(name);
        std::fs::write(&place, "")?;
        let mut bind = Command::new("mount");
        output(bind.arg("--bind").arg(path).arg(&place))?;
    }
    Ok(())
}

/// Where a program given to [`enter`] is for every user.
pub fn program(name: &str) -> PathBuf {
    Path::new(PROGRAMS).join(name)
}

/// The stock Envoy: `ENVOY_BIN`, or the one that `make prerequisites` fetched.
pub fn envoy() -> Result<PathBuf> {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/envoy/envoy");
    let path = variable("ENVOY_BIN").map_or(fetched, PathBuf::from);
    ensure!(
        path.exists(),
        "no Envoy at {}: run `make prerequisites`, or name one in ENVOY_BIN",
        path.display()
    );
    Ok(path)
}

/// Returns only when it cannot start.
fn start_again() -> anyhow::Error {
    let mut options: Vec<&str> = NAMESPACES.to_vec();
    if !can_isolate(&options) {
        options.extend(AS_ROOT_INSIDE);
        if !can_isolate(&options) {
            return anyhow::anyhow!(
                "these tests need network namespaces: run them as root, or as a user for whom \
                 `unshare {} true` works (on Debian: apt-get install uidmap, and a range in /etc/subuid)",
                options.join(" ")
            );
        }
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(e) => return anyhow::Error::new(e).context("find this test program"),
    };
    let failed = Command::new("unshare")
        .args(options)
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    anyhow::Error::new(failed).context("run unshare")
}

fn can_isolate(options: &[&str]) -> bool {
    let tried = Command::new("unshare").args(options).arg("true").output();
    tried.is_ok_and(|done| done.status.success())
}

/// The first process of a namespace ignores signals that it does not handle: Ctrl-C would do nothing.
#[expect(
    clippy::disallowed_methods,
    clippy::exit,
    reason = "a test program ends at once; the kernel ends what it started"
)]
fn end_on_signals() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) = (
                signal(SignalKind::interrupt()),
                signal(SignalKind::terminate()),
            ) else {
                return;
            };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            std::process::exit(130);
        });
    });
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "an entry point reads the environment"
)]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Runs commands that must succeed.
pub fn shell(commands: &str) -> Result<String> {
    output(Command::new("sh").args(["-ec", commands]))
}

/// Runs one command that must succeed; its standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let done = command
        .output()
        .with_context(|| format!("run {command:?}"))?;
    if !done.status.success() {
        let text = String::from_utf8_lossy(&done.stderr);
        bail!("{command:?}: {}: {}", done.status, text.trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
