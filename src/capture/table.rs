//! One table of iptables as text: parsed, compared, and written as one atomic change.

use std::collections::{BTreeMap, BTreeSet};

use super::Capture;
use super::rule::{Family, TableName};

/// Chains that belong to a sidecar's capture all begin so.
const OWN: &str = "ISTIO_";

/// Chains and their rules, in order. Only the chains of a capture and the jumps to them are compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    chains: BTreeMap<String, Vec<Rule>>,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("iptables-save line {line}: `{text}` is neither a chain nor a rule")]
pub struct TableError {
    line: usize,
    text: String,
}

/// One rule. Two are equal when they mean the same, however they were spelled.
#[derive(Clone, Debug)]
struct Rule {
    /// As written, without `-A` and its chain.
    text: String,
    meaning: BTreeSet<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Condition {
    negated: bool,
    option: String,
    value: String,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.meaning == other.meaning
    }
}
impl Eq for Rule {}

impl Rule {
    fn parse(text: &str) -> Self {
        let mut meaning = BTreeSet::new();
        let mut words = text.split_whitespace().peekable();
        let mut negated = false;
        while let Some(word) = words.next() {
            if word == "!" {
                negated = true;
                continue;
            }
            let mut value = Vec::new();
            while let Some(next) = words.next_if(|w| *w != "!" && !w.starts_with('-')) {
                value.push(next);
            }
            let (option, value) = (word.to_owned(), value.join(" "));
            // Which module an option belongs to goes without saying.
            let implied = option == "-m" && ["tcp", "udp", "owner"].contains(&value.as_str());
            if !implied {
                meaning.insert(Condition {
                    negated,
                    option,
                    value,
                });
            }
            negated = false;
        }
        Self {
            text: text.to_owned(),
            meaning,
        }
    }

    fn jumps_to_own_chain(&self) -> bool {
        let jump = |c: &Condition| ["-j", "-g"].contains(&c.option.as_str());
        self.meaning
            .iter()
            .any(|c| jump(c) && c.value.starts_with(OWN))
    }
}

impl Capture {
    /// One of the tables that a pod must have, for one family.
    pub fn table(&self, name: TableName, family: Family) -> Table {
        let mut table = Table::default();
        for (chain, rules) in self.chains(name, family) {
            let chain = chain.iptables();
            table.chains.entry(chain.to_owned()).or_default();
            for rule in rules {
                table.add(chain, &rule.iptables(family));
            }
        }
        table
    }
}

impl Table {
    fn add(&mut self, chain: &str, rule: &str) {
        let chain = self.chains.entry(chain.to_owned()).or_default();
        chain.push(Rule::parse(rule));
    }

