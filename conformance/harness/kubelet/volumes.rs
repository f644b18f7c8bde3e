//! A pod's volumes as folders, renewed while it runs by the swap of a link, as the kubelet does.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use data_encoding::BASE64;
use fairlead::clock;
use kube::Client;
use serde_json::{Value, json};

use super::env::Facts;

/// One volume of a pod.
pub(super) struct Volume {
    name: String,
    source: Value,
    pub(super) folder: PathBuf,
    written: BTreeMap<String, Vec<u8>>,
    generation: u32,
    /// When the token in it is made anew.
    renew: Option<Instant>,
    token: BTreeMap<String, Vec<u8>>,
}

/// The kubelet renews a token when this part of its life is over.
const RENEW: f64 = 0.8;

impl Volume {
    pub(super) fn all(pod: &Value, folder: &Path) -> Result<Vec<Self>> {
        let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
        let volume = |source: &Value| {
            let name = source["name"].as_str().context("a volume has a name")?;
            let folder = folder.join("volumes").join(name);
            std::fs::create_dir_all(&folder)?;
            // As the kubelet makes it: whoever runs in the pod may write.
            std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777))?;
            Ok(Self {
                name: name.to_owned(),
                source: source.clone(),
                folder,
                written: BTreeMap::new(),
                generation: 0,
                renew: None,
                token: BTreeMap::new(),
            })
        };
        volumes.map(volume).collect()
    }

    pub(super) fn is(&self, name: &str) -> bool {
        self.name == name
    }

    /// Brings the folder to what the volume says now. An object that is not there yet is an error.
    pub(super) async fn refresh(&mut self, client: &Client, facts: &Facts<'_>) -> Result<()> {
        if self.source["emptyDir"].is_object() {
            return Ok(());
        }
        let source = self.source.clone();
        let files = self.files(client, facts, &source).await;
        let files = files.with_context(|| format!("volume {}", self.name))?;
        if files != self.written || self.generation == 0 {
            self.swap(&files)?;
            self.written = files;
        }
        Ok(())
    }

    async fn files(
        &mut self,
        client: &Client,
        facts: &Facts<'_>,
        source: &Value,
    ) -> Result<BTreeMap<String, Vec<u8>>> {
        if source["projected"].is_object() {
            let mut files = BTreeMap::new();
            let sources = source["projected"]["sources"].as_array().cloned();
            for one in sources.into_iter().flatten() {
                files.extend(Box::pin(self.files(client, facts, &one)).await?);
            }
            return Ok(files);
        }
        let namespace = facts.field("metadata.namespace")?;
        if source["configMap"].is_object() {
            let map = &source["configMap"];
            return of_object(client, &namespace, "configmaps", &map["name"], map).await;
        }
        if source["secret"].is_object() {
            let secret = &source["secret"];
            let name = if secret["name"].is_string() {
                &secret["name"]
            } else {
                &secret["secretName"]
            };
            return of_object(client, &namespace, "secrets", name, secret).await;
        }
        if source["downwardAPI"].is_object() {
            let items = source["downwardAPI"]["items"]
                .as_array()
                .into_iter()
                .flatten();
            let item = |item: &Value| {
                let path = item["path"].as_str().unwrap_or_default().to_owned();
                let field = item["fieldRef"]["fieldPath"].as_str().unwrap_or_default();
                Ok((path, facts.field(field)?.into_bytes()))
            };
            return items.map(item).collect();
        }
        if source["serviceAccountToken"].is_object() {
            return self
                .token(client, facts, &source["serviceAccountToken"])
                .await;
        }
        bail!("this kubelet knows emptyDir, configMap, secret, downwardAPI and tokens alone")
    }

    async fn token(
        &mut self,
        client: &Client,
        facts: &Facts<'_>,
        source: &Value,
    ) -> Result<BTreeMap<String, Vec<u8>>> {
        if self.renew.is_some_and(|at| clock::mono() < at) {
            return Ok(self.token.clone());
        }
        let life = source["expirationSeconds"].as_u64().unwrap_or(3600);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "name": facts.field("metadata.name")?, "uid": facts.field("metadata.uid")?,
        });
        let audiences: Vec<&str> = source["audience"].as_str().into_iter().collect();
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": audiences, "expirationSeconds": life, "boundObjectRef": pod},
        });
        let (namespace, account) = (
            facts.field("metadata.namespace")?,
            facts.field("spec.serviceAccountName")?,
        );
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let post = http::Request::post(path).header("content-type", "application/json");
        let made: Value = client
            .request(post.body(serde_json::to_vec(&request)?)?)
            .await?;
        let token = made["status"]["token"]
            .as_str()
            .context("no token in the answer")?;
        let file = source["path"].as_str().unwrap_or("token").to_owned();
        self.token = BTreeMap::from([(file, token.as_bytes().to_vec())]);
        self.renew = Some(clock::mono() + Duration::from_secs(life).mul_f64(RENEW));
        Ok(self.token.clone())
    }

    /// A folder of its own for each state, a link `..data` to the newest, and a link for each file.
    fn swap(&mut self, files: &BTreeMap<String, Vec<u8>>) -> Result<()> {
        let before = format!("..{}", self.generation);
        self.generation += 1;
        let now = format!("..{}", self.generation);
        let folder = self.folder.join(&now);
        std::fs::create_dir(&folder)?;
        for (name, text) in files {
            std::fs::write(folder.join(name), text)?;
        }
        let next = self.folder.join("..data_tmp");
        symlink(&now, &next)?;
        std::fs::rename(&next, self.folder.join("..data"))?;
        for name in files.keys() {
            let link = self.folder.join(name);
            if !link.is_symlink() {
                symlink(format!("..data/{name}"), link)?;
            }
        }
        // Whoever still reads the state before has it open.
        let _ = std::fs::remove_dir_all(self.folder.join(before));
        Ok(())
    }
}

async fn of_object(
    client: &Client,
    namespace: &str,
    plural: &str,
    name: &Value,
    source: &Value,
) -> Result<BTreeMap<String, Vec<u8>>> {
    let name = name.as_str().unwrap_or_default();
    let path = format!("/api/v1/namespaces/{namespace}/{plural}/{name}");
    let object: Value = match client
        .request(http::Request::get(path).body(Vec::new())?)
        .await
    {
        Err(kube::Error::Api(status)) if status.code == 404 && source["optional"] == true => {
            Value::Null
        }
        found => found?,
    };
    let items = source["items"].as_array();
    let path = |key: &str| match items {
        None => Some(key.to_owned()),
        Some(items) => {
            let item = items.iter().find(|item| item["key"] == key)?;
            item["path"].as_str().map(str::to_owned)
        }
    };
    let text = object["data"].as_object().into_iter().flatten();
    let wanted = text.filter_map(|(key, value)| Some((path(key)?, value)));
    wanted
        .map(|(key, value)| {
            let value = value.as_str().unwrap_or_default();
            let bytes = match plural {
                "secrets" => BASE64.decode(value.as_bytes())?,
                _ => value.as_bytes().to_vec(),
            };
            Ok((key, bytes))
        })
        .collect()
}
