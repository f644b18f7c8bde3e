//! Pods as Kubernetes writes them, flattened to what the mesh reads; pod templates by their labels.

use std::net::IpAddr;

use serde::Deserialize;

use super::reader::Fault;
use crate::config::core::{ContainerPort, Phase, Pod};
use crate::config::meta::Labels;
use crate::diagnostic::Code;
use crate::text::Str;

/// `v1 Pod`, the fields that are read.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct PodManifest {
    metadata: PodMeta,
    spec: PodSpec,
    status: PodStatus,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodMeta {
    name: Str,
    uid: Str,
    labels: Labels,
    owner_references: Vec<Owner>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Owner {
    kind: Str,
    name: Str,
    controller: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodSpec {
    service_account_name: Str,
    service_account: Str,
    node_name: Str,
    host_network: bool,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Container {
    ports: Vec<ContainerPortManifest>,
    restart_policy: Str,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ContainerPortManifest {
    name: Str,
    container_port: u16,
    protocol: crate::config::core::Transport,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodStatus {
    phase: Phase,
    #[serde(rename = "podIP")]
    pod_ip: Str,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
    conditions: Vec<Condition>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: Str,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: Str,
    status: Str,
}

const DEFAULT_SERVICE_ACCOUNT: Str = Str::new_static("default");

impl PodManifest {
    pub(super) fn flatten(self) -> Result<Pod, Fault> {
        let Self {
            metadata,
            spec,
            status,
        } = self;
        let workload_name = workload_name(&metadata);
        let ips = ips(&status)?;
        let ready = status.conditions.iter().find(|c| c.kind == "Ready");
        let account = [spec.service_account_name, spec.service_account]
            .into_iter()
            .find(|name| !name.is_empty())
            .unwrap_or(DEFAULT_SERVICE_ACCOUNT);
        let beside = spec
            .init_containers
            .into_iter()
            .filter(|c| c.restart_policy == "Always");
        let ports = spec
            .containers
            .into_iter()
            .chain(beside)
            .flat_map(|c| c.ports);
        Ok(Pod {
            uid: metadata.uid,
            service_account: account,
            node_name: spec.node_name,
            host_network: spec.host_network,
            ports: ports
                .map(|p| ContainerPort {
                    name: p.name,
                    port: p.container_port,
                    protocol: p.protocol,
                })
                .collect(),
            ips,
            phase: status.phase,
            // A pod written by hand has no conditions; it is meant to serve.
            ready: ready.is_none_or(|c| c.status == "True"),
            workload_name,
        })
    }
}

fn ips(status: &PodStatus) -> Result<Vec<IpAddr>, Fault> {
    let listed = status
        .pod_ips
        .iter()
        .enumerate()
        .map(|(i, p)| (format!("status.podIPs[{i}].ip"), &p.ip));
    let alone = std::iter::once(("status.podIP".to_owned(), &status.pod_ip));
    let mut ips = Vec::new();
    for (path, text) in listed.chain(alone).filter(|(_, text)| !text.is_empty()) {
        let ip = text.parse().map_err(|_| {
            Fault::error(
                Code::InvalidValue,
                path,
                format!("`{text}` is no IP address"),
            )
        })?;
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    Ok(ips)
}

/// The controlling owner's name; a ReplicaSet's without the hash that its Deployment added.
fn workload_name(meta: &PodMeta) -> Str {
    let Some(owner) = meta.owner_references.iter().find(|o| o.controller) else {
        return meta.name.clone();
    };
    let hash = meta.labels.get("pod-template-hash");
    match (owner.kind.as_str(), hash) {
        ("ReplicaSet", Some(hash)) => owner
            .name
            .strip_suffix(hash.as_str())
            .and_then(|name| name.strip_suffix('-'))
            .map_or_else(|| owner.name.clone(), Str::new),
        _ => owner.name.clone(),
    }
}

/// A Deployment, StatefulSet, DaemonSet, ReplicaSet: which pods it would make.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct TemplateManifest {
    spec: TemplateSpec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TemplateSpec {
    replicas: Option<u32>,
    template: Template,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Template {
    metadata: TemplateMeta,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TemplateMeta {
    labels: Labels,
}

impl TemplateManifest {
    /// The labels of its pods; none when it makes no pods.
    pub(super) fn labels(self) -> Option<Labels> {
        (self.spec.replicas != Some(0)).then_some(self.spec.template.metadata.labels)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{reader, yaml};
    use super::*;

    fn pod(text: &str) -> Result<Pod, Fault> {
        let node = yaml::parse(yaml::documents(text)[0]).unwrap();
        reader::read::<PodManifest>(&node, "")
            .value
            .unwrap()
            .flatten()
    }

    #[test]
    fn a_pod_by_hand_is_running_and_ready() {
        let pod = pod("metadata: {name: a}\nstatus: {podIP: 10.0.0.1}\n").unwrap();
        assert!(pod.ready);
        assert_eq!(pod.phase, Phase::Running);
        assert_eq!(pod.service_account, "default");
        assert_eq!(pod.workload_name, "a");
        assert_eq!(pod.ips, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn a_live_pod_gives_its_owner_ports_and_readiness() {
        let pod = pod("
metadata:
  name: reviews-7d9-x
  labels: {pod-template-hash: 7d9}
  ownerReferences:
  - {kind: Other, name: o}
  - {kind: ReplicaSet, name: reviews-7d9, controller: true}
spec:
  serviceAccountName: reviews
  containers:
  - ports: [{containerPort: 9080, name: http}]
  initContainers:
  - restartPolicy: Always
    ports: [{containerPort: 9090}]
  - ports: [{containerPort: 1}]
status:
  phase: Pending
  podIP: 10.0.0.1
  podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]
  conditions: [{type: Ready, status: 'False'}]
")
        .unwrap();
        assert_eq!(pod.workload_name, "reviews");
        assert_eq!(
            pod.ports.iter().map(|p| p.port).collect::<Vec<_>>(),
            [9080, 9090]
        );
        assert_eq!(pod.ips.len(), 2);
        assert!(!pod.ready);
        assert_eq!(pod.phase, Phase::Pending);
    }

    #[test]
    fn a_bad_address_names_its_field() {
        let fault = pod("status: {podIPs: [{ip: x}]}").unwrap_err();
        assert_eq!(fault.path, "status.podIPs[0].ip");
    }
}
