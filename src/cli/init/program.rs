//! Runs the programs that change the kernel's rules, and says what to do where one cannot.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, anyhow, bail};

/// A program that changes rules, and the Debian package that has it.
pub(super) struct Program<'a> {
    pub(super) name: &'a str,
    pub(super) package: &'a str,
}

impl Program<'_> {
    pub(super) fn output(&self, args: &[&str], input: &str) -> anyhow::Result<String> {
        let Self { name, package } = self;
        let mut command = Command::new(name);
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => anyhow!(
                "run {name}: there is no such program; use an image that has it (on Debian, package `{package}`)"
            ),
            _ => anyhow!("run {name}: {e}"),
        })?;
        let mut stdin = child.stdin.take().context("stdin was asked for")?;
        // A program that stops early says why on stderr; that it did not read is no news.
        let _unread = stdin.write_all(input.as_bytes());
        drop(stdin);
        let done = child
            .wait_with_output()
            .with_context(|| format!("run {name}"))?;
        if !done.status.success() {
            let why = String::from_utf8_lossy(&done.stderr);
            bail!("{name} with {}: {}\n{}", done.status, why.trim(), advice());
        }
        String::from_utf8(done.stdout).with_context(|| format!("{name} printed no UTF-8"))
    }
}

/// What a pod's owner can do when the kernel refuses.
fn advice() -> &'static str {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    match may_change_rules(&status) {
        Some(false) => {
            "fairlead init lacks the capability NET_ADMIN: let its container have it (securityContext.capabilities.add), or let a CNI plugin capture (pilot.cni.enabled)"
        }
        Some(true) | None => {
            "the node's kernel may lack what this needs: try another of --force-iptables-binary=nft|legacy and --native-nftables (global.nativeNftables), or leave the pod uncaptured (sidecar.istio.io/interceptionMode: NONE)"
        }
    }
}

/// By the effective capabilities of a process, as the kernel lists them.
fn may_change_rules(status: &str) -> Option<bool> {
    const NET_ADMIN: u64 = 1 << 12;
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    let capabilities = u64::from_str_radix(line.trim(), 16).ok()?;
    Some(capabilities & NET_ADMIN != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_net_admin_is_told_from_one_with_it() {
        let with = "Name:\tx\nCapEff:\t0000000000003000\n";
        assert_eq!(may_change_rules(with), Some(true));
        let without = "Name:\tx\nCapEff:\t0000000000002000\n";
        assert_eq!(may_change_rules(without), Some(false));
        assert_eq!(may_change_rules("Name:\tx\n"), None);
    }

    #[test]
    fn a_program_that_is_not_there_is_named_with_its_package() {
        let absent = Program {
            name: "no-such-tables",
            package: "iptables",
        };
        let text = absent.output(&[], "").unwrap_err().to_string();
        assert!(
            text.contains("no-such-tables") && text.contains("package `iptables`"),
            "{text}"
        );
    }
}
