//! What runs beside serving where there is a cluster: the leader's work, and the injector's configuration followed.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::tasks::Tasks;
use crate::admission::Webhooks;
use crate::ca::authority::Authority;
use crate::ca::standby::Standby;
use crate::cli::settings::Settings;
use crate::config::proxy_config::ProxyConfig;
use crate::controllers::{Installed, authority, events, injector, keys, leader, roots, webhooks};
use crate::diagnostic::Diagnostic;
use crate::state::LockedDir;
use crate::telemetry::metrics::Metrics;

/// Keeps the keys of the cluster's tokens, if there is a standby to use them.
pub fn follow_keys(
    installed: &Installed,
    standby: Option<Arc<Standby>>,
    stop: &CancellationToken,
    tasks: &mut Tasks,
) {
    if let Some(standby) = standby {
        let followed = keys::run(installed.clone(), standby, stop.clone());
        tasks.run("cluster keys", followed);
    }
}

/// Starts all of it, and gives what the webhooks answer by.
pub fn run(
    settings: &Settings,
    installed: Installed,
    (authority, dir, metrics): (Arc<Authority>, Arc<LockedDir>, Arc<Metrics>),
    (proxies, found): (watch::Receiver<ProxyConfig>, mpsc::Receiver<Diagnostic>),
    stop: &CancellationToken,
    tasks: &mut Tasks,
) -> Webhooks {
    let (leads, leading) = watch::channel(false);
    // Two replicas of one name would both hold the lease.
    let me = format!(
        "{}_{:08x}",
        settings.pod_name,
        (crate::backoff::chance() * 4e9) as u32
    );
    tasks.run(
        "leader",
        leader::run(installed.clone(), me, leads, stop.clone()),
    );
    let (pod, leads) = (settings.pod_name.clone(), leading.clone());
    tasks.run(
        "events",
        events::run(installed.clone(), pod, found, leads, stop.clone()),
    );
    tasks.run(
        "roots",
        roots::run(
            installed.clone(),
            authority.clone(),
            leading.clone(),
            stop.clone(),
        ),
    );
    tasks.run(
        "webhook bundles",
        webhooks::run(
            installed.clone(),
            authority,
            metrics.clone(),
            leading,
            stop.clone(),
        ),
    );
    if settings.ca_dir.is_none() {
        let watched = authority::watch_over(installed.clone(), dir, metrics.clone(), stop.clone());
        tasks.run("authority", watched);
    }
    let (publish, injection) = watch::channel(None);
    tasks.run(
        "injector",
        injector::run(installed, proxies, publish, stop.clone()),
    );
    Webhooks::new(injection, metrics)
}
