//! A child process with its log in a file, ended when dropped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::wait::within;

/// Lines of a log that a failure shows.
const SHOWN: usize = 40;

pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Standard output and error go to `<folder>/<name>.log`.
    pub fn start(name: &str, folder: &Path, mut command: Command) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("open {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = command
            .spawn()
            .with_context(|| format!("start {name}: {command:?}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready` succeeds; a process that ends before shows its log.
    pub fn wait_until<T>(&mut self, what: &str, ready: impl FnMut() -> Result<T>) -> Result<T> {
        self.wait_within(super::wait::PATIENCE, what, ready)
    }

    pub fn wait_within<T>(
        &mut self,
        limit: Duration,
        what: &str,
        mut ready: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        let Self { name, child, log } = self;
        let mut ended = None;
        let outcome = within(limit, &format!("{name}: {what}"), || {
            if let Some(status) = child.try_wait()? {
                ended = Some(status);
                return Ok(None);
            }
            ready().map(Some)
        });
        match (outcome, ended) {
            (Ok(Some(value)), _) => Ok(value),
            (Ok(None), Some(status)) => bail!("{name} ended ({status}):\n{}", tail(log)),
            (Ok(None), None) => bail!("{name} is neither ready nor ended"),
            (Err(fault), _) => Err(fault.context(format!("log of {name}:\n{}", tail(log)))),
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn has_ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    pub fn kill(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let Self { name, log, .. } = self;
            let text = tail(log);
            #[expect(
                clippy::print_stderr,
                reason = "a failed test shows what its processes said"
            )]
            {
                eprintln!("--- {name}\n{text}");
            }
        }
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}
