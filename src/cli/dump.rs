//! `fairlead dump`: what a proxy would be sent from a folder of configuration, without serving it.

use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::{Map, Value};

use super::folder::Folder;
use super::terminal;
use crate::dump::Dump;
use crate::identity::SpiffeId;
use crate::model::proxy::{Proxy, Role, RoutePacking};
use crate::offline::Offline;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    folder: Folder,

    /// The proxy: `<name>.<namespace>` of a Pod or WorkloadEntry (with --ip of any workload), or a whole node id.
    #[arg(long, value_name = "ID")]
    node: String,

    /// Where --node is no whole id: a sidecar, or the router of a gateway pod.
    #[arg(long, value_name = "ROLE", default_value_t)]
    role: Role,

    /// The identity that its credential would prove.
    #[arg(long, value_name = "SPIFFE")]
    identity: Option<String>,

    /// Its address, where --node is no whole id and no object says it.
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<IpAddr>,

    /// Labels of a workload that no object describes: k=v,…
    #[arg(long, value_name = "LABELS", value_parser = label, value_delimiter = ',')]
    labels: Vec<(String, String)>,

    /// `node.metadata` as JSON. Where nothing is captured it is '{"INTERCEPTION_MODE":"NONE"}'.
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,

    /// How route tables come to the proxy: rds (one a port), scoped (one a host and port, by scopes), on-demand
    /// (the same, tables and clusters sent when a request first needs them), or auto: rds or scoped, by
    /// the number of hosts. The annotation in --metadata goes before.
    #[arg(
        long,
        env = "FAIRLEAD_ROUTE_PACKING",
        default_value_t,
        value_name = "PACKING"
    )]
    route_packing: RoutePacking,

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
    let dump = dump(args)?;
    let text = match args.output {
        Output::Json => serde_json::to_string_pretty(&dump)? + "\n",
        Output::Yaml => serde_saphyr::to_string(&dump)?,
    };
    terminal::write(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn dump(args: &Args) -> Result<Dump> {
    let mut mesh = args.folder.read(args.route_packing)?;
    let id = mesh.attach(proxy(args, &mesh)?);
    Ok(mesh.dump(id)?)
}

fn proxy(args: &Args, mesh: &Offline) -> Result<Proxy> {
    let identity = args.identity.as_deref().map(SpiffeId::parse).transpose()?;
    let id = if args.node.contains('~') {
        args.node.clone()
    } else {
        let Some((name, namespace)) = args.node.rsplit_once('.') else {
            bail!(
                "--node {}: neither <name>.<namespace> nor a node id",
                args.node
            );
        };
        let ip = args.ip.or_else(|| mesh.address(namespace, name));
        let ip = ip.with_context(|| {
            let node = &args.node;
            format!("--node {node}: no Pod or WorkloadEntry of that name has an address; give --ip")
        })?;
        format!(
            "{}~{ip}~{}~{namespace}.svc.{}",
            args.role, args.node, args.folder.domain
        )
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn dumped(node: &str) -> Result<Dump> {
        dumped_as("sidecar", node)
    }

    fn dumped_as(role: &str, node: &str) -> Result<Dump> {
        let folder = tempfile::tempdir().unwrap();
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a-1, namespace: shop}\nstatus: {podIP: \
                   10.0.0.7}\n---\napiVersion: security.istio.io/v1\nkind: \
                   PeerAuthentication\nmetadata: {name: strict, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: edge-1, namespace: \
                   shop, labels: {app: edge}}\nstatus: {podIP: 10.0.0.8}\n---\napiVersion: \
                   networking.istio.io/v1\nkind: Gateway\nmetadata: {name: edge, namespace: shop}\nspec: \
                   {selector: {app: edge}, servers: [{port: {number: 8080, name: http, protocol: HTTP}, \
                   hosts: [\"*\"]}]}\n";
        std::fs::write(folder.path().join("a.yaml"), pod).unwrap();
        let path = folder.path().to_str().unwrap();
        dump(&Line::parse_from(["dump", "--config-dir", path, "--role", role, "--node", node]).args)
    }

    #[test]
    fn a_pod_that_is_described_needs_no_address() {
        let dump = dumped("a-1.shop").unwrap();
        let listeners = &dump["type.googleapis.com/envoy.config.listener.v3.Listener"];
        assert!(listeners.iter().any(|l| l.name == "virtualInbound"));
        let why = dumped("a-2.shop").unwrap_err().to_string();
        assert!(why.contains("a-2.shop") && why.contains("--ip"), "{why}");
    }

    #[test]
    fn a_router_is_sent_the_gateways_that_select_it() {
        let dump = dumped_as("router", "edge-1.shop").unwrap();
        let listeners = &dump["type.googleapis.com/envoy.config.listener.v3.Listener"];
        let names: Vec<&str> = listeners.iter().map(|l| l.name.as_str()).collect();
        assert_eq!(names, ["0.0.0.0_8080"]);
    }

    #[test]
    fn every_source_says_its_field() {
        let dump = serde_json::to_value(dumped("a-1.shop").unwrap()).unwrap();
        let lists = dump.as_object().unwrap().values();
        let resources = lists.flat_map(|list| list.as_array().unwrap());
        let sources = resources.flat_map(|r| r["sources"].as_array().unwrap());
        let sources: Vec<&Value> = sources.collect();
        assert!(!sources.is_empty());
        for source in sources {
            assert!(source["field"].is_string(), "{source}");
        }
    }
}
