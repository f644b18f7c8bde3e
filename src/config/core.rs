//! Kubernetes' own objects, only the fields that are read. Unknown fields are dropped at decode.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::meta::Labels;
use crate::text::Str;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {}

/// Its labels say where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceType {
    #[default]
    ClusterIP,
    NodePort,
    LoadBalancer,
    ExternalName,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    #[serde(rename = "type")]
    pub kind: ServiceType,
    pub selector: Labels,
    pub ports: Vec<ServicePort>,
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<Str>,
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<Str>,
    #[serde(rename = "externalIPs")]
    pub external_ips: Vec<IpAddr>,
    pub external_name: Option<Str>,
    pub publish_not_ready_addresses: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    pub name: Str,
    pub port: u16,
    pub target_port: Option<TargetPort>,
    pub protocol: Transport,
    pub app_protocol: Option<Str>,
}

#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Transport {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    Number(u16),
    Name(Str),
}

/// `discovery.k8s.io/v1`. Its Service is the label `kubernetes.io/service-name`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    pub address_type: AddressType,
    pub endpoints: Vec<SliceEndpoint>,
    pub ports: Vec<SlicePort>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AddressType {
    #[default]
    IPv4,
    IPv6,
    #[serde(rename = "FQDN")]
    Fqdn,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SliceEndpoint {
    pub addresses: Vec<Str>,
    pub conditions: Conditions,
    pub target_ref: Option<Box<TargetRef>>,
    pub node_name: Option<Str>,
    pub zone: Option<Str>,
}

/// Absent `ready` and `serving` mean true, absent `terminating` false (Kubernetes API).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Conditions {
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetRef {
    pub kind: Str,
    pub name: Str,
    pub namespace: Str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SlicePort {
    pub name: Str,
    pub port: Option<u16>,
    pub protocol: Transport,
    pub app_protocol: Option<Str>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    /// The cluster's own, by which two pods of one name are told apart; none of a pod in a file.
    pub uid: Str,
    pub service_account: Str,
    pub node_name: Str,
    pub host_network: bool,
    /// Of every container: name, number, protocol.
    pub ports: Vec<ContainerPort>,
    /// `status.podIPs`, or `status.podIP` alone.
    pub ips: Vec<IpAddr>,
    pub phase: Phase,
    pub ready: bool,
    /// Name of the controlling owner, with a ReplicaSet's hash removed.
    pub workload_name: Str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerPort {
    pub name: Str,
    pub port: u16,
    pub protocol: Transport,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    Pending,
    #[default]
    Running,
    Succeeded,
    Failed,
    Unknown,
}

// Kubernetes' IntOrString; where a version is hashed, a tagged pair.
impl Serialize for TargetPort {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) if s.is_human_readable() => number.serialize(s),
            Self::Name(name) if s.is_human_readable() => name.serialize(s),
            Self::Number(number) => (Some(number), None::<&Str>).serialize(s),
            Self::Name(name) => (None::<u16>, Some(name)).serialize(s),
        }
    }
}

impl<'de> Deserialize<'de> for TargetPort {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum IntOrString {
            Int(u64),
            String(Str),
        }
        if !d.is_human_readable() {
            let (number, name) = <(Option<u16>, Option<Str>)>::deserialize(d)?;
            return Ok(number.map_or_else(|| Self::Name(name.unwrap_or_default()), Self::Number));
        }
        let number = |n: u64| {
            let fail = || serde::de::Error::custom(format!("`{n}` is greater than 65535"));
            u16::try_from(n).map(Self::Number).map_err(|_| fail())
        };
        match IntOrString::deserialize(d)? {
            IntOrString::Int(n) => number(n),
            IntOrString::String(text) => match text.parse() {
                Ok(n) => number(n),
                Err(_) => Ok(Self::Name(text)),
            },
        }
    }
}
