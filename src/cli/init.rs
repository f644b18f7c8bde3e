//! `fairlead init`: captures a pod's traffic, checks that it did, or fails.
//!
//! Flags are those of istio-iptables. One that does not work yet is refused, never ignored.

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::ArgAction;
use ipnet::IpNet;

use crate::capture::{Capture, Family, Inbound, Interface, Mode, Outbound, Ranges, Transparent};

mod iptables;
mod nftables;
mod pod;
mod probe;
mod program;
mod refused;

use iptables::Iptables;
use refused::NotYet;

/// The exit status by which Istio's CNI repair recognises a pod without capture.
const NOT_CAPTURED: u8 = 126;

/// Which traffic to capture, in istio-iptables' words.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Port on which Envoy takes outbound traffic.
    #[arg(short = 'p', long, value_name = "PORT", default_value_t = 15001)]
    envoy_port: u16,
    /// Port on which Envoy takes inbound traffic.
    #[arg(short = 'z', long, value_name = "PORT", default_value_t = 15006)]
    inbound_capture_port: u16,
    /// Port for tunnels between sidecars; never captured.
    #[arg(short = 'e', long, value_name = "PORT", default_value_t = 15008)]
    inbound_tunnel_port: u16,
    /// User ids whose traffic is not captured: Envoy's.
    #[arg(short = 'u', long, value_name = "UID,…", default_value = "1337")]
    proxy_uid: String,
    /// Group ids whose traffic is not captured; the same as the user ids unless given.
    #[arg(short = 'g', long, value_name = "GID,…")]
    proxy_gid: Option<String>,
    /// How inbound traffic reaches Envoy: REDIRECT or TPROXY.
    #[arg(short = 'm', long, value_name = "MODE", default_value = "REDIRECT")]
    istio_inbound_interception_mode: String,
    /// Mark of what TPROXY takes; the next number is taken, too.
    #[arg(short = 't', long, value_name = "MARK", default_value_t = 1337)]
    istio_inbound_tproxy_mark: u32,
    /// Route table that keeps in the pod what TPROXY takes.
    #[arg(short = 'r', long, value_name = "TABLE", default_value_t = 133)]
    istio_inbound_tproxy_route_table: u32,
    /// Inbound ports to capture: a list, `*` for all, empty for none.
    #[arg(short = 'b', long, value_name = "PORT,…", default_value = "*")]
    istio_inbound_ports: String,
    /// Inbound ports to leave alone when all are captured.
    #[arg(
        short = 'd',
        long,
        value_name = "PORT,…",
        default_value = "15020,15021,15090"
    )]
    istio_local_exclude_ports: String,
    /// Outbound destinations to capture: a list, `*` for all, empty for none.
    #[arg(short = 'i', long, value_name = "CIDR,…", default_value = "*")]
    istio_service_cidr: String,
    /// Outbound destinations to leave alone.
    #[arg(short = 'x', long, value_name = "CIDR,…", default_value = "")]
    istio_service_exclude_cidr: String,
    /// Outbound ports to capture whatever the destination.
    #[arg(short = 'q', long, value_name = "PORT,…", default_value = "")]
    istio_outbound_ports: String,
    /// Outbound ports to leave alone.
    #[arg(short = 'o', long, value_name = "PORT,…", default_value = "")]
    istio_local_outbound_ports_exclude: String,
    /// Interfaces whose traffic is left alone.
    #[arg(short = 'c', long, value_name = "NAME,…", default_value = "")]
    istio_exclude_interfaces: String,
    /// Print the rules and change nothing.
    #[arg(short = 'n', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set)]
    dry_run: bool,
    /// Leave the rules as they are; for --run-validation alone.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set)]
    skip_rule_apply: bool,
    /// Also open connections and check that they are captured (outbound, or inbound when run as Envoy's user).
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set)]
    run_validation: bool,
    /// Port that the validation connects to.
    #[arg(long, value_name = "PORT", default_value_t = 15002)]
    iptables_probe_port: u16,
    /// How long the validation waits.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = super::span::parse)]
    probe_timeout: Duration,
    /// Remove the capture instead.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set)]
    cleanup_only: bool,
    /// Replace rules that differ. Always done; the flag is taken for Istio's sake.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set)]
    reconcile: bool,
    /// Apply even where rules are already there. Always done; the flag is taken for Istio's sake.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set)]
    force_apply: bool,
    /// Which iptables to run: `nft` or `legacy`; the system's own unless given.
    #[arg(long, value_name = "KIND")]
    force_iptables_binary: Option<String>,
    /// Use nftables instead of iptables.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set)]
    native_nftables: bool,
    /// Capture IPv6, too, though the pod has no address of it. With one, it is captured anyway.
    #[arg(long, env = "ISTIO_DUAL_STACK", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set)]
    dual_stack: bool,
    #[command(flatten)]
    not_yet: NotYet,
}

