//! The composition root: everything is built, bound, then run. Connections alone are tasks of others.

mod beginning;
mod cluster;
pub mod doors;
pub mod history;
pub mod intake;
mod journal;
mod pods;
pub mod ports;
mod registry;
pub mod source;
pub mod tasks;
pub mod upkeep;

use std::sync::Arc;

use anyhow::Result;
use axum::Router;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use self::beginning::{Beginning, Snapshot};
use self::cluster::{Replica, Wired};
use self::doors::Doors;
use self::intake::{ForCluster, Intake, Keeps, Kept, Read};
use self::journal::ACCEPTED;
use self::ports::Ports;
use self::registry::{Entered, Registry};
use self::source::Started;
use self::tasks::{Tasks, signals};
use crate::acceptance::{Acceptance, Census, OfKind, Options, Persisted, Places};
use crate::admission::Webhooks;
use crate::analyze;
use crate::ca::authority::{Authority, Lifetimes};
use crate::ca::readers::Readers as SecretReaders;
use crate::ca::review::Cluster;
use crate::ca::service::{CertificateService, METHOD};
use crate::ca::standby::Standby;
use crate::ca::trust::{Plan, Trust};
use crate::cli::settings::{Home, Settings, Source};
use crate::clock;
use crate::config::Kind;
use crate::controllers::{self, Installed};
use crate::debug::desk::{Desk, Readers};
use crate::debug::shelf::{self, Render, Shelf};
use crate::debug::status::{self, StatusService};
use crate::debug::{Count, Pages, Prepared};
use crate::delivery::credentials::Credentials;
use crate::delivery::hub::{Hub, Message};
use crate::delivery::registrar::{self, Registrar};
use crate::delivery::server::{Server, Streams};
use crate::delivery::{Access, Limits};
use crate::distribution;
use crate::dump;
use crate::model;
use crate::state::LockedDir;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::objects;
use crate::text::Str;
use crate::view::Engine;

/// Messages that wait for the hub. Connections and the intake wait when it is full.
const MESSAGES: usize = 4096;

/// Serves until SIGTERM or SIGINT, or until something that must go on has ended.
pub async fn serve(settings: &Settings, home: &Home) -> Result<()> {
    let stop = CancellationToken::new();
    let mut tasks = Tasks::new(stop.clone());
    tasks.run("signals", signals(stop.clone()));
    match start(settings, home, &stop, &mut tasks).await {
        Ok(()) => tasks.end().await,
        Err(fault) => {
            stop.cancel();
            // What failed to start is the fault; what ends because of it is none.
            let _ = tasks.end().await;
            Err(fault)
        }
    }
}

/// Builds all, binds all, then runs all. A task that ends meanwhile leaves its word to `Tasks::end`.
async fn start(
    settings: &Settings,
    home: &Home,
    stop: &CancellationToken,
    tasks: &mut Tasks,
) -> Result<()> {
    let dir = Arc::new(history::lock(&home.state).await?);
    // Only now: until here it may be another process's, which serves.
    if let Some(file) = &settings.ports_file {
        Ports::forget(file)?;
    }
    let accepted = journal::read(&dir)?;
    let mut snapshot = Snapshot::wanted(settings, home).await;
    let metrics = Arc::<Metrics>::default();
    let mut source = source::run(settings, home, &metrics, stop, tasks).await?;
    let Started {
        batches, installed, ..
    } = &mut source;
    let first = beginning::first(batches, installed.as_ref(), snapshot.as_mut());
    let Some(Some(first)) = tasks.unless_ended(first).await else {
        return Ok(());
    };
    let readers = SecretReaders::of(source.cluster.clone());
    let credentials = Arc::new(Credentials::of(readers));
    let entered = Registry::of(&home.source, accepted.as_ref(), clock::mono());
    let first = (first, &*credentials, &entered);
    let (acceptance, engine) = begin(settings, &dir, accepted, first)?;
    let engine = (engine, credentials);
    let ground = Ground {
        dir,
        snapshot: snapshot.map(|snapshot| snapshot.dir),
        metrics,
        source,
        acceptance,
        entry: registrar(&home.source, entered),
        engine,
    };
    ground.build(settings, home, stop, tasks).await
}

