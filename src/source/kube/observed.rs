//! An object as a watch reads it: its tree, and the few words that the watch itself needs. What it means is `config`'s.

use std::borrow::Cow;

use ::kube::Resource;
use ::kube::core::{ApiResource, DynamicResourceScope, ObjectMeta};
use serde::{Deserialize, Deserializer};

use crate::config::decode::json::Tree;
use crate::config::decode::yaml::Node;
use crate::config::decode::{MESH_NAME, MESH_NAMESPACE};
use crate::config::{Key, Kind};
use crate::text::Str;

/// Of any kind, and of any content that is JSON: what is wrong with an object is told by its decoder, and breaks no watch.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    /// Its place in the server's history alone; the rest is in the tree.
    place: ObjectMeta,
    pub(super) tree: Tree,
}

impl Observed {
    /// The label `istio.io/rev`.
    pub(super) fn revision(&self) -> Option<&str> {
        let labels = self.tree.0.get("metadata")?.get("labels")?;
        labels
            .get("istio.io/rev")
            .and_then(Node::text)
            .filter(|rev| !rev.is_empty())
    }

    pub(super) fn key(&self, kind: Kind) -> Key {
        // One for the mesh, whatever its ConfigMap is called.
        if kind == Kind::MeshConfig {
            return Key {
                kind,
                namespace: MESH_NAMESPACE,
                name: MESH_NAME,
            };
        }
        Key {
            kind,
            namespace: Str::new(self.tree.meta("namespace")),
            name: Str::new(self.tree.meta("name")),
        }
    }
}

impl<'de> Deserialize<'de> for Observed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let tree = Tree::deserialize(deserializer)?;
        let version = tree.meta("resourceVersion");
        let place = ObjectMeta {
            resource_version: (!version.is_empty()).then(|| version.to_owned()),
            ..ObjectMeta::default()
        };
        Ok(Self { place, tree })
    }
}

impl Resource for Observed {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(at: &ApiResource) -> Cow<'_, str> {
        at.kind.as_str().into()
    }
    fn group(at: &ApiResource) -> Cow<'_, str> {
        at.group.as_str().into()
    }
    fn version(at: &ApiResource) -> Cow<'_, str> {
        at.version.as_str().into()
    }
    fn plural(at: &ApiResource) -> Cow<'_, str> {
        at.plural.as_str().into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.place
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.place
    }
}
