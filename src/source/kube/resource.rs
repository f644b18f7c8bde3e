//! Where a kind is found on an API server: its path, and which version of it is served.

use ::kube::core::{ApiResource, GroupVersionKind};
use ::kube::error::DiscoveryError;
use ::kube::runtime::watcher;
use ::kube::{Api, Client, Error, discovery};

use super::fault::Fault;
use super::observed::Observed;
use super::{DEFAULT_REVISION, Home};
use crate::config::Kind;
use crate::config::decode::MESH_NAME;

/// In seconds: how long the server lets a watch go on. One that goes on longer is lost.
const WATCH: u32 = 120;

/// Secrets that are large, or many, and never a gateway's.
const OF_GATEWAYS: &str = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token";

/// What is asked of the server to see a kind's objects.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    pub(super) api: Api<Observed>,
    /// Which of them.
    pub(super) watched: watcher::Config,
}

impl Resource {
    /// Where the server serves a kind now; None where it does not know it, as before Istio's
    /// CustomResourceDefinitions are there. Every served version holds every object.
    pub(super) async fn find(
        kind: Kind,
        client: &Client,
        home: &Home,
    ) -> Result<Option<Self>, Fault> {
        let all = |at| Self {
            api: Api::all_with(client.clone(), &at),
            watched: watched(),
        };
        match kind {
            Kind::MeshConfig => Ok(Some(mesh(client, home))),
            Kind::Namespace
            | Kind::Node
            | Kind::Service
            | Kind::Pod
            | Kind::EndpointSlice
            | Kind::Ingress
            | Kind::IngressClass => {
                let versions = kind.versions().first();
                Ok(versions.map(|version| all(ApiResource::from_gvk(&named(kind, version)))))
            }
            Kind::Secret => {
                let versions = kind.versions().first();
                Ok(versions.map(|version| Self {
                    api: Api::all_with(
                        client.clone(),
                        &ApiResource::from_gvk(&named(kind, version)),
                    ),
                    watched: watched().fields(OF_GATEWAYS),
                }))
            }
            Kind::WorkloadEntry
            | Kind::WorkloadGroup
            | Kind::ServiceEntry
            | Kind::VirtualService
            | Kind::DestinationRule
            | Kind::PeerAuthentication
            | Kind::Sidecar
            | Kind::Gateway
            | Kind::ProxyConfig
            | Kind::TrafficExtension
            | Kind::EnvoyFilter => {
                for version in kind.versions() {
                    let found = discovery::pinned_kind(client, &named(kind, version)).await;
                    match found {
                        Ok((at, _)) => return Ok(Some(all(at))),
                        Err(error) if is_absent(&error) => {}
                        Err(error) => return Err(Fault::of(&error)),
                    }
                }
                Ok(None)
            }
        }
    }
}

fn watched() -> watcher::Config {
    watcher::Config::default().timeout(WATCH)
}

fn named(kind: Kind, version: &str) -> GroupVersionKind {
    GroupVersionKind::gvk(kind.group(), version, kind.name())
}

/// The ConfigMap of its name alone.
fn mesh(client: &Client, home: &Home) -> Resource {
    let at = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "ConfigMap"));
    let name = match home.revision.as_str() {
        DEFAULT_REVISION => MESH_NAME.to_string(),
        revision => format!("{MESH_NAME}-{revision}"),
    };
    Resource {
        api: Api::namespaced_with(client.clone(), &home.namespace, &at),
        watched: watched().fields(&format!("metadata.name={name}")),
    }
}

/// Whether the server has no such group, version or kind.
fn is_absent(error: &Error) -> bool {
    match error {
        Error::Api(status) => status.code == 404,
        Error::Discovery(why) => matches!(why, DiscoveryError::MissingKind(_)),
        _ => false,
    }
}