/// What there is before anything is bound.
struct Ground {
    dir: Arc<LockedDir>,
    snapshot: Option<Arc<LockedDir>>,
    metrics: Arc<Metrics>,
    source: Started,
    acceptance: Acceptance,
    entry: (Registrar, Entered),
    engine: (Engine, Arc<Credentials>),
}

impl Ground {
    async fn build(
        self,
        settings: &Settings,
        home: &Home,
        stop: &CancellationToken,
        tasks: &mut Tasks,
    ) -> Result<()> {
        let Self {
            dir,
            snapshot,
            metrics,
            source,
            acceptance,
            entry: (registrar, entered),
            engine: (engine, credentials),
        } = self;
        let Started {
            batches,
            cluster,
            installed,
        } = source;
        let (mesh, (hub, inbox)) = (engine.snapshot().mesh.clone(), mpsc::channel(MESSAGES));
        let (domain, place) = (&mesh.trust_domain, installed.as_ref());
        let standby = standby(settings, domain, &hub);
        let known = (cluster, standby.clone());
        let trust = trust(settings, &dir, domain, known, place).await?;
        let doors = Doors::bind(settings, &home.source, trust.serving.live())?;
        doors.ports.tell(settings.ports_file.as_deref())?;
        let (for_cluster, followed) = ForCluster::of(&acceptance);
        let (told, found) = mpsc::channel(controllers::events::WAITING);
        let replica = cluster::replica(settings, domain, &hub, place)?;
        let webhooks = installed.map(|installed| {
            let wired = Wired {
                authority: trust.authority.clone(),
                dir: dir.clone(),
                metrics: metrics.clone(),
                standby,
                snapshot: snapshot.clone(),
                replica: replica.clone(),
            };
            cluster::run(settings, installed, wired, (followed, found), stop, tasks)
        });
        let keeps = Keeps::of(&home.source);
        let board = replica.as_ref().map(|replica| replica.own.board.clone());
        let (intake, published) =
            Intake::new(acceptance, hub.clone(), keeps, (told, for_cluster), board);
        let read = published.keep((dir.clone(), snapshot), &metrics, tasks);
        intake.begin();
        info!(ports = %doors.ports, "serving");
        tasks.run("intake", intake.run(batches, entered, stop.clone()));
        Plane {
            webhooks,
            replica,
            engine,
            credentials,
            metrics,
            trust,
            doors,
            hub,
            inbox,
            registrar,
            read,
        }
        .run(settings, dir, stop, tasks);
        Ok(())
    }
}

/// Takes in all there is at the start, unless something that was there before is lost.
fn begin(
    settings: &Settings,
    dir: &LockedDir,
    accepted: Option<Persisted>,
    (first, credentials, registry): (Beginning, &Credentials, &Registry),
) -> Result<(Acceptance, Engine)> {
    let mut engine = Engine::new(model::Settings {
        domain: Str::new(&settings.domain),
        packing: settings.route_packing,
        ..model::Settings::default()
    });
    let mut acceptance;
    let changes = match first {
        Beginning::Listed(events) => {
            acceptance = Acceptance::restore(options(settings), accepted.unwrap_or_default());
            let changes = acceptance.on(registry.complete(events));
            history::refuse_loss(&acceptance, dir)?;
            changes
        }
        Beginning::Kept(snapshot) => {
            let newest = beginning::newest(snapshot, accepted);
            acceptance = Acceptance::restore(options(settings), newest);
            acceptance.resume()
        }
    };
    credentials.apply(&changes);
    engine.apply(&changes);
    engine.prepare();
    intake::tell(acceptance.news());
    intake::tell(&analyze::analyzed(&acceptance, &settings.domain));
    Ok((acceptance, engine))
}

