//! Asks the real Envoy whether it would take a proxy's resources (`envoy --mode validate`).
//!
//! They become one static bootstrap: route tables move into the listeners that name them, every endpoint
//! assignment gets a cluster of its own, secrets and files of certificates are made up. Nothing is bound,
//! and nothing is asked of a control plane.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Map, Value, json};

/// Resources of one proxy by type URL, as `fairlead dump` gives them.
pub struct Wrapped<'a> {
    pub dump: &'a Value,
    pub dangling: Dangling,
}

/// A route to a cluster that is not there, as Istio's lead to for a subset without a rule.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Dangling {
    Refused,
    Allowed,
}

/// Fails with what Envoy has against the configuration; that a field is deprecated counts.
pub fn validate(envoy: &Path, wrapped: &Wrapped<'_>) -> Result<()> {
    let credentials = Credentials::make()?;
    let file = credentials.folder.path().join("bootstrap.json");
    let text = bootstrap(wrapped, &credentials)?.to_string();
    std::fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    let output = Command::new(envoy)
        .args(["--mode", "validate", "--disable-hot-restart"])
        .args(["--log-level", "warning", "--config-path"])
        .arg(&file)
        .output()
        .with_context(|| format!("run {}", envoy.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("envoy refuses it ({}):\n{said}", output.status);
    }
    match said.lines().find(|line| line.contains("Deprecated")) {
        Some(line) => bail!("envoy takes it for now: {line}"),
        None => Ok(()),
    }
}

/// A key and a certificate of no meaning.
struct Credentials {
    folder: tempfile::TempDir,
    chain: PathBuf,
    key: PathBuf,
}

impl Credentials {
    fn make() -> Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for the bootstrap")?;
        let pair = KeyPair::generate()?;
        let certificate =
            CertificateParams::new(vec!["validate.example".to_owned()])?.self_signed(&pair)?;
        let chain = folder.path().join("chain.pem");
        let key = folder.path().join("key.pem");
        std::fs::write(&chain, certificate.pem())?;
        std::fs::write(&key, pair.serialize_pem())?;
        Ok(Self { folder, chain, key })
    }

    /// What a field that names a file of the proxy's stands for here.
    fn file(&self, field: &str) -> Option<&Path> {
        match field {
            "certificateChain" | "trustedCa" => Some(&self.chain),
            "privateKey" => Some(&self.key),
            _ => None,
        }
    }

    /// The workload's own, and those that its listeners name.
    fn secrets(&self, listeners: &[Value]) -> Value {
        let mut names = BTreeSet::from(["default".to_owned(), "ROOTCA".to_owned()]);
        listeners.iter().for_each(|l| secrets_in(l, &mut names));
        let secret = |name: String| {
            let (chain, key) = (
                json!({"filename": self.chain}),
                json!({"filename": self.key}),
            );
            match name == "ROOTCA" || name.ends_with("-cacert") || name.starts_with("file-root:") {
                true => json!({"name": name, "validationContext": {"trustedCa": chain}}),
                false => json!({
                    "name": name,
                    "tlsCertificate": {"certificateChain": chain, "privateKey": key},
                }),
            }
        };
        names.into_iter().map(secret).collect()
    }
}

