//! The injector's configuration, followed: ConfigMap `istio-sidecar-injector`, and MeshConfig's part of it.

use std::sync::Arc;

use anyhow::Result;
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Event, watcher};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Installed, named};
use crate::config::workload_proxy::Proxies;
use crate::inject::{Injection, Injector, Values, ValuesError};

const CONFIG_MAP: &str = "istio-sidecar-injector";

/// Publishes what pods are injected by. A ConfigMap that cannot be read leaves the last one in force.
pub async fn run(
    installed: Installed,
    mut proxies: watch::Receiver<Proxies>,
    publish: watch::Sender<Option<Arc<Injection>>>,
    stop: CancellationToken,
) -> Result<()> {
    let name = installed.revised(CONFIG_MAP);
    let api = Api::<ConfigMap>::namespaced(installed.client.clone(), &installed.namespace);
    let mut maps = watcher(api, named(&name)).default_backoff().boxed();
    let mut read: Option<(Injector, Values)> = None;
    let mut told = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(event) = maps.next() => match event {
                Ok(Event::Apply(map) | Event::InitApply(map)) => match parse(&map) {
                    Ok(parsed) => {
                        info!(config_map = %name, "injection configured");
                        read = Some(parsed);
                    }
                    Err(why) => error!(config_map = %name, %why, "the injector's configuration is not taken; the last one stays"),
                },
                Ok(Event::Delete(_)) => warn!(config_map = %name, "the injector's configuration is gone; the last one stays"),
                Ok(Event::Init | Event::InitDone) => continue,
                Err(why) => {
                    if !told {
                        told = true;
                        warn!(config_map = %name, %why, "the injector's configuration cannot be watched; it is tried again");
                    }
                    continue;
                }
            },
            changed = proxies.changed() => if changed.is_err() {
                stop.cancelled().await;
                return Ok(());
            },
        }
        if let Some((injector, values)) = &read {
            publish.send_replace(Some(Arc::new(Injection {
                injector: injector.clone(),
                values: values.clone(),
                proxies: proxies.borrow_and_update().clone(),
                revision: installed.revision.clone(),
            })));
        }
    }
}

fn parse(map: &ConfigMap) -> Result<(Injector, Values), ValuesError> {
    let text = |key: &str| {
        map.data
            .as_ref()
            .and_then(|data| data.get(key))
            .map_or("", String::as_str)
    };
    Ok((
        Injector::parse(text("config"))?,
        Values::parse(text("values"))?,
    ))
}
