//! An API server, a Fairlead that serves from it, and hands to change what is there.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use http::{Method, Request};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::definitions::{self, plural};
use super::harness::api_server::ApiServer;
use super::harness::client::{Call, Reply, Target};
use super::harness::isolation::{output, program};
use super::harness::process::Process;
use super::harness::wait::eventually;

pub struct World {
    pub server: ApiServer,
    /// Runs what is asynchronous here; connections live on between two calls.
    pub runtime: Arc<Runtime>,
}

impl World {
    /// With Istio's kinds.
    pub fn start() -> Result<Self> {
        let world = Self::bare(&[])?;
        for definition in definitions::all() {
            world.define(&definition)?;
        }
        Ok(world)
    }

    /// Without them. `flags` go to the API server.
    pub fn bare(flags: &[&str]) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        Ok(Self {
            server: ApiServer::start_with(flags)?,
            runtime: Arc::new(runtime),
        })
    }

    /// Returns once the kind is served.
    pub fn define(&self, definition: &Value) -> Result<()> {
        self.put(definition)?;
        let spec = &definition["spec"];
        let version = spec["versions"][0]["name"].as_str().unwrap_or_default();
        let path = format!(
            "/apis/{}/{version}/{}",
            spec["group"].as_str().unwrap_or_default(),
            spec["names"]["plural"].as_str().unwrap_or_default()
        );
        eventually(&format!("serve {path}"), || self.get(&path).map(drop))
    }

    /// Documents of YAML, in their order.
    pub fn put_all(&self, yaml: &str) -> Result<()> {
        for document in yaml.split("\n---\n") {
            let object = serde_saphyr::from_str(document);
            self.put(&object.with_context(|| format!("read {document}"))?)?;
        }
        Ok(())
    }

    /// Many of them, over one connection.
    pub fn put_many(&self, objects: &[Value]) -> Result<()> {
        self.runtime.block_on(async {
            let client = self.server.client().await?;
            for object in objects {
                let path = format!("{}?fieldManager=test&force=true", path(object));
                let _: Value = client
                    .request(request(Method::PATCH, &path, object)?)
                    .await?;
            }
            Ok(())
        })
    }

    /// Makes the object be as it says, status included.
    pub fn put(&self, object: &Value) -> Result<()> {
        let path = path(object);
        let query = "fieldManager=test&force=true";
        self.ask(Method::PATCH, &format!("{path}?{query}"), object)
            .with_context(|| format!("put {path}"))?;
        if object["kind"] == "Pod" && !object["status"].is_null() {
            self.ask(Method::PATCH, &format!("{path}/status?{query}"), object)?;
        }
        Ok(())
    }

    pub fn put_yaml(&self, yaml: &str) -> Result<()> {
        self.put(&serde_saphyr::from_str(yaml)?)
    }

    pub fn delete(&self, object: &Value) -> Result<()> {
        let path = path(object);
        self.ask(
            Method::DELETE,
            &path,
            &json!({"gracePeriodSeconds": 0, "kind": "DeleteOptions", "apiVersion": "v1"}),
        )
        .with_context(|| format!("delete {path}"))?;
        if object["kind"] == "Namespace" {
            // No controller is there to do it.
            let mut empty = object.clone();
            empty["spec"] = json!({"finalizers": []});
            self.ask(Method::PUT, &format!("{path}/finalize"), &empty)?;
        }
        Ok(())
    }

    /// A token as the kubelet would mount it (TokenRequest), bound to the pod if there is one.
    pub fn token(
        &self,
        (namespace, account): (&str, &str),
        audience: &str,
        pod: Option<&str>,
    ) -> Result<String> {
        let bound = pod.map(|name| json!({"apiVersion": "v1", "kind": "Pod", "name": name}));
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [audience], "boundObjectRef": bound},
        });
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let made = self.ask(Method::POST, &path, &request)?;
        let token = made["status"]["token"].as_str();
        Ok(token.context("no token in the answer")?.to_owned())
    }

    pub fn get(&self, path: &str) -> Result<Value> {
        self.ask(Method::GET, path, &Value::Null)
    }

    /// All objects of the kinds that Fairlead reads, as they are now.
    pub fn everything(&self) -> Result<Value> {
        let istio = "/apis/networking.istio.io/v1";
        let mut items = Vec::new();
        for (api, kind, path) in [
            ("v1", "Namespace", "/api/v1".to_owned()),
            ("v1", "Service", "/api/v1".to_owned()),
            ("v1", "Pod", "/api/v1".to_owned()),
            ("v1", "ConfigMap", "/api/v1".to_owned()),
            (
                "discovery.k8s.io/v1",
                "EndpointSlice",
                "/apis/discovery.k8s.io/v1".to_owned(),
            ),
            ("networking.istio.io/v1", "VirtualService", istio.to_owned()),
            (
                "networking.istio.io/v1",
                "DestinationRule",
                istio.to_owned(),
            ),
            ("networking.istio.io/v1", "WorkloadEntry", istio.to_owned()),
            ("networking.istio.io/v1", "Sidecar", istio.to_owned()),
            (
                "security.istio.io/v1",
                "PeerAuthentication",
                "/apis/security.istio.io/v1".to_owned(),
            ),
        ] {
            let list = self.get(&format!("{path}/{}", plural(kind)))?;
            for mut item in list["items"].as_array().cloned().unwrap_or_default() {
                item["apiVersion"] = api.into();
                item["kind"] = kind.into();
                items.push(item);
            }
        }
        Ok(json!({"apiVersion": "v1", "kind": "List", "items": items}))
    }

    fn ask(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let request = request(method, path, body)?;
        self.runtime.block_on(async {
            // A client of its own: a connection from before the server's restart is no good.
            let client = self.server.client().await?;
            Ok(client.request(request).await?)
        })
    }
}

