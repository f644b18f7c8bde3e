//! Runs iptables: reads the pod's nat table and replaces capture in it.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::capture::Table;

/// Which of the installed variants to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Iptables {
    System,
    Nft,
    Legacy,
}

/// Seconds to wait for another program that holds iptables' lock.
const LOCK_SECONDS: &str = "10";

impl Iptables {
    fn program(self, verb: &str) -> String {
        match self {
            Self::System => format!("iptables-{verb}"),
            Self::Nft => format!("iptables-nft-{verb}"),
            Self::Legacy => format!("iptables-legacy-{verb}"),
        }
    }

    pub(super) fn read(self) -> anyhow::Result<Table> {
        let program = self.program("save");
        let mut command = Command::new(&program);
        command.args(["-t", "nat"]);
        let saved = output(&program, command, "")?;
        Ok(Table::parse(&saved)?)
    }

    /// All or nothing; does nothing when the table is already as wanted.
    pub(super) fn replace(self, wanted: &Table) -> anyhow::Result<()> {
        let found = self.read()?;
        if wanted.differences(&found).is_empty() {
            return Ok(());
        }
        let program = self.program("restore");
        let mut command = Command::new(&program);
        command.args(["--noflush", "--wait", LOCK_SECONDS]);
        output(&program, command, &wanted.restore(&found)).map(drop)
    }
}

fn output(program: &str, mut command: Command, input: &str) -> anyhow::Result<String> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("run {program}"))?;
    let mut stdin = child.stdin.take().context("stdin was asked for")?;
    // A program that stops early says why on stderr; that it did not read is no news.
    let _unread = stdin.write_all(input.as_bytes());
    drop(stdin);
    let done = child
        .wait_with_output()
        .with_context(|| format!("run {program}"))?;
    if !done.status.success() {
        let why = String::from_utf8_lossy(&done.stderr);
        bail!("{program} with {}: {}", done.status, why.trim());
    }
    String::from_utf8(done.stdout).with_context(|| format!("{program} printed no UTF-8"))
}

/// Capture is IPv4 only; a pod that can be reached over IPv6 would be open past its sidecar.
pub(super) fn refuse_uncaptured_ipv6() -> anyhow::Result<()> {
    let addresses = match std::fs::read_to_string("/proc/net/if_inet6") {
        Ok(text) => text,
        // The kernel has no IPv6.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).context("read /proc/net/if_inet6"),
    };
    match global_ipv6(&addresses) {
        Some(address) => bail!(
            "the pod has the IPv6 address {address}, which would bypass the sidecar: IPv6 capture is not implemented yet"
        ),
        None => Ok(()),
    }
}

/// The first address of global scope in the kernel's list: address, index, prefix, scope, flags, name.
fn global_ipv6(list: &str) -> Option<String> {
    list.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields[..] {
            [address, _, _, "00", _, interface] => Some(format!("{address} on {interface}")),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_global_ipv6_address_counts() {
        let own = "00000000000000000000000000000001 01 80 10 80       lo\n\
                   fe800000000000000000000000000001 02 40 20 80     eth0\n";
        assert_eq!(global_ipv6(own), None);
        let global = format!("{own}fd000000000000000000000000000007 02 40 00 80     eth0\n");
        let found = global_ipv6(&global).unwrap();
        assert_eq!(found, "fd000000000000000000000000000007 on eth0");
    }
}
