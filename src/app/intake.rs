//! From a source's events to the hub: acceptance asked, findings logged, the accepted set kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::{mpsc, watch};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::journal::Journal;
use super::registry::Entered;
use super::tasks::Tasks;
use crate::acceptance::{Acceptance, Census, Persisted, Places};
use crate::backoff::Backoff;
use crate::cli::settings;
use crate::clock;
use crate::config::ingress::Fronted;
use crate::config::workload_proxy::Proxies;
use crate::config::{Change, Key, Kind};
use crate::controllers::status::has_status;
use crate::delivery::hub::Message;
use crate::diagnostic::{Diagnostic, Level};
use crate::distribution::board::Board;
use crate::source::{Batch, Event};
use crate::state::LockedDir;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::retries::Attempt;

/// Changes are kept together when they come within this time; a stop does not wait for it.
const GATHER: Duration = Duration::from_millis(200);

/// The snapshot of everything is as old as this at most.
const SNAPSHOT: Duration = Duration::from_secs(10);

/// The newest accepted set; None at the very start.
pub type Kept = Option<Arc<Persisted>>;

/// Of which kinds the objects in force are kept over a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// Of all: any file may be broken when it is read again.
    All,
    /// Of those that the API server does not know by itself. Of its own kinds it takes no faulty form, and
    /// an endpoint that comes or goes must not cost a write of everything.
    Checked,
}

impl Keeps {
    pub fn of(source: &settings::Source) -> Self {
        match source {
            settings::Source::Files(_) => Self::All,
            settings::Source::Kubernetes(_) => Self::Checked,
        }
    }

    fn holds(self, kind: Kind) -> bool {
        match self {
            // Keys are written nowhere.
            _ if kind == Kind::Secret => false,
            Self::All => true,
            Self::Checked => kind.is_strict(),
        }
    }
}

/// Whether a batch may have changed what is kept over a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Keep {
    AsItIs,
    Anew,
}

/// The one owner of `Acceptance` while the program serves.
pub struct Intake {
    pub acceptance: Acceptance,
    pub hub: mpsc::Sender<Message>,
    pub keeps: Keeps,
    pub kept: watch::Sender<Kept>,
    /// All of it, for a start without the API server, where that is wanted.
    pub snapshot: watch::Sender<Kept>,
    /// Where objects were read, for debug pages; as old as what is kept.
    pub places: watch::Sender<Places>,
    /// How objects stand, for metrics.
    pub census: watch::Sender<Census>,
    /// Where findings are told besides the log; nobody may listen.
    pub told: mpsc::Sender<Diagnostic>,
    pub cluster: ForCluster,
    /// What became of objects whose authors look at their status, where there is an API server.
    pub board: Option<Arc<Board>>,
}

/// What those work by who keep a cluster right.
pub struct ForCluster {
    /// What MeshConfig and ProxyConfigs say of proxies, for who injects them.
    pub proxies: watch::Sender<Proxies>,
    /// For who says where Ingresses are reached.
    pub fronted: watch::Sender<Fronted>,
}

impl ForCluster {
    /// As it is with the objects in force at the start.
    pub fn of(acceptance: &Acceptance) -> (Self, Followed) {
        let objects = acceptance.objects().map(|o| &**o);
        let (proxies, injected) = watch::channel(Proxies::of(objects.clone()));
        let (fronted, reached) = watch::channel(Fronted::of(objects));
        (Self { proxies, fronted }, Followed { injected, reached })
    }
}

/// Where that is read.
pub struct Followed {
    pub injected: watch::Receiver<Proxies>,
    pub reached: watch::Receiver<Fronted>,
}

/// Where what an intake publishes is read.
pub struct Published {
    pub kept: watch::Receiver<Kept>,
    pub snapshot: watch::Receiver<Kept>,
    pub places: watch::Receiver<Places>,
    pub census: watch::Receiver<Census>,
}

/// What of it pages and metrics show.
pub struct Read {
    pub kept: watch::Receiver<Kept>,
    pub places: watch::Receiver<Places>,
    pub census: watch::Receiver<Census>,
}

impl Published {
    fn read(&self) -> Read {
        Read {
            kept: self.kept.clone(),
            places: self.places.clone(),
            census: self.census.clone(),
        }
    }

    /// Writes down what is to be kept, and lets go of what nobody wants; what is read of it goes on.
    pub fn keep(
        self,
        (dir, snapshot): (Arc<LockedDir>, Option<Arc<LockedDir>>),
        metrics: &Arc<Metrics>,
        tasks: &mut Tasks,
    ) -> Read {
        let read = self.read();
        let written = keep(dir, self.kept, metrics.clone());
        tasks.run("accepted set", written);
        if let Some(dir) = snapshot {
            let written = keep(dir, self.snapshot, metrics.clone());
            tasks.run("snapshot", async {
                // The API server has what it would have said.
                if let Err(why) = written.await {
                    warn!(why = format!("{why:#}"), "the last snapshot was not kept");
                }
                Ok(())
            });
        }
        read
    }
}

impl Intake {
    pub fn new(
        acceptance: Acceptance,
        hub: mpsc::Sender<Message>,
        keeps: Keeps,
        (told, cluster): (mpsc::Sender<Diagnostic>, ForCluster),
        board: Option<Arc<Board>>,
    ) -> (Self, Published) {
        let (to_keep, kept) = watch::channel(None);
        let (to_snapshot, snapshot) = watch::channel(None);
        let (to_place, places) = watch::channel(Places::default());
        let (to_count, census) = watch::channel(Census::default());
        let intake = Self {
            acceptance,
            hub,
            keeps,
            kept: to_keep,
            snapshot: to_snapshot,
            places: to_place,
            census: to_count,
            told,
            cluster,
            board,
        };
        let published = Published {
            kept,
            snapshot,
            places,
            census,
        };
        (intake, published)
    }

