//! Probes and hooks of the application by HTTP, TCP or gRPC: told anew to the kubelet, so that Envoy answers them.

use std::time::Duration;

use serde_json::{Value, json};

use super::InjectError;
use super::choices::{Choices, Probes};
use super::lists::{Container, Pod};
use crate::bootstrap::{AppProbe, Check, Scheme};
use crate::text::Str;

pub(super) struct Rewritten {
    pub(super) pod: Value,
    pub(super) probes: Vec<AppProbe>,
}

/// Probe fields of a container, and Istio's last part of their path.
const PROBES: &[(&str, &str)] = &[
    ("readinessProbe", "readyz"),
    ("livenessProbe", "livez"),
    ("startupProbe", "startupz"),
];
const HOOKS: &[(&str, &str)] = &[("preStop", "prestopz"), ("postStart", "poststartz")];
/// Kubernetes' own defaults.
const PERIOD: u64 = 10;
const TIMEOUT: u64 = 1;

/// The pod with its probes rewritten, and what Envoy is to ask instead.
pub(super) fn rewrite(pod: &Value, choices: &Choices) -> Result<Rewritten, InjectError> {
    let mut done = Rewritten {
        pod: pod.clone(),
        probes: Vec::new(),
    };
    if choices.probes == Probes::AsTheyAre || choices.status_port == 0 {
        return Ok(done);
    }
    let read = Pod::read(pod, "")?;
    let lasting: Vec<&str> = read.lasting().map(|c| c.name).collect();
    for list in ["containers", "initContainers"] {
        let containers = done.pod["spec"].get_mut(list).and_then(Value::as_array_mut);
        let Some(containers) = containers else {
            continue;
        };
        for (i, container) in containers.iter_mut().enumerate() {
            let field = format!("spec.{list}[{i}]");
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            if lasting.contains(&name.as_str()) {
                let found = of_container(container, &name, &field, choices.status_port)?;
                done.probes.extend(found);
            }
        }
    }
    Ok(done)
}

fn of_container(
    container: &mut Value,
    name: &str,
    field: &str,
    status_port: u16,
) -> Result<Vec<AppProbe>, InjectError> {
    let before = container.clone();
    let ports = Container {
        name,
        value: &before,
    };
    let mut found = Vec::new();
    for (key, last) in PROBES {
        let path = Str::new(format!("/app-health/{name}/{last}"));
        let probe = &mut container[*key];
        if let Some(asked) = Asked::read(probe, &ports, &format!("{field}.{key}"))? {
            found.push(asked.probe(path.clone(), probe));
            ask_envoy(probe, &path, status_port);
        }
        tidy(container, key);
    }
    for (key, last) in HOOKS {
        let path = Str::new(format!("/app-lifecycle/{name}/{last}"));
        if container["lifecycle"][*key].is_null() {
            tidy(container, "lifecycle");
            continue;
        }
        let hook = &mut container["lifecycle"][*key];
        if let Some(asked) = Asked::read(hook, &ports, &format!("{field}.lifecycle.{key}"))? {
            let mut probe = asked.probe(path.clone(), hook);
            // The kubelet waits as long as the pod may take to end.
            probe.timeout = None;
            found.push(probe);
            ask_envoy(hook, &path, status_port);
        }
    }
    Ok(found)
}

/// Looking for a field by index makes it; one that is null was not there.
fn tidy(container: &mut Value, key: &str) {
    let empty = |v: &Value| {
        v.is_null()
            || v.as_object()
                .is_some_and(|o| o.values().all(Value::is_null))
    };
    if let Some(fields) = container.as_object_mut()
        && fields.get(key).is_some_and(empty)
    {
        fields.remove(key);
    }
}

/// What the kubelet was told to ask.
struct Asked {
    port: u16,
    how: How,
}

enum How {
    Http {
        path: Str,
        headers: Vec<(Str, Str)>,
        scheme: Scheme,
    },
    Tcp,
    Grpc(Str),
}

