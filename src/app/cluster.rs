//! What runs beside serving where there is a cluster: the leader's work, and the injector's configuration followed.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::intake::Followed;
use super::tasks::Tasks;
use crate::admission::Webhooks;
use crate::ca::authority::Authority;
use crate::ca::standby::Standby;
use crate::cli::settings::Settings;
use crate::config::ingress::Fronted;
use crate::controllers::{
    Installed, authority, default_revision, events, ingress, injector, keys, leader, roots, status,
    webhooks,
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

/// What it works with.
pub struct Wired {
    pub authority: Arc<Authority>,
    pub dir: Arc<LockedDir>,
    pub metrics: Arc<Metrics>,
    /// Who is to be given the keys of the cluster's tokens.
    pub standby: Option<Arc<Standby>>,
    /// Where they are kept for a start without the API server.
    pub snapshot: Option<Arc<LockedDir>>,
    pub replica: Option<Replica>,
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

impl Replica {
    /// The others, by a name that all their certificates have.
    fn peers(&self, authority: &Arc<Authority>, installed: &Installed) -> Peers {
        let server = Str::new(format!("istiod.{}.svc", installed.namespace));
        Peers::new(authority.clone(), self.identity.clone(), server)
    }
}

/// None where we are installed in no cluster.
pub fn replica(
    settings: &Settings,
    trust_domain: &str,
    hub: &mpsc::Sender<Message>,
    place: Option<&Installed>,
) -> Result<Option<Replica>> {
    if place.is_none() {
        return Ok(None);
    }
    let Settings {
        namespace,
        service_account,
        ..
    } = settings;
    let identity = SpiffeId::new(trust_domain, namespace, service_account);
    Ok(Some(Replica {
        own: Own {
            board: Arc::default(),
            hub: hub.clone(),
            replica: Str::new(&settings.pod_name),
        },
        identity: identity.context("the control plane's own identity")?,
    }))
}

/// Tell whether this replica leads its revision, and whether it writes what belongs to none.
fn elected(
    settings: &Settings,
    installed: &Installed,
    stop: &CancellationToken,
    tasks: &mut Tasks,
) -> (watch::Receiver<bool>, watch::Receiver<bool>) {
    let (leads, leading) = watch::channel(false);
    // Two replicas of one name would both hold the lease.
    let me = format!(
        "{}_{:08x}",
        settings.pod_name,
        (crate::backoff::chance() * 4e9) as u32
    );
    let led = leader::Led::Revision;
    let leader = leader::run(installed.clone(), led, me.clone(), leads, stop.clone());
    tasks.run("leader", leader);
    let common = common(installed, me, leading.clone(), stop, tasks);
    (leading, common)
}

/// Tells whether this replica writes what belongs to no revision.
fn common(
    installed: &Installed,
    me: String,
    leads: watch::Receiver<bool>,
    stop: &CancellationToken,
    tasks: &mut Tasks,
) -> watch::Receiver<bool> {
    let (publish, tagged) = watch::channel(None);
    let followed = default_revision::run(installed.clone(), publish, stop.clone());
    tasks.run("default revision", followed);
    let (holds, common) = watch::channel(false);
    let led = leader::Led::Common { leads, tagged };
    let elected = leader::run(installed.clone(), led, me, holds, stop.clone());
    tasks.run("status of all revisions", elected);
    common
}

/// Starts all of it, and gives what the webhooks answer by.
pub fn run(
    settings: &Settings,
    installed: Installed,
    wired: Wired,
    (followed, found): (Followed, mpsc::Receiver<Diagnostic>),
    stop: &CancellationToken,
    tasks: &mut Tasks,
) -> Webhooks {
    let Wired {
        authority,
        dir,
        metrics,
        standby,
        snapshot,
        replica,
    } = wired;
    if let Some(standby) = standby {
        let followed = keys::run(installed.clone(), (standby, snapshot), stop.clone());
        tasks.run("cluster keys", followed);
    }
    let (leading, common) = elected(settings, &installed, stop, tasks);
    let (pod, leads) = (settings.pod_name.clone(), leading.clone());
    tasks.run(
        "events",
        events::run(installed.clone(), pod, found, leads, stop.clone()),
    );
    if settings.status {
        let told = replica.map(|replica| (replica.peers(&authority, &installed), replica.own));
        let leads = (leading.clone(), common);
        tell_statuses(&installed, told, followed.reached, leads, (stop, tasks));
    }
    let kept = roots::run(
        installed.clone(),
        authority.clone(),
        leading.clone(),
        stop.clone(),
    );
    tasks.run("roots", kept);
    let bundles = webhooks::run(
        installed.clone(),
        authority,
        metrics.clone(),
        leading,
        stop.clone(),
    );
    tasks.run("webhook bundles", bundles);
    if settings.ca_dir.is_none() {
        let watched = authority::watch_over(installed.clone(), dir, metrics.clone(), stop.clone());
        tasks.run("authority", watched);
    }
    let (publish, injection) = watch::channel(None);
    tasks.run(
        "injector",
        injector::run(installed, followed.injected, publish, stop.clone()),
    );
    Webhooks::new(injection, metrics)
}

/// What became of objects, and where Ingresses are reached: of revisions that share them one says it.
fn tell_statuses(
    installed: &Installed,
    told: Option<(Peers, Own)>,
    reached: watch::Receiver<Fronted>,
    (leading, common): (watch::Receiver<bool>, watch::Receiver<bool>),
    (stop, tasks): (&CancellationToken, &mut Tasks),
) {
    let written = ingress::run(installed.clone(), reached, common.clone(), stop.clone());
    tasks.run("status of Ingresses", written);
    if let Some((peers, own)) = told {
        let leads = (leading, common);
        let written = status::run(installed.clone(), (own, peers), leads, stop.clone());
        tasks.run("status", written);
    }
}
