//! What a pod's annotations choose, checked; where they say nothing, what the mesh and the values say.
//!
//! Annotations: <https://istio.io/latest/docs/reference/config/annotations/>.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::build;
use super::lists::Pod;
use super::{InjectError, Injection};
use crate::config::decode::{reader, yaml};
use crate::config::proxy_config::{InterceptionMode, ProxyConfig};
use crate::model::proxy::Role;
use crate::text::Str;

/// Everything about one pod's proxy that somebody may choose.
#[derive(Clone, Debug)]
pub(super) struct Choices {
    /// By the template `sidecar`, or by `gateway`.
    pub(super) role: Role,
    pub(super) form: Form,
    pub(super) interception: InterceptionMode,
    pub(super) proxy: ProxyConfig,
    pub(super) image: Str,
    pub(super) resources: Value,
    pub(super) log_level: Str,
    pub(super) component_log_level: Str,
    pub(super) probes: Probes,
    pub(super) hold_application: bool,
    /// Where the application's probes are answered; 0 turns off what needs it.
    pub(super) status_port: u16,
    pub(super) readiness: Readiness,
    pub(super) traffic: Traffic,
    pub(super) volumes: Vec<Value>,
    pub(super) volume_mounts: Vec<Value>,
    /// A ConfigMap with an Envoy bootstrap beneath ours.
    pub(super) bootstrap_override: Option<Str>,
    pub(super) low_ports: LowPorts,
    pub(super) addresses: Addresses,
    templates: Vec<Str>,
}

/// How the proxy is part of the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// An init container that goes on: ready before the application starts, there until it has ended.
    Native,
    /// A container beside the others.
    Container,
}

/// What becomes of the application's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probes {
    Rewritten,
    AsTheyAre,
}

/// Whether the proxy may bind ports under 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LowPorts {
    No,
    Bound,
}

/// On which addresses the proxy's own pages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Addresses {
    V4,
    /// Of IPv6, too, which a node may lack (`ISTIO_DUAL_STACK`).
    Both,
}

