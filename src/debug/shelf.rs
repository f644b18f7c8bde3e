//! The pages that show configuration, by name: what 8080, 15014 and xDS answer alike.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::desk::Desk;
use super::{registry, syncz};
use crate::config::Object;
use crate::delivery::hub::report::{Inspect, Sight};
use crate::model::Snapshot;
use crate::xds::Entry;

/// Turns what a proxy must hold into the dump's stable shape.
pub type Render = Arc<dyn Fn(&[Entry]) -> Result<Value, String> + Send + Sync>;
/// The objects in force, as old as what is kept over a restart.
pub type Config = Arc<dyn Fn() -> Vec<Arc<Object>> + Send + Sync>;

#[derive(Clone)]
pub struct Shelf {
    pub desk: Desk,
    pub render: Render,
    pub config: Config,
}

/// A page, and what it is for.
pub struct Listed {
    pub name: &'static str,
    pub about: &'static str,
    readers: For,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    /// Of proxies: each reader is shown those that it may see.
    Everybody,
    /// Of the whole mesh: for identities of the root namespace.
    Root,
}

const fn listed(name: &'static str, readers: For, about: &'static str) -> Listed {
    Listed {
        name,
        about,
        readers,
    }
}

/// Ordered as they are listed. istiod's other pages are of things that are not here.
pub const PAGES: &[Listed] = &[
    listed(
        "adsz",
        For::Everybody,
        "who is connected, and what it watches",
    ),
    listed("config_dump", For::Everybody, "what ?proxyID= must hold"),
    listed("configz", For::Root, "the objects in force"),
    listed("connections", For::Everybody, "the same as adsz"),
    listed("endpointShardz", For::Root, "endpoints by host"),
    listed("endpointz", For::Root, "the same as endpointShardz"),
    listed("list", For::Everybody, "these pages"),
    listed("mesh", For::Root, "MeshConfig in force"),
    listed("registryz", For::Root, "services"),
    listed("syncz", For::Everybody, "how proxies stand"),
];

/// What a question may say besides the page.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Wanted {
    #[serde(rename = "proxyID")]
    pub proxy: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    #[error("stopping")]
    Stopping,
    #[error("say which: ?proxyID=<name>.<namespace>, or a whole node id")]
    Unsaid,
    #[error("no proxy {0:?} is connected here")]
    NoProxy(String),
    #[error("{0} shows the whole mesh: it takes an identity of the root namespace")]
    NotForYou(&'static str),
    #[error("there is no page {0:?}; `list` names those that there are")]
    NoPage(String),
    #[error("the page could not be written: {0}")]
    Unwritten(String),
}

impl Shelf {
    pub async fn answer(&self, name: &str, wanted: Wanted, sight: Sight) -> Result<Value, Refusal> {
        let page = PAGES.iter().find(|page| page.name == name);
        let page = page.ok_or_else(|| Refusal::NoPage(name.chars().take(100).collect()))?;
        if page.readers == For::Root && sight != Sight::All {
            return Err(Refusal::NotForYou(page.name));
        }
        match page.name {
            "syncz" => Ok(syncz::items(&self.streams(sight).await?)),
            "adsz" | "connections" => Ok(syncz::connections(&self.streams(sight).await?)),
            "config_dump" => self.config_dump(wanted, sight).await,
            "configz" => {
                let objects = (self.config)();
                let written = registry::objects(objects.iter().map(AsRef::as_ref));
                written.map_err(|e| Refusal::Unwritten(e.to_string()))
            }
            "mesh" => {
                let mesh = serde_json::to_value(&*self.snapshot().await?.mesh);
                mesh.map_err(|e| Refusal::Unwritten(e.to_string()))
            }
            "registryz" => Ok(registry::services(&self.snapshot().await?)),
            "endpointz" | "endpointShardz" => Ok(registry::endpoints(&self.snapshot().await?)),
            _list => Ok(PAGES
                .iter()
                .map(|page| json!({"href": format!("/debug/{}", page.name), "name": page.name, "help": page.about}))
                .collect()),
        }
    }

    async fn streams(
        &self,
        sight: Sight,
    ) -> Result<Vec<crate::delivery::hub::report::StreamReport>, Refusal> {
        self.desk.streams(sight).await.ok_or(Refusal::Stopping)
    }

    /// Written out here, and not where pushes are made.
    async fn snapshot(&self) -> Result<Snapshot, Refusal> {
        let snapshot = self.desk.inspect(Inspect::Snapshot).await;
        snapshot.map(|snapshot| *snapshot).ok_or(Refusal::Stopping)
    }

    async fn config_dump(&self, wanted: Wanted, sight: Sight) -> Result<Value, Refusal> {
        let wanted = wanted.proxy.ok_or(Refusal::Unsaid)?;
        let question = wanted.clone();
        let config = self
            .desk
            .inspect(|reply| Inspect::Config(question, sight, reply));
        let entries = config.await.ok_or(Refusal::Stopping)?;
        let entries = entries.ok_or(Refusal::NoProxy(wanted))?;
        (self.render)(&entries).map_err(Refusal::Unwritten)
    }
}