    /// Until shutdown, or until the source ends.
    pub async fn run(
        mut self,
        mut batches: mpsc::Receiver<Batch>,
        mut entered: Entered,
        shutdown: CancellationToken,
    ) -> Result<()> {
        let mut due: Option<time::Instant> = None;
        let mut snapshot: Option<time::Instant> = Some(time::Instant::now());
        let mut kept = Keep::AsItIs;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = until(snapshot) => {
                    snapshot = None;
                    self.photograph();
                }
                () = until(due) => {
                    due = None;
                    match std::mem::replace(&mut kept, Keep::AsItIs) {
                        Keep::Anew => self.keep(),
                        Keep::AsItIs => self.count(),
                    }
                }
                heard = entered.hear(&mut batches, &self.acceptance) => match heard {
                    None => break,
                    Some((events, seen)) => {
                        kept = kept.max(self.on_batch(events, seen).await);
                        let now = time::Instant::now();
                        due = due.or(Some(now + GATHER));
                        snapshot = snapshot.or(Some(now + SNAPSHOT));
                    }
                },
            }
        }
        self.keep();
        self.photograph();
        Ok(())
    }

    /// Only where somebody keeps it.
    fn photograph(&self) {
        if self.snapshot.receiver_count() > 0 {
            let all = self.acceptance.persist(&|kind| kind != Kind::Secret);
            self.snapshot.send_replace(Some(Arc::new(all)));
        }
    }

    /// In a file, objects move without a change.
    async fn on_batch(&mut self, events: Vec<Event>, seen: Instant) -> Keep {
        let changes = self.acceptance.on(events);
        self.tell();
        let moved = self.keeps == Keeps::All;
        let changed = moved || changes.iter().any(|c| self.keeps.holds(c.key.kind));
        self.hand_on_to_cluster(&changes);
        if !changes.is_empty() {
            info!(changes = changes.len(), "configuration changed");
            // The hub ends only with the program.
            let _ = self.hub.send(Message::Changes(changes, seen)).await;
        }
        self.post(seen);
        match changed {
            true => Keep::Anew,
            false => Keep::AsItIs,
        }
    }

    /// Hands on what the first batch came to, which was taken in before there was anybody to hand it to.
    pub fn begin(&self) {
        self.keep();
        self.post(clock::mono());
        self.hand_on_news();
    }

    fn tell(&self) {
        tell(self.acceptance.news());
        self.hand_on_news();
    }

    /// What is too much, or wanted by nobody, stands in the log.
    fn hand_on_news(&self) {
        for found in self.acceptance.news() {
            let _ = self.told.try_send(found.clone());
        }
    }

    /// After the changes: who reads of them asks the hub then.
    fn post(&self, seen: Instant) {
        let Some(board) = &self.board else {
            return;
        };
        let told = self.acceptance.considered().filter(|key| has_status(key));
        let verdict = |key: &Key| (key.clone(), self.acceptance.verdict(key));
        board.post(told.map(verdict), seen);
    }

    fn hand_on_to_cluster(&self, changes: &[Change]) {
        let among = |kinds: &[Kind]| changes.iter().any(|c| kinds.contains(&c.key.kind));
        let objects = self.acceptance.objects().map(|o| &**o);
        if among(&[Kind::MeshConfig, Kind::ProxyConfig]) {
            let proxies = Proxies::of(objects.clone());
            self.cluster.proxies.send_replace(proxies);
        }
        if among(&[Kind::MeshConfig, Kind::Ingress, Kind::IngressClass]) {
            self.cluster.fronted.send_replace(Fronted::of(objects));
        }
    }

    /// Hands on how objects stand. A faulty one counts too, though nothing that is in force changes.
    fn count(&self) {
        self.census.send_replace(self.acceptance.census());
    }

    /// Hands on the accepted set to whoever writes it or asks where things stand, and counts.
    fn keep(&self) {
        self.count();
        self.places.send_replace(self.acceptance.places());
        self.kept.send_replace(Some(Arc::new(
            self.acceptance.persist(&|kind| self.keeps.holds(kind)),
        )));
    }
}

/// Never, where there is no time.
async fn until(at: Option<time::Instant>) {
    match at {
        Some(at) => time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Logs what is new among the findings.
pub fn tell(news: &[Diagnostic]) {
    for found in news {
        match found.level {
            Level::Error => error!("{found}"),
            Level::Warning => warn!("{found}"),
            Level::Info => info!("{found}"),
        }
    }
}

/// Waits after a write that failed; then what is newest is written.
const AGAIN: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(60);

/// Keeps the newest accepted set until nobody can change it any more.
pub async fn keep(
    dir: Arc<LockedDir>,
    mut newest: watch::Receiver<Kept>,
    metrics: Arc<Metrics>,
) -> Result<()> {
    let mut journal = Journal::new(dir);
    let mut backoff = Backoff::new(AGAIN, LATEST);
    while newest.changed().await.is_ok() {
        loop {
            let Some(set) = newest.borrow_and_update().clone() else {
                break;
            };
            let written;
            (journal, written) = tokio::task::spawn_blocking(move || {
                let written = journal.keep(&set);
                (journal, written)
            })
            .await?;
            let Err(why) = written else {
                backoff.reset();
                break;
            };
            metrics.retries.of(Attempt::Keep).inc();
            error!(
                why = format!("{why:#}"),
                "what is in force is not written down"
            );
            if newest.has_changed().is_err() {
                return Err(why.context("keep the accepted set"));
            }
            time::sleep(backoff.after_failure()).await;
        }
    }
    Ok(())
}
