//! A connected Envoy as its node and credential describe it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::config::locality::Locality;
use crate::config::meta::Labels;
use crate::config::proxy_config::{ForwardClientCert, ProxyProtocol, Topology};
use crate::identity::SpiffeId;
use crate::text::Str;

/// What an Envoy is there for, the first part of its `node.id`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Beside a workload.
    #[default]
    Sidecar,
    /// At the edge of the mesh: it serves the Gateways that select it.
    Router,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is neither sidecar nor router")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        match text {
            "sidecar" => Ok(Self::Sidecar),
            "router" => Ok(Self::Router),
            other => Err(UnknownRole(other.to_owned())),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sidecar => "sidecar",
            Self::Router => "router",
        })
    }
}

/// How traffic reaches the sidecar (`INTERCEPTION_MODE`).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Interception {
    #[default]
    Redirect,
    Tproxy,
    /// No capture: listeners bind their own ports (Sidecar ingress and egress).
    None,
}

/// The address families of the proxy's pod (`INSTANCE_IPS`).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Families {
    #[default]
    V4,
    V6,
    Both,
}

impl Families {
    /// Of what a pod is reached by; none says nothing.
    fn of(addresses: impl IntoIterator<Item = IpAddr>) -> Option<Self> {
        addresses.into_iter().fold(None, |so_far, ip| {
            let own = match ip {
                IpAddr::V4(_) => Self::V4,
                IpAddr::V6(_) => Self::V6,
            };
            Some(match so_far {
                None => own,
                Some(same) if same == own => same,
                Some(_) => Self::Both,
            })
        })
    }

    /// Whether a connection can be made from there to such an address.
    pub fn reach(self, ip: &IpAddr) -> bool {
        match self {
            Self::V4 => ip.is_ipv4(),
            Self::V6 => ip.is_ipv6(),
            Self::Both => true,
        }
    }

    /// Of several addresses of one thing, the one to be called: IPv4 where both will do.
    pub fn prefer(self, ip: &IpAddr) -> bool {
        match self {
            Self::V4 | Self::Both => ip.is_ipv4(),
            Self::V6 => ip.is_ipv6(),
        }
    }

    /// What a listener of all addresses binds, and what it binds besides.
    pub fn bound(self, address: IpAddr) -> (IpAddr, Option<IpAddr>) {
        const ANY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        match (self, address) {
            (Self::Both, IpAddr::V4(v4)) if v4.is_unspecified() => (address, Some(ANY)),
            (Self::V6, IpAddr::V4(v4)) if v4.is_unspecified() => (ANY, None),
            _ => (address, None),
        }
    }
}

/// Ports on which the proxy's own bootstrap listens: the control plane makes no listener there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Taken {
    pub status: u16,
    pub prometheus: u16,
}

impl Default for Taken {
    fn default() -> Self {
        Self {
            status: 15021,
            prometheus: 15090,
        }
    }
}

impl Taken {
    /// Envoy's admin pages and the two listeners that capture leads to are on the same ports everywhere.
    pub fn covers(self, port: u16) -> bool {
        matches!(port, 15000 | 15001 | 15006) || port == self.status || port == self.prometheus
    }
}

/// A pod's name and namespace, an address and a domain fit several times.
const MAX_ID: usize = 1024;
/// Kubernetes' bounds on a label, and far more labels than a pod has.
const MAX_LABELS: usize = 256;
/// Of which a pod has two.
const MAX_ADDRESSES: usize = 16;
const MAX_KEY: usize = 317;
const MAX_VALUE: usize = 63;
/// Far more than Istio's own proxies have.
const MAX_TEXTS: usize = 64;
/// How much of what a node says of itself a message repeats.
const MAX_SHOWN: usize = 300;

/// How route tables come to a proxy: `--route-packing` for the mesh, for one pod its annotation
/// `fairlead.dev/route-packing`, as `node.metadata.ANNOTATIONS` has it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum RoutePacking {
    /// By the number of hosts.
    #[default]
    Auto,
    /// One table a port.
    Rds,
    /// One table a host and port, found by scopes.
    Scoped,
    /// The same, each table and its clusters sent when a request first needs them.
    OnDemand,
}

