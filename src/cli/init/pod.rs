//! What else a pod's network must have: an address for Envoy's own connections, a route for what is marked.

use anyhow::Context as _;

use super::program::Program;
use crate::capture::{Capture, Family, Mode, PASSTHROUGH_SOURCE_V6, Transparent};

const IP: Program<'_> = Program {
    name: "ip",
    package: "iproute2",
};

/// Whether the pod can be reached over IPv6: it has an address of more than its own link.
pub(super) fn ipv6_address() -> anyhow::Result<Option<String>> {
    match std::fs::read_to_string("/proc/net/if_inet6") {
        Ok(text) => Ok(global_ipv6(&text)),
        // The kernel has no IPv6.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).context("read /proc/net/if_inet6"),
    }
}

pub(super) fn has_ipv6() -> bool {
    std::path::Path::new("/proc/net/if_inet6").exists()
}

/// The first address of global scope in the kernel's list: address, index, prefix, scope, flags, name.
fn global_ipv6(list: &str) -> Option<String> {
    list.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields[..] {
            [address, _, _, "00", _, interface] if interface != "lo" => {
                Some(format!("{address} on {interface}"))
            }
            _ => None,
        }
    })
}

/// Done again, it leaves the same.
pub(super) fn prepare(capture: &Capture, family: Family) -> anyhow::Result<()> {
    if family == Family::V6 {
        // Of 127.0.0.0/8 every address is the pod's own; of IPv6 it must be said.
        let own = format!("{PASSTHROUGH_SOURCE_V6}/128");
        IP.output(&["-6", "addr", "replace", &own, "dev", "lo", "nodad"], "")
            .context(
                "give the pod the address from which Envoy speaks to the workload over IPv6",
            )?;
    }
    match capture.mode {
        Mode::Redirect => Ok(()),
        Mode::Tproxy(transparent) => route(family, transparent),
    }
}

/// What is marked stays in the pod, wherever it is addressed to.
fn route(family: Family, transparent: Transparent) -> anyhow::Result<()> {
    let flag = flag(family);
    let mark = transparent.mark.to_string();
    let table = transparent.route_table.to_string();
    let rule = ["fwmark", &mark, "lookup", &table];
    let listed = IP.output(&[&[flag, "rule", "list"][..], &rule].concat(), "")?;
    if listed.trim().is_empty() {
        IP.output(&[&[flag, "rule", "add"][..], &rule].concat(), "")
            .context("route by mark, which TPROXY needs")?;
    }
    let local = ["local", "default", "dev", "lo", "table", &table];
    IP.output(&[&[flag, "route", "replace"][..], &local].concat(), "")
        .context("route by mark, which TPROXY needs")
        .map(drop)
}

/// Takes the route; an address that nothing sends from may stay.
pub(super) fn forget(transparent: Transparent, family: Family) {
    let mark = transparent.mark.to_string();
    let table = transparent.route_table.to_string();
    let rule = ["fwmark", &mark, "lookup", &table];
    // What is not there is refused, which is as good.
    let _gone = IP.output(&[&[flag(family), "rule", "del"][..], &rule].concat(), "");
    let _gone = IP.output(&[flag(family), "route", "flush", "table", &table], "");
}

fn flag(family: Family) -> &'static str {
    match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_global_ipv6_address_counts() {
        let own = "00000000000000000000000000000001 01 80 10 80       lo\n\
                   00000000000000000000000000000006 01 80 00 80       lo\n\
                   fe800000000000000000000000000001 02 40 20 80     eth0\n";
        assert_eq!(global_ipv6(own), None);
        let global = format!("{own}fd000000000000000000000000000007 02 40 00 80     eth0\n");
        let found = global_ipv6(&global).unwrap();
        assert_eq!(found, "fd000000000000000000000000000007 on eth0");
    }
}
