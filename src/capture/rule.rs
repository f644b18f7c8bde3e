//! One rule of a capture, and how iptables spells it.

use ipnet::IpNet;

use super::Interface;

/// A table of the kernel's that capture has chains in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableName {
    Nat,
    Mangle,
}

impl TableName {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Mangle => "mangle",
        }
    }
}

/// Of IP. Each has rules of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Chain {
    /// The kernel's own: what comes in, and what the pod sends.
    Prerouting,
    Output,
    // Ours, by Istio's names.
    Inbound,
    Redirect,
    InRedirect,
    OwnOutput,
    OwnPrerouting,
    Divert,
    Tproxy,
}

impl Chain {
    pub(super) fn iptables(self) -> &'static str {
        match self {
            Self::Prerouting => "PREROUTING",
            Self::Output => "OUTPUT",
            Self::Inbound => "ISTIO_INBOUND",
            Self::Redirect => "ISTIO_REDIRECT",
            Self::InRedirect => "ISTIO_IN_REDIRECT",
            Self::OwnOutput => "ISTIO_OUTPUT",
            Self::OwnPrerouting => "ISTIO_PREROUTING",
            Self::Divert => "ISTIO_DIVERT",
            Self::Tproxy => "ISTIO_TPROXY",
        }
    }

    pub(super) fn is_ours(self) -> bool {
        !matches!(self, Self::Prerouting | Self::Output)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Is {
    This,
    Not,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Tcp,
    Udp,
    /// A destination port; after the protocol.
    Port(Is, u16),
    From(IpNet),
    To(Is, IpNet),
    In(Interface),
    Out(Interface),
    Uid(Is, u32),
    Gid(Is, u32),
    Mark(Is, u32),
    ConnectionMark(u32),
    Established,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Return,
    Accept,
    Jump(Chain),
    /// To a port of the pod itself.
    Redirect(u16),
    /// To a transparent socket, the destination as it is.
    Tproxy {
        port: u16,
        mark: u32,
    },
    Mark(u32),
    SaveMark,
    RestoreMark,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) verdict: Verdict,
}

pub(super) fn rule(conditions: impl IntoIterator<Item = Condition>, verdict: Verdict) -> Rule {
    Rule {
        conditions: conditions.into_iter().collect(),
        verdict,
    }
}

impl Rule {
    /// As iptables-save prints it, without `-A` and its chain.
    pub(super) fn iptables(&self, family: Family) -> String {
        let mut words: Vec<String> = self.conditions.iter().map(condition).collect();
        words.push(verdict(self.verdict, family));
        words.join(" ")
    }
}

fn condition(condition: &Condition) -> String {
    let not = |is: Is| match is {
        Is::This => "",
        Is::Not => "! ",
    };
    match condition {
        Condition::Tcp => "-p tcp".to_owned(),
        Condition::Udp => "-p udp".to_owned(),
        Condition::Port(is, port) => format!("{}--dport {port}", not(*is)),
        Condition::From(net) => format!("-s {net}"),
        Condition::To(is, net) => format!("{}-d {net}", not(*is)),
        Condition::In(name) => format!("-i {}", name.as_str()),
        Condition::Out(name) => format!("-o {}", name.as_str()),
        Condition::Uid(is, id) => format!("-m owner {}--uid-owner {id}", not(*is)),
        Condition::Gid(is, id) => format!("-m owner {}--gid-owner {id}", not(*is)),
        Condition::Mark(is, mark) => format!("-m mark {}--mark {mark:#x}", not(*is)),
        Condition::ConnectionMark(mark) => format!("-m connmark --mark {mark:#x}"),
        Condition::Established => "-m conntrack --ctstate RELATED,ESTABLISHED".to_owned(),
    }
}

fn verdict(verdict: Verdict, family: Family) -> String {
    let any = match family {
        Family::V4 => "0.0.0.0",
        Family::V6 => "::",
    };
    let whole = "--nfmask 0xffffffff --ctmask 0xffffffff";
    match verdict {
        Verdict::Return => "-j RETURN".to_owned(),
        Verdict::Accept => "-j ACCEPT".to_owned(),
        Verdict::Jump(chain) => format!("-j {}", chain.iptables()),
        Verdict::Redirect(port) => format!("-j REDIRECT --to-ports {port}"),
        Verdict::Tproxy { port, mark } => {
            format!("-j TPROXY --on-port {port} --on-ip {any} --tproxy-mark {mark:#x}/0xffffffff")
        }
        Verdict::Mark(mark) => format!("-j MARK --set-xmark {mark:#x}/0xffffffff"),
        Verdict::SaveMark => format!("-j CONNMARK --save-mark {whole}"),
        Verdict::RestoreMark => format!("-j CONNMARK --restore-mark {whole}"),
    }
}