impl Args {
    fn capture(&self) -> anyhow::Result<Capture> {
        self.not_yet.check()?;
        let proxy_uids = list("--proxy-uid", &self.proxy_uid)?;
        let proxy_gids = match &self.proxy_gid {
            Some(gids) => list("--proxy-gid", gids)?,
            None => proxy_uids.clone(),
        };
        ensure!(
            !proxy_uids.is_empty(),
            "--proxy-uid: give the user id that Envoy runs as"
        );
        self.ports()?;
        let excluded = list(
            "--istio-local-exclude-ports",
            &self.istio_local_exclude_ports,
        )?;
        let inbound = match self.istio_inbound_ports.as_str() {
            "*" => Inbound::AllBut(excluded),
            ports => Inbound::Only(list("--istio-inbound-ports", ports)?),
        };
        let excluded_interfaces = names(&self.istio_exclude_interfaces)
            .map(|name| {
                Interface::parse(name).with_context(|| format!("`{name}` is no interface name"))
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Capture {
            outbound_port: self.envoy_port,
            inbound_port: self.inbound_capture_port,
            tunnel_port: self.inbound_tunnel_port,
            proxy_uids,
            proxy_gids,
            mode: self.mode()?,
            inbound,
            outbound: self.outbound()?,
            excluded_interfaces,
        })
    }

    fn mode(&self) -> anyhow::Result<Mode> {
        match self.istio_inbound_interception_mode.as_str() {
            "REDIRECT" => Ok(Mode::Redirect),
            "TPROXY" => {
                let (mark, route_table) = (
                    self.istio_inbound_tproxy_mark,
                    self.istio_inbound_tproxy_route_table,
                );
                ensure!(mark != 0, "--istio-inbound-tproxy-mark: 0 marks nothing");
                // The kernel's own tables, and the one that has no number.
                ensure!(
                    !matches!(route_table, 0 | 253..=255),
                    "--istio-inbound-tproxy-route-table: {route_table} is a table of the kernel's"
                );
                Ok(Mode::Tproxy(Transparent { mark, route_table }))
            }
            mode => bail!(
                "--istio-inbound-interception-mode={mode}: say REDIRECT or TPROXY; without capture, do not run this"
            ),
        }
    }

    /// Envoy cannot listen on 0, and one listener cannot be two.
    fn ports(&self) -> anyhow::Result<()> {
        let ports = [
            ("--envoy-port", self.envoy_port),
            ("--inbound-capture-port", self.inbound_capture_port),
            ("--inbound-tunnel-port", self.inbound_tunnel_port),
        ];
        for (i, (flag, port)) in ports.iter().enumerate() {
            ensure!(*port != 0, "{flag}: 0 is no port; ports are 1 to 65535");
            if let Some((other, _)) = ports[..i].iter().find(|(_, p)| p == port) {
                bail!("{flag}: {port} is {other} already; give each its own");
            }
        }
        Ok(())
    }

    fn outbound(&self) -> anyhow::Result<Outbound> {
        let ranges = match self.istio_service_cidr.as_str() {
            "*" => Ranges::All,
            nets => Ranges::Only(nets_of("--istio-service-cidr", nets)?),
        };
        let excluded = &self.istio_service_exclude_cidr;
        let ports = &self.istio_local_outbound_ports_exclude;
        Ok(Outbound {
            ranges,
            excluded_ranges: nets_of("--istio-service-exclude-cidr", excluded)?,
            included_ports: list("--istio-outbound-ports", &self.istio_outbound_ports)?,
            excluded_ports: list("--istio-local-outbound-ports-exclude", ports)?,
        })
    }

    fn tool(&self) -> anyhow::Result<Tool> {
        match (self.native_nftables, self.force_iptables_binary.as_deref()) {
            (true, None) => Ok(Tool::Nftables),
            (true, Some(_)) => bail!("--native-nftables leaves no iptables to force"),
            (false, None) => Ok(Tool::Iptables(Iptables::System)),
            (false, Some("nft")) => Ok(Tool::Iptables(Iptables::Nft)),
            (false, Some("legacy")) => Ok(Tool::Iptables(Iptables::Legacy)),
            (false, Some(kind)) => {
                bail!("--force-iptables-binary={kind}: say `nft` or `legacy`")
            }
        }
    }

    /// IPv4 always, for every pod has its loopback; IPv6 where the pod can be reached by it.
    fn families(&self) -> anyhow::Result<Vec<Family>> {
        let both = self.dual_stack || pod::ipv6_address()?.is_some();
        Ok(match both {
            true => vec![Family::V4, Family::V6],
            false => vec![Family::V4],
        })
    }
}

/// By what the kernel is told.
#[derive(Clone, Copy)]
enum Tool {
    Iptables(Iptables),
    Nftables,
}

impl Tool {
    fn apply(self, capture: &Capture, family: Family) -> anyhow::Result<Vec<String>> {
        match self {
            Self::Iptables(iptables) => iptables.apply(capture, family),
            Self::Nftables => nftables::apply(capture, family),
        }
    }

