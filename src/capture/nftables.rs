//! A capture as nftables has it: a table of our own for each family and purpose, replaced whole in one transaction.
//!
//! nft prints rules in words of its own that differ by version, so each rule carries a comment by which it is known again.

use std::fmt::Write as _;

use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

use super::Capture;
use super::rule::{Chain, Condition, Family, Is, Rule, TableName, Verdict};

/// One table and what must be in it; without chains it must not be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    table: TableName,
    family: Family,
    chains: Vec<(Chain, Vec<String>)>,
}

#[derive(Debug, thiserror::Error)]
#[error("nft's JSON: {0}")]
pub struct RulesetError(#[from] serde_json::Error);

/// As much of `nft -j list table` as is compared.
#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    chain: Option<ListedChain>,
    rule: Option<ListedRule>,
}

#[derive(Deserialize)]
struct ListedChain {
    name: String,
}

#[derive(Deserialize)]
struct ListedRule {
    chain: String,
    #[serde(default)]
    comment: String,
}

impl Capture {
    pub fn ruleset(&self, table: TableName, family: Family) -> Ruleset {
        let words = |rule: &Rule| spell(rule, family);
        let chains = self.chains(table, family).into_iter();
        Ruleset {
            table,
            family,
            chains: chains
                .map(|(chain, rules)| (chain, rules.iter().map(words).collect()))
                .collect(),
        }
    }
}

impl Ruleset {
    /// What takes the place of a capture that is to be no more.
    pub fn none(table: TableName, family: Family) -> Self {
        Self {
            table,
            family,
            chains: Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }

    /// `ip istio-proxy-nat`: the family and name under which nft has the table.
    pub fn name(&self) -> String {
        let family = match self.family {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        };
        format!("{family} istio-proxy-{}", self.table.as_str())
    }

    /// Input for `nft -f -`: whatever the table was, it is this then, or nothing has changed.
    pub fn script(&self) -> String {
        let name = self.name();
        // Declared first, so that there is always something to delete.
        let mut text = format!("table {name} {{}}\ndelete table {name}\n");
        if self.is_empty() {
            return text;
        }
        let _ = writeln!(text, "table {name} {{");
        // A jump needs its target to be there.
        for (chain, _) in self.chains.iter().filter(|(chain, _)| chain.is_ours()) {
            let _ = writeln!(text, "  chain {} {{ }}", chain.nftables());
        }
        for (chain, rules) in &self.chains {
            let _ = writeln!(text, "  chain {} {{", chain.nftables());
            if let Some(hook) = hook(self.table, *chain) {
                let _ = writeln!(text, "    {hook}");
            }
            for rule in rules {
                let _ = writeln!(text, "    {rule} comment \"{}\"", mark(rule));
            }
            let _ = writeln!(text, "  }}");
        }
        text.push_str("}\n");
        text
    }

    /// Where the table differs from what `nft -j list table` printed.
    pub fn differences(&self, listed: &str) -> Result<Vec<String>, RulesetError> {
        let listing: Listing = serde_json::from_str(listed)?;
        let chains: Vec<&ListedChain> = listing
            .nftables
            .iter()
            .flat_map(|item| &item.chain)
            .collect();
        let rules: Vec<&ListedRule> = listing
            .nftables
            .iter()
            .flat_map(|item| &item.rule)
            .collect();
        let mut found = Vec::new();
        for (chain, wanted) in &self.chains {
            let name = chain.nftables();
            if !chains.iter().any(|listed| listed.name == name) {
                found.push(format!("chain {name} is missing"));
                continue;
            }
            let have: Vec<&str> = rules
                .iter()
                .filter(|rule| rule.chain == name)
                .map(|rule| rule.comment.as_str())
                .collect();
            let marks: Vec<String> = wanted.iter().map(|rule| mark(rule)).collect();
            if have != marks {
                let lacking = wanted
                    .iter()
                    .find(|rule| !have.contains(&mark(rule).as_str()));
                let lacking = lacking.map_or("its rules are others", String::as_str);
                found.push(format!("chain {name}: `{lacking}` must be there"));
            }
        }
        let known = |name: &str| {
            self.chains
                .iter()
                .any(|(chain, _)| chain.nftables() == name)
        };
        let strange = chains.iter().filter(|listed| !known(&listed.name));
        found.extend(strange.map(|listed| format!("chain {} is extra", listed.name)));
        Ok(found)
    }
}

impl Chain {
    fn nftables(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Output => "output",
            Self::Inbound => "istio-inbound",
            Self::Redirect => "istio-redirect",
            Self::InRedirect => "istio-in-redirect",
            Self::OwnOutput => "istio-output",
            Self::OwnPrerouting => "istio-prerouting",
            Self::Divert => "istio-divert",
            Self::Tproxy => "istio-tproxy",
        }
    }
}

/// By which a rule is known again, whatever words nft prints it in.
fn mark(rule: &str) -> String {
    format!("fairlead {:016x}", xxh3_64(rule.as_bytes()))
}

/// Where the kernel enters the table; priorities are numbers, for the output hook takes no names.
fn hook(table: TableName, chain: Chain) -> Option<&'static str> {
    match (table, chain) {
        (TableName::Nat, Chain::Prerouting) => Some("type nat hook prerouting priority -100;"),
        (TableName::Nat, Chain::Output) => Some("type nat hook output priority -100;"),
        (TableName::Mangle, Chain::Prerouting) => {
            Some("type filter hook prerouting priority -150;")
        }
        // A changed mark is routed again.
        (TableName::Mangle, Chain::Output) => Some("type route hook output priority -150;"),
        _ => None,
    }
}

