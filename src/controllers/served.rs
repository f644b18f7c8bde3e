//! In which version the API server has a kind.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use kube::api::ApiResource;
use kube::core::GroupVersionKind;
use kube::{Client, discovery};

use crate::config::api::ApiKind;

/// Versions by kind, looked for once.
pub struct Served {
    client: Client,
    known: BTreeMap<&'static str, ApiResource>,
}

impl Served {
    pub fn new(client: Client) -> Self {
        Self {
            client,
            known: BTreeMap::new(),
        }
    }

    /// They are looked for again: after a failure they may be others.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    pub async fn resource(&mut self, kind: &'static ApiKind) -> Result<ApiResource> {
        if let Some(known) = self.known.get(kind.kind) {
            return Ok(known.clone());
        }
        let mut last = None;
        for version in kind.versions {
            let named = GroupVersionKind::gvk(kind.group, version, kind.kind);
            match discovery::pinned_kind(&self.client, &named).await {
                Ok((at, _)) => {
                    self.known.insert(kind.kind, at.clone());
                    return Ok(at);
                }
                Err(why) => last = Some(why),
            }
        }
        let why = last.map_or_else(String::new, |why| why.to_string());
        bail!("no version of {} is served: {why}", kind.kind)
    }
}