    fn remove(self, family: Family) -> anyhow::Result<()> {
        match self {
            Self::Iptables(iptables) => iptables.remove(family),
            Self::Nftables => nftables::remove(family),
        }
    }

    fn text(self, capture: &Capture, family: Family) -> String {
        match self {
            Self::Iptables(_) => Iptables::text(capture, family),
            Self::Nftables => nftables::text(capture, family),
        }
    }
}

fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

fn list<T: std::str::FromStr>(flag: &str, text: &str) -> anyhow::Result<Vec<T>> {
    let parse = |part: &str| {
        part.parse()
            .ok()
            .with_context(|| format!("{flag}: `{part}` is no such number"))
    };
    names(text).map(parse).collect()
}

/// Networks, with host bits cleared as iptables clears them; a bare address is a network of one.
fn nets_of(flag: &str, text: &str) -> anyhow::Result<Vec<IpNet>> {
    let parse = |part: &str| {
        let host = || part.parse::<IpAddr>().ok().map(IpNet::from);
        let net = part.parse().ok().or_else(host);
        net.map(|n: IpNet| n.trunc()).with_context(|| {
            format!("{flag}: `{part}` is no network such as 10.0.0.0/8 or fd00::/8")
        })
    };
    names(text).map(parse).collect()
}

/// Applies, reads back and, when asked, tries. A pod must not start after anything but success.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let capture = args.capture()?;
    let tool = args.tool()?;
    let families = args.families()?;
    if args.dry_run {
        for family in families {
            print!("{}", tool.text(&capture, family));
        }
        return Ok(ExitCode::SUCCESS);
    }
    if args.cleanup_only {
        remove(tool, &capture)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !args.skip_rule_apply {
        let differences = apply(tool, &capture, &families)?;
        if !differences.is_empty() {
            remove(tool, &capture)?;
            return Ok(not_captured(&differences));
        }
    }
    if args.run_validation {
        for family in families {
            let (port, wait) = (args.iptables_probe_port, args.probe_timeout);
            if let Err(fault) = probe::run(&capture, family, port, wait)? {
                return Ok(not_captured(&[fault]));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn apply(tool: Tool, capture: &Capture, families: &[Family]) -> anyhow::Result<Vec<String>> {
    let mut differences = Vec::new();
    for family in families {
        pod::prepare(capture, *family)?;
        differences.extend(tool.apply(capture, *family)?);
    }
    Ok(differences)
}

fn remove(tool: Tool, capture: &Capture) -> anyhow::Result<()> {
    let six = pod::has_ipv6().then_some(Family::V6);
    for family in [Family::V4].into_iter().chain(six) {
        tool.remove(family)?;
        if let Mode::Tproxy(transparent) = capture.mode {
            pod::forget(transparent, family);
        }
    }
    Ok(())
}

fn not_captured(faults: &[String]) -> ExitCode {
    for fault in faults {
        eprintln!("fairlead: the pod's traffic is not captured: {fault}");
    }
    ExitCode::from(NOT_CAPTURED)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        init: Args,
    }

    fn parse(flags: &[&str]) -> anyhow::Result<Capture> {
        let args = ["init"].iter().chain(flags);
        Program::try_parse_from(args)?.init.capture()
    }

    #[test]
    fn the_flags_that_the_injection_template_passes_are_understood() {
        let flags = "-p 15001 -z 15006 -u 1337 -m REDIRECT -i * -x 10.0.0.0/8 -b * -d 15090,15021,15020 -o 3306";
        let flags: Vec<&str> = flags.split(' ').collect();
        let capture = parse(&flags).unwrap();
        assert_eq!(capture.inbound, Inbound::AllBut(vec![15090, 15021, 15020]));
        assert_eq!(capture.outbound.ranges, Ranges::All);
        assert_eq!(capture.outbound.excluded_ports, [3306]);
        assert_eq!(capture.proxy_gids, [1337]);
    }

    #[test]
    fn an_empty_list_captures_nothing_and_no_flag_captures_all() {
        let none = parse(&["-b", "", "-i", ""]).unwrap();
        assert_eq!(none.inbound, Inbound::Only(Vec::new()));
        assert_eq!(none.outbound.ranges, Ranges::Only(Vec::new()));
        let all = parse(&[]).unwrap();
        assert_eq!(all.inbound, Inbound::AllBut(vec![15020, 15021, 15090]));
        assert_eq!(all.outbound.ranges, Ranges::All);
    }

    #[test]
    fn what_does_not_work_yet_is_refused_by_name() {
        let cases = [
            ("-m EVERYTHING", "EVERYTHING"),
            ("-m TPROXY -t 0", "--istio-inbound-tproxy-mark"),
            ("-m TPROXY -r 255", "--istio-inbound-tproxy-route-table"),
            ("-k virbr0", "--kube-virt-interfaces"),
            ("--redirect-dns", "--redirect-dns"),
            ("--redirect-dns=true", "--redirect-dns"),
            ("--cni-mode", "--cni-mode"),
            (
                "--native-nftables --force-iptables-binary=nft",
                "--native-nftables",
            ),
            ("--force-iptables-binary=x", "--force-iptables-binary"),
        ];
        for (flags, named) in cases {
            let flags: Vec<&str> = flags.split(' ').collect();
            let args = Program::try_parse_from(["init"].iter().chain(&flags))
                .unwrap()
                .init;
            let refused = args.capture().err().or_else(|| args.tool().err());
            let text = refused.map(|e| e.to_string()).unwrap_or_default();
            assert!(text.contains(named), "{flags:?}: {text}");
        }
        parse(&["--redirect-dns=false", "--dual-stack=false"]).unwrap();
    }

    #[test]
    fn wrong_values_name_their_flag() {
        for flags in [
            ["-b", "80,http"],
            ["-o", "70000"],
            ["-x", "10.0.0.0/33"],
            ["-u", "envoy"],
        ] {
            assert!(parse(&flags).is_err(), "{flags:?}");
        }
        assert_eq!(
            nets_of("-i", "10.1.2.3/8, 192.0.2.1").unwrap()[0].to_string(),
            "10.0.0.0/8"
        );
    }
}