fn spell(rule: &Rule, family: Family) -> String {
    let mut words = Vec::new();
    let named_port = |at: usize| {
        let next = rule.conditions.get(at + 1..).unwrap_or_default();
        next.iter().any(|c| matches!(c, Condition::Port(..)))
    };
    let udp = rule.conditions.contains(&Condition::Udp);
    for (at, condition) in rule.conditions.iter().enumerate() {
        match condition {
            // `tcp dport` says it as well.
            Condition::Tcp | Condition::Udp if named_port(at) => {}
            other => words.push(self::condition(other, family, udp)),
        }
    }
    words.push(verdict(rule.verdict));
    words.join(" ")
}

fn condition(condition: &Condition, family: Family, udp: bool) -> String {
    let not = |is: Is| match is {
        Is::This => "",
        Is::Not => "!= ",
    };
    let ip = match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    // What iptables writes as `eth+`.
    let interface = |name: &str| format!("\"{}\"", name.replace('+', "*"));
    match condition {
        Condition::Tcp => "meta l4proto tcp".to_owned(),
        Condition::Udp => "meta l4proto udp".to_owned(),
        Condition::Port(is, port) if udp => format!("udp dport {}{port}", not(*is)),
        Condition::Port(is, port) => format!("tcp dport {}{port}", not(*is)),
        Condition::From(net) => format!("{ip} saddr {net}"),
        Condition::To(is, net) => format!("{ip} daddr {}{net}", not(*is)),
        Condition::In(name) => format!("iifname {}", interface(name.as_str())),
        Condition::Out(name) => format!("oifname {}", interface(name.as_str())),
        Condition::Uid(is, id) => format!("meta skuid {}{id}", not(*is)),
        Condition::Gid(is, id) => format!("meta skgid {}{id}", not(*is)),
        Condition::Mark(is, mark) => format!("meta mark {}{mark:#x}", not(*is)),
        Condition::ConnectionMark(mark) => format!("ct mark {mark:#x}"),
        Condition::Established => "ct state related,established".to_owned(),
    }
}

fn verdict(verdict: Verdict) -> String {
    match verdict {
        Verdict::Return => "return".to_owned(),
        Verdict::Accept => "accept".to_owned(),
        Verdict::Jump(chain) => format!("jump {}", chain.nftables()),
        Verdict::Redirect(port) => format!("redirect to :{port}"),
        Verdict::Tproxy { port, mark } => {
            format!("meta mark set {mark:#x} tproxy to :{port} accept")
        }
        Verdict::Mark(mark) => format!("meta mark set {mark:#x}"),
        Verdict::SaveMark => "ct mark set meta mark".to_owned(),
        Verdict::RestoreMark => "meta mark set ct mark".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::usual;
    use super::super::{Mode, Transparent};
    use super::*;

    fn listed(ruleset: &Ruleset) -> serde_json::Value {
        let mut items = vec![json!({"metainfo": {"version": "1.0.6"}})];
        for (chain, rules) in &ruleset.chains {
            items.push(json!({"chain": {"name": chain.nftables()}}));
            items.extend(
                rules.iter().map(
                    |rule| json!({"rule": {"chain": chain.nftables(), "comment": mark(rule)}}),
                ),
            );
        }
        json!({"nftables": items})
    }

    #[test]
    fn rules_say_the_same_as_those_of_iptables() {
        let script = usual().ruleset(TableName::Nat, Family::V4).script();
        for line in [
            "table ip istio-proxy-nat {}",
            "delete table ip istio-proxy-nat",
            "tcp dport 15008 return",
            "ip daddr != 127.0.0.1/32 oifname \"lo\" tcp dport != 15008 meta skuid 1337 jump istio-in-redirect",
            "oifname \"lo\" meta skgid != 1337 return",
            "meta l4proto tcp redirect to :15001",
        ] {
            assert!(script.contains(line), "{line} is not in\n{script}");
        }
    }

    #[test]
    fn a_transparent_capture_routes_by_marks() {
        let mut capture = usual();
        capture.mode = Mode::Tproxy(Transparent::default());
        let script = capture.ruleset(TableName::Mangle, Family::V6).script();
        for line in [
            "type route hook output priority -150;",
            "ip6 daddr != ::1/128 meta l4proto tcp meta mark set 0x539 tproxy to :15006 accept",
            "meta l4proto tcp ct mark 0x539 meta mark set ct mark",
        ] {
            assert!(script.contains(line), "{line} is not in\n{script}");
        }
    }

    #[test]
    fn a_rule_that_is_missing_changed_or_strange_is_a_difference() {
        let ruleset = usual().ruleset(TableName::Nat, Family::V4);
        let whole = listed(&ruleset);
        assert_eq!(
            ruleset.differences(&whole.to_string()).unwrap(),
            Vec::<String>::new()
        );
        let items = whole["nftables"].as_array().unwrap();
        for at in 1..items.len() {
            let mut less = items.clone();
            less.remove(at);
            let text = json!({"nftables": less}).to_string();
            assert!(
                !ruleset.differences(&text).unwrap().is_empty(),
                "without {}",
                items[at]
            );
        }
        let mut more = items.clone();
        more.push(json!({"rule": {"chain": "istio-output"}}));
        let text = json!({"nftables": more}).to_string();
        assert!(!ruleset.differences(&text).unwrap().is_empty());
    }

    #[test]
    fn no_capture_is_no_table() {
        let script = Ruleset::none(TableName::Nat, Family::V6).script();
        assert_eq!(
            script,
            "table ip6 istio-proxy-nat {}\ndelete table ip6 istio-proxy-nat\n"
        );
    }
}
