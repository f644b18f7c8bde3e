//! The YAML of each kind of object in the measured mesh.

use std::fmt::Write as _;

use super::mesh::{Service, version};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub kind: &'static str,
    pub namespace: String,
    pub name: String,
    pub text: String,
    pub place: Place,
}

/// Where a folder of files has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In its namespace's file.
    Bundle,
    /// In a file of its own, for it will be changed.
    Alone,
}

impl Object {
    fn new(kind: &'static str, namespace: &str, name: &str, text: String) -> Self {
        Self {
            kind,
            namespace: namespace.into(),
            name: name.into(),
            text,
            place: Place::Bundle,
        }
    }

    pub fn alone(self) -> Self {
        Self {
            place: Place::Alone,
            ..self
        }
    }
}

pub fn namespace(name: &str) -> Object {
    let text = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n");
    Object::new("Namespace", name, name, text)
}

/// Its workloads see the Services of their own namespace alone.
pub fn sidecar(namespace: &str) -> Object {
    let text = format!(
        "apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: default, namespace: {namespace}}}
spec:
  egress:
  - hosts: [\"./*\"]
"
    );
    Object::new("Sidecar", namespace, "default", text)
}

pub fn service(of: &Service) -> Object {
    let Service {
        name, namespace, ..
    } = of;
    let mut text = format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  clusterIP: {}
  selector: {{app: {name}}}
  ports:
",
        of.address
    );
    for port in &of.ports {
        let (port, number, target) = (port.name, port.number, port.target);
        let _ = writeln!(
            text,
            "  - {{name: {port}, port: {number}, targetPort: {target}}}"
        );
    }
    Object::new("Service", namespace, name, text)
}

pub fn slice(of: &Service) -> Object {
    let Service {
        name, namespace, ..
    } = of;
    let slice = format!("{name}-a");
    let mut text = format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {slice}, namespace: {namespace}, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports:
"
    );
    for port in &of.ports {
        let (port, target) = (port.name, port.target);
        let _ = writeln!(text, "- {{name: {port}, port: {target}, protocol: TCP}}");
    }
    text.push_str("endpoints:\n");
    for (number, address) in of.endpoints.iter().enumerate() {
        let pod = of.pod(number);
        let _ = writeln!(
            text,
            "- {{addresses: [{address}], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: {pod}, namespace: {namespace}}}}}"
        );
    }
    Object::new("EndpointSlice", namespace, &slice, text)
}

pub fn pod(of: &Service, endpoint: usize) -> Object {
    let Service {
        name, namespace, ..
    } = of;
    let (pod, address) = (of.pod(endpoint), &of.endpoints[endpoint]);
    let version = version(endpoint);
    let text = format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {pod}, namespace: {namespace}, labels: {{app: {name}, version: {version}}}}}
spec: {{serviceAccountName: {name}, containers: [{{name: app, image: app}}]}}
status: {{phase: Running, podIP: {address}, podIPs: [{{ip: {address}}}], conditions: [{{type: Ready, status: \"True\"}}]}}
"
    );
    Object::new("Pod", namespace, &pod, text)
}

/// A VirtualService and a DestinationRule with two subsets, if it has them.
pub fn rules(of: &Service) -> Vec<Object> {
    let Service {
        name, namespace, ..
    } = of;
    let Some(rules) = of.rules else {
        return Vec::new();
    };
    let (host, note) = (of.host(), rules.note);
    let head = format!(
        "metadata: {{name: {name}, namespace: {namespace}, annotations: {{bench/note: \"{note}\"}}}}"
    );
    let route = format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
{head}
spec:
  hosts: [{host}]
  http:
  - match:
    - uri: {{prefix: /admin}}
    route:
    - destination: {{host: {host}, subset: v2}}
  - route:
    - destination: {{host: {host}, subset: v1}}
      weight: {}
    - destination: {{host: {host}, subset: v2}}
      weight: 1000000
",
        rules.weight
    );
    let rule = format!(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
{head}
spec:
  host: {host}
  trafficPolicy:
    tls: {{mode: ISTIO_MUTUAL, sni: {}}}
  subsets:
  - {{name: v1, labels: {{version: v1}}}}
  - {{name: v2, labels: {{version: v2}}}}
",
        rules.sni()
    );
    vec![
        Object::new("VirtualService", namespace, name, route),
        Object::new("DestinationRule", namespace, name, rule),
    ]
}

pub fn policy(namespace: &str, mode: &str) -> Object {
    let text = format!(
        "apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: {namespace}}}
spec: {{mtls: {{mode: {mode}}}}}
"
    );
    Object::new("PeerAuthentication", namespace, "default", text).alone()
}
