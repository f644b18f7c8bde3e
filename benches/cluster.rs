//! Changes made in a real API server. How it is started is the test harness's business.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fairlead::ca::token::AUDIENCE;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

use super::harness::api_server::ApiServer;
use super::manifests::Object;
use super::mesh::Identity;
use super::mesh::changes::Change;
use super::stamp::Stamp;

/// Requests under way while the mesh is made.
const AT_ONCE: usize = 32;
/// How long a new kind may take to be served.
const SERVED: std::time::Duration = std::time::Duration::from_secs(30);

/// Kind, its API, its name in a path.
const KINDS: &[(&str, &str, &str)] = &[
    ("Namespace", "/api/v1", "namespaces"),
    ("Service", "/api/v1", "services"),
    ("Pod", "/api/v1", "pods"),
    (
        "EndpointSlice",
        "/apis/discovery.k8s.io/v1",
        "endpointslices",
    ),
    (
        "VirtualService",
        "/apis/networking.istio.io/v1",
        "virtualservices",
    ),
    (
        "DestinationRule",
        "/apis/networking.istio.io/v1",
        "destinationrules",
    ),
    ("Sidecar", "/apis/networking.istio.io/v1", "sidecars"),
    (
        "PeerAuthentication",
        "/apis/security.istio.io/v1",
        "peerauthentications",
    ),
];

pub struct Cluster {
    client: Client,
    // Ended when dropped, if it was started here.
    _server: Option<ApiServer>,
    pub kubeconfig: PathBuf,
}

impl Cluster {
    /// An API server with the mesh in it: the one of this kubeconfig, or a new one.
    pub async fn fill(objects: &[Object], known: Option<&Path>) -> Result<Self> {
        let (kubeconfig, server) = match known {
            Some(file) => (file.to_owned(), None),
            None => {
                let server = tokio::task::spawn_blocking(ApiServer::start).await??;
                (server.kubeconfig(), Some(server))
            }
        };
        let read = Kubeconfig::read_from(&kubeconfig)?;
        let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
        let this = Self {
            client: Client::try_from(config)?,
            kubeconfig,
            _server: server,
        };
        this.define().await.context("define Istio's kinds")?;
        // Whatever is in a namespace comes after it.
        let (namespaces, rest): (Vec<&Object>, Vec<&Object>) =
            objects.iter().partition(|o| o.kind == "Namespace");
        for group in [namespaces, rest] {
            let puts = group.into_iter().map(|object| this.put(object));
            let done = stream::iter(puts).buffer_unordered(AT_ONCE);
            done.try_for_each(|()| async { Ok(()) }).await?;
        }
        Ok(this)
    }

    /// Istio's kinds, without a schema: what is in them is the server's to judge.
    async fn define(&self) -> Result<()> {
        let own = KINDS.iter().filter(|(_, api, _)| api.contains("istio.io"));
        for (kind, api, plural) in own {
            let group = api.trim_start_matches("/apis/").trim_end_matches("/v1");
            let name = format!("{plural}.{group}");
            let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
            let definition = json!({
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": {"name": name},
                "spec": {
                    "group": group,
                    "scope": "Namespaced",
                    "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
                    "versions": [{
                        "name": "v1",
                        "served": true,
                        "storage": true,
                        "schema": {"openAPIV3Schema": schema},
                    }],
                },
            });
            let body = definition.to_string();
            let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
            self.patch(&format!("{path}/{name}"), body).await?;
        }
        for (_, api, plural) in KINDS {
            let served = async {
                while self.get(&format!("{api}/{plural}")).await.is_err() {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            };
            let waited = tokio::time::timeout(SERVED, served).await;
            waited.with_context(|| format!("{plural} are not served"))?;
        }
        Ok(())
    }

    /// A token for each, as the kubelet would mount it. Every call makes new ones.
    pub async fn tokens(&self, identities: &[Identity]) -> Result<Vec<String>> {
        let tokens = identities.iter().map(|identity| self.token(identity));
        stream::iter(tokens).buffered(AT_ONCE).try_collect().await
    }

    async fn token(&self, identity: &Identity) -> Result<String> {
        let Identity {
            namespace, service, ..
        } = identity;
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{service}");
        let account = json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": service, "namespace": namespace},
        });
        self.patch(&path, account.to_string()).await?;
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [AUDIENCE]},
        });
        let request = Request::post(format!("{path}/token"))
            .header("content-type", "application/json")
            .body(request.to_string().into_bytes())?;
        let made: Value = self.client.request(request).await?;
        let token = made["status"]["token"].as_str();
        Ok(token.context("no token in the answer")?.to_owned())
    }

    /// When the change was begun: before the first request of it.
    pub async fn apply(&self, change: &Change) -> Result<Stamp> {
        let begun = Stamp::now();
        for object in &change.put {
            self.put(object).await?;
        }
        for object in &change.delete {
            let request = Request::delete(path(object)?).body(Vec::new())?;
            let _: Value = self.client.request(request).await?;
        }
        Ok(begun)
    }

    async fn put(&self, object: &Object) -> Result<()> {
        let path = path(object)?;
        self.patch(&path, object.text.clone()).await?;
        if object.kind == "Pod" {
            // What runs where is no part of what is wanted.
            self.patch(&format!("{path}/status"), object.text.clone())
                .await?;
        }
        Ok(())
    }

    async fn patch(&self, path: &str, body: String) -> Result<()> {
        let request = Request::patch(format!("{path}?fieldManager=bench&force=true"))
            .header("content-type", "application/apply-patch+yaml")
            .body(body.into_bytes())?;
        let applied: Result<Value, _> = self.client.request(request).await;
        applied.with_context(|| format!("apply {path}")).map(drop)
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let request = Request::get(format!("{path}?limit=1")).body(Vec::new())?;
        Ok(self.client.request(request).await?)
    }
}

fn path(object: &Object) -> Result<String> {
    let Object {
        kind,
        namespace,
        name,
        ..
    } = object;
    let found = KINDS.iter().find(|(of, ..)| of == kind);
    let (_, api, plural) = found.with_context(|| format!("no path of kind {kind}"))?;
    Ok(match *kind {
        "Namespace" => format!("{api}/{plural}/{name}"),
        _ => format!("{api}/namespaces/{namespace}/{plural}/{name}"),
    })
}
