//! One server, its mesh and its fleet, and how one change is measured on them. Which changes is in `works.rs`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use fairlead::xds::ResourceType;

use super::cluster::Cluster;
use super::envoys::{Applied, Envoys};
use super::fleet::{Fleet, Reached};
use super::mesh::changes::{Change, Edit};
use super::mesh::{Mesh, Size};
use super::order::{Goal, Marker, Order, Recruit, Target, Volume};
use super::proxy::Opening;
use super::recruits::{Transport, recruits};
use super::report::{Round, Row};
use super::server::{Home, Server, Usage};
use super::source::{Folder, Origin, Source};
use super::stamp::Stamp;
use super::works::Plan;

/// Within which a work must be done; it bounds a run, it judges nothing. A first sending to 10,000 proxies is 50 GB.
pub const LIMIT: Duration = Duration::from_secs(600);
/// Proxies whose versions are compared with those of a fresh connection.
const SAMPLE: usize = 5;
/// A client busier than this is the bottleneck, if it is also busier than the server.
const BUSY: f64 = 0.8;
/// Differences that a message names.
const SHOWN: usize = 4;

/// What is measured: a program to start, or a server that runs already.
#[derive(Clone, Debug)]
pub enum Subject {
    Program(PathBuf),
    Attached(std::net::SocketAddr, u32),
}

pub struct Stage<'a> {
    pub subject: &'a Subject,
    pub home: &'a Home,
    pub transport: Transport,
    pub mesh: Mesh,
    pub source: Source,
    pub envoys: Envoys,
    pub server: Server,
    pub fleet: Fleet,
    pub rows: Vec<Row>,
    pub recordings: Vec<Recording>,
}

/// What the first proxy concerned was sent in a work's last round.
pub struct Recording {
    pub work: &'static str,
    pub file: PathBuf,
    /// Empty for a storm.
    pub markers: Vec<Marker>,
    /// What Envoys are given to do while the null server repeats it.
    pub edit: Option<Edit>,
}

/// Reading of all meters.
#[derive(Clone, Debug)]
pub struct Meters {
    pub server: Usage,
    pub clients: Vec<Usage>,
    pub volume: Volume,
}

/// The last proxy got there: when each did, and what was used by then.
struct Arrived {
    times: Vec<Duration>,
    aimed: usize,
    server: Usage,
    clients: Vec<Usage>,
}

