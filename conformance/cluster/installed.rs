//! Fairlead as its chart installs it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::discovery::{Discovery, Scope};
use kube::{Api, Client};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::harness::api_server::ApiServer;
use super::harness::client::{Call, Target};
use super::harness::controllers::Controllers;
use super::harness::isolation::{output, program};
use super::harness::kubelet::{Kubelet, Machine};
use super::harness::network::{Namespace, Network};
use super::harness::wait::eventually;

pub const SYSTEM: &str = "istio-system";

/// A cluster. What is named last is ended last.
pub struct Cluster {
    pub kubelet: Kubelet,
    _controllers: Controllers,
    pub server: ApiServer,
    pub runtime: Arc<Runtime>,
    _folder: TempDir,
}

impl Cluster {
    /// Kubernetes alone.
    pub fn bare() -> Result<Self> {
        let folder = tempfile::tempdir_in("/run")?;
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open)?;
        let network = Arc::new(Network::new()?);
        let node = network.node();
        let server = ApiServer::start_for_pods(node)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let controllers = Controllers::start(&server, folder.path())?;
        let kubelet = Kubelet::start(Machine {
            kubeconfig: server.kubeconfig(),
            network,
            folder: folder.path().join("pods"),
            images: vec![
                ("fairlead".to_owned(), program("fairlead")),
                ("envoyproxy/envoy".to_owned(), program("envoy")),
            ],
            api: server.address(node),
        })?;
        let cluster = Self {
            kubelet,
            _controllers: controllers,
            server,
            runtime: Arc::new(runtime),
            _folder: folder,
        };
        Ok(cluster)
    }

    /// With Fairlead, ready. `settings` go to the chart.
    pub fn installed(settings: &[&str]) -> Result<Self> {
        let cluster = Self::bare()?;
        cluster.install("istiod", settings)?;
        cluster.wait_ready(SYSTEM, "istiod", 1)?;
        cluster.eventually("the webhooks are known by the API server", || {
            let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/istio-sidecar-injector";
            let found = cluster.get(path)?;
            let bundle = &found["webhooks"][0]["clientConfig"]["caBundle"];
            ensure!(bundle.is_string(), "no caBundle");
            Ok(())
        })?;
        Ok(cluster)
    }

    /// What `helm install` of the chart makes.
    pub fn install(&self, release: &str, settings: &[&str]) -> Result<()> {
        self.apply_yaml(
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}})
                .to_string(),
        )?;
        // Nothing measures processors here, so nothing scales by them.
        let settings = [&["autoscaleEnabled=false"][..], settings].concat();
        self.apply_yaml(&rendered("fairlead", release, SYSTEM, &settings)?)
    }

    /// What `helm install` of the gateway's chart makes, in a namespace that is there.
    pub fn install_gateway(&self, release: &str, namespace: &str, settings: &[&str]) -> Result<()> {
        let settings = [&["autoscaling.enabled=false"][..], settings].concat();
        self.apply_yaml(&rendered("gateway", release, namespace, &settings)?)
    }

    pub fn apply_yaml(&self, yaml: &str) -> Result<()> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(yaml)?;
        let objects: Vec<Value> = documents.into_iter().filter(|d| !d.is_null()).collect();
        self.apply_all(&objects)
    }

    /// As `kubectl apply --server-side` does.
    pub fn apply_all(&self, objects: &[Value]) -> Result<()> {
        self.runtime.block_on(async {
            let client = self.server.client().await?;
            let mut discovery = Discovery::new(client.clone()).run().await?;
            for object in objects {
                let shown = format!("{} {}", object["kind"], object["metadata"]["name"]);
                let api = match api(&client, &discovery, object) {
                    Ok(api) => api,
                    // A kind that was defined a moment ago.
                    Err(_) => {
                        discovery = Discovery::new(client.clone()).run().await?;
                        api(&client, &discovery, object).with_context(|| shown.clone())?
                    }
                };
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let apply = PatchParams::apply("kubectl").force();
                api.patch(name, &apply, &Patch::Apply(object))
                    .await
                    .with_context(|| format!("apply {shown}"))?;
            }
            Ok(())
        })
    }

    pub fn get(&self, path: &str) -> Result<Value> {
        self.ask(http::Request::get(path).body(Vec::new())?)
    }

    pub fn delete(&self, path: &str) -> Result<()> {
        self.ask(http::Request::delete(path).body(Vec::new())?)
            .map(drop)
    }

    /// A merge patch.
    pub fn patch(&self, path: &str, patch: &Value) -> Result<()> {
        let request =
            http::Request::patch(path).header("content-type", "application/merge-patch+json");
        self.ask(request.body(serde_json::to_vec(patch)?)?)
            .map(drop)
    }

    /// Makes what is answered and not kept, such as a review.
    pub fn create(&self, path: &str, object: &Value) -> Result<Value> {
        let request = http::Request::post(path).header("content-type", "application/json");
        self.ask(request.body(serde_json::to_vec(object)?)?)
    }

    fn ask(&self, request: http::Request<Vec<u8>>) -> Result<Value> {
        self.runtime.block_on(async {
            let client = self.server.client().await?;
            Ok(client.request(request).await?)
        })
    }

    /// A Deployment's pods are the newest, ready, and no others are left.
    pub fn wait_ready(&self, namespace: &str, name: &str, replicas: u64) -> Result<()> {
        let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}");
        self.eventually(&format!("{name} is rolled out"), || {
            let found = self.get(&path)?;
            let (meta, status) = (&found["metadata"], &found["status"]);
            let count = |key: &str| status[key].as_u64().unwrap_or(0);
            ensure!(
                status["observedGeneration"] == meta["generation"],
                "not observed"
            );
            ensure!(
                count("updatedReplicas") == replicas
                    && count("readyReplicas") == replicas
                    && count("replicas") == replicas,
                "{status}\n{}",
                self.pods(namespace)?
            );
            Ok(())
        })
    }

    fn pods(&self, namespace: &str) -> Result<String> {
        let list = self.get(&format!("/api/v1/namespaces/{namespace}/pods"))?;
        let pods = list["items"].as_array().cloned().unwrap_or_default();
        Ok(pods
            .iter()
            .map(|p| format!("{} {}\n", p["metadata"]["name"], p["status"]))
            .collect())
    }

    /// Tells all that the processes said when it does not come to be.
    pub fn eventually<T>(&self, what: &str, attempt: impl FnMut() -> Result<T>) -> Result<T> {
        eventually(what, attempt).with_context(|| self.kubelet.logs(""))
    }

    /// A failure with all that the processes said, and how the cluster stands.
    pub fn told<T>(&self, done: Result<T>) -> Result<T> {
        done.with_context(|| {
            let slices = self.get("/apis/discovery.k8s.io/v1/endpointslices");
            let slices = slices.map_or_else(|e| e.to_string(), |s| s["items"].to_string());
            format!("{}\n{slices}", self.kubelet.logs(""))
        })
    }

    pub fn rollout_restart(&self, namespace: &str, name: &str) -> Result<()> {
        let stamp = format!("{:?}", fairlead::clock::wall());
        let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}");
        let annotations = json!({"kubectl.kubernetes.io/restartedAt": stamp});
        self.patch(
            &path,
            &json!({"spec": {"template": {"metadata": {"annotations": annotations}}}}),
        )
    }

    pub fn network_of(&self, namespace: &str, pod: &str) -> Result<Namespace> {
        self.kubelet.network_of(namespace, pod)
    }

    /// A Service's address and port.
    pub fn service(&self, namespace: &str, name: &str, port: u16) -> Result<SocketAddr> {
        let found = self.get(&format!("/api/v1/namespaces/{namespace}/services/{name}"))?;
        let ip = found["spec"]["clusterIP"]
            .as_str()
            .context("no clusterIP")?;
        Ok(SocketAddr::new(ip.parse()?, port))
    }

    pub fn call(&self, namespace: &str, name: &str, port: u16, path: &str) -> Result<Call> {
        let address = self.service(namespace, name, port)?;
        Ok(Call::get(
            Target::Tcp(address),
            &format!("{name}.{namespace}"),
            path,
        ))
    }
}

fn api(client: &Client, discovery: &Discovery, object: &Value) -> Result<Api<DynamicObject>> {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let kind = object["kind"].as_str().unwrap_or_default();
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let found = discovery.resolve_gvk(&kube::core::GroupVersionKind::gvk(group, version, kind));
    let (at, capabilities) =
        found.with_context(|| format!("no kind {kind} of {group}/{version}"))?;
    let namespace = object["metadata"]["namespace"]
        .as_str()
        .unwrap_or("default");
    Ok(match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &at),
        Scope::Namespaced => Api::namespaced_with(client.clone(), namespace, &at),
    })
}

/// A chart by Helm.
fn rendered(chart: &str, release: &str, namespace: &str, settings: &[&str]) -> Result<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let helm = root.join(".cache/helm/helm");
    ensure!(
        helm.exists(),
        "no {}: run `make prerequisites`",
        helm.display()
    );
    let mut command = Command::new(helm);
    command.args([
        "template",
        release,
        "--namespace",
        namespace,
        "--kube-version",
        "1.36.3",
    ]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    output(command.arg(root.join("deploy/charts").join(chart)))
}
