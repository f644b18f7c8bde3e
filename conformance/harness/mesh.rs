//! One mesh: a node, its control plane if it has one, and where its files are.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::network::Network;

pub struct Mesh {
    network: Network,
    folder: PathBuf,
}

impl Mesh {
    /// Pods of it get a sidecar that passes everything through.
    pub fn without_control_plane() -> Result<Self> {
        let network = Network::new()?;
        let folder = PathBuf::from(format!("/run/mesh{}", network.index()));
        std::fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))?;
        Ok(Self { network, folder })
    }

    pub fn network(&self) -> &Network {
        &self.network
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}
