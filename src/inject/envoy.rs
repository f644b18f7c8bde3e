//! The bootstrap of an injected Envoy, inline: the kubelet fills in what is known only when the pod runs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::choices::{Addresses, Choices, Form};
use super::lists::Pod;
use super::marks::canonical_name;
use super::metrics::Scraped;
use super::{InjectError, Injection};
use crate::bootstrap::{
    AppProbe, AppProbes, Bootstrap, ControlPlane, DrainKey, Endpoint, FilePath, Locality, Workload,
};
use crate::config::meta::Labels;
use crate::config::proxy_config::InterceptionMode;
use crate::model::proxy::Interception;
use crate::text::{Hostname, Str};

/// Where the volumes are in the proxy's container.
pub(super) const TOKENS: &str = "/var/run/secrets/tokens";
pub(super) const ROOTS: &str = "/var/run/secrets/istio";
pub(super) const POD_INFO: &str = "/etc/istio/pod";
pub(super) const RUN: &str = "/var/run/mesh";
/// Envoy's secret of the control plane's roots, as a file of the pod's own annotation.
pub(super) const ROOT_SECRET: &str = "control-plane-roots.yaml";

pub(super) const STATUS_PORT: u16 = 15021;
const PAGES_PORT: u16 = 15000;
pub(super) const PROMETHEUS_PORT: u16 = 15090;
const MAX_CONNECTIONS: u32 = 50_000;

/// Variables that the kubelet expands; whatever else looks like one is not.
pub(super) const POD_NAME: &str = "POD_NAME";
pub(super) const POD_NAMESPACE: &str = "POD_NAMESPACE";
pub(super) const INSTANCE_IP: &str = "INSTANCE_IP";
pub(super) const INSTANCE_IPS: &str = "INSTANCE_IPS";
pub(super) const SERVICE_ACCOUNT: &str = "SERVICE_ACCOUNT";
const VARIABLES: &[&str] = &[
    POD_NAME,
    POD_NAMESPACE,
    INSTANCE_IP,
    INSTANCE_IPS,
    SERVICE_ACCOUNT,
];

/// By this annotation a pod chooses how its route tables come.
const PACKING: &str = "fairlead.dev/route-packing";

/// The text for `--config-yaml`.
pub(super) fn bootstrap(
    pod: &Pod<'_>,
    choices: &Choices,
    injection: &Injection,
    (probes, scraped): (&[AppProbe], &Scraped),
    drain_secret: &str,
) -> Result<String, InjectError> {
    let drain = DrainKey::parse(drain_secret).map_err(|e| InjectError::Values(e.to_string()))?;
    let stats = choices.proxy.proxy_stats_matcher.as_ref();
    let all: IpAddr = match choices.addresses {
        Addresses::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Addresses::Both => Ipv6Addr::UNSPECIFIED.into(),
    };
    let any = |port| SocketAddr::from((all, port));
    let own = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let admin = choices.proxy.proxy_admin_port.unwrap_or(PAGES_PORT);
    let bootstrap = Bootstrap {
        workload: workload(pod, choices, injection),
        control_plane: control_plane(choices, injection)?,
        pod: crate::bootstrap::Pod {
            admin_socket: file(&format!("{RUN}/admin.sock"))?,
            status: any(STATUS_PORT),
            pages: (admin != 0).then(|| own(admin)),
            prometheus: Some(any(PROMETHEUS_PORT)),
            drain,
            drain_hold: drain_hold(choices),
            probes: (!probes.is_empty()).then(|| AppProbes {
                address: any(choices.status_port),
                host: variable(INSTANCE_IP),
                probes: probes.to_vec(),
            }),
            metrics: scraped.page(any(choices.status_port)),
            max_connections: MAX_CONNECTIONS,
            stats: stats.map_or(Vec::new(), |s| s.inclusion_prefixes.clone()),
        },
    };
    Ok(expandable(&bootstrap.render().to_string()))
}

