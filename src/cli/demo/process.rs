//! Child processes of the demo: one group, logged, always ended.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use tokio::process::{Child, Command};

/// This program itself, even when its file has been replaced since.
const SELF: &str = "/proc/self/exe";

/// A running child. It is killed at the latest when this is dropped.
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

/// `fairlead <arguments>`.
pub fn fairlead<I: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = I>) -> Command {
    let mut command = Command::new(SELF);
    command.arg0("fairlead").args(arguments);
    command
}

/// All children are one process group. Its leader ends the group when this program is gone, however it went.
pub struct Nursery {
    logs: PathBuf,
    group: i32,
    /// Its input is open as long as this program lives.
    _leader: Child,
}

impl Nursery {
    pub fn open(logs: PathBuf) -> Result<Self> {
        let leader = Command::new("sh")
            .args(["-c", "read -r never; kill -9 0"])
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("start sh")?;
        let pid = leader.id().context("sh ended at once")?;
        Ok(Self {
            logs,
            group: i32::try_from(pid)?,
            _leader: leader,
        })
    }

    /// Its output goes to `<logs>/<name>.log`, after what an earlier one wrote there.
    pub fn start(&self, name: &str, mut command: Command) -> Result<Process> {
        let log = self.logs.join(format!("{name}.log"));
        let tried = || format!("open {}", log.display());
        let out = File::options().create(true).append(true).open(&log);
        let out = out.with_context(tried)?;
        let err = out.try_clone().with_context(tried)?;
        // Ctrl-C reaches the demo alone, which then ends its children in order.
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(self.group)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Process {
            name: name.to_owned(),
            log,
            child,
        })
    }
}

impl Process {
    /// None once it has ended and was waited for.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Fails with the end of its log when it is not running any more.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => bail!("{} ended ({status}): {}", self.name, self.last_lines()),
            Err(error) => bail!("{}: {error}", self.name),
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(&mut self) -> Result<()> {
        let name = &self.name;
        self.child
            .kill()
            .await
            .with_context(|| format!("kill {name}"))
    }

    /// How long its log is now.
    pub fn log_mark(&self) -> Result<u64> {
        let read = || format!("read {}", self.log.display());
        Ok(fs::metadata(&self.log).with_context(read)?.len())
    }

    /// Its log from a mark on.
    pub fn log_since(&self, mark: u64) -> Result<String> {
        /// Far more than it says while the demo runs.
        const MOST: u64 = 16 << 20;
        let read = || format!("read {}", self.log.display());
        let mut file = File::open(&self.log).with_context(read)?;
        file.seek(SeekFrom::Start(mark)).with_context(read)?;
        let mut bytes = Vec::new();
        file.take(MOST).read_to_end(&mut bytes).with_context(read)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The end of its log, for whoever looks for the cause of a failure.
    pub fn last_lines(&self) -> String {
        const MOST: u64 = 2000;
        let end = self
            .log_mark()
            .and_then(|size| self.log_since(size.saturating_sub(MOST)));
        match end {
            Ok(text) => format!("its log ends with\n{}", text.trim_end()),
            Err(error) => format!("its log cannot be read: {error:#}"),
        }
    }
}

/// Runs a command to its end: what it printed, and what it complained of if it failed.
pub async fn ended(mut command: Command) -> Result<(String, Option<String>)> {
    let shown = format!("{:?}", command.as_std());
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("run {shown}"))?;
    let text = |bytes| String::from_utf8_lossy(bytes).trim_end().to_owned();
    let complaint = || format!("{shown}: {}: {}", output.status, text(&output.stderr));
    let complaint = (!output.status.success()).then(complaint);
    Ok((text(&output.stdout), complaint))
}

/// The same for a command that must succeed.
pub async fn printed(command: Command) -> Result<String> {
    match ended(command).await? {
        (printed, None) => Ok(printed),
        (_, Some(complaint)) => bail!(complaint),
    }
}

/// The addresses on which a process listens for TCP, as `/proc` shows them (IPv4 and IPv6).
pub fn listens(pid: u32) -> Result<Vec<String>> {
    let sockets = sockets(pid)?;
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        let path = format!("/proc/{pid}/net/{table}");
        // A machine without IPv6 has no such table.
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        found.extend(
            listeners(&text)
                .filter(|(_, inode)| sockets.iter().any(|s| s == inode))
                .map(|(address, _)| address),
        );
    }
    Ok(found)
}

/// Inodes of the sockets that a process holds open.
fn sockets(pid: u32) -> Result<Vec<String>> {
    let folder = format!("/proc/{pid}/fd");
    let entries = fs::read_dir(&folder).with_context(|| format!("list {folder}"))?;
    let inode = |link: PathBuf| {
        let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        Some(inode.to_owned())
    };
    Ok(entries
        .flatten()
        .filter_map(|entry| inode(fs::read_link(entry.path()).ok()?))
        .collect())
}

/// Address and inode of the rows in state LISTEN.
fn listeners(table: &str) -> impl Iterator<Item = (String, String)> {
    const LISTEN: &str = "0A";
    table.lines().skip(1).filter_map(|row| {
        let columns: Vec<&str> = row.split_whitespace().collect();
        (columns.get(3) == Some(&LISTEN))
            .then(|| Some((address(columns.get(1)?), (*columns.get(9)?).to_owned())))?
    })
}

/// `0101287F:2378` is 127.40.1.1:9080; an IPv6 address stays as it is.
fn address(hex: &str) -> String {
    let parsed = || {
        let (ip, port) = hex.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        // The kernel prints the four bytes as one number in the machine's own order.
        let ip = u32::from_str_radix(ip, 16).ok()?.to_ne_bytes();
        Some(format!("{}:{port}", std::net::Ipv4Addr::from(ip)))
    };
    parsed().unwrap_or_else(|| hex.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_listener_is_found_and_a_connection_is_none() {
        let listener = std::net::TcpListener::bind("127.40.99.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        let found = listens(std::process::id()).unwrap();
        assert!(found.contains(&address.to_string()), "{found:?}");
        let other = client.local_addr().unwrap().to_string();
        assert!(!found.contains(&other), "{found:?}");
    }

    #[tokio::test]
    async fn a_child_that_ended_is_told_with_its_last_words() {
        let logs = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such port >&2; exit 3"]);
        let nursery = Nursery::open(logs.path().to_owned()).unwrap();
        let mut child = nursery.start("server", command).unwrap();
        child.child.wait().await.unwrap();
        let why = child.check().unwrap_err().to_string();
        assert!(why.contains("exit status: 3") && why.contains("no such port"));
    }

    #[tokio::test]
    async fn without_the_demo_its_children_end() {
        let logs = tempfile::tempdir().unwrap();
        let nursery = Nursery::open(logs.path().to_owned()).unwrap();
        let mut command = Command::new("sleep");
        command.arg("600");
        let mut child = nursery.start("sleeper", command).unwrap();
        child.check().unwrap();
        drop(nursery);
        let ended = child.child.wait().await.unwrap();
        assert_eq!(ended.to_string(), "signal: 9 (SIGKILL)");
    }

    #[tokio::test]
    async fn what_a_failed_command_said_is_kept() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo a; echo b >&2; exit 1"]);
        let why = printed(command).await.unwrap_err().to_string();
        assert!(why.ends_with("exit status: 1: b"), "{why}");
    }
}
