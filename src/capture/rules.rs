//! The rules of a capture by REDIRECT, in their order.

use super::{Capture, Inbound, Ranges, Table};

/// A network interface's name, at most 15 characters, as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interface(String);

impl Interface {
    pub fn parse(name: &str) -> Option<Self> {
        // `+` at the end is iptables' own "whatever begins so".
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@+".contains(c);
        let fits = (1..=15).contains(&name.len()) && name.chars().all(plain);
        (fits && !name.starts_with('-')).then(|| Self(name.to_owned()))
    }
}

pub(super) const INBOUND: &str = "ISTIO_INBOUND";
pub(super) const REDIRECT: &str = "ISTIO_REDIRECT";
pub(super) const IN_REDIRECT: &str = "ISTIO_IN_REDIRECT";
pub(super) const OUTPUT: &str = "ISTIO_OUTPUT";
/// Chains that belong to a sidecar's capture all begin so.
pub(super) const OWN: &str = "ISTIO_";

/// From here Envoy itself connects to the workload.
const PASSTHROUGH_SOURCE: &str = "127.0.0.6/32";
const LOOPBACK: &str = "127.0.0.1/32";

impl Capture {
    /// The nat table that the pod must have.
    pub fn table(&self) -> Table {
        let mut table = Table::with_chains([INBOUND, REDIRECT, IN_REDIRECT, OUTPUT]);
        let Self {
            outbound_port,
            inbound_port,
            ..
        } = self;
        table.add(
            REDIRECT,
            &format!("-p tcp -j REDIRECT --to-ports {outbound_port}"),
        );
        table.add(
            IN_REDIRECT,
            &format!("-p tcp -j REDIRECT --to-ports {inbound_port}"),
        );
        for rule in self.inbound_rules() {
            table.add(INBOUND, &rule);
        }
        for rule in self.outbound_rules() {
            table.add(OUTPUT, &rule);
        }
        if self.inbound != Inbound::Only(Vec::new()) {
            table.add("PREROUTING", &format!("-p tcp -j {INBOUND}"));
        }
        table.add("OUTPUT", &format!("-j {OUTPUT}"));
        table
    }

    fn inbound_rules(&self) -> Vec<String> {
        let mut rules: Vec<String> = self
            .excluded_interfaces
            .iter()
            .map(|Interface(name)| format!("-i {name} -j RETURN"))
            .collect();
        rules.push(format!("-p tcp --dport {} -j RETURN", self.tunnel_port));
        match &self.inbound {
            Inbound::AllBut(excluded) => {
                rules.extend(
                    excluded
                        .iter()
                        .map(|p| format!("-p tcp --dport {p} -j RETURN")),
                );
                rules.push(format!("-p tcp -j {IN_REDIRECT}"));
            }
            Inbound::Only(ports) => {
                rules.extend(
                    ports
                        .iter()
                        .map(|p| format!("-p tcp --dport {p} -j {IN_REDIRECT}")),
                );
            }
        }
        rules
    }

    fn outbound_rules(&self) -> Vec<String> {
        let mut rules: Vec<String> = self
            .excluded_interfaces
            .iter()
            .map(|Interface(name)| format!("-o {name} -j RETURN"))
            .collect();
        for port in &self.outbound.excluded_ports {
            rules.push(format!("-p tcp --dport {port} -j RETURN"));
            rules.push(format!("-p udp --dport {port} -j RETURN"));
        }
        rules.push(format!("-s {PASSTHROUGH_SOURCE} -o lo -j RETURN"));
        rules.extend(
            self.proxy_uids
                .iter()
                .flat_map(|uid| self.owner_rules("uid", *uid)),
        );
        rules.extend(
            self.proxy_gids
                .iter()
                .flat_map(|gid| self.owner_rules("gid", *gid)),
        );
        rules.push(format!("-d {LOOPBACK} -j RETURN"));
        let outbound = &self.outbound;
        rules.extend(
            outbound
                .excluded_ranges
                .iter()
                .map(|net| format!("-d {net} -j RETURN")),
        );
        let ports = outbound.included_ports.iter();
        rules.extend(ports.map(|p| format!("-p tcp --dport {p} -j {REDIRECT}")));
        match &outbound.ranges {
            Ranges::All => rules.push(format!("-j {REDIRECT}")),
            Ranges::Only(nets) => {
                rules.extend(nets.iter().map(|net| format!("-d {net} -j {REDIRECT}")));
            }
        }
        rules
    }

