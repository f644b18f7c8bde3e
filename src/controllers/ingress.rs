//! Says in the status of each Ingress of the mesh's own where clients reach it: at the Service before its proxies.
//!
//! The leader looks at that one Service in measured steps, and writes what differs.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::Ingress;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Installed, LOOK, MANAGER, while_leading};
use crate::config::ingress::{Fronted, Own};

/// One question of the API server, and the pause between two writes.
const ASK: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// Writes while this replica leads, until `stop`.
pub async fn run(
    installed: Installed,
    fronted: watch::Receiver<Fronted>,
    leading: watch::Receiver<bool>,
    stop: CancellationToken,
) -> Result<()> {
    while_leading(leading, stop, || {
        let writer = Writer {
            installed: installed.clone(),
            fronted: fronted.clone(),
            written: BTreeMap::new(),
            failing: false,
        };
        writer.run()
    })
    .await;
    Ok(())
}

struct Writer {
    installed: Installed,
    fronted: watch::Receiver<Fronted>,
    /// What stands in the status of each.
    written: BTreeMap<Own, Value>,
    failing: bool,
}

impl Writer {
    async fn run(mut self) {
        loop {
            match self.look().await {
                Ok(()) => self.failing = false,
                Err(why) => self.on_failure(&why),
            }
            tokio::select! {
                changed = self.fronted.changed() => if changed.is_err() { return },
                () = time::sleep(LOOK) => {}
            }
        }
    }

    fn on_failure(&mut self, why: &anyhow::Error) {
        let why = format!("{why:#}");
        if std::mem::replace(&mut self.failing, true) {
            debug!(why, "status of Ingresses not written");
        } else {
            warn!(
                why,
                "where Ingresses are reached is not written; it is tried again"
            );
        }
    }

    async fn look(&mut self) -> Result<()> {
        let fronted = self.fronted.borrow_and_update().clone();
        self.written
            .retain(|own, _| fronted.ingresses.contains(own));
        if fronted.ingresses.is_empty() || fronted.service.is_empty() {
            return Ok(());
        }
        let wanted = self.reached(&fronted.service).await?;
        let mut all = Ok(());
        for own in &fronted.ingresses {
            if self.written.get(own) != Some(&wanted) {
                // One that cannot be written keeps no other from it.
                match self.write(own, &wanted).await {
                    Ok(()) => drop(self.written.insert(own.clone(), wanted.clone())),
                    Err(fault) => all = Err(fault),
                }
                time::sleep(PAUSE).await;
            }
        }
        all
    }

    async fn reached(&self, service: &str) -> Result<Value> {
        let (client, namespace) = (&self.installed.client, &self.installed.namespace);
        let services = Api::<Service>::namespaced(client.clone(), namespace);
        let found = time::timeout(ASK, services.get_opt(service)).await?;
        let found = found.with_context(|| format!("read Service {namespace}/{service}"))?;
        Ok(found.map_or_else(|| json!([]), |service| addresses(&service)))
    }

    async fn write(&self, own: &Own, wanted: &Value) -> Result<()> {
        let client = self.installed.client.clone();
        let ingresses = Api::<Ingress>::namespaced(client, &own.namespace);
        let asked = time::timeout(ASK, ingresses.get_status(&own.name)).await?;
        let found = match asked {
            Ok(found) => found,
            // It went meanwhile.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(why) => return Err(why).context("read the status of an Ingress"),
        };
        let status = serde_json::to_value(&found.status)?;
        let stands = &status["loadBalancer"]["ingress"];
        if stands == wanted || stands.is_null() && *wanted == json!([]) {
            return Ok(());
        }
        let patch = json!({"status": {"loadBalancer": {"ingress": wanted}}});
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(&patch);
        let written = ingresses.patch_status(&own.name, &params, &patch);
        match time::timeout(ASK, written).await? {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(why) => Err(why).context("write the status: allow `patch` of ingresses/status"),
        }
    }
}

/// Where a Service is reached from outside, as an Ingress says it.
fn addresses(service: &Service) -> Value {
    let spec = service.spec.clone().unwrap_or_default();
    let by_name = |name: &String| json!({"hostname": name});
    if let (Some("ExternalName"), Some(name)) = (spec.type_.as_deref(), &spec.external_name) {
        return json!([by_name(name)]);
    }
    let status = service.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let given = balancer.and_then(|balancer| balancer.ingress.as_ref());
    let given = given.into_iter().flatten().filter_map(|one| {
        let by_ip = one.ip.as_ref().map(|ip| json!({"ip": ip}));
        by_ip.or_else(|| one.hostname.as_ref().map(by_name))
    });
    let external = spec.external_ips.unwrap_or_default().into_iter();
    let external = external.map(|ip| json!({"ip": ip}));
    given.chain(external).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_reached_at_its_balancer_and_its_external_addresses() {
        let of = |service: Value| addresses(&serde_json::from_value::<Service>(service).unwrap());
        let balanced = of(json!({
            "spec": {"externalIPs": ["192.0.2.9"]},
            "status": {"loadBalancer": {"ingress": [
                {"ip": "192.0.2.1", "hostname": "unused.example"}, {"hostname": "lb.example"},
            ]}},
        }));
        let expected =
            json!([{"ip": "192.0.2.1"}, {"hostname": "lb.example"}, {"ip": "192.0.2.9"}]);
        assert_eq!(balanced, expected);
        let named = of(json!({"spec": {"type": "ExternalName", "externalName": "edge.example"}}));
        assert_eq!(named, json!([{"hostname": "edge.example"}]));
        assert_eq!(of(json!({"spec": {}})), json!([]));
    }
}
