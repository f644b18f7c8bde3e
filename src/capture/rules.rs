//! The rules of a capture, in their order: what comes in by REDIRECT or TPROXY, what goes out by REDIRECT.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::rule::{Chain, Condition, Family, Is, Rule, TableName, Verdict, rule};
use super::{Capture, Inbound, Mode, Ranges, Transparent};

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

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    fn loopback() -> Self {
        Self("lo".to_owned())
    }
}

/// From here Envoy itself connects to the workload; no interface has the one of IPv6 unless it is given it.
pub const PASSTHROUGH_SOURCE_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
pub const PASSTHROUGH_SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

/// Of what Envoy sends to its own pod, so that it comes in as from outside.
fn own_mark(transparent: Transparent) -> u32 {
    transparent.mark.wrapping_add(1)
}

impl Family {
    fn passthrough_source(self) -> IpNet {
        IpNet::from(match self {
            Self::V4 => IpAddr::V4(PASSTHROUGH_SOURCE_V4),
            Self::V6 => IpAddr::V6(PASSTHROUGH_SOURCE_V6),
        })
    }

    fn loopback(self) -> IpNet {
        IpNet::from(match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Self::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
        })
    }

    pub(super) fn has(self, net: &IpNet) -> bool {
        match self {
            Self::V4 => matches!(net, IpNet::V4(_)),
            Self::V6 => matches!(net, IpNet::V6(_)),
        }
    }
}

/// The rules of one table, chain by chain. Every chain of ours is named, though it be empty.
pub(super) type Chains = Vec<(Chain, Vec<Rule>)>;

/// What one family's capture reads of itself.
struct Of<'c> {
    capture: &'c Capture,
    family: Family,
}

impl Capture {
    pub(super) fn chains(&self, table: TableName, family: Family) -> Chains {
        let of = Of {
            capture: self,
            family,
        };
        match (table, self.mode) {
            (TableName::Nat, _) => of.nat(),
            (TableName::Mangle, Mode::Tproxy(transparent)) => of.mangle(transparent),
            (TableName::Mangle, Mode::Redirect) => Vec::new(),
        }
    }
}

