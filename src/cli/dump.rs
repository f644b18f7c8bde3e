//! `fairlead dump`: what a proxy would be sent from a folder of configuration, without serving it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::{Map, Value};

use super::terminal;
use crate::acceptance::Options;
use crate::dump::Dump;
use crate::identity::SpiffeId;
use crate::model::Settings;
use crate::model::proxy::Proxy;
use crate::offline::Offline;
use crate::source::file::Directory;
use crate::text::Str;

#[derive(clap::Args)]
pub struct Args {
    /// Folder of Kubernetes-style YAML.
    #[arg(long, env = "FAIRLEAD_CONFIG_DIR", value_name = "DIR")]
    config_dir: PathBuf,

    /// File with MeshConfig. Without it, the ConfigMap `istio` of the root namespace decides.
    #[arg(
        long,
        env = "FAIRLEAD_MESH_CONFIG",
        visible_alias = "meshConfig",
        value_name = "FILE"
    )]
    mesh_config: Option<PathBuf>,

    /// The proxy: `<name>.<namespace>` (with --ip), or a whole node id.
    #[arg(long, value_name = "ID")]
    node: String,

    /// The identity that its credential would prove.
    #[arg(long, value_name = "SPIFFE")]
    identity: Option<String>,

    /// Its address, where --node is no whole id.
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<IpAddr>,

    /// Labels of a workload that no object describes: k=v,…
    #[arg(long, value_name = "LABELS", value_parser = label, value_delimiter = ',')]
    labels: Vec<(String, String)>,

    /// `node.metadata` as JSON.
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,

    /// DNS domain of Services.
    #[arg(long, env = "FAIRLEAD_DOMAIN", default_value = "cluster.local")]
    domain: String,

    /// How to print it.
    #[arg(long, short, value_enum, default_value_t = Output::Yaml)]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Json,
    Yaml,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let proxy = proxy(args)?;
    let dump = dump(args, proxy)?;
    let text = match args.output {
        Output::Json => serde_json::to_string_pretty(&dump)? + "\n",
        Output::Yaml => serde_saphyr::to_string(&dump)?,
    };
    terminal::write(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn dump(args: &Args, proxy: Proxy) -> Result<Dump> {
    let domain = Str::new(&args.domain);
    let options = Options {
        hold_unresolved: true,
        domain: domain.clone(),
    };
    let mut mesh = Offline::new(
        options,
        Settings {
            domain,
            ..Settings::default()
        },
    );
    let events = Directory::new(&args.config_dir)
        .with_mesh(args.mesh_config.as_deref())
        .list()?;
    mesh.on(events);
    let id = mesh.attach(proxy);
    Ok(mesh.dump(id)?)
}

fn proxy(args: &Args) -> Result<Proxy> {
    let identity = args.identity.as_deref().map(SpiffeId::parse).transpose()?;
    let id = if args.node.contains('~') {
        args.node.clone()
    } else {
        let Some((_, namespace)) = args.node.rsplit_once('.') else {
            bail!(
                "--node {}: neither <name>.<namespace> nor a node id",
                args.node
            );
        };
        let ip = args
            .ip
            .context("--ip is missing: a node that is no whole id needs its address")?;
        format!("sidecar~{ip}~{}~{namespace}.svc.{}", args.node, args.domain)
    };
    let metadata = args.metadata.as_deref().unwrap_or("{}");
    let metadata = serde_json::from_str(metadata);
    let mut metadata: Map<String, Value> = metadata.context("read --metadata as a JSON object")?;
    if !args.labels.is_empty() {
        let labels: Map<String, Value> = args
            .labels
            .iter()
            .map(|(k, v)| (k.clone(), Value::from(v.as_str())))
            .collect();
        metadata.insert("LABELS".to_owned(), labels.into());
    }
    Ok(Proxy::parse(&id, metadata.into(), identity)?)
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}` is no label k=v"))?;
    Ok((key.to_owned(), value.to_owned()))
}
