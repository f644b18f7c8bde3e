//! Where a kind is found on an API server: its path, and which version of it is served.

use ::kube::Client;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::fault::Fault;
use crate::config::Kind;
use crate::config::decode::{MESH_NAME, MESH_NAMESPACE};

/// What requests for a kind's objects name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) path: String,
    /// One object of many.
    pub(super) fields: Option<String>,
}

/// In its group's paths.
fn plural(kind: Kind) -> &'static str {
    match kind {
        Kind::Namespace => "namespaces",
        Kind::Service => "services",
        Kind::EndpointSlice => "endpointslices",
        Kind::Pod => "pods",
        Kind::WorkloadEntry => "workloadentries",
        Kind::VirtualService => "virtualservices",
        Kind::DestinationRule => "destinationrules",
        Kind::PeerAuthentication => "peerauthentications",
        Kind::Sidecar => "sidecars",
        Kind::MeshConfig => "configmaps",
    }
}

impl Resource {
    /// Where the server serves a kind now; None where it does not know it, as before Istio's
    /// CustomResourceDefinitions are there. Every served version holds every object.
    pub(super) async fn find(kind: Kind, client: &Client) -> Result<Option<Self>, Fault> {
        let group = kind.group();
        match kind {
            Kind::MeshConfig => Ok(Some(mesh())),
            Kind::Namespace | Kind::Service | Kind::Pod | Kind::EndpointSlice => {
                let versions = kind.versions();
                Ok(versions.first().map(|version| at(group, version, kind)))
            }
            Kind::WorkloadEntry
            | Kind::VirtualService
            | Kind::DestinationRule
            | Kind::PeerAuthentication
            | Kind::Sidecar => {
                let served: Option<Group> = get(client, &format!("/apis/{group}")).await?;
                let served = served.unwrap_or_default().versions;
                let serves = |version: &str| served.iter().any(|s| s.version == version);
                for version in kind.versions().iter().filter(|v| serves(v)) {
                    let path = format!("/apis/{group}/{version}");
                    let found: Option<Resources> = get(client, &path).await?;
                    if found.is_some_and(|found| found.has(kind)) {
                        return Ok(Some(at(group, version, kind)));
                    }
                }
                Ok(None)
            }
        }
    }
}

fn at(group: &str, version: &str, kind: Kind) -> Resource {
    let plural = plural(kind);
    let path = if group.is_empty() {
        format!("/api/{version}/{plural}")
    } else {
        format!("/apis/{group}/{version}/{plural}")
    };
    Resource { path, fields: None }
}

/// The ConfigMap of its name alone.
fn mesh() -> Resource {
    let plural = plural(Kind::MeshConfig);
    Resource {
        path: format!("/api/v1/namespaces/{MESH_NAMESPACE}/{plural}"),
        fields: Some(format!("metadata.name={MESH_NAME}")),
    }
}

#[derive(Default, Deserialize)]
struct Group {
    versions: Vec<GroupVersion>,
}

#[derive(Deserialize)]
struct GroupVersion {
    version: String,
}

#[derive(Deserialize)]
struct Resources {
    resources: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

impl Resources {
    fn has(&self, kind: Kind) -> bool {
        self.resources.iter().any(|r| r.name == plural(kind))
    }
}

/// None when it is not there.
async fn get<T: DeserializeOwned>(client: &Client, path: &str) -> Result<Option<T>, Fault> {
    let request = http::Request::get(path).body(Vec::new());
    let request = request.map_err(|e| Fault::Broken(e.to_string()))?;
    let text = match client.request_text(request).await {
        Ok(text) => text,
        Err(error) => {
            return match Fault::of(&error, None) {
                Fault::NotServed(_) => Ok(None),
                fault => Err(fault),
            };
        }
    };
    let read = serde_json::from_str(&text);
    read.map(Some)
        .map_err(|e| Fault::Broken(format!("read {path}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_the_paths_of_their_groups() {
        let path = |kind: Kind| at(kind.group(), kind.versions()[0], kind).path;
        assert_eq!(path(Kind::Pod), "/api/v1/pods");
        assert_eq!(
            path(Kind::EndpointSlice),
            "/apis/discovery.k8s.io/v1/endpointslices"
        );
        assert_eq!(
            path(Kind::PeerAuthentication),
            "/apis/security.istio.io/v1/peerauthentications"
        );
        assert_eq!(mesh().path, "/api/v1/namespaces/istio-system/configmaps");
    }
}