impl Asked {
    /// None where it asks in another way, or elsewhere.
    fn read(
        handler: &Value,
        container: &Container<'_>,
        field: &str,
    ) -> Result<Option<Self>, InjectError> {
        let port = |handler: &Value, kind: &str| {
            port(&handler["port"], container, &format!("{field}.{kind}.port"))
        };
        let (http, tcp, grpc) = (&handler["httpGet"], &handler["tcpSocket"], &handler["grpc"]);
        let elsewhere = |h: &Value| h["host"].as_str().is_some_and(|host| !host.is_empty());
        if http.is_object() && !elsewhere(http) {
            let header = |h: &Value| {
                let text = |key: &str| Str::new(h[key].as_str().unwrap_or_default());
                (text("name"), text("value"))
            };
            let headers = http["httpHeaders"].as_array();
            let path = http["path"]
                .as_str()
                .filter(|p| !p.is_empty())
                .unwrap_or("/");
            let path = match path.starts_with('/') {
                true => Str::new(path),
                false => Str::new(format!("/{path}")),
            };
            let how = How::Http {
                path,
                headers: headers.map_or(Vec::new(), |all| all.iter().map(header).collect()),
                scheme: match http["scheme"] == "HTTPS" {
                    true => Scheme::Https,
                    false => Scheme::Http,
                },
            };
            let port = port(http, "httpGet")?;
            return Ok(Some(Self { port, how }));
        }
        if tcp.is_object() && !elsewhere(tcp) {
            let port = port(tcp, "tcpSocket")?;
            return Ok(Some(Self {
                port,
                how: How::Tcp,
            }));
        }
        if grpc.is_object() {
            let service = grpc["service"].as_str().unwrap_or_default();
            let how = How::Grpc(Str::new(service));
            let port = port(grpc, "grpc")?;
            return Ok(Some(Self { port, how }));
        }
        Ok(None)
    }

    fn probe(self, path: Str, handler: &Value) -> AppProbe {
        let seconds = |key: &str, default| {
            let said = handler[key].as_u64().filter(|n| *n > 0);
            Duration::from_secs(said.unwrap_or(default))
        };
        let period = seconds("periodSeconds", PERIOD);
        AppProbe {
            path,
            port: self.port,
            timeout: Some(seconds("timeoutSeconds", TIMEOUT)),
            check: match self.how {
                How::Http {
                    path,
                    headers,
                    scheme,
                } => Check::Http {
                    path,
                    headers,
                    scheme,
                },
                How::Tcp => Check::Tcp { period },
                How::Grpc(service) => Check::Grpc { service, period },
            },
        }
    }
}

fn ask_envoy(handler: &mut Value, path: &Str, status_port: u16) {
    if let Some(fields) = handler.as_object_mut() {
        for key in ["httpGet", "tcpSocket", "grpc"] {
            fields.remove(key);
        }
        let ask = json!({"path": path, "port": status_port, "scheme": "HTTP"});
        fields.insert("httpGet".to_owned(), ask);
    }
}

/// A number, or the name of one of the container's ports.
fn port(value: &Value, container: &Container<'_>, field: &str) -> Result<u16, InjectError> {
    let number = |v: &Value| {
        v.as_u64()
            .and_then(|n| u16::try_from(n).ok())
            .filter(|n| *n > 0)
    };
    if let Some(number) = number(value) {
        return Ok(number);
    }
    let name = value.as_str().unwrap_or_default();
    if let Some(number) = name.parse().ok().filter(|n| *n > 0) {
        return Ok(number);
    }
    let ports = container.value["ports"].as_array();
    let named = ports.and_then(|all| all.iter().find(|p| p["name"] == name));
    named
        .and_then(|p| number(&p["containerPort"]))
        .ok_or_else(|| {
            let own = container.name;
            InjectError::pod(field, format!("container {own} has no port {value}"))
        })
}