/// What decides a proxy's configuration, besides the mesh.
///
/// `identity` comes from the credential and is absent only on the plaintext port; labels in force are
/// the workload's own when the model knows it, and these only when it does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxy {
    /// The whole `node.id`, as debug pages and metrics name the proxy.
    pub id: Str,
    #[serde(default)]
    pub role: Role,
    pub ip: IpAddr,
    /// Pod or workload name, without its namespace.
    pub name: Str,
    pub namespace: Str,
    pub dns_domain: Str,
    pub identity: Option<SpiffeId>,
    pub interception: Interception,
    #[serde(default)]
    pub families: Families,
    #[serde(default)]
    pub taken: Taken,
    pub labels: Labels,
    /// Where it says that it is: region, zone, subzone.
    #[serde(default)]
    pub locality: Locality,
    /// What stands before it, where that is another thing than before the mesh's gateways.
    #[serde(default)]
    pub topology: Option<Topology>,
    /// Absent where the mesh's own setting holds.
    pub packing: Option<RoutePacking>,
    /// The texts among what else it says of itself, by which an EnvoyFilter may choose it.
    #[serde(default)]
    pub metadata: Labels,
}

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is none of auto, rds, scoped, on-demand")]
pub struct UnknownPacking(String);

impl FromStr for RoutePacking {
    type Err = UnknownPacking;

    fn from_str(text: &str) -> Result<Self, UnknownPacking> {
        match text {
            "auto" => Ok(Self::Auto),
            "rds" => Ok(Self::Rds),
            "scoped" => Ok(Self::Scoped),
            "on-demand" => Ok(Self::OnDemand),
            other => Err(UnknownPacking(other.to_owned())),
        }
    }
}

impl fmt::Display for RoutePacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Rds => "rds",
            Self::Scoped => "scoped",
            Self::OnDemand => "on-demand",
        })
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProxyError {
    #[error("node.id `{0}` is not of the form sidecar|router~<ip>~<name>.<namespace>~<domain>")]
    Id(Str),
    #[error("node.id says role `{0}`; `sidecar` and `router` are served")]
    Role(Str),
    #[error("node.id says namespace `{claimed}`, the credential says `{proven}`")]
    Namespace { claimed: Str, proven: Str },
    #[error(
        "node.id says pod `{claimed}`, the token is bound to pod `{bound}`; give this proxy a token of its own"
    )]
    Pod { claimed: Str, bound: Str },
    #[error("node metadata {0}")]
    Metadata(Str),
    #[error("node label `{0}` is longer than Kubernetes' labels are")]
    Label(Str),
    #[error("node metadata has {0} labels, at most {MAX_LABELS} are taken")]
    Labels(usize),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    #[serde(rename = "INTERCEPTION_MODE")]
    interception: Interception,
    /// With commas between.
    #[serde(rename = "INSTANCE_IPS")]
    instance_ips: Str,
    #[serde(rename = "LABELS")]
    labels: Labels,
    #[serde(rename = "ANNOTATIONS")]
    annotations: Annotations,
    #[serde(rename = "PROXY_CONFIG")]
    proxy_config: ProxyConfig,
    #[serde(rename = "ENVOY_STATUS_PORT")]
    status_port: Option<f64>,
    #[serde(rename = "ENVOY_PROMETHEUS_PORT")]
    prometheus_port: Option<f64>,
}

/// As much of `ProxyConfig` as is read here, in Istio's own spelling.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ProxyConfig {
    gateway_topology: Option<Said>,
}

/// A `Topology` with its number as Envoy sends it.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Said {
    num_trusted_proxies: f64,
    forward_client_cert_details: ForwardClientCert,
    proxy_protocol: Option<ProxyProtocol>,
}

impl From<Said> for Topology {
    fn from(said: Said) -> Self {
        Self {
            num_trusted_proxies: said.num_trusted_proxies as u32,
            forward_client_cert_details: said.forward_client_cert_details,
            proxy_protocol: said.proxy_protocol,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "fairlead.dev/route-packing")]
    packing: Option<RoutePacking>,
}

/// Envoy sends every number of its metadata as a double. One beyond all ports ends at the last or first.
fn port(number: f64) -> u16 {
    number as u16
}

impl Metadata {
    fn taken(&self) -> Taken {
        let default = Taken::default();
        Taken {
            status: self.status_port.map_or(default.status, port),
            prometheus: self.prometheus_port.map_or(default.prometheus, port),
        }
    }
}