impl Stage<'_> {
    /// Writes the mesh and starts the server. No proxy is there.
    pub async fn set<'a>(
        plan: &Plan<'a>,
        home: &'a Home,
        transport: Transport,
        size: Size,
    ) -> Result<Stage<'a>> {
        let mut mesh = Mesh::new(size);
        let objects = mesh.objects();
        let source = match &plan.origin {
            Origin::Files => Source::Files(Folder::write(&home.config(), &objects)?),
            Origin::Kube(known) => {
                mesh.add_kubernetes();
                Source::Kube(Box::new(Cluster::fill(&objects, known.as_deref()).await?))
            }
        };
        let server = match plan.subject {
            Subject::Program(program) => home.start(program, &source, size.packing, None).await?,
            Subject::Attached(address, pid) => Server::attached(transport.port(), *address, *pid),
        };
        Ok(Stage {
            subject: plan.subject,
            home,
            transport,
            mesh,
            source,
            envoys: plan.company(),
            server,
            fleet: Fleet::muster(size.proxies).await?,
            rows: Vec::new(),
            recordings: Vec::new(),
        })
    }

    pub fn row(&self, work: &'static str, rounds: &[Round]) -> Row {
        let usage = self.server.usage();
        Row {
            resident: usage.resident,
            peak: usage.peak,
            ..Row::of(self.transport.name(), work, rounds)
        }
    }

    pub fn target(&self) -> Result<Target> {
        Ok(Target {
            address: self.server.port(self.transport.port())?,
            roots: match self.transport {
                Transport::Plaintext => None,
                Transport::Tls => Some(self.home.root_certificate()),
            },
        })
    }

    pub fn recruits(
        &self,
        opening: &Opening,
        proxies: impl Iterator<Item = usize>,
    ) -> Result<Vec<Recruit>> {
        let state = self.home.state();
        recruits(&self.mesh, self.transport, &state, opening, proxies)
    }

    pub fn meters_before(&self, volume: Volume) -> Meters {
        Meters {
            server: self.server.usage(),
            clients: self.fleet.usage(),
            volume,
        }
    }

    pub async fn meters(&mut self) -> Result<Meters> {
        let volume = self.fleet.volume().await?;
        Ok(self.meters_before(volume))
    }

    /// All proxies connect at once, with nothing.
    pub async fn storm(&mut self) -> Result<Round> {
        let recruits = self.recruits(&Opening::Clusters, 0..self.mesh.size.proxies)?;
        let target = self.target()?;
        self.fleet.order(&Order::Leave).await?;
        // The server notices that they are gone, before its clock starts.
        self.fleet.quiet().await?;
        self.fleet.aim(&Goal::Whole(self.mesh.least())).await?;
        let before = self.meters().await?;
        let begun = Stamp::now();
        self.fleet.enlist(&target, recruits).await?;
        self.round(begun, &before).await
    }

    /// Makes a change and waits until every proxy concerned holds it.
    pub async fn change(&mut self, change: &Change) -> Result<Round> {
        let goal = Goal::Markers(change.markers.clone(), change.only.clone());
        self.fleet.aim(&goal).await?;
        let before = self.meters().await?;
        let spent = self.envoys.spent();
        let begun = self.source.apply(change).await?;
        let arrived = self.arrived(begun).await?;
        let probe = change.probe.as_ref().filter(|_| !self.envoys.is_empty());
        let applied = match probe {
            Some(probe) => self.envoys.applied(probe, begun, &spent).await?,
            None => Applied::default(),
        };
        Ok(Round {
            envoy: applied.last.map(|last| last.since(begun)),
            envoy_cpu_s: applied.cost,
            ..self.rest_of_round(arrived, begun, &before).await?
        })
    }

    /// From what was begun then until all is quiet again.
    pub async fn round(&mut self, begun: Stamp, before: &Meters) -> Result<Round> {
        let arrived = self.arrived(begun).await?;
        self.rest_of_round(arrived, begun, before).await
    }

    /// Waits until the last proxy has it.
    async fn arrived(&mut self, begun: Stamp) -> Result<Arrived> {
        let reached = self.fleet.reached(LIMIT).await?;
        Ok(Arrived {
            aimed: reached.aimed,
            server: self.server.usage(),
            clients: self.fleet.usage(),
            times: times(&reached, begun)?,
        })
    }

    async fn rest_of_round(
        &mut self,
        arrived: Arrived,
        begun: Stamp,
        before: &Meters,
    ) -> Result<Round> {
        let round = Round::of(arrived.times);
        self.fleet.quiet().await?;
        let after = self.meters().await?;
        let span = Stamp::now().since(begun).min(round.last).as_secs_f64();
        let busiest = arrived.clients.iter().zip(&before.clients);
        let busiest = busiest.map(|(now, then)| now.cpu - then.cpu);
        let clients = after.clients.iter().zip(&before.clients);
        let aimed = arrived.aimed.max(1) as f64;
        let volume = after.volume.total() - before.volume.total();
        let elsewhere = after.volume.elsewhere - before.volume.elsewhere;
        Ok(Round {
            bytes_per_proxy: (volume - elsewhere) as f64 / aimed,
            messages_per_proxy: (after.volume.messages - before.volume.messages) as f64 / aimed,
            server_cpu_s: after.server.cpu - before.server.cpu,
            client_cpu_s: clients.map(|(now, then)| now.cpu - then.cpu).sum(),
            client_busy: busiest.fold(0.0, f64::max) / span,
            server_busy: (arrived.server.cpu - before.server.cpu) / span,
            ..round
        })
    }

    pub async fn check_sets(&mut self) -> Result<()> {
        check_sets(&self.mesh, &mut self.fleet).await
    }

    /// Fresh connections of the same nodes must come to the versions that the long-lived ones came to by changes.
    pub async fn check_versions(&mut self) -> Result<()> {
        let size = self.fleet.size();
        let step = (size / SAMPLE).max(1);
        let sample: Vec<usize> = (0..size).step_by(step).take(SAMPLE).collect();
        let recruits = self.recruits(&Opening::Clusters, sample.iter().copied())?;
        let mut fresh = Fleet::muster(sample.len()).await?;
        fresh.aim(&Goal::Whole(self.mesh.least())).await?;
        fresh.enlist(&self.target()?, recruits).await?;
        let reached = fresh.reached(LIMIT).await?;
        times(&reached, Stamp::now()).context("fresh connections")?;
        fresh.quiet().await?;
        for (at, seat) in sample.iter().enumerate() {
            let long = self.fleet.versions(*seat).await?;
            let short = fresh.versions(at).await?;
            ensure!(
                long == short,
                "proxy {seat} did not converge to what a fresh connection is sent: {}",
                difference(short, long)
            );
        }
        Ok(())
    }

    /// From here on nothing may be lost.
    pub async fn check_streams(&mut self) -> Result<()> {
        self.fleet
            .aim(&Goal::Markers(Vec::new(), Some(Vec::new())))
            .await?;
        let reached = self.fleet.reached(LIMIT).await?;
        ensure!(
            reached.lost.is_empty(),
            "streams were lost: {:?}",
            reached.lost
        );
        Ok(())
    }

    /// What was recorded since then, for the null server.
    pub async fn keep(
        &mut self,
        work: &'static str,
        edit: Option<Edit>,
        markers: Vec<Marker>,
    ) -> Result<()> {
        let name = format!("{}-{work}.tape", self.transport.name());
        let file = self.home.path(&name);
        self.fleet.keep(&file).await?;
        self.recordings.push(Recording {
            work,
            file,
            markers,
            edit,
        });
        Ok(())
    }
}

