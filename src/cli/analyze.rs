//! `fairlead analyze`: what is wrong or waits in a folder of configuration, without serving it.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;

use super::folder::Folder;
use super::terminal;
use crate::diagnostic::{Diagnostic, Level};
use crate::model::proxy::RoutePacking;

/// Ends with 1 if there is an error among the findings; warnings end with 0.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    folder: Folder,

    /// How to print it.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    /// A line per finding.
    Text,
    /// A list of {code, level, resource, field, file, line, message}.
    Json,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let found = findings(args)?;
    terminal::write(&match args.output {
        Output::Text => lines(&found),
        Output::Json => serde_json::to_string_pretty(&found)? + "\n",
    })?;
    let is_sound = found.iter().all(|d| d.level != Level::Error);
    Ok(if is_sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn findings(args: &Args) -> Result<Vec<Diagnostic>> {
    let mesh = args.folder.read(RoutePacking::default())?;
    Ok(mesh.diagnostics())
}

fn lines(found: &[Diagnostic]) -> String {
    let mut text = String::new();
    for one in found {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{one}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn analyzed(yaml: &str) -> (Vec<Diagnostic>, ExitCode) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.yaml"), yaml).unwrap();
        let path = folder.path().to_str().unwrap();
        let args = Line::parse_from(["analyze", "--config-dir", path]).args;
        (findings(&args).unwrap(), run(&args).unwrap())
    }

    #[test]
    fn an_error_has_its_place_and_ends_with_1() {
        let (found, code) = analyzed(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: a\n  \
             namespace: b\nspec:\n  hosts: [c]\n  htpp: []\n",
        );
        assert!(lines(&found).starts_with("a.yaml:8: error: VirtualService b/a: spec.htpp: "));
        assert_eq!(code, ExitCode::FAILURE);
    }

    #[test]
    fn nothing_to_say_ends_with_0() {
        let (found, code) = analyzed("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n");
        assert_eq!(found, []);
        assert_eq!(code, ExitCode::SUCCESS);
    }
}
