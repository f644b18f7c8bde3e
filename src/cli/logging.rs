//! Log levels in Istio's spelling, and where the log goes (standard error).

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

/// How each line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// Starts logging for the whole process; once.
pub fn start(levels: &str, format: Format) -> Result<()> {
    let filter = directives(levels).map_err(anyhow::Error::msg)?;
    let filter =
        EnvFilter::try_new(&filter).with_context(|| format!("read log level `{levels}`"))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        Format::Text => lines.with_ansi(false).try_init(),
        Format::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(|e| anyhow::anyhow!("start logging: {e}"))
}

/// Istio's scopes that have another name here.
const SCOPES: &[(&str, &str)] = &[
    ("ads", "delivery"),
    ("delta", "delivery"),
    ("adsc", "delivery"),
    ("authn", "ca"),
    ("security", "ca"),
    ("rootcertrotator", "ca"),
    ("model", "model"),
    ("file", "source"),
    ("kube", "source"),
    ("validation", "config"),
];

/// Istio's `scope:level,…` as directives of tracing; a scope not in `SCOPES` is the module of that name.
pub fn directives(levels: &str) -> Result<String, String> {
    let mut default = "info";
    let mut scoped = Vec::new();
    for part in levels.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (scope, name) = part.split_once(':').unwrap_or(("default", part));
        let level = level(name).ok_or_else(|| {
            format!("log level `{part}`: `{name}` is none of none, error, warn, info, debug, trace")
        })?;
        match scope {
            "default" | "all" => default = level,
            _ if scope.is_empty()
                || !scope
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)) =>
            {
                return Err(format!("log level `{part}`: `{scope}` is no scope"));
            }
            _ => {
                let known = SCOPES.iter().find(|(istio, _)| *istio == scope);
                let module =
                    known.map_or_else(|| scope.replace('-', "_"), |(_, m)| (*m).to_owned());
                scoped.push(format!("fairlead::{module}={level}"));
            }
        }
    }
    // Other people's crates speak only of trouble. What the API server's client says, its watches say better.
    let others = if default == "off" { "off" } else { "warn" };
    scoped.insert(
        0,
        format!("{others},kube_client=off,kube_runtime=off,fairlead={default}"),
    );
    Ok(scoped.join(","))
}

fn level(name: &str) -> Option<&'static str> {
    Some(match name {
        "none" | "off" => "off",
        "fatal" | "error" => "error",
        "warn" | "warning" => "warn",
        "info" => "info",
        "debug" => "debug",
        "trace" => "trace",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn istios_scopes_become_modules() {
        assert_eq!(
            directives("default:info,ads:debug").unwrap(),
            "warn,kube_client=off,kube_runtime=off,fairlead=info,fairlead::delivery=debug"
        );
        assert_eq!(
            directives("debug").unwrap(),
            "warn,kube_client=off,kube_runtime=off,fairlead=debug"
        );
        assert_eq!(
            directives("all:none").unwrap(),
            "off,kube_client=off,kube_runtime=off,fairlead=off"
        );
        assert_eq!(
            directives("").unwrap(),
            "warn,kube_client=off,kube_runtime=off,fairlead=info"
        );
    }

    #[test]
    fn a_wrong_level_or_scope_is_named() {
        assert!(directives("ads:loud").unwrap_err().contains("loud"));
        assert!(directives("a=b:info").unwrap_err().contains("a=b"));
    }

    #[test]
    fn what_comes_out_is_what_tracing_takes() {
        EnvFilter::try_new(directives("default:warn,ads:debug,some-scope:trace").unwrap()).unwrap();
    }
}
