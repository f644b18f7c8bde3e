//! Services by iptables and by name: what kube-proxy and DNS do in a cluster.
//!
//! A Service's address leads to its ready endpoints from every pod and from the node. Where client and endpoint are on
//! one bridge the answer would go past the translation, so the node stands between them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use futures_util::StreamExt as _;
use kube::api::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client};
use serde_json::Value;

use super::super::isolation::shell;
use super::super::network::Network;

type Name = (String, String);

/// Of Services, as the API server gives them.
const ADDRESSES: &str = "10.96.0.0/12";

/// What is known of Services, for whoever resolves names.
#[derive(Default)]
pub(super) struct Services(Mutex<Known>);

#[derive(Default)]
struct Known {
    services: BTreeMap<Name, Value>,
    slices: BTreeMap<Name, Value>,
    applied: Vec<String>,
}

impl Services {
    /// Lines of `/etc/hosts`.
    pub(super) fn hosts(&self) -> String {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = |((namespace, name), service): (&Name, &Value)| {
            let ip = service["spec"]["clusterIP"]
                .as_str()
                .filter(|ip| *ip != "None")?;
            let short = format!("{name}.{namespace}");
            Some(format!(
                "{ip} {short}.svc.cluster.local {short}.svc {short}\n"
            ))
        };
        known.services.iter().filter_map(line).collect()
    }

    /// Follows Services and EndpointSlices until it is dropped.
    pub(super) async fn follow(&self, client: Client) -> Result<()> {
        let watch = |group, version, kind| {
            let at = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
            let api = Api::<DynamicObject>::all_with(client.clone(), &at);
            watcher(api, Config::default()).default_backoff().boxed()
        };
        let mut services = watch("", "v1", "Service");
        let mut slices = watch("discovery.k8s.io", "v1", "EndpointSlice");
        loop {
            let changed = tokio::select! {
                Some(event) = services.next() => self.on(event.ok(), |known| &mut known.services)?,
                Some(event) = slices.next() => self.on(event.ok(), |known| &mut known.slices)?,
                else => return Ok(()),
            };
            if changed {
                self.apply()?;
            }
        }
    }

    fn on(
        &self,
        event: Option<Event<DynamicObject>>,
        of: impl Fn(&mut Known) -> &mut BTreeMap<Name, Value>,
    ) -> Result<bool> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = |object: &DynamicObject| {
            let meta = &object.metadata;
            (
                meta.namespace.clone().unwrap_or_default(),
                meta.name.clone().unwrap_or_default(),
            )
        };
        match event {
            Some(Event::Apply(object) | Event::InitApply(object)) => {
                of(&mut known).insert(name(&object), serde_json::to_value(object)?);
            }
            Some(Event::Delete(object)) => drop(of(&mut known).remove(&name(&object))),
            Some(Event::Init | Event::InitDone) | None => return Ok(false),
        }
        Ok(true)
    }

    fn apply(&self) -> Result<()> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rules = known.rules();
        if rules == known.applied {
            return Ok(());
        }
        let mut text = "*nat\n:SERVICES - [0:0]\n-F SERVICES\n".to_owned();
        for rule in &rules {
            text.push_str(&format!("-A SERVICES {rule}\n"));
        }
        text.push_str("COMMIT\n");
        restore(&text)?;
        known.applied = rules;
        Ok(())
    }
}

/// The chain that every packet passes, and the node between client and endpoint.
pub(super) fn prepare(network: &Network) -> Result<()> {
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("forward packets")?;
    // Somewhere, for the node itself: the translation changes it.
    shell(&format!(
        "ip route replace {ADDRESSES} dev br{}",
        network.index()
    ))?;
    restore(
        "*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n-F PREROUTING\n-F OUTPUT\n-F POSTROUTING\n:SERVICES - [0:0]\n-A PREROUTING -j SERVICES\n-A OUTPUT -j SERVICES\n\
         -A POSTROUTING -m conntrack --ctstate DNAT -j MASQUERADE\nCOMMIT\n",
    )
}

fn restore(text: &str) -> Result<()> {
    let mut child = Command::new("iptables-restore")
        .args(["--noflush", "--wait", "5"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("run iptables-restore")?;
    let mut input = child.stdin.take().context("its standard input")?;
    input.write_all(text.as_bytes())?;
    drop(input);
    let done = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "iptables-restore: {said}\n{text}");
    Ok(())
}

impl Known {
    /// One for each endpoint of each port, each with its share of the connections.
    fn rules(&self) -> Vec<String> {
        let mut rules = Vec::new();
        for (name, service) in &self.services {
            let ip = service["spec"]["clusterIP"].as_str().unwrap_or("None");
            if ip == "None" || ip.is_empty() {
                continue;
            }
            for port in service["spec"]["ports"].as_array().into_iter().flatten() {
                let endpoints = self.endpoints(name, &port["name"]);
                let number = port["port"].as_u64().unwrap_or(0);
                for (i, endpoint) in endpoints.iter().enumerate() {
                    let left = endpoints.len() - i;
                    let share = match left {
                        1 => String::new(),
                        _ => format!(
                            " -m statistic --mode random --probability {:.5}",
                            1.0 / left as f64
                        ),
                    };
                    rules.push(format!(
                        "-d {ip}/32 -p tcp --dport {number}{share} -j DNAT --to-destination {endpoint}"
                    ));
                }
            }
        }
        rules
    }

    fn endpoints(&self, (namespace, name): &Name, port: &Value) -> Vec<String> {
        let mut found = Vec::new();
        for ((of, _), slice) in &self.slices {
            let service = &slice["metadata"]["labels"]["kubernetes.io/service-name"];
            if of != namespace || service != name.as_str() {
                continue;
            }
            let ports = slice["ports"].as_array().into_iter().flatten();
            let mut ports = ports.filter(|p| {
                p["name"].as_str().unwrap_or_default() == port.as_str().unwrap_or_default()
            });
            let Some(number) = ports.next().and_then(|p| p["port"].as_u64()) else {
                continue;
            };
            let endpoints = slice["endpoints"].as_array().into_iter().flatten();
            for endpoint in endpoints.filter(|e| e["conditions"]["ready"] != false) {
                let addresses = endpoint["addresses"].as_array().into_iter().flatten();
                found.extend(
                    addresses
                        .filter_map(Value::as_str)
                        .map(|ip| format!("{ip}:{number}")),
                );
            }
        }
        found.sort();
        found
    }
}
