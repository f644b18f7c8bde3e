//! Capture by nftables alone: each table of ours is replaced in one transaction and read back.

use super::program::Program;
use crate::capture::{Capture, Family, Ruleset, TableName};

const NFT: Program<'_> = Program {
    name: "nft",
    package: "nftables",
};
const TABLES: [TableName; 2] = [TableName::Mangle, TableName::Nat];

/// Returns what differs all the same, which is nothing where the kernel did as it was told.
pub(super) fn apply(capture: &Capture, family: Family) -> anyhow::Result<Vec<String>> {
    let mut differences = Vec::new();
    for table in TABLES {
        let ruleset = capture.ruleset(table, family);
        NFT.output(&["-f", "-"], &ruleset.script())?;
        if ruleset.is_empty() {
            continue;
        }
        let name = ruleset.name();
        let mut list = vec!["-j", "list", "table"];
        list.extend(name.split(' '));
        // A table that is not there is a fault that nft names itself.
        match NFT.output(&list, "") {
            Ok(listed) => differences.extend(ruleset.differences(&listed)?),
            Err(e) => differences.push(format!("table {name}: {e:#}")),
        }
    }
    Ok(differences)
}

pub(super) fn remove(family: Family) -> anyhow::Result<()> {
    for table in TABLES {
        NFT.output(&["-f", "-"], &Ruleset::none(table, family).script())?;
    }
    Ok(())
}

/// What `apply` would give to nft.
pub(super) fn text(capture: &Capture, family: Family) -> String {
    let scripts = TABLES.map(|table| capture.ruleset(table, family));
    let needed = scripts.iter().filter(|ruleset| !ruleset.is_empty());
    needed.map(Ruleset::script).collect()
}
