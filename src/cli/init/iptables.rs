//! Capture by iptables and ip6tables: reads a pod's tables and replaces capture in them.

use super::program::Program;
use crate::capture::{Capture, Family, Table, TableName};

/// Which of the installed variants to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Iptables {
    System,
    Nft,
    Legacy,
}

const TABLES: [TableName; 2] = [TableName::Mangle, TableName::Nat];
/// Seconds to wait for another program that holds iptables' lock.
const LOCK_SECONDS: &str = "10";

impl Iptables {
    fn program(self, family: Family, verb: &str) -> String {
        let base = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        match self {
            Self::System => format!("{base}-{verb}"),
            Self::Nft => format!("{base}-nft-{verb}"),
            Self::Legacy => format!("{base}-legacy-{verb}"),
        }
    }

    /// Returns what differs all the same, which is nothing where the kernel did as it was told.
    pub(super) fn apply(self, capture: &Capture, family: Family) -> anyhow::Result<Vec<String>> {
        let mut differences = Vec::new();
        for name in TABLES {
            let wanted = capture.table(name, family);
            if wanted == Table::default() {
                self.leave(name, family);
                continue;
            }
            self.replace(name, family, &wanted)?;
            let found = self.read(name, family)?;
            differences.extend(wanted.differences(&found));
            for rule in found.rules_before_capture() {
                eprintln!("fairlead: warning: `{rule}` stands before capture and may bypass it");
            }
        }
        Ok(differences)
    }

    pub(super) fn remove(self, family: Family) -> anyhow::Result<()> {
        self.replace(TableName::Nat, family, &Table::default())?;
        self.leave(TableName::Mangle, family);
        Ok(())
    }

    /// Takes what an earlier TPROXY left. Where the table cannot be read, nothing was ever in it.
    fn leave(self, name: TableName, family: Family) {
        if self.read(name, family).is_ok_and(|found| !found.is_free())
            && let Err(e) = self.replace(name, family, &Table::default())
        {
            eprintln!("fairlead: warning: old rules stay: {e:#}");
        }
    }

    /// What `apply` would give to iptables-restore in a pod without rules.
    pub(super) fn text(capture: &Capture, family: Family) -> String {
        let mut text = match family {
            Family::V4 => String::new(),
            Family::V6 => "# by ip6tables\n".to_owned(),
        };
        for name in TABLES.into_iter().rev() {
            let table = capture.table(name, family);
            if table != Table::default() {
                text.push_str(&table.restore(name, &Table::default()));
            }
        }
        text
    }

    fn read(self, name: TableName, family: Family) -> anyhow::Result<Table> {
        let program = self.program(family, "save");
        let saved = run(&program, &["-t", name.as_str()], "")?;
        Ok(Table::parse(&saved)?)
    }

    /// All or nothing; does nothing when the table is already as wanted.
    fn replace(self, name: TableName, family: Family, wanted: &Table) -> anyhow::Result<()> {
        let found = self.read(name, family)?;
        if wanted.differences(&found).is_empty() {
            return Ok(());
        }
        let program = self.program(family, "restore");
        let args = ["--noflush", "--wait", LOCK_SECONDS];
        run(&program, &args, &wanted.restore(name, &found)).map(drop)
    }
}

fn run(program: &str, args: &[&str], input: &str) -> anyhow::Result<String> {
    let program = Program {
        name: program,
        package: "iptables",
    };
    program.output(args, input)
}
