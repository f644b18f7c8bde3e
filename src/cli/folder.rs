//! A folder of configuration that a command reads once, without serving it.

use std::path::PathBuf;

use anyhow::Result;

use super::address;
use crate::acceptance::Options;
use crate::model::Settings;
use crate::model::proxy::RoutePacking;
use crate::offline::Offline;
use crate::source::file::Directory;
use crate::text::Str;

#[derive(clap::Args)]
pub struct Folder {
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

    /// DNS domain of Services.
    #[arg(long, env = "FAIRLEAD_DOMAIN", default_value = "cluster.local", value_parser = address::domain)]
    pub domain: String,
}

impl Folder {
    /// What it says, accepted as a control plane that starts on it would.
    pub fn read(&self, packing: RoutePacking) -> Result<Offline> {
        let domain = Str::new(&self.domain);
        let options = Options {
            hold_unresolved: true,
            domain: domain.clone(),
        };
        let settings = Settings {
            domain,
            packing,
            ..Settings::default()
        };
        let mut mesh = Offline::new(options, settings);
        let events = Directory::new(&self.config_dir)
            .with_mesh(self.mesh_config.as_deref())
            .list()?;
        mesh.on(events);
        Ok(mesh)
    }
}