/// Every proxy must hold what the mesh says, neither less nor more.
pub async fn check_sets(mesh: &Mesh, fleet: &mut Fleet) -> Result<()> {
    let wanted = mesh.sums();
    let held = fleet.census().await?;
    ensure!(held.len() == wanted.len(), "a proxy is missing");
    for (seat, (wanted, held)) in wanted.iter().zip(&held).enumerate() {
        if wanted == held {
            continue;
        }
        let facts = mesh.facts(seat).into_iter();
        let wanted = facts.map(|(kind, fact)| format!("{} {fact}", kind.short()));
        let held = fleet.facts(seat).await?;
        bail!(
            "proxy {seat} does not hold what the manifest says: {}",
            difference(wanted.collect(), held)
        );
    }
    Ok(())
}

/// A row of rounds whose client was busier than its server shows the client.
pub fn check_client(row: Row, rounds: &[Round]) -> Row {
    let mean =
        |f: fn(&Round) -> f64| rounds.iter().map(f).sum::<f64>() / rounds.len().max(1) as f64;
    let (client, server) = (mean(|r| r.client_busy), mean(|r| r.server_busy));
    if client <= BUSY || client <= server {
        return row;
    }
    let why = format!(
        "the client was the bottleneck: {:.0} % busy, the server {:.0} %",
        client * 100.0,
        server * 100.0
    );
    Row {
        void: Some(why),
        ..row
    }
}

/// How long each took. All of them must have got there.
pub fn times(reached: &Reached, begun: Stamp) -> Result<Vec<Duration>> {
    let Reached { times, aimed, lost } = reached;
    ensure!(
        times.len() == *aimed,
        "{} of {aimed} proxies did not get there; streams lost: {lost:?}",
        aimed - times.len()
    );
    Ok(times.iter().map(|t| t.since(begun)).collect())
}

/// What one list has and the other has not, shortened.
fn difference(mut wanted: Vec<String>, mut held: Vec<String>) -> String {
    wanted.sort();
    held.sort();
    held.retain(|fact| !fact.starts_with(ResourceType::Secret.short()));
    let missing: Vec<&String> = wanted
        .iter()
        .filter(|f| held.binary_search(f).is_err())
        .collect();
    let extra: Vec<&String> = held
        .iter()
        .filter(|f| wanted.binary_search(f).is_err())
        .collect();
    let some = |facts: &[&String]| {
        let first = facts.iter().take(SHOWN).map(|f| f.as_str());
        first.collect::<Vec<_>>().join(", ")
    };
    format!(
        "{} missing ({}), {} too many ({})",
        missing.len(),
        some(&missing),
        extra.len(),
        some(&extra)
    )
}