/// All that answers proxies and people, built and bound.
struct Plane {
    webhooks: Option<Webhooks>,
    replica: Option<Replica>,
    engine: Engine,
    credentials: Arc<Credentials>,
    metrics: Arc<Metrics>,
    trust: Trust,
    doors: Doors,
    hub: mpsc::Sender<Message>,
    inbox: mpsc::Receiver<Message>,
    registrar: Registrar,
    read: Read,
}

impl Plane {
    /// The hub outlives the connections, and the directory's lock outlives the hub and the ports file.
    fn run(
        self,
        settings: &Settings,
        dir: Arc<LockedDir>,
        stop: &CancellationToken,
        tasks: &mut Tasks,
    ) {
        let Trust {
            authority,
            authenticator,
            serving,
        } = self.trust;
        let root_namespace = self.engine.snapshot().mesh.root_namespace.clone();
        let metrics = self.metrics;
        let credentials = self.credentials;
        let hub = Hub::new(self.engine, limits(settings))
            .counting(metrics.clone())
            .keeping(credentials.clone());
        let desk = Desk {
            hub: self.hub,
            authenticator: authenticator.clone(),
            readers: Readers::Proven,
            root_namespace,
        };
        let shelf = Shelf {
            desk: desk.clone(),
            render: render(self.read.places),
            config: in_force(self.read.kept),
        };
        let asked = (&shelf, self.registrar);
        let mut server = server(settings, (&authority, credentials), asked, &metrics);
        if let Some(replica) = self.replica {
            server.others = server
                .others
                .route_service(distribution::service::METHOD, replica.service(&desk));
        }
        let server = Arc::new(server);
        let pages = Pages {
            shelf,
            authority,
            server: server.clone(),
            metrics: metrics.clone(),
            objects: objects(self.read.census),
            prepared: prepared(self.webhooks.as_ref()),
            stop: stop.clone(),
            started: clock::mono(),
        };
        let over = CancellationToken::new();
        let webhooks = self.webhooks;
        self.doors
            .open(tasks, &server, pages, webhooks, (stop, &over));
        let grace = settings.shutdown_duration;
        let farewell = upkeep::farewell(server, grace, stop.clone(), over.clone());
        let hub = hub.run(self.inbox, over);
        let ports = settings.ports_file.clone();
        tasks.run("hub", async move {
            tokio::join!(hub, farewell);
            let forgotten = ports.as_deref().map_or(Ok(()), Ports::forget);
            drop(dir);
            forgotten
        });
        tasks.run(
            "own certificate",
            upkeep::renew(serving, stop.clone(), metrics),
        );
    }
}

/// With an API server others would have to know of entries too, so nobody is entered there.
fn registrar(source: &Source, registry: Registry) -> (Registrar, Entered) {
    let (kept, asked) = mpsc::channel(registrar::WAITING);
    let registrar = match source {
        Source::Files(_) => Registrar::new(kept),
        Source::Kubernetes(_) => Registrar::default(),
    };
    (registrar, Entered { registry, asked })
}

fn options(settings: &Settings) -> Options {
    Options {
        hold_unresolved: settings.hold_unresolved,
        domain: Str::new(&settings.domain),
    }
}

/// Keys that speak for a cluster's tokens while it does not answer, unless that is not wanted.
fn standby(
    settings: &Settings,
    trust_domain: &str,
    hub: &mpsc::Sender<Message>,
) -> Option<Arc<Standby>> {
    let pods = || Box::new(pods::Pods(hub.clone()));
    settings
        .token_standby
        .then(|| Arc::new(Standby::new(trust_domain, pods())))
}