    /// What `iptables-save -t TABLE` printed.
    pub fn parse(saved: &str) -> Result<Self, TableError> {
        let mut table = Self::default();
        for (at, line) in saved.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', '*']) || line == "COMMIT" {
                continue;
            }
            let chain = line.strip_prefix(':').and_then(|l| l.split(' ').next());
            let rule = line.strip_prefix("-A ").and_then(|l| l.split_once(' '));
            match (chain, rule) {
                (Some(chain), _) => {
                    table.chains.entry(chain.to_owned()).or_default();
                }
                (None, Some((chain, rule))) => table.add(chain, rule),
                (None, None) => {
                    return Err(TableError {
                        line: at + 1,
                        text: line.to_owned(),
                    });
                }
            }
        }
        Ok(table)
    }

    /// Where a pod's table differs from this one, in the chains of a capture and the jumps to them.
    pub fn differences(&self, found: &Self) -> Vec<String> {
        let names: BTreeSet<&String> = self.chains.keys().chain(found.chains.keys()).collect();
        names
            .into_iter()
            .flat_map(|name| {
                let (want, have) = (self.relevant(name), found.relevant(name));
                chain_differences(name, want.as_deref(), have.as_deref())
            })
            .collect()
    }

    /// Whether nothing of it is a capture's.
    pub fn is_free(&self) -> bool {
        self.chains.keys().all(|name| self.relevant(name).is_none())
    }

    /// Rules that stand before a jump to a capture's chain and may keep traffic from it.
    pub fn rules_before_capture(&self) -> Vec<String> {
        let foreign = self
            .chains
            .iter()
            .filter(|(name, _)| !name.starts_with(OWN));
        foreign
            .flat_map(|(name, rules)| {
                let jump = rules.iter().position(Rule::jumps_to_own_chain).unwrap_or(0);
                rules[..jump]
                    .iter()
                    .map(move |rule| format!("-A {name} {}", rule.text))
            })
            .collect()
    }

    /// All of an own chain, the jumps of a foreign one; none for a chain that does not concern a capture.
    fn relevant(&self, name: &str) -> Option<Vec<&Rule>> {
        let rules = self.chains.get(name)?;
        if name.starts_with(OWN) {
            return Some(rules.iter().collect());
        }
        let jumps: Vec<&Rule> = rules.iter().filter(|r| r.jumps_to_own_chain()).collect();
        (!jumps.is_empty()).then_some(jumps)
    }

    /// Input for `iptables-restore --noflush`: turns the pod's table `found` into this one, all or nothing.
    pub fn restore(&self, name: TableName, found: &Self) -> String {
        let mut lines = vec![format!("*{}", name.as_str())];
        let own = |table: &Self| -> BTreeSet<String> {
            table
                .chains
                .keys()
                .filter(|n| n.starts_with(OWN))
                .cloned()
                .collect()
        };
        let (wanted, present) = (own(self), own(found));
        // Naming a chain makes it, or empties it.
        lines.extend(
            wanted
                .union(&present)
                .map(|name| format!(":{name} - [0:0]")),
        );
        for (name, rules) in found
            .chains
            .iter()
            .filter(|(name, _)| !name.starts_with(OWN))
        {
            let jumps = rules.iter().filter(|rule| rule.jumps_to_own_chain());
            lines.extend(jumps.map(|rule| format!("-D {name} {}", rule.text)));
        }
        for (name, rules) in &self.chains {
            lines.extend(rules.iter().map(|rule| format!("-A {name} {}", rule.text)));
        }
        lines.extend(present.difference(&wanted).map(|name| format!("-X {name}")));
        lines.push("COMMIT".to_owned());
        lines.join("\n") + "\n"
    }
}