/// Names of Secrets, wherever they stand.
fn secrets_in(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::String(text) if text.starts_with("kubernetes://") || text.starts_with("file-") => {
            names.insert(text.clone());
        }
        Value::Array(items) => items.iter().for_each(|item| secrets_in(item, names)),
        Value::Object(fields) => fields.values().for_each(|field| secrets_in(field, names)),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn bootstrap(wrapped: &Wrapped<'_>, credentials: &Credentials) -> Result<Value> {
    let tables: Map<String, Value> = resources(wrapped.dump, "RouteConfiguration")
        .map(|table| (name(&table), table))
        .collect();
    let mut clusters: Vec<Value> = resources(wrapped.dump, "Cluster").collect();
    clusters.extend(resources(wrapped.dump, "ClusterLoadAssignment").map(cluster_of));
    clusters.push(control_plane());
    let mut listeners: Vec<Value> = resources(wrapped.dump, "Listener").collect();
    for listener in &mut listeners {
        inline_routes(listener, &tables, wrapped.dangling)?;
        inline_scopes(listener, wrapped.dump, &tables)?;
    }
    for resource in clusters.iter_mut().chain(&mut listeners) {
        localize(resource, credentials);
    }
    const EXTENSION: &str = "envoy.extensions.bootstrap.internal_listener.v3.InternalListener";
    Ok(json!({
        "node": {"id": "validate", "cluster": "validate"},
        "dynamicResources": {"adsConfig": {
            "apiType": "DELTA_GRPC",
            "transportApiVersion": "V3",
            "grpcServices": [{"envoyGrpc": {"clusterName": CONTROL_PLANE}}],
        }},
        "staticResources": {
            "clusters": clusters,
            "secrets": credentials.secrets(&listeners),
            "listeners": listeners,
        },
        "bootstrapExtensions": [{
            "name": "envoy.bootstrap.internal_listener",
            "typedConfig": {"@type": format!("type.googleapis.com/{EXTENSION}")},
        }],
    }))
}

const CONTROL_PLANE: &str = "validate-control-plane";

/// Where `ads` leads; EDS clusters need one to name.
fn control_plane() -> Value {
    const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    json!({
        "name": CONTROL_PLANE,
        "type": "STATIC",
        "loadAssignment": {"clusterName": CONTROL_PLANE},
        "typedExtensionProtocolOptions": {OPTIONS: {
            "@type": format!("type.googleapis.com/{OPTIONS}"),
            "explicitHttpConfig": {"http2ProtocolOptions": {}},
        }},
    })
}

/// Reads the assignment as Envoy would behind EDS.
fn cluster_of(mut assignment: Value) -> Value {
    let cluster = format!("validate-endpoints {}", name(&assignment));
    assignment["clusterName"] = json!(cluster);
    json!({"name": cluster, "type": "STATIC", "loadAssignment": assignment})
}

/// Resources whose type ends with `.kind`, without their names and versions.
fn resources<'a>(dump: &'a Value, kind: &'a str) -> impl Iterator<Item = Value> + 'a {
    let types = dump.as_object().into_iter().flatten();
    types
        .filter(move |(url, _)| url.rsplit('.').next() == Some(kind))
        .flat_map(|(_, list)| list.as_array().into_iter().flatten())
        .map(|entry| entry["resource"].clone())
}

fn name(resource: &Value) -> String {
    let name = resource.get("name").or_else(|| resource.get("clusterName"));
    name.and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn inline_routes(value: &mut Value, tables: &Map<String, Value>, dangling: Dangling) -> Result<()> {
    match value {
        Value::Object(fields) => {
            if let Some(rds) = fields.remove("rds") {
                let wanted = rds["routeConfigName"].as_str().unwrap_or_default();
                let table = tables.get(wanted);
                let table = table.with_context(|| {
                    format!("a listener names the route table `{wanted}`, which is not served")
                })?;
                let mut table = table.clone();
                table["validateClusters"] = json!(dangling == Dangling::Refused);
                fields.insert("routeConfig".to_owned(), table);
            }
            fields
                .values_mut()
                .try_for_each(|field| inline_routes(field, tables, dangling))
        }
        Value::Array(items) => items
            .iter_mut()
            .try_for_each(|item| inline_routes(item, tables, dangling)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// Scopes with their tables in them, in place of where they would be asked for.
fn inline_scopes(value: &mut Value, dump: &Value, tables: &Map<String, Value>) -> Result<()> {
    match value {
        Value::Object(fields) => {
            if let Some(Value::Object(scoped)) = fields.get_mut("scopedRoutes") {
                scoped.remove("scopedRds");
                let scopes: Result<Vec<Value>> = resources(dump, "ScopedRouteConfiguration")
                    .map(|scope| with_table(scope, tables))
                    .collect();
                let list = json!({"scopedRouteConfigurations": scopes?});
                scoped.insert("scopedRouteConfigurationsList".to_owned(), list);
            }
            let mut fields = fields.values_mut();
            fields.try_for_each(|field| inline_scopes(field, dump, tables))
        }
        Value::Array(items) => items
            .iter_mut()
            .try_for_each(|item| inline_scopes(item, dump, tables)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn with_table(mut scope: Value, tables: &Map<String, Value>) -> Result<Value> {
    let wanted = scope["routeConfigurationName"].as_str().unwrap_or_default();
    let table = tables.get(wanted);
    let table = table
        .with_context(|| format!("a scope names the route table `{wanted}`, which is not served"))?
        .clone();
    if let Some(fields) = scope.as_object_mut() {
        fields.remove("routeConfigurationName");
        fields.insert("routeConfiguration".to_owned(), table);
    }
    Ok(scope)
}

/// Secrets come from the bootstrap (a static cluster that asks ADS for one ends Envoy 1.40), and files
/// of certificates from here.
fn localize(value: &mut Value, credentials: &Credentials) {
    match value {
        Value::Object(fields) => {
            fields.remove("sdsConfig");
            for (key, field) in fields {
                match credentials.file(key) {
                    Some(path) if field.get("filename").is_some() => {
                        *field = json!({"filename": path});
                    }
                    Some(_) | None => localize(field, credentials),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|i| localize(i, credentials)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
