//! The YAML of each kind of object in the measured mesh.

use std::fmt::Write;

use super::mesh::{ENDPOINTS, Names};

/// Appends one document. Writing to a String has no error.
macro_rules! document {
    ($out:expr, $($text:tt)*) => {{
        let _ = writeln!($out, $($text)*);
        $out.push_str("---\n");
    }};
}

pub fn namespace(out: &mut String, number: usize) {
    document!(
        out,
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: ns-{number}}}"
    );
}

pub fn service(out: &mut String, of: &Names) {
    let Names {
        name, namespace, ..
    } = of;
    let address = of.cluster_ip();
    document!(
        out,
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  clusterIP: {address}
  selector: {{app: {name}}}
  ports:
  - {{name: http, port: 80, targetPort: 8080}}
  - {{name: tcp, port: 9090, targetPort: 9090}}"
    );
}

/// `moved` is the first endpoint's address, if not its own.
pub fn slice(out: &mut String, of: &Names, moved: Option<&str>) {
    let Names {
        name, namespace, ..
    } = of;
    let mut endpoints = String::new();
    for endpoint in 0..ENDPOINTS {
        let own = of.address(endpoint);
        let address = moved.filter(|_| endpoint == 0).unwrap_or(&own);
        let pod = of.pod(endpoint);
        let _ = write!(
            endpoints,
            "\n- {{addresses: [{address}], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: {pod}, namespace: {namespace}}}}}"
        );
    }
    document!(
        out,
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-a, namespace: {namespace}, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports:
- {{name: http, port: 8080, protocol: TCP}}
- {{name: tcp, port: 9090, protocol: TCP}}
endpoints:{endpoints}"
    );
}

/// Half of them of each version, so that subsets have endpoints.
pub fn pods(out: &mut String, of: &Names) {
    let Names {
        name, namespace, ..
    } = of;
    for endpoint in 0..ENDPOINTS {
        let (pod, address) = (of.pod(endpoint), of.address(endpoint));
        let version = endpoint % 2 + 1;
        document!(
            out,
            "apiVersion: v1
kind: Pod
metadata: {{name: {pod}, namespace: {namespace}, labels: {{app: {name}, version: v{version}}}}}
spec: {{serviceAccountName: {name}, containers: [{{name: app, image: app}}]}}
status: {{phase: Running, podIP: {address}, conditions: [{{type: Ready, status: \"True\"}}]}}"
        );
    }
}

pub fn route(out: &mut String, of: &Names, weight: u32, note: u32) {
    let Names {
        name, namespace, ..
    } = of;
    let host = format!("{name}.{namespace}.svc.cluster.local");
    document!(
        out,
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: {namespace}, annotations: {{bench/note: \"{note}\"}}}}
spec:
  hosts: [{host}]
  http:
  - match:
    - uri: {{prefix: /admin}}
    route:
    - destination: {{host: {host}, subset: v2}}
  - route:
    - destination: {{host: {host}, subset: v1}}
      weight: {weight}
    - destination: {{host: {host}, subset: v2}}
      weight: 1000000"
    );
}

pub fn rule(out: &mut String, of: &Names, ring: u32, note: u32) {
    let Names {
        name, namespace, ..
    } = of;
    document!(
        out,
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}, namespace: {namespace}, annotations: {{bench/note: \"{note}\"}}}}
spec:
  host: {name}.{namespace}.svc.cluster.local
  trafficPolicy:
    loadBalancer:
      consistentHash:
        httpHeaderName: x-user
        ringHash: {{minimumRingSize: {ring}}}
  subsets:
  - {{name: v1, labels: {{version: v1}}}}
  - {{name: v2, labels: {{version: v2}}}}"
    );
}

/// A Service with one endpoint on an http port that no other has.
pub fn sentinel(out: &mut String, n: u32, port: u32) {
    let (a, b) = (n >> 8 & 255, n & 255);
    document!(
        out,
        "apiVersion: v1
kind: Service
metadata: {{name: sentinel-{n}, namespace: ns-0}}
spec:
  clusterIP: 172.19.{a}.{b}
  ports:
  - {{name: http, port: {port}}}"
    );
    document!(
        out,
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: sentinel-{n}-a, namespace: ns-0, labels: {{kubernetes.io/service-name: sentinel-{n}}}}}
addressType: IPv4
ports:
- {{name: http, port: {port}, protocol: TCP}}
endpoints:
- {{addresses: [10.67.{a}.{b}]}}"
    );
}