    /// Envoy reaching its own pod by a service address comes in as from outside; the workload reaching its own
    /// pod does not pass Envoy; and nothing that Envoy sends out is captured again.
    fn owner_rules(&self, kind: &str, id: u32) -> [String; 3] {
        let tunnel = self.tunnel_port;
        [
            format!(
                "! -d {LOOPBACK} -o lo -p tcp ! --dport {tunnel} -m owner --{kind}-owner {id} -j {IN_REDIRECT}"
            ),
            format!("-o lo -m owner ! --{kind}-owner {id} -j RETURN"),
            format!("-m owner --{kind}-owner {id} -j RETURN"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::usual;
    use super::*;

    fn rules_of(capture: &Capture, chain: &str) -> Vec<String> {
        let text = capture.table().restore(&Table::default());
        let start = format!("-A {chain} ");
        let rules = text.lines().filter_map(|line| line.strip_prefix(&start));
        rules.map(str::to_owned).collect()
    }

    #[test]
    fn everything_inbound_is_captured_but_excluded_ports_and_the_tunnel() {
        let want = [
            "-p tcp --dport 15008 -j RETURN",
            "-p tcp --dport 15090 -j RETURN",
            "-p tcp --dport 15021 -j RETURN",
            "-p tcp -j ISTIO_IN_REDIRECT",
        ];
        assert_eq!(rules_of(&usual(), INBOUND), want);
        assert_eq!(
            rules_of(&usual(), IN_REDIRECT),
            ["-p tcp -j REDIRECT --to-ports 15006"]
        );
        assert_eq!(
            rules_of(&usual(), "PREROUTING"),
            ["-p tcp -j ISTIO_INBOUND"]
        );
    }

    #[test]
    fn listed_inbound_ports_are_captured_alone_and_none_means_no_jump() {
        let mut capture = usual();
        capture.inbound = Inbound::Only(vec![8080]);
        let want = [
            "-p tcp --dport 15008 -j RETURN",
            "-p tcp --dport 8080 -j ISTIO_IN_REDIRECT",
        ];
        assert_eq!(rules_of(&capture, INBOUND), want);
        capture.inbound = Inbound::Only(Vec::new());
        assert_eq!(rules_of(&capture, "PREROUTING"), Vec::<String>::new());
    }

    #[test]
    fn outbound_exemptions_stand_before_the_redirect() {
        let mut capture = usual();
        capture.proxy_gids.clear();
        capture.outbound.excluded_ports = vec![3306];
        capture.outbound.excluded_ranges = vec!["169.254.0.0/16".parse().unwrap()];
        let want = [
            "-p tcp --dport 3306 -j RETURN",
            "-p udp --dport 3306 -j RETURN",
            "-s 127.0.0.6/32 -o lo -j RETURN",
            "! -d 127.0.0.1/32 -o lo -p tcp ! --dport 15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT",
            "-o lo -m owner ! --uid-owner 1337 -j RETURN",
            "-m owner --uid-owner 1337 -j RETURN",
            "-d 127.0.0.1/32 -j RETURN",
            "-d 169.254.0.0/16 -j RETURN",
            "-j ISTIO_REDIRECT",
        ];
        assert_eq!(rules_of(&capture, OUTPUT), want);
    }

    #[test]
    fn listed_outbound_ranges_and_ports_are_captured_alone() {
        let mut capture = usual();
        capture.outbound.ranges = Ranges::Only(vec!["10.96.0.0/12".parse().unwrap()]);
        capture.outbound.included_ports = vec![9000];
        let rules = rules_of(&capture, OUTPUT);
        let want = [
            "-p tcp --dport 9000 -j ISTIO_REDIRECT",
            "-d 10.96.0.0/12 -j ISTIO_REDIRECT",
        ];
        assert_eq!(rules[rules.len() - 2..], want);
    }

    #[test]
    fn an_excluded_interface_is_left_alone_in_both_directions() {
        let mut capture = usual();
        capture.excluded_interfaces = vec![Interface::parse("eth1").unwrap()];
        assert_eq!(rules_of(&capture, INBOUND)[0], "-i eth1 -j RETURN");
        assert_eq!(rules_of(&capture, OUTPUT)[0], "-o eth1 -j RETURN");
        for bad in ["", "-j", "a b", "sixteen-letters-x", "a\nb"] {
            assert_eq!(Interface::parse(bad), None, "{bad:?}");
        }
    }
}