/// `fairlead discovery` before it serves.
pub struct Starting {
    process: Process,
    folder: TempDir,
    file: PathBuf,
}

impl Starting {
    pub fn with(kubeconfig: &Path, folder: TempDir, flags: &[&str]) -> Result<Self> {
        let file = folder.path().join("ports.json");
        if file.exists() {
            std::fs::remove_file(&file)?;
        }
        let mut command = Command::new(program("fairlead"));
        command.arg("discovery").arg("--kubeconfig").arg(kubeconfig);
        command.arg("--state-dir").arg(folder.path().join("state"));
        command.arg("--ports-file").arg(&file);
        for listener in ["secure-grpc", "grpc", "http", "monitoring", "https"] {
            command.arg(format!("--{listener}-addr=127.0.0.1:0"));
        }
        command.args(flags);
        let process = Process::start("discovery", folder.path(), command)?;
        Ok(Self {
            process,
            folder,
            file,
        })
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    pub fn is_ready(&self) -> bool {
        self.file.exists()
    }

    pub fn ready(mut self) -> Result<Plane> {
        let file = &self.file;
        let ports = self.process.wait_until("serve", || {
            let text = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
            Ok(serde_json::from_slice(&text)?)
        })?;
        Ok(Plane {
            process: self.process,
            folder: self.folder,
            ports,
        })
    }
}

/// `fairlead discovery` that serves from the world.
pub struct Plane {
    process: Process,
    folder: TempDir,
    ports: Map<String, Value>,
}

impl Plane {
    /// Returns once it serves. `flags` go to it besides the usual ones.
    pub fn start(world: &World, flags: &[&str]) -> Result<Self> {
        Self::start_in(world, tempfile::tempdir()?, flags)
    }

    /// In the folder that another one left.
    pub fn start_in(world: &World, folder: TempDir, flags: &[&str]) -> Result<Self> {
        Starting::with(&world.server.kubeconfig(), folder, flags)?.ready()
    }

    /// As `kill -9` does; what it keeps is left.
    pub fn end(mut self) -> TempDir {
        self.process.kill();
        self.folder
    }

    pub fn address(&self, listener: &str) -> Result<SocketAddr> {
        let found = self.ports.get(listener).and_then(Value::as_str);
        Ok(found
            .with_context(|| format!("no port of {listener}"))?
            .parse()?)
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Nothing of it runs until `wake`.
    pub fn sleep(&self) -> Result<()> {
        self.signal("STOP")
    }

    pub fn wake(&self) -> Result<()> {
        self.signal("CONT")
    }

    fn signal(&self, name: &str) -> Result<()> {
        let pid = self.process.pid().to_string();
        output(Command::new("kill").args(["-s", name, &pid])).map(drop)
    }

    pub fn metric(&self, line: &str) -> Result<u64> {
        let target = Target::Tcp(self.address("monitoring")?);
        let page = Call::get(target, "localhost", "/metrics");
        let text = page.send_from_node()?.found("/metrics")?;
        let rest = text.lines().find_map(|l| l.strip_prefix(line));
        let value = rest.with_context(|| format!("no {line} in\n{text}"))?;
        Ok(value.trim().parse()?)
    }

    /// What `node` must hold, and of which objects it was made.
    pub fn dump(&self, node: &str) -> Result<Value> {
        let path = format!("/debug/config_dump?proxyID={node}");
        let text = self.shown_to(&self.token()?, &path)?.found(&path)?;
        Ok(serde_json::from_str(&text)?)
    }

    /// What a debug page says to the bearer of a token.
    pub fn shown_to(&self, token: &str, path: &str) -> Result<Reply> {
        let target = Target::Tcp(self.address("http")?);
        let call = Call::get(target, "localhost", path);
        let call = call.header("authorization", &format!("Bearer {token}"));
        call.send_from_node()
    }

    fn token(&self) -> Result<String> {
        let mut command = Command::new(program("fairlead"));
        command.args(["token", "--namespace", "istio-system"]);
        command.args(["--service-account", "reader", "--name", "reader"]);
        command.arg("--state-dir").arg(self.state());
        Ok(output(&mut command)?.trim().to_owned())
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }
}

fn request(method: Method, path: &str, body: &Value) -> Result<Request<Vec<u8>>> {
    let content = match method {
        Method::PATCH => "application/apply-patch+yaml",
        _ => "application/json",
    };
    let body = match body {
        Value::Null => Vec::new(),
        body => serde_json::to_vec(body)?,
    };
    let request = Request::builder().method(method).uri(path);
    Ok(request.header("content-type", content).body(body)?)
}

/// Of an object that says its version, kind and names.
fn path(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (api, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    let root = if api.contains('/') { "apis" } else { "api" };
    let meta = &object["metadata"];
    let namespace = match meta["namespace"].as_str() {
        Some(namespace) => format!("namespaces/{namespace}/"),
        None => String::new(),
    };
    let name = text(&meta["name"]);
    format!("/{root}/{api}/{namespace}{}/{name}", plural(&kind))
}