/// What is not kept elsewhere, as far as it is a text of bounded length.
fn texts(metadata: &serde_json::Value) -> Labels {
    const ELSEWHERE: &[&str] = &["NAME", "NAMESPACE", "INSTANCE_IPS"];
    let entries = metadata.as_object().into_iter().flatten();
    let texts = entries.filter_map(|(key, value)| Some((key, value.as_str()?)));
    let short = texts.filter(|(key, text)| {
        !ELSEWHERE.contains(&key.as_str()) && key.len() <= MAX_VALUE && text.len() <= MAX_SHOWN
    });
    let kept = short.take(MAX_TEXTS);
    kept.map(|(key, text)| (Str::new(key), Str::new(text)))
        .collect()
}

impl Metadata {
    fn families(&self) -> Option<Families> {
        let addresses = self.instance_ips.split(',').take(MAX_ADDRESSES);
        Families::of(addresses.filter_map(|ip| ip.trim().parse().ok()))
    }
}

impl Proxy {
    /// `metadata` is `node.metadata` as JSON.
    pub fn parse(
        id: &str,
        metadata: serde_json::Value,
        identity: Option<SpiffeId>,
    ) -> Result<Self, ProxyError> {
        let bad = || ProxyError::Id(shown(id));
        if id.len() > MAX_ID {
            return Err(bad());
        }
        let parts: Vec<&str> = id.split('~').collect();
        let [role, ip, name, dns_domain] = parts[..] else {
            return Err(bad());
        };
        let role = role.parse().map_err(|_| ProxyError::Role(shown(role)))?;
        let (name, namespace) = name.rsplit_once('.').ok_or_else(bad)?;
        if let Some(proven) = identity
            .as_ref()
            .map(SpiffeId::namespace)
            .filter(|p| *p != namespace)
        {
            return Err(ProxyError::Namespace {
                claimed: shown(namespace),
                proven: proven.clone(),
            });
        }
        let metadata = if metadata.is_null() {
            serde_json::json!({})
        } else {
            metadata
        };
        let texts = texts(&metadata);
        let metadata: Metadata = serde_json::from_value(metadata)
            .map_err(|e| ProxyError::Metadata(shown(&e.to_string())))?;
        bounded(&metadata.labels)?;
        let ip = ip.parse().map_err(|_| bad())?;
        Ok(Self {
            id: Str::new(id),
            role,
            families: metadata
                .families()
                .or(Families::of([ip]))
                .unwrap_or_default(),
            ip,
            name: Str::new(name),
            namespace: Str::new(namespace),
            dns_domain: Str::new(dns_domain),
            identity,
            interception: metadata.interception,
            taken: metadata.taken(),
            labels: metadata.labels,
            locality: Locality::default(),
            topology: metadata.proxy_config.gateway_topology.map(Topology::from),
            packing: metadata.annotations.packing,
            metadata: texts,
        })
    }

    /// A text of its metadata.
    pub fn said(&self, key: &str) -> Option<Str> {
        match key {
            "NAME" => Some(self.name.clone()),
            "NAMESPACE" => Some(self.namespace.clone()),
            "INSTANCE_IPS" => Some(Str::new(self.ip.to_string())),
            other => self.metadata.get(other).cloned(),
        }
    }

    /// The same at a place, as `node.locality` has it.
    pub fn located(self, [region, zone, subzone]: [&str; 3]) -> Self {
        Self {
            locality: [region, zone, subzone].map(shown),
            ..self
        }
    }

    /// The proxy, unless its credential is bound to another pod.
    pub fn bound_to(self, pod: Option<&str>) -> Result<Self, ProxyError> {
        match pod {
            Some(pod) if pod != self.name => Err(ProxyError::Pod {
                claimed: self.name,
                bound: Str::new(pod),
            }),
            Some(_) | None => Ok(self),
        }
    }
}

fn bounded(labels: &Labels) -> Result<(), ProxyError> {
    if labels.len() > MAX_LABELS {
        return Err(ProxyError::Labels(labels.len()));
    }
    let long = |(k, v): &(&Str, &Str)| k.len() > MAX_KEY || v.len() > MAX_VALUE;
    match labels.iter().find(long) {
        Some((key, _)) => Err(ProxyError::Label(shown(key))),
        None => Ok(()),
    }
}

fn shown(text: &str) -> Str {
    text.chars().take(MAX_SHOWN).collect()
}

#[cfg(test)]
mod tests;