impl Addresses {
    /// Said of the proxies, or of the control plane, where Istio wants both.
    fn of(proxy: &ProxyConfig, injection: &Injection) -> Self {
        const NAME: &str = "ISTIO_DUAL_STACK";
        let of_proxy = proxy.proxy_metadata.get(NAME).map(|v| v == "true");
        let env = injection.values.pilot.env.get(NAME);
        let of_pilot = env.is_some_and(|v| *v == true || v == "true");
        match of_proxy.unwrap_or(of_pilot) {
            true => Self::Both,
            false => Self::V4,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Readiness {
    pub(super) initial_delay: u32,
    pub(super) period: u32,
    pub(super) failures: u32,
}

/// Which traffic is captured, as `fairlead init` takes it; every list was read.
#[derive(Clone, Debug)]
pub(super) struct Traffic {
    pub(super) include_outbound_ip_ranges: Str,
    pub(super) exclude_outbound_ip_ranges: Str,
    pub(super) include_inbound_ports: Str,
    pub(super) exclude_inbound_ports: Str,
    pub(super) include_outbound_ports: Str,
    pub(super) exclude_outbound_ports: Str,
    pub(super) exclude_interfaces: Str,
}

/// Of the proxy's listeners besides readiness of the application.
const OWN_PORTS: [u16; 6] = [15000, 15001, 15006, 15008, 15021, 15090];
/// An annotation of more bytes is refused before it is read.
const MAX_ANNOTATION: usize = 64 << 10;

impl Choices {
    pub(super) fn of(pod: &Pod<'_>, injection: &Injection) -> Result<Self, InjectError> {
        let read = Read(pod);
        let templates = read.templates(injection);
        let role = role(&templates)?;
        let values = &injection.values.global.proxy;
        let proxy = read.proxy_config()?;
        let proxy = injection
            .proxies
            .effective(pod.namespace, &pod.labels, proxy);
        let hold = proxy.hold_application_until_proxy_starts;
        let webhook = &injection.values.sidecar_injector_webhook;
        let rewritten = read
            .flag("sidecar.istio.io/rewriteAppHTTPProbers")?
            .unwrap_or(webhook.rewrite_app_http_probe);
        let status_port = read.status_port(proxy.status_port.unwrap_or(values.status_port))?;
        Ok(Self {
            role,
            form: match role {
                Role::Sidecar => read.form(injection)?,
                Role::Router => Form::Container,
            },
            interception: match role {
                Role::Sidecar => read.interception(&proxy)?,
                Role::Router => InterceptionMode::None,
            },
            image: build::chosen(pod, injection, &proxy)?,
            resources: match role {
                Role::Sidecar => read.resources(&values.resources),
                // Those of a sidecar say nothing of a gateway.
                Role::Router => read.resources(&Value::Null),
            },
            log_level: read.level("sidecar.istio.io/logLevel", &values.log_level)?,
            component_log_level: Str::new(
                read.text("sidecar.istio.io/componentLogLevel")
                    .unwrap_or(&values.component_log_level),
            ),
            probes: match (role, rewritten) {
                (Role::Sidecar, true) => Probes::Rewritten,
                (Role::Sidecar, false) | (Role::Router, _) => Probes::AsTheyAre,
            },
            hold_application: hold.unwrap_or(values.hold_application_until_proxy_starts),
            status_port,
            readiness: read.readiness(injection)?,
            traffic: read.traffic(injection)?,
            volumes: read.volumes("sidecar.istio.io/userVolume")?,
            volume_mounts: read.volumes("sidecar.istio.io/userVolumeMount")?,
            bootstrap_override: read
                .text("sidecar.istio.io/bootstrapOverride")
                .map(Str::new),
            low_ports: read.low_ports()?,
            addresses: Addresses::of(&proxy, injection),
            templates,
            proxy,
        })
    }

    /// Overlays of the injector that are laid over this pod.
    pub(super) fn overlays<'i>(
        &self,
        injection: &'i Injection,
    ) -> Result<Vec<&'i Value>, InjectError> {
        let of = |name: &Str| match injection.injector.templates.get(name) {
            Some(overlay) => Ok(Some(overlay.part())),
            None if [SIDECAR, GATEWAY].contains(&name.as_str()) => Ok(None),
            None => Err(InjectError::Template(name.clone())),
        };
        let found: Result<Vec<Option<&Value>>, _> = self.templates.iter().map(of).collect();
        Ok(found?.into_iter().flatten().collect())
    }

    pub(super) fn termination_drain_duration(&self) -> Duration {
        let said = self.proxy.termination_drain_duration;
        said.map_or(Duration::from_secs(5), |span| span.0)
    }

    pub(super) fn drain_duration(&self) -> Duration {
        self.proxy
            .drain_duration
            .map_or(Duration::from_secs(45), |span| span.0)
    }
}

/// What Fairlead makes itself; a sidecar unless a gateway is asked for.
const SIDECAR: &str = "sidecar";
const GATEWAY: &str = "gateway";
const TEMPLATES: &str = "inject.istio.io/templates";

fn role(templates: &[Str]) -> Result<Role, InjectError> {
    let asked = |name: &str| templates.iter().any(|template| template == name);
    match (asked(SIDECAR), asked(GATEWAY)) {
        (true, true) => {
            let why = "say `sidecar` or `gateway`: a pod has one proxy";
            Err(InjectError::annotation(
                TEMPLATES,
                &templates.join(","),
                why,
            ))
        }
        (false, true) => Ok(Role::Router),
        (_, false) => Ok(Role::Sidecar),
    }
}

struct Read<'p>(&'p Pod<'p>);

impl Read<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        self.0.annotation(key).filter(|text| !text.is_empty())
    }

    fn flag(&self, key: &'static str) -> Result<Option<bool>, InjectError> {
        match self.text(key) {
            None => Ok(None),
            Some("true" | "True" | "TRUE" | "t" | "1") => Ok(Some(true)),
            Some("false" | "False" | "FALSE" | "f" | "0") => Ok(Some(false)),
            Some(other) => Err(InjectError::annotation(key, other, "say `true` or `false`")),
        }
    }

    fn number<T: std::str::FromStr>(&self, key: &'static str) -> Result<Option<T>, InjectError> {
        let parse = |text: &str| {
            let wrong = |_| InjectError::annotation(key, text, "it is no such number");
            text.trim().parse().map_err(wrong)
        };
        self.text(key).map(parse).transpose()
    }

    fn low_ports(&self) -> Result<LowPorts, InjectError> {
        let bound = self.flag("sidecar.istio.io/capNetBindService")?;
        Ok(match bound.unwrap_or(false) {
            true => LowPorts::Bound,
            false => LowPorts::No,
        })
    }

    fn level(&self, key: &'static str, default: &Str) -> Result<Str, InjectError> {
        const LEVELS: &[&str] = &[
            "trace", "debug", "info", "warning", "warn", "error", "critical", "off",
        ];
        let level = self.text(key).unwrap_or(default);
        match LEVELS.contains(&level) {
            true => Ok(Str::new(level)),
            false => Err(InjectError::annotation(
                key,
                level,
                format!("Envoy's levels are {}", LEVELS.join(", ")),
            )),
        }
    }

    fn form(&self, injection: &Injection) -> Result<Form, InjectError> {
        let env = injection.values.pilot.env.get("ENABLE_NATIVE_SIDECARS");
        let off = env.is_some_and(|v| *v == false || v == "false");
        let native = self.flag("sidecar.istio.io/nativeSidecar")?.unwrap_or(!off);
        Ok(match native {
            true => Form::Native,
            false => Form::Container,
        })
    }

    fn interception(&self, proxy: &ProxyConfig) -> Result<InterceptionMode, InjectError> {
        let key = "sidecar.istio.io/interceptionMode";
        let mode = match self.text(key) {
            None => proxy
                .interception_mode
                .unwrap_or(InterceptionMode::Redirect),
            Some("REDIRECT") => InterceptionMode::Redirect,
            Some("TPROXY") => InterceptionMode::Tproxy,
            Some("NONE") => InterceptionMode::None,
            Some(other) => {
                let why = "say REDIRECT, TPROXY or NONE";
                return Err(InjectError::annotation(key, other, why));
            }
        };
        Ok(mode)
    }

    /// A port on which the proxy listens itself cannot be its status port, too.
    fn status_port(&self, default: u16) -> Result<u16, InjectError> {
        let key = "status.sidecar.istio.io/port";
        let port = self.number(key)?.unwrap_or(default);
        match OWN_PORTS.contains(&port) {
            false => Ok(port),
            true => {
                let why = "the proxy uses this port itself";
                Err(InjectError::annotation(key, &port.to_string(), why))
            }
        }
    }

    fn proxy_config(&self) -> Result<ProxyConfig, InjectError> {
        let key = "proxy.istio.io/config";
        let Some(text) = self.text(key) else {
            return Ok(ProxyConfig::default());
        };
        let wrong = |why: String| InjectError::annotation(key, text, why);
        if text.len() > MAX_ANNOTATION {
            return Err(wrong(format!("at most {MAX_ANNOTATION} bytes are read")));
        }
        let document = yaml::Document {
            text,
            lines_before: 0,
        };
        let node = yaml::parse(document).map_err(|fault| wrong(fault.message))?;
        if node.value == yaml::Value::Null {
            return Ok(ProxyConfig::default());
        }
        // Istio's other fields have no effect yet; which those are is told by MeshConfig's decoder.
        let reading = reader::read::<ProxyConfig>(&node, "");
        reading
            .value
            .map_err(|fault| wrong(format!("{}: {}", fault.path, fault.message)))
    }

    /// Annotations replace the whole block of requests, or of limits.
    fn resources(&self, default: &Value) -> Value {
        let block = |cpu: &str, memory: &str| {
            let pairs = [("cpu", self.text(cpu)), ("memory", self.text(memory))];
            let said: Map<String, Value> = pairs
                .into_iter()
                .filter_map(|(key, text)| Some((key.to_owned(), text?.into())))
                .collect();
            (!said.is_empty()).then_some(Value::Object(said))
        };
        let requests = block("sidecar.istio.io/proxyCPU", "sidecar.istio.io/proxyMemory");
        let limits = block(
            "sidecar.istio.io/proxyCPULimit",
            "sidecar.istio.io/proxyMemoryLimit",
        );
        if requests.is_none() && limits.is_none() {
            return default.clone();
        }
        let blocks = [("requests", requests), ("limits", limits)];
        blocks
            .into_iter()
            .filter_map(|(key, block)| Some((key.to_owned(), block?)))
            .collect::<Map<_, _>>()
            .into()
    }

    fn readiness(&self, injection: &Injection) -> Result<Readiness, InjectError> {
        let values = &injection.values.global.proxy;
        let delay = self.number("readiness.status.sidecar.istio.io/initialDelaySeconds")?;
        let period = self.number("readiness.status.sidecar.istio.io/periodSeconds")?;
        let failures = self.number("readiness.status.sidecar.istio.io/failureThreshold")?;
        Ok(Readiness {
            initial_delay: delay.unwrap_or(values.readiness_initial_delay_seconds),
            period: period.unwrap_or(values.readiness_period_seconds),
            failures: failures.unwrap_or(values.readiness_failure_threshold),
        })
    }

    fn traffic(&self, injection: &Injection) -> Result<Traffic, InjectError> {
        let values = &injection.values.global.proxy;
        Ok(Traffic {
            include_outbound_ip_ranges: self.ranges(
                "traffic.sidecar.istio.io/includeOutboundIPRanges",
                values.include_ip_ranges.as_ref().map_or("*", Str::as_str),
            )?,
            exclude_outbound_ip_ranges: self.some_ranges(
                "traffic.sidecar.istio.io/excludeOutboundIPRanges",
                &values.exclude_ip_ranges,
            )?,
            include_inbound_ports: self.ports(
                "traffic.sidecar.istio.io/includeInboundPorts",
                values
                    .include_inbound_ports
                    .as_ref()
                    .map_or("*", Str::as_str),
            )?,
            exclude_inbound_ports: self.some_ports(
                "traffic.sidecar.istio.io/excludeInboundPorts",
                &values.exclude_inbound_ports,
            )?,
            include_outbound_ports: self.some_ports(
                "traffic.sidecar.istio.io/includeOutboundPorts",
                &values.include_outbound_ports,
            )?,
            exclude_outbound_ports: self.some_ports(
                "traffic.sidecar.istio.io/excludeOutboundPorts",
                &values.exclude_outbound_ports,
            )?,
            exclude_interfaces: self.names("traffic.sidecar.istio.io/excludeInterfaces", "")?,
        })
    }

    /// An empty annotation is a word, too: it captures nothing.
    fn list(
        &self,
        key: &'static str,
        default: &str,
        is_item: impl Fn(&str) -> bool,
        wanted: &str,
    ) -> Result<Str, InjectError> {
        let text = self.0.annotation(key).unwrap_or(default).trim();
        let mut items = text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty());
        match items.all(is_item) {
            true => Ok(Str::new(text)),
            false => Err(InjectError::annotation(key, text, wanted)),
        }
    }

    /// A list, or `*` for all.
    fn ports(&self, key: &'static str, default: &str) -> Result<Str, InjectError> {
        match self.0.annotation(key).unwrap_or(default).trim() {
            "*" => Ok(Str::new_static("*")),
            _ => self.some_ports(key, default),
        }
    }

    fn some_ports(&self, key: &'static str, default: &str) -> Result<Str, InjectError> {
        let port = |item: &str| item.parse::<u16>().is_ok();
        self.list(
            key,
            default,
            port,
            "say ports (1 to 65535) with commas between",
        )
    }

    /// A list, or `*` for all.
    fn ranges(&self, key: &'static str, default: &str) -> Result<Str, InjectError> {
        match self.0.annotation(key).unwrap_or(default).trim() {
            "*" => Ok(Str::new_static("*")),
            _ => self.some_ranges(key, default),
        }
    }

    fn some_ranges(&self, key: &'static str, default: &str) -> Result<Str, InjectError> {
        let range = |item: &str| item.parse::<IpNet>().is_ok() || item.parse::<IpAddr>().is_ok();
        let wanted = "say ranges such as 10.0.0.0/8 or fd00::/8 with commas between";
        self.list(key, default, range, wanted)
    }

    fn names(&self, key: &'static str, default: &str) -> Result<Str, InjectError> {
        let name =
            |item: &str| item.len() < 16 && item.chars().all(|c| c.is_ascii_graphic() && c != '/');
        self.list(key, default, name, "say interfaces with commas between")
    }

    /// JSON of the Kubernetes fields by name: `{"cert": {"secret": {…}}}`, or the list itself.
    fn volumes(&self, key: &'static str) -> Result<Vec<Value>, InjectError> {
        let Some(text) = self.text(key) else {
            return Ok(Vec::new());
        };
        let wrong = |why: &str| InjectError::annotation(key, text, why);
        let tree = serde_json::from_str(text).map_err(|e| wrong(&e.to_string()))?;
        let named = |(name, mut one): (String, Value)| {
            if !one.is_object() {
                return Err(wrong("say an object for each name"));
            }
            one["name"] = name.into();
            Ok(one)
        };
        match tree {
            Value::Object(by_name) => by_name.into_iter().map(named).collect(),
            Value::Array(list) if list.iter().all(|v| v["name"].is_string()) => Ok(list),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Err(wrong("say a JSON object by name, or a list of named ones")),
        }
    }

    fn templates(&self, injection: &Injection) -> Vec<Str> {
        match self.text(TEMPLATES) {
            Some(text) => text.split(',').map(|name| Str::new(name.trim())).collect(),
            None => injection.injector.default_templates.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(annotations: &Value) -> Result<Choices, InjectError> {
        let pod = json!({"metadata": {"annotations": annotations}, "spec": {"containers": []}});
        Choices::of(&Pod::read(&pod, "shop")?, &Injection::default())
    }

    #[test]
    fn a_wrong_annotation_is_named_with_what_it_takes() {
        for (key, value, wanted) in [
            (
                "traffic.sidecar.istio.io/excludeInboundPorts",
                "80,http",
                "ports",
            ),
            (
                "traffic.sidecar.istio.io/includeOutboundIPRanges",
                "10.0.0.0/99",
                "ranges",
            ),
            ("sidecar.istio.io/interceptionMode", "redirect", "REDIRECT"),
            (
                "traffic.sidecar.istio.io/excludeOutboundPorts",
                "*",
                "ports",
            ),
            ("status.sidecar.istio.io/port", "15021", "itself"),
            ("sidecar.istio.io/nativeSidecar", "maybe", "true"),
            ("sidecar.istio.io/logLevel", "loud", "levels"),
            ("status.sidecar.istio.io/port", "70000", "number"),
            (
                "readiness.status.sidecar.istio.io/periodSeconds",
                "-1",
                "number",
            ),
            ("proxy.istio.io/config", "concurrency: many", "concurrency"),
            (TEMPLATES, "gateway,sidecar", "one proxy"),
            ("sidecar.istio.io/userVolume", "[1]", "JSON"),
        ] {
            let refused = of(&json!({key: value})).unwrap_err().to_string();
            assert!(
                refused.contains(key) && refused.contains(wanted),
                "{refused}"
            );
        }
    }

    #[test]
    fn an_empty_list_is_a_word_and_an_absent_one_is_none() {
        let none = of(&json!({"traffic.sidecar.istio.io/includeInboundPorts": ""})).unwrap();
        assert_eq!(none.traffic.include_inbound_ports, "");
        assert_eq!(of(&json!({})).unwrap().traffic.include_inbound_ports, "*");
    }

    #[test]
    fn asking_for_a_processor_alone_drops_the_other_requests_and_limits() {
        let asked = of(&json!({"sidecar.istio.io/proxyCPU": "2"})).unwrap();
        assert_eq!(asked.resources, json!({"requests": {"cpu": "2"}}));
    }

    #[test]
    fn volumes_are_named_by_their_keys() {
        let text = r#"{"cert": {"secret": {"secretName": "c"}}}"#;
        let asked = of(&json!({"sidecar.istio.io/userVolume": text})).unwrap();
        assert_eq!(
            asked.volumes,
            [json!({"name": "cert", "secret": {"secretName": "c"}})]
        );
    }
}