impl Of<'_> {
    fn nat(&self) -> Chains {
        let capture = self.capture;
        let to = |port| vec![rule([Condition::Tcp], Verdict::Redirect(port))];
        let jump = |chain, over: &[Condition]| rule(over.to_vec(), Verdict::Jump(chain));
        let mut chains = vec![
            (Chain::Inbound, Vec::new()),
            (Chain::Redirect, to(capture.outbound_port)),
            (Chain::InRedirect, to(capture.inbound_port)),
            (Chain::OwnOutput, self.outbound()),
            (Chain::Output, vec![jump(Chain::OwnOutput, &[])]),
        ];
        if capture.mode == Mode::Redirect && capture.takes_some_inbound() {
            let take = [rule([Condition::Tcp], Verdict::Jump(Chain::InRedirect))];
            chains[0].1 = self.inbound(&take);
            let jump = jump(Chain::Inbound, &[Condition::Tcp]);
            chains.push((Chain::Prerouting, vec![jump]));
        }
        chains
    }

    /// What comes from outside keeps its destination and its source: the kernel hands it to a transparent socket, and
    /// the workload's answers, to addresses that are not the pod's, come back by a routing table of their own.
    fn mangle(&self, transparent: Transparent) -> Chains {
        let Transparent { mark, .. } = transparent;
        let marked = |is| Condition::Mark(is, mark);
        let jump = |chain| rule([Condition::Tcp], Verdict::Jump(chain));
        let tproxy = Verdict::Tproxy {
            port: self.capture.inbound_port,
            mark,
        };
        let elsewhere = Condition::To(Is::Not, self.family.loopback());
        let known = rule(
            [Condition::Tcp, Condition::Established],
            Verdict::Jump(Chain::Divert),
        );
        let mut inbound = self.transparent_exemptions(transparent);
        inbound.extend(self.inbound(&[known, jump(Chain::Tproxy)]));
        let save = rule([Condition::Tcp, marked(Is::This)], Verdict::SaveMark);
        let mut prerouting = vec![save];
        if self.capture.takes_some_inbound() {
            prerouting.insert(0, jump(Chain::Inbound));
        }
        vec![
            (
                Chain::Divert,
                vec![rule([], Verdict::Mark(mark)), rule([], Verdict::Accept)],
            ),
            (
                Chain::Tproxy,
                vec![rule([elsewhere, Condition::Tcp], tproxy)],
            ),
            (Chain::Inbound, inbound),
            (Chain::OwnPrerouting, prerouting),
            (Chain::OwnOutput, self.transparent_output(transparent)),
            (Chain::Prerouting, vec![jump(Chain::OwnPrerouting)]),
            (Chain::Output, vec![jump(Chain::OwnOutput)]),
        ]
    }

    /// What Envoy sends the workload, and what the workload sends itself.
    fn transparent_exemptions(&self, transparent: Transparent) -> Vec<Rule> {
        let by_loopback = Condition::In(Interface::loopback());
        let own = Condition::Mark(Is::Not, own_mark(transparent));
        let ours = Condition::Mark(Is::This, transparent.mark);
        let source = Condition::From(self.family.passthrough_source());
        [
            vec![Condition::Tcp, ours],
            vec![source, by_loopback.clone(), Condition::Tcp],
            vec![by_loopback, Condition::Tcp, own],
        ]
        .into_iter()
        .map(|conditions| rule(conditions, Verdict::Return))
        .collect()
    }

    fn transparent_output(&self, transparent: Transparent) -> Vec<Rule> {
        let Transparent { mark, .. } = transparent;
        let by_loopback = Condition::Out(Interface::loopback());
        let ours = Condition::Mark(Is::This, mark);
        let mut rules = vec![rule(
            [by_loopback.clone(), Condition::Tcp, ours],
            Verdict::Return,
        )];
        let uids = self.capture.proxy_uids.iter();
        let uids = uids.map(|id| Condition::Uid(Is::This, *id));
        let gids = self.capture.proxy_gids.iter();
        let gids = gids.map(|id| Condition::Gid(Is::This, *id));
        rules.extend(uids.chain(gids).map(|owner| {
            let elsewhere = Condition::To(Is::Not, self.family.loopback());
            let conditions = [elsewhere, by_loopback.clone(), Condition::Tcp, owner];
            rule(conditions, Verdict::Mark(own_mark(transparent)))
        }));
        let answers = [Condition::Tcp, Condition::ConnectionMark(mark)];
        rules.push(rule(answers, Verdict::RestoreMark));
        rules
    }

    /// What is left alone, and then `take` for all that is not, or for the listed ports alone.
    fn inbound(&self, take: &[Rule]) -> Vec<Rule> {
        let capture = self.capture;
        let port = |port: u16| [Condition::Tcp, Condition::Port(Is::This, port)];
        let excluded = capture.excluded_interfaces.iter().cloned();
        let mut rules: Vec<Rule> = excluded
            .map(|name| rule([Condition::In(name)], Verdict::Return))
            .collect();
        rules.push(rule(port(capture.tunnel_port), Verdict::Return));
        match &capture.inbound {
            Inbound::AllBut(excluded) => {
                let excluded = excluded.iter();
                rules.extend(excluded.map(|p| rule(port(*p), Verdict::Return)));
                rules.extend(take.iter().cloned());
            }
            Inbound::Only(ports) => rules.extend(ports.iter().flat_map(|p| {
                let of_port = |take: &Rule| {
                    let rest = take.conditions.iter().filter(|c| **c != Condition::Tcp);
                    rule(port(*p).into_iter().chain(rest.cloned()), take.verdict)
                };
                take.iter().map(of_port).collect::<Vec<_>>()
            })),
        }
        rules
    }

    fn outbound(&self) -> Vec<Rule> {
        let capture = self.capture;
        let excluded = capture.excluded_interfaces.iter().cloned();
        let mut rules: Vec<Rule> = excluded
            .map(|name| rule([Condition::Out(name)], Verdict::Return))
            .collect();
        for port in &capture.outbound.excluded_ports {
            for protocol in [Condition::Tcp, Condition::Udp] {
                let port = Condition::Port(Is::This, *port);
                rules.push(rule([protocol, port], Verdict::Return));
            }
        }
        let source = Condition::From(self.family.passthrough_source());
        let by_loopback = Condition::Out(Interface::loopback());
        rules.push(rule([source, by_loopback], Verdict::Return));
        for uid in &capture.proxy_uids {
            rules.extend(self.of_owner(|is| Condition::Uid(is, *uid)));
        }
        for gid in &capture.proxy_gids {
            rules.extend(self.of_owner(|is| Condition::Gid(is, *gid)));
        }
        let loopback = Condition::To(Is::This, self.family.loopback());
        rules.push(rule([loopback], Verdict::Return));
        rules.extend(self.destinations());
        rules
    }

    fn destinations(&self) -> Vec<Rule> {
        let outbound = &self.capture.outbound;
        let of_family = |nets: &[IpNet], verdict| -> Vec<Rule> {
            let nets = nets.iter().filter(|net| self.family.has(net));
            nets.map(|net| rule([Condition::To(Is::This, *net)], verdict))
                .collect()
        };
        let take = Verdict::Jump(Chain::Redirect);
        let mut rules = of_family(&outbound.excluded_ranges, Verdict::Return);
        let ports = outbound.included_ports.iter();
        rules.extend(ports.map(|p| rule([Condition::Tcp, Condition::Port(Is::This, *p)], take)));
        match &outbound.ranges {
            Ranges::All => rules.push(rule([], take)),
            Ranges::Only(nets) => rules.extend(of_family(nets, take)),
        }
        rules
    }

    /// Envoy reaching its own pod by a service address comes in as from outside; the workload reaching its own
    /// pod does not pass Envoy; and nothing that Envoy sends out is captured again.
    fn of_owner(&self, owner: impl Fn(Is) -> Condition) -> [Rule; 3] {
        let by_loopback = Condition::Out(Interface::loopback());
        let tunnel = Condition::Port(Is::Not, self.capture.tunnel_port);
        let elsewhere = Condition::To(Is::Not, self.family.loopback());
        let own = [
            elsewhere,
            by_loopback.clone(),
            Condition::Tcp,
            tunnel,
            owner(Is::This),
        ];
        [
            rule(own, Verdict::Jump(Chain::InRedirect)),
            rule([by_loopback, owner(Is::Not)], Verdict::Return),
            rule([owner(Is::This)], Verdict::Return),
        ]
    }
}

#[cfg(test)]
mod tests;
