//! Environment and arguments of a container: fields of its pod, and `$(VARIABLE)` in texts.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// What is known of a pod only here.
pub(super) struct Facts<'a> {
    pub(super) pod: &'a Value,
    pub(super) ip: String,
    pub(super) host_ip: String,
}

impl Facts<'_> {
    /// A `fieldRef`'s value.
    pub(super) fn field(&self, path: &str) -> Result<String> {
        let (meta, spec) = (&self.pod["metadata"], &self.pod["spec"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for (map, key) in [
            ("metadata.labels", "labels"),
            ("metadata.annotations", "annotations"),
        ] {
            let Some(rest) = path.strip_prefix(map) else {
                continue;
            };
            return Ok(
                match rest.strip_prefix("['").and_then(|r| r.strip_suffix("']")) {
                    Some(name) => text(&meta[key][name]),
                    None => lines(&meta[key]),
                },
            );
        }
        Ok(match path {
            "metadata.name" => text(&meta["name"]),
            "metadata.namespace" => text(&meta["namespace"]),
            "metadata.uid" => text(&meta["uid"]),
            "spec.nodeName" => super::NODE.to_owned(),
            "spec.serviceAccountName" => match spec["serviceAccountName"].as_str() {
                Some(name) => name.to_owned(),
                None => "default".to_owned(),
            },
            "status.podIP" | "status.podIPs" => self.ip.clone(),
            "status.hostIP" | "status.hostIPs" => self.host_ip.clone(),
            other => bail!("fieldRef {other} is none that this kubelet knows"),
        })
    }

    /// The variables of a container, in their order of definition.
    pub(super) fn variables(&self, container: &Value) -> Result<BTreeMap<String, String>> {
        let mut known = BTreeMap::new();
        for variable in container["env"].as_array().into_iter().flatten() {
            let name = variable["name"].as_str().context("a variable has a name")?;
            let from = &variable["valueFrom"];
            let value = if let Some(path) = from["fieldRef"]["fieldPath"].as_str() {
                self.field(path)?
            } else if from["resourceFieldRef"].is_object() {
                resource(container, &from["resourceFieldRef"])?
            } else if from.is_null() {
                expand(variable["value"].as_str().unwrap_or_default(), &known)
            } else {
                bail!("variable {name}: this kubelet knows fieldRef and resourceFieldRef alone")
            };
            known.insert(name.to_owned(), value);
        }
        Ok(known)
    }
}

/// `key="value"` lines, as the downward API writes maps.
fn lines(map: &Value) -> String {
    let pairs = map.as_object().into_iter().flatten();
    pairs
        .map(|(key, value)| format!("{key}={value}\n"))
        .collect()
}

/// `limits.cpu` as whole processors, rounded up; the node's where there is no limit.
fn resource(container: &Value, reference: &Value) -> Result<String> {
    let (what, quantity) = match reference["resource"].as_str() {
        Some("limits.cpu") => ("cpu", &container["resources"]["limits"]["cpu"]),
        other => bail!("resourceFieldRef {other:?} is none that this kubelet knows"),
    };
    let text = match quantity {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => "2".to_owned(),
    };
    let millis: f64 = match text.strip_suffix('m') {
        Some(millis) => millis.parse().with_context(|| format!("{what}: {text}"))?,
        None => {
            text.parse::<f64>()
                .with_context(|| format!("{what}: {text}"))?
                * 1000.0
        }
    };
    Ok(format!("{}", (millis / 1000.0).ceil()))
}

/// `$(NAME)` becomes its value if there is one; `$$` is a dollar.
/// See <https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/>.
pub(super) fn expand(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        done.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(escaped) = after.strip_prefix('$') {
            done.push('$');
            rest = escaped;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match known.get(name) {
                Some(value) => done.push_str(value),
                None => done.push_str(&format!("$({name})")),
            }
            rest = tail;
        } else {
            done.push('$');
            rest = after;
        }
    }
    done.push_str(rest);
    done
}
