//! Where changes are made: a folder of files that the server watches, or an API server.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::cluster::Cluster;
use super::manifests::{Object, Place};
use super::mesh::changes::Change;
use super::stamp::Stamp;

pub enum Source {
    Files(Folder),
    Kube(Box<Cluster>),
}

/// Which of them a run makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Files,
    /// The API server of this kubeconfig, or one of its own.
    Kube(Option<PathBuf>),
}

impl Source {
    /// When the change was begun.
    pub async fn apply(&self, change: &Change) -> Result<Stamp> {
        match self {
            Self::Files(folder) => folder.apply(change),
            Self::Kube(cluster) => cluster.apply(change).await,
        }
    }

    /// How the server is told of it.
    pub fn flag(&self) -> (&'static str, &Path) {
        match self {
            Self::Files(folder) => ("--config-dir", &folder.root),
            Self::Kube(cluster) => ("--kubeconfig", &cluster.kubeconfig),
        }
    }
}

/// A folder of YAML: one file for each namespace, and one for each object that changes.
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    pub fn write(root: &Path, objects: &[Object]) -> Result<Self> {
        let this = Self { root: root.into() };
        fs::create_dir_all(root.join("edited")).context("make the config folder")?;
        let mut bundles: BTreeMap<&str, String> = BTreeMap::new();
        for object in objects {
            match object.place {
                Place::Bundle => {
                    let bundle = bundles.entry(&object.namespace).or_default();
                    bundle.push_str(&object.text);
                    bundle.push_str("---\n");
                }
                Place::Alone => this.replace(&this.file(object), &object.text)?,
            }
        }
        for (namespace, text) in bundles {
            this.replace(&root.join(format!("{namespace}.yaml")), &text)?;
        }
        Ok(this)
    }

    fn file(&self, object: &Object) -> PathBuf {
        let Object {
            kind,
            namespace,
            name,
            ..
        } = object;
        self.root
            .join(format!("edited/{kind}-{namespace}-{name}.yaml"))
    }

    /// By rename, as an editor or `git pull` does.
    fn replace(&self, file: &Path, text: &str) -> Result<()> {
        let partial = self.root.join(".partial");
        fs::write(&partial, text)
            .and_then(|()| fs::rename(&partial, file))
            .with_context(|| format!("write {}", file.display()))
    }

    /// When the change was begun.
    pub fn apply(&self, change: &Change) -> Result<Stamp> {
        let begun = Stamp::now();
        for object in &change.put {
            self.replace(&self.file(object), &object.text)?;
        }
        for object in &change.delete {
            let file = self.file(object);
            fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
        }
        Ok(begun)
    }
}