/// A container that its hook alone keeps is ended when the hook is over.
fn drain_hold(choices: &Choices) -> Duration {
    match choices.form {
        Form::Native => Duration::ZERO,
        Form::Container => choices.termination_drain_duration(),
    }
}

fn variable(name: &str) -> Str {
    Str::new(format!("$({name})"))
}

/// Only our own variables are left for the kubelet to expand.
fn expandable(text: &str) -> String {
    let escaped = text.replace('$', "$$");
    VARIABLES.iter().fold(escaped, |text, name| {
        text.replace(&format!("$$({name})"), &format!("$({name})"))
    })
}

fn workload(pod: &Pod<'_>, choices: &Choices, injection: &Injection) -> Workload {
    let global = &injection.values.global;
    let namespace = variable(POD_NAMESPACE);
    let own = pod
        .annotation(PACKING)
        .map(|v| (Str::new_static(PACKING), Str::new(v)));
    let service = choices.proxy.service_cluster.clone();
    let canonical = || Str::new(format!("{}.{namespace}", canonical_name(pod)));
    Workload {
        role: choices.role,
        name: variable(POD_NAME),
        service_account: variable(SERVICE_ACCOUNT),
        ip: variable(INSTANCE_IP),
        ips: variable(INSTANCE_IPS),
        labels: pod.labels.clone(),
        annotations: own.into_iter().collect::<Labels>(),
        // What the mesh says of all may change without a new pod.
        topology: choices
            .proxy
            .gateway_topology
            .clone()
            .filter(|own| injection.proxies.mesh.gateway_topology.as_ref() != Some(own)),
        dns_domain: Str::new(format!("{namespace}.svc.{}", global.proxy.cluster_domain)),
        cluster: service.unwrap_or_else(canonical),
        cluster_id: global.multi_cluster.cluster_name.clone(),
        locality: Locality::default(),
        interception: match choices.interception {
            InterceptionMode::Redirect => Interception::Redirect,
            InterceptionMode::Tproxy => Interception::Tproxy,
            InterceptionMode::None => Interception::None,
        },
        group: None,
        namespace,
    }
}

/// How the pod reaches and knows the control plane.
pub(super) fn control_plane(
    choices: &Choices,
    injection: &Injection,
) -> Result<ControlPlane, InjectError> {
    let address = address(choices, injection);
    let wrong = |e: String| InjectError::Values(format!("discovery address `{address}`: {e}"));
    let endpoint = Endpoint::parse(&address).map_err(|e| wrong(e.to_string()))?;
    let server_name = match endpoint.name() {
        Some(name) => name.clone(),
        None => Hostname::parse(&service(injection)).map_err(|e| wrong(e.to_string()))?,
    };
    Ok(ControlPlane {
        endpoint,
        server_name,
        token: file(&format!("{TOKENS}/istio-token"))?,
        root: file(&format!("{ROOTS}/root-cert.pem"))?,
        root_secret_file: file(&format!("{POD_INFO}/{ROOT_SECRET}"))?,
    })
}

/// `istiod.istio-system.svc`, with the revision if it has a name.
fn service(injection: &Injection) -> String {
    let namespace = &injection.values.global.istio_namespace;
    match injection.revision.as_str() {
        "" | "default" => format!("istiod.{namespace}.svc"),
        revision => format!("istiod-{revision}.{namespace}.svc"),
    }
}

fn address(choices: &Choices, injection: &Injection) -> Str {
    let said = choices.proxy.discovery_address.clone();
    said.unwrap_or_else(|| Str::new(format!("{}:15012", service(injection))))
}

fn file(path: &str) -> Result<FilePath, InjectError> {
    FilePath::parse(path).map_err(|e| InjectError::Values(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_our_variables_is_left_to_the_kubelet() {
        assert_eq!(
            expandable("a$(POD_NAME)b$(HOME)c$d$$(POD_NAME)"),
            "a$(POD_NAME)b$$(HOME)c$$d$$$(POD_NAME)"
        );
    }
}
