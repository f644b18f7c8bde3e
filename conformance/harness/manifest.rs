//! What a cluster would know of the pods and services here, as objects for `--config-dir`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::network::six;
use super::pod::{Families, PodSpec, Sidecar};

/// A Service over the pods that have its labels.
#[derive(Clone, Debug)]
pub struct ServiceSpec {
    pub name: String,
    pub namespace: String,
    pub selector: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub ports: Vec<ServicePort>,
}

#[derive(Clone, Debug)]
pub struct ServicePort {
    /// Its prefix is the protocol, as in `http-web`; empty leaves it to detection.
    pub name: String,
    pub port: u16,
    pub target: u16,
}

impl ServiceSpec {
    /// Selects pods labelled `app: <name>`.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            selector: BTreeMap::from([("app".to_owned(), name.to_owned())]),
            annotations: BTreeMap::new(),
            ports: Vec::new(),
        }
    }

    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    pub fn port(mut self, name: &str, port: u16, target: u16) -> Self {
        let name = name.to_owned();
        self.ports.push(ServicePort { name, port, target });
        self
    }

    pub(super) fn selects(&self, pod: &PodSpec) -> bool {
        pod.namespace == self.namespace
            && self
                .selector
                .iter()
                .all(|(key, value)| pod.labels.get(key) == Some(value))
    }
}

/// A Service with its address, and the EndpointSlice of the pods that it selects.
pub(super) fn service(
    spec: &ServiceSpec,
    address: Ipv4Addr,
    pods: &[(PodSpec, Ipv4Addr)],
) -> String {
    let ServiceSpec {
        name, namespace, ..
    } = spec;
    let ports = |number: &dyn Fn(&ServicePort) -> Value| -> Vec<Value> {
        spec.ports.iter().map(number).collect()
    };
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "annotations": spec.annotations},
        "spec": {
            "clusterIP": address,
            "selector": spec.selector,
            "ports": ports(&|p| json!({"name": p.name, "port": p.port, "targetPort": p.target})),
        },
    });
    let endpoints: Vec<Value> = pods
        .iter()
        .filter(|(pod, _)| spec.selects(pod))
        .map(|(pod, ip)| {
            json!({
                "addresses": [ip],
                "conditions": {"ready": true},
                "targetRef": {"kind": "Pod", "name": pod.name, "namespace": pod.namespace},
            })
        })
        .collect();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{name}-1"),
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": ports(&|p| json!({"name": p.name, "port": p.target, "protocol": "TCP"})),
    });
    documents(&[service, slice])
}

/// The pod as the API server would show it once it runs.
pub(super) fn pod(spec: &PodSpec, ip: Ipv4Addr) -> String {
    let mut labels = spec.labels.clone();
    if spec.sidecar == Sidecar::Captured {
        labels.insert("security.istio.io/tlsMode".to_owned(), "istio".to_owned());
    }
    let ports: Vec<Value> = spec
        .apps
        .iter()
        .map(|(p, _)| json!({"containerPort": p}))
        .collect();
    documents(&[json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": spec.name, "namespace": spec.namespace, "labels": labels},
        "spec": {
            "serviceAccountName": spec.service_account,
            "nodeName": "node",
            "containers": [{"name": "workload", "image": "workload", "ports": ports}],
        },
        "status": {
            "phase": "Running",
            "podIP": ip,
            "podIPs": pod_ips(spec, ip),
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })])
}

fn pod_ips(spec: &PodSpec, ip: Ipv4Addr) -> Vec<Value> {
    let second = (spec.families == Families::Both).then(|| json!({"ip": six(ip)}));
    std::iter::once(json!({"ip": ip})).chain(second).collect()
}

pub(super) fn namespace(name: &str) -> String {
    documents(&[json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})])
}

/// JSON is YAML.
fn documents(objects: &[Value]) -> String {
    objects
        .iter()
        .map(|object| format!("---\n{object:#}\n"))
        .collect()
}