fn chain_differences(name: &str, want: Option<&[&Rule]>, have: Option<&[&Rule]>) -> Vec<String> {
    let (want, have) = match (want, have) {
        (None, None) => return Vec::new(),
        (Some(_), None) if name.starts_with(OWN) => {
            return vec![format!("chain {name} is missing")];
        }
        (None, Some(_)) if name.starts_with(OWN) => return vec![format!("chain {name} is extra")],
        (want, have) => (want.unwrap_or_default(), have.unwrap_or_default()),
    };
    let mut found = Vec::new();
    for at in 0..want.len().max(have.len()) {
        let text = |rules: &[&Rule]| rules.get(at).map(|rule| rule.text.clone());
        if want.get(at) != have.get(at) {
            let want = text(want).unwrap_or_else(|| "no more rules".to_owned());
            let have = text(have).unwrap_or_else(|| "no more rules".to_owned());
            found.push(format!(
                "{name} rule {}: `{have}` where `{want}` must be",
                at + 1
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::tests::usual;
    use super::*;

    /// Rules as iptables 1.8 prints them, of the usual capture.
    const SAVED: &str = "\
# Generated by iptables-save v1.8.9 (nf_tables)
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:ISTIO_INBOUND - [0:0]
:ISTIO_IN_REDIRECT - [0:0]
:ISTIO_OUTPUT - [0:0]
:ISTIO_REDIRECT - [0:0]
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_INBOUND -p tcp -m tcp --dport 15008 -j RETURN
-A ISTIO_INBOUND -p tcp -m tcp --dport 15090 -j RETURN
-A ISTIO_INBOUND -p tcp -m tcp --dport 15021 -j RETURN
-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT
-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
-A ISTIO_OUTPUT -s 127.0.0.6/32 -o lo -j RETURN
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m tcp ! --dport 15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m tcp ! --dport 15008 -m owner --gid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
-A ISTIO_OUTPUT -j ISTIO_REDIRECT
-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
COMMIT
# Completed
";

    fn differences(saved: &str) -> Vec<String> {
        let wanted = usual().table(TableName::Nat, Family::V4);
        wanted.differences(&Table::parse(saved).unwrap())
    }

    #[test]
    fn what_iptables_prints_of_our_rules_equals_them() {
        assert_eq!(differences(SAVED), Vec::<String>::new());
    }

    #[test]
    fn an_empty_table_lacks_every_chain_and_jump() {
        let found = differences("*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n");
        assert_eq!(found.iter().filter(|d| d.contains("is missing")).count(), 4);
        let jump = "PREROUTING rule 1: `no more rules` where `-p tcp -j ISTIO_INBOUND` must be";
        assert!(found.contains(&jump.to_owned()), "{found:?}");
    }

    #[test]
    fn a_changed_swapped_doubled_or_negated_rule_is_a_difference() {
        let jump = "-A OUTPUT -j ISTIO_OUTPUT\n";
        let broken = [
            SAVED.replace("--to-ports 15006", "--to-ports 15007"),
            SAVED.replace("! --uid-owner 1337 -j RETURN", "--uid-owner 1337 -j RETURN"),
            SAVED.replace("-A ISTIO_OUTPUT -j ISTIO_REDIRECT\n", ""),
            SAVED.replace(jump, &jump.repeat(2)),
            SAVED.replace(jump, "-A OUTPUT -p tcp -j ISTIO_OUTPUT\n"),
            SAVED.replace(":ISTIO_OUTPUT -", ":ISTIO_DIVERT - [0:0]\n:ISTIO_OUTPUT -"),
            SAVED.replace(
                "-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT",
                "-A ISTIO_INBOUND -s 10.0.0.0/8 -p tcp -j ISTIO_IN_REDIRECT",
            ),
        ];
        for saved in broken {
            assert_ne!(saved, SAVED);
            assert!(!differences(&saved).is_empty(), "{saved}");
        }
    }

    #[test]
    fn rules_of_others_are_no_difference_but_those_before_capture_are_named() {
        let saved = SAVED.replace(
            "-A OUTPUT -j ISTIO_OUTPUT\n",
            "-A OUTPUT -d 10.9.9.9/32 -j ACCEPT\n-A OUTPUT -j ISTIO_OUTPUT\n-A OUTPUT -j LOG\n",
        );
        assert_eq!(differences(&saved), Vec::<String>::new());
        let before = Table::parse(&saved).unwrap().rules_before_capture();
        assert_eq!(before, ["-A OUTPUT -d 10.9.9.9/32 -j ACCEPT"]);
    }

    #[test]
    fn a_second_run_first_removes_what_the_first_left() {
        let old = SAVED.replace(":ISTIO_OUTPUT -", ":ISTIO_DIVERT - [0:0]\n:ISTIO_OUTPUT -");
        let wanted = usual().table(TableName::Nat, Family::V4);
        let text = wanted.restore(TableName::Nat, &Table::parse(&old).unwrap());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[1]), ("*nat", ":ISTIO_DIVERT - [0:0]"));
        for line in [
            "-D PREROUTING -p tcp -j ISTIO_INBOUND",
            "-D OUTPUT -j ISTIO_OUTPUT",
            "-X ISTIO_DIVERT",
        ] {
            assert!(lines.contains(&line), "{text}");
        }
        assert_eq!(lines.last(), Some(&"COMMIT"));
    }

    #[test]
    fn cleanup_removes_chains_and_jumps_and_nothing_else() {
        let saved = SAVED.replace("-A OUTPUT -j", "-A OUTPUT -j LOG\n-A OUTPUT -j");
        let text = Table::default().restore(TableName::Nat, &Table::parse(&saved).unwrap());
        assert!(!text.contains("-A ") && !text.contains("LOG"), "{text}");
        assert_eq!(text.matches("-X ISTIO_").count(), 4);
        assert_eq!(text.matches("-D ").count(), 2);
    }

    #[test]
    fn a_line_that_is_no_rule_is_refused() {
        assert!(Table::parse("*nat\nwhat is this\nCOMMIT\n").is_err());
    }
}
