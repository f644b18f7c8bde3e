//! `fairlead inject`: manifests in, the same with sidecars out, as `istioctl kube-inject` does.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::bootstrap::new_drain_secret;
use crate::config::decode::{self, Decoded, Item};
use crate::config::workload_proxy::Proxies;
use crate::config::{Object, Spec};
use crate::inject::{Injection, Injector, Values, inject_manifest};
use crate::text::Str;

/// Which manifests, and by what they are injected.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File with manifests as YAML or JSON; `-` reads standard input.
    #[arg(short, long, value_name = "FILE")]
    filename: PathBuf,
    /// File with MeshConfig, or the ConfigMap that holds it.
    #[arg(long, visible_alias = "meshConfigFile", value_name = "FILE")]
    mesh_config_file: Option<PathBuf>,
    /// File with what stands under `config` in the ConfigMap istio-sidecar-injector.
    #[arg(long, visible_alias = "injectConfigFile", value_name = "FILE")]
    inject_config_file: Option<PathBuf>,
    /// File with what stands under `values` there.
    #[arg(long, visible_alias = "valuesFile", value_name = "FILE")]
    values_file: Option<PathBuf>,
    /// Revision of the control plane, as in the label istio.io/rev.
    #[arg(short, long, default_value = "default", value_name = "NAME")]
    revision: Str,
    /// How to print it.
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "yaml")]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Yaml,
    Json,
}

/// Of the init container, where no values say another: as the chart has it.
const INIT_IMAGE: &str = concat!("fairlead:", env!("CARGO_PKG_VERSION"));

pub fn run(args: &Args) -> Result<ExitCode> {
    let text = read(&args.filename)?;
    let injection = args.injection(&text)?;
    let manifests: Vec<Value> = serde_saphyr::from_multiple(&text)
        .with_context(|| format!("read {}", args.filename.display()))?;
    let mut done = Vec::new();
    for manifest in manifests.into_iter().filter(|m| !m.is_null()) {
        // A secret of its own: whoever reads one manifest drains no other pod.
        let injected = inject_manifest(&manifest, &injection, &new_drain_secret()?);
        let injected = injected.with_context(|| shown(&manifest))?;
        done.push(injected.unwrap_or(manifest));
    }
    match args.output {
        Format::Json => println!("{}", serde_json::to_string_pretty(&done)?),
        Format::Yaml => {
            for manifest in &done {
                print!("---\n{}", serde_saphyr::to_string(manifest)?);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(manifest: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    format!(
        "{} {}",
        text(&manifest["kind"]),
        text(&manifest["metadata"]["name"])
    )
}

impl Args {
    fn injection(&self, manifests: &str) -> Result<Injection> {
        let injector = match &self.inject_config_file {
            None => Injector::default(),
            Some(file) => {
                Injector::parse(&read(file)?).with_context(|| file.display().to_string())?
            }
        };
        let mut values = match &self.values_file {
            None => Values::default(),
            Some(file) => {
                Values::parse(&read(file)?).with_context(|| file.display().to_string())?
            }
        };
        let init = &mut values.global.proxy_init.image;
        if init.is_empty() {
            *init = Str::new_static(INIT_IMAGE);
        }
        let mesh = match &self.mesh_config_file {
            None => Vec::new(),
            Some(file) => objects(decode::decode_mesh(
                &read(file)?,
                &file.display().to_string(),
            ))?,
        };
        // ProxyConfigs among the manifests hold for the pods beside them.
        let beside = decode::documents(manifests, &self.filename.display().to_string());
        let beside = beside.items.into_iter().filter_map(|item| match item {
            Item::Object(read) if matches!(read.object.spec, Spec::ProxyConfig(_)) => {
                Some(read.object)
            }
            _ => None,
        });
        let all: Vec<Arc<Object>> = mesh.into_iter().chain(beside).collect();
        Ok(Injection {
            injector,
            values,
            proxies: Proxies::of(all.iter().map(|o| &**o)),
            revision: self.revision.clone(),
        })
    }
}

fn objects(decoded: Decoded) -> Result<Vec<Arc<Object>>> {
    let mut out = Vec::new();
    for item in decoded.items {
        match item {
            Item::Object(read) => out.push(read.object),
            Item::Rejected(rejected) => {
                let told: Vec<String> = rejected
                    .diagnostics
                    .iter()
                    .map(ToString::to_string)
                    .collect();
                bail!("{}", told.join("\n"));
            }
            Item::Notice(_) | Item::Template(_) => {}
        }
    }
    Ok(out)
}

fn read(file: &Path) -> Result<String> {
    let tried = || format!("read {}", file.display());
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .with_context(tried)?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(tried)
}
