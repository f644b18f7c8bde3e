//! Asks the real Envoy whether it would take a proxy's resources (`envoy --mode validate`).
//!
//! The dynamic resources become one static bootstrap: route tables move into the listeners that name
//! them, secrets become static ones, files that are named exist, and every endpoint assignment gets a
//! cluster of its own, so that nothing goes unread.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};

/// Resources of one proxy by type URL, as `fairlead dump` gives them.
pub struct Wrapped<'a> {
    pub dump: &'a Value,
    /// Whether a route may name a cluster that is not there, as Istio's do for a subset without a rule.
    pub dangling: Dangling,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Dangling {
    Refused,
    Allowed,
}

/// The Envoy of `ENVOY_BIN`, else the one that `make prerequisites` fetched.
pub fn envoy() -> Result<PathBuf, String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "where tests learn which Envoy to ask"
    )]
    let named = std::env::var_os("ENVOY_BIN").map(PathBuf::from);
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/envoy/envoy");
    let path = named.unwrap_or(fetched);
    if path.is_file() {
        Ok(path)
    } else {
        Err(format!(
            "no Envoy at {}: run `make prerequisites`",
            path.display()
        ))
    }
}

/// Fails with what Envoy says against the configuration.
pub fn validate(wrapped: &Wrapped<'_>) -> Result<(), String> {
    let folder =
        tempfile::tempdir().map_err(|e| format!("make a folder for the bootstrap: {e}"))?;
    let bootstrap = bootstrap(wrapped, &Pair::write(folder.path())?)?;
    let file = write(folder.path(), "bootstrap.json", &bootstrap.to_string())?;
    let envoy = envoy()?;
    let output = Command::new(&envoy)
        .args([
            "--mode",
            "validate",
            "--log-level",
            "warning",
            "--config-path",
            &file,
        ])
        .output()
        .map_err(|e| format!("run {}: {e}", envoy.display()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "envoy refuses it:\n{}",
        String::from_utf8_lossy(&output.stderr)
    ))
}

fn write(folder: &Path, name: &str, text: &str) -> Result<String, String> {
    let path = folder.join(name);
    std::fs::write(&path, text).map_err(|e| format!("write {}: {e}", path.display()))?;
    Ok(path.display().to_string())
}

/// A certificate that is its own root, and its key, for every place that names some.
struct Pair {
    certificate: String,
    key: String,
}

impl Pair {
    fn write(folder: &Path) -> Result<Self, String> {
        let made = rcgen::generate_simple_self_signed(["validate".to_owned()]);
        let made = made.map_err(|e| format!("make a certificate: {e}"))?;
        Ok(Self {
            certificate: write(folder, "cert.pem", &made.cert.pem())?,
            key: write(folder, "key.pem", &made.signing_key.serialize_pem())?,
        })
    }
}

fn bootstrap(wrapped: &Wrapped<'_>, pair: &Pair) -> Result<Value, String> {
    let tables: Map<String, Value> = resources(wrapped.dump, "RouteConfiguration")
        .map(|route| (name(&route), route))
        .collect();
    let mut clusters: Vec<Value> = resources(wrapped.dump, "Cluster").collect();
    clusters.extend(resources(wrapped.dump, "ClusterLoadAssignment").map(cluster_of));
    let mut listeners: Vec<Value> = resources(wrapped.dump, "Listener").collect();
    for listener in &mut listeners {
        inline_routes(listener, &tables, wrapped.dangling)?;
    }
    let mut secrets = Map::new();
    for resource in clusters.iter_mut().chain(&mut listeners) {
        make_secrets_static(resource, pair, &mut secrets);
    }
    clusters.push(control_plane());
    let secrets: Vec<Value> = secrets.into_iter().map(|(_, secret)| secret).collect();
    Ok(json!({
        "node": {"id": "validate", "cluster": "validate"},
        "dynamicResources": {"adsConfig": {
            "apiType": "DELTA_GRPC",
            "transportApiVersion": "V3",
            "grpcServices": [{"envoyGrpc": {"clusterName": CONTROL_PLANE}}],
        }},
        "staticResources": {"clusters": clusters, "listeners": listeners, "secrets": secrets},
        "bootstrapExtensions": [{
            "name": "envoy.bootstrap.internal_listener",
            "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"},
        }],
    }))
}

/// Envoy 1.40 ends with a null pointer when a cluster of its bootstrap asks ADS for a secret.
fn make_secrets_static(value: &mut Value, pair: &Pair, secrets: &mut Map<String, Value>) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                if key.contains("privateKey") {
                    *field = json!({"filename": pair.key});
                } else if field.get("filename").is_some() {
                    *field = json!({"filename": pair.certificate});
                } else {
                    for config in secret_configs(key, field) {
                        let secret = secret(key, config, pair);
                        secrets.insert(name(&secret), secret);
                    }
                    make_secrets_static(field, pair, secrets);
                }
            }
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|v| make_secrets_static(v, pair, secrets)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn secret_configs<'v>(key: &str, value: &'v mut Value) -> Vec<&'v mut Value> {
    match (key, value) {
        ("tlsCertificateSdsSecretConfigs", Value::Array(configs)) => configs.iter_mut().collect(),
        ("validationContextSdsSecretConfig", config) => vec![config],
        _ => Vec::new(),
    }
}

/// A secret without a source is a static one.
fn secret(key: &str, config: &mut Value, pair: &Pair) -> Value {
    if let Some(fields) = config.as_object_mut() {
        fields.remove("sdsConfig");
    }
    let certificate = json!({"filename": pair.certificate});
    if key == "validationContextSdsSecretConfig" {
        return json!({"name": name(config), "validationContext": {"trustedCa": certificate}});
    }
    let key = json!({"filename": pair.key});
    json!({"name": name(config), "tlsCertificate": {"certificateChain": certificate, "privateKey": key}})
}

const CONTROL_PLANE: &str = "validate-control-plane";

fn control_plane() -> Value {
    json!({
        "name": CONTROL_PLANE,
        "type": "STATIC",
        "loadAssignment": {"clusterName": CONTROL_PLANE},
        "typedExtensionProtocolOptions": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
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
    let of_type = dump.as_object().into_iter().flatten();
    of_type
        .filter(move |(url, _)| url.rsplit('.').next() == Some(kind))
        .flat_map(|(_, list)| list.as_array().into_iter().flatten())
        .map(|entry| entry["resource"].clone())
}

fn name(resource: &Value) -> String {
    let name = resource.get("name").or_else(|| resource.get("clusterName"));
    name.and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn inline_routes(
    value: &mut Value,
    tables: &Map<String, Value>,
    dangling: Dangling,
) -> Result<(), String> {
    match value {
        Value::Object(fields) => {
            if let Some(rds) = fields.remove("rds") {
                let wanted = rds["routeConfigName"].as_str().unwrap_or_default();
                let mut table = tables.get(wanted).cloned().ok_or_else(|| {
                    format!("a listener names route table `{wanted}`, which is not served")
                })?;
                table["validateClusters"] = json!(dangling == Dangling::Refused);
                fields.insert("routeConfig".to_owned(), table);
            }
            fields
                .values_mut()
                .try_for_each(|v| inline_routes(v, tables, dangling))
        }
        Value::Array(items) => items
            .iter_mut()
            .try_for_each(|v| inline_routes(v, tables, dangling)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}
