//! Flags of istio-iptables that are known and refused, so that nobody believes in what they ask for.

use anyhow::ensure;

/// Flags of istio-iptables that Fairlead does not implement yet.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Not implemented yet (refused unless off)")]
pub(super) struct NotYet {
    /// Virtual interfaces whose inbound traffic counts as outbound.
    #[arg(
        short = 'k',
        long,
        value_name = "NAME,…",
        default_value = "",
        alias = "istio-reroute-virtual-interfaces"
    )]
    kube_virt_interfaces: String,
    /// Redirect DNS.
    #[arg(long, env = "ISTIO_META_DNS_CAPTURE", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false")]
    redirect_dns: String,
    /// Redirect DNS to any server.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false")]
    capture_all_dns: String,
    /// Drop packets outside their connection's window.
    #[arg(long, env = "INVALID_DROP", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false")]
    drop_invalid: String,
    /// Log each rule that matches.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false")]
    iptables_trace_logging: String,
    /// Act as a CNI plugin.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false")]
    cni_mode: String,
    /// Network namespace to act in, instead of this one.
    #[arg(long, value_name = "PATH", default_value = "")]
    network_namespace: String,
    /// Groups whose outbound traffic is captured.
    #[arg(
        long,
        value_name = "GID,…",
        env = "ISTIO_OUTBOUND_OWNER_GROUPS",
        default_value = "*",
        hide = true
    )]
    outbound_owner_groups: String,
    /// Groups whose outbound traffic is left alone.
    #[arg(
        long,
        value_name = "GID,…",
        env = "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",
        default_value = "",
        hide = true
    )]
    outbound_owner_groups_exclude: String,
    /// What counts as loopback.
    #[arg(
        long,
        value_name = "CIDR",
        env = "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR",
        default_value = "127.0.0.1/32",
        hide = true
    )]
    outbound_ipv4_loopback_cidr: String,
}

impl NotYet {
    /// Name, value, and the value that means off.
    fn settings(&self) -> [(&'static str, &str, &'static str); 10] {
        [
            ("--kube-virt-interfaces", &self.kube_virt_interfaces, ""),
            ("--redirect-dns", &self.redirect_dns, "false"),
            ("--capture-all-dns", &self.capture_all_dns, "false"),
            ("--drop-invalid", &self.drop_invalid, "false"),
            (
                "--iptables-trace-logging",
                &self.iptables_trace_logging,
                "false",
            ),
            ("--cni-mode", &self.cni_mode, "false"),
            ("--network-namespace", &self.network_namespace, ""),
            (
                "ISTIO_OUTBOUND_OWNER_GROUPS",
                &self.outbound_owner_groups,
                "*",
            ),
            (
                "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",
                &self.outbound_owner_groups_exclude,
                "",
            ),
            (
                "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR",
                &self.outbound_ipv4_loopback_cidr,
                "127.0.0.1/32",
            ),
        ]
    }

    pub(super) fn check(&self) -> anyhow::Result<()> {
        let asked = self
            .settings()
            .into_iter()
            .filter(|(_, value, off)| value != off);
        let asked: Vec<String> = asked
            .map(|(name, value, _)| format!("{name}={value}"))
            .collect();
        ensure!(
            asked.is_empty(),
            "not implemented yet: {}",
            asked.join(", ")
        );
        Ok(())
    }
}