async fn trust(
    settings: &Settings,
    dir: &LockedDir,
    trust_domain: &str,
    (cluster, standby): (Option<Arc<dyn Cluster>>, Option<Arc<Standby>>),
    installed: Option<&Installed>,
) -> Result<Trust> {
    if let (Some(installed), None) = (installed, &settings.ca_dir) {
        controllers::authority::settle(installed, dir, trust_domain, clock::wall()).await?;
    }
    let lifetimes = Lifetimes::new(settings.workload_cert_ttl, settings.max_workload_cert_ttl)?;
    let mut names: Vec<Str> = settings.custom_host.iter().map(Str::new).collect();
    names.extend(own_names(settings));
    let plan = Plan {
        trust_domain,
        plugged: settings.ca_dir.as_deref(),
        lifetimes,
        names: &names,
        past: dir.path(ACCEPTED).exists().then_some(ACCEPTED),
        cluster,
        standby,
    };
    Ok(Trust::open(dir, plan, clock::wall())?)
}

/// Of the Services that lead to a control plane of this namespace and revision.
fn own_names(settings: &Settings) -> Vec<Str> {
    let namespace = &settings.namespace;
    let mut services = vec!["istiod".to_owned(), "istio-pilot".to_owned()];
    if settings.revision != "default" {
        services.push(format!("istiod-{}", settings.revision));
    }
    let names = services.iter().flat_map(|service| {
        let short = format!("{service}.{namespace}.svc");
        [
            Str::new(format!("{short}.{}", settings.domain)),
            Str::new(short),
        ]
    });
    names.collect()
}

fn limits(settings: &Settings) -> Limits {
    Limits {
        warm: settings.warming_timeout,
        ..Limits::default()
    }
}

fn server(
    settings: &Settings,
    (authority, credentials): (&Arc<Authority>, Arc<Credentials>),
    (shelf, registrar): (&Shelf, Registrar),
    metrics: &Arc<Metrics>,
) -> Server {
    let desk = &shelf.desk;
    let certificates = CertificateService::new(authority.clone(), desk.authenticator.clone());
    let status = StatusService::new(shelf.clone(), &settings.pod_name);
    Server {
        hub: desk.hub.clone(),
        registrar,
        authenticator: desk.authenticator.clone(),
        authority: authority.clone(),
        credentials,
        limits: limits(settings),
        access: Access {
            age: settings.keepalive_max_server_connection_age,
            // The rest of the time is for what the last connections still take.
            parting: settings.shutdown_duration / 2,
            ..Access::default()
        },
        others: Router::new()
            .route_service(METHOD, certificates)
            .route_service(status::METHOD, status),
        tasks: TaskTracker::new(),
        streams: Streams::default(),
        metrics: metrics.clone(),
    }
}

/// Whether pods can be injected, where they are to be.
fn prepared(webhooks: Option<&Webhooks>) -> Prepared {
    let injection = webhooks.map(|webhooks| webhooks.injection.clone());
    Arc::new(move || {
        injection
            .as_ref()
            .is_none_or(|injection| injection.borrow().is_some())
    })
}

/// How objects stand now, for whoever asks.
fn objects(counted: watch::Receiver<Census>) -> Count {
    Arc::new(move || {
        let census = counted.borrow();
        let of = |(kind, of): (&Kind, &OfKind)| objects::OfKind {
            kind: kind.name(),
            in_force: of.in_force,
            rejected: of.rejected,
            held: of.held,
            kept: of.kept,
            rejections: of.rejections,
        };
        (census.kinds.iter().map(of).collect(), census.unreadable)
    })
}

/// The objects in force, for whoever asks.
fn in_force(kept: watch::Receiver<Kept>) -> shelf::Config {
    Arc::new(move || {
        let set = kept.borrow().clone();
        let objects = set.iter().flat_map(|set| &set.objects);
        objects.map(|kept| kept.object.clone()).collect()
    })
}

fn render(places: watch::Receiver<Places>) -> Render {
    Arc::new(move |entries| {
        let places = places.borrow().clone();
        let dump = dump::dump(entries.iter(), &|key, field| places.find(key, field));
        serde_json::to_value(dump.map_err(|e| e.to_string())?).map_err(|e| e.to_string())
    })
}
