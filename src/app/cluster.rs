//! What runs beside serving where there is a cluster: the leader's work, and the injector's configuration followed.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::tasks::Tasks;
use crate::admission::Webhooks;
use crate::ca::authority::Authority;
use crate::ca::standby::Standby;
use crate::cli::settings::Settings;
use crate::config::proxy_config::ProxyConfig;
use crate::controllers::{
    Installed, authority, events, injector, keys, leader, roots, status, webhooks,
};
use crate::debug::desk::Desk;
use crate::delivery::hub::Message;
use crate::diagnostic::Diagnostic;
use crate::distribution::peers::Peers;
use crate::distribution::service::{DistributionService, Own};
use crate::identity::SpiffeId;
use crate::state::LockedDir;
use crate::telemetry::metrics::Metrics;
use crate::text::Str;

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

/// This process among the control plane's replicas.
#[derive(Clone)]
pub struct Replica {
    pub own: Own,
    /// What all of them are.
    identity: SpiffeId,
}

impl Replica {
    pub fn service(&self, desk: &Desk) -> DistributionService {
        DistributionService {
            own: self.own.clone(),
            authenticator: desk.authenticator.clone(),
            identity: self.identity.clone(),
        }
    }
}

pub fn replica(
    settings: &Settings,
    trust_domain: &str,
    hub: &mpsc::Sender<Message>,
) -> Result<Replica> {
    let Settings {
        namespace,
        service_account,
        ..
    } = settings;
    let identity = SpiffeId::new(trust_domain, namespace, service_account);
    Ok(Replica {
        own: Own {
            board: Arc::default(),
            hub: hub.clone(),
            replica: Str::new(&settings.pod_name),
        },
        identity: identity.context("the control plane's own identity")?,
    })
}

/// Starts all of it, and gives what the webhooks answer by.
pub fn run(
    settings: &Settings,
    installed: Installed,
    (authority, dir, metrics): (Arc<Authority>, Arc<LockedDir>, Arc<Metrics>),
    (proxies, found, replica): (
        watch::Receiver<ProxyConfig>,
        mpsc::Receiver<Diagnostic>,
        Option<Replica>,
    ),
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
    if let (Some(replica), true) = (replica, settings.status) {
        let Replica { own, identity } = replica;
        let server = Str::new(format!("istiod.{}.svc", installed.namespace));
        let peers = Peers::new(authority.clone(), identity, server);
        tasks.run(
            "status",
            status::run(
                installed.clone(),
                (own, peers),
                leading.clone(),
                stop.clone(),
            ),
        );
    }
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
