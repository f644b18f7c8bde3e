//! The works measured on one server over one transport, in their order. How one is measured is in `stage.rs`.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::envoys::Envoys;
use super::harness::network::Network;
use super::mesh::changes::Edit;
use super::mesh::{Size, View};
use super::order::{Arrivals, Goal, Order};
use super::recruits::Transport;
use super::report::{Round, Row, bytes, millis};
use super::server::Home;
use super::source::Origin;
use super::stage::{LIMIT, Stage, Subject, check_client};
use super::stamp::Stamp;

/// How long the server is left alone before its resident size counts as settled.
const SETTLE: Duration = Duration::from_secs(3);
const IDLE: Duration = Duration::from_secs(5);
/// One of so many proxies stops reading.
const STALLED: usize = 100;
/// Endpoints of the Service with many.
const BIG: usize = 1000;

/// Every work, as `--only` names it.
pub const WORKS: &[&str] = &[
    "blast",
    "boot",
    "storm-cold",
    "storm-warm",
    "settled",
    "eds-1",
    "eds-big",
    "vs-1",
    "dr-1",
    "vs-noop",
    "svc-add",
    "svc-del",
    "policy",
    "eds-roll-50",
    "eds-roll-200",
    "slow",
    "idle",
    "certs",
    "token-review",
    "restart",
    "upgrade",
    "scope",
    // By itself, and only if it is named.
    super::growth::WORK,
];

/// What is to be measured.
pub struct Plan<'a> {
    pub subject: &'a Subject,
    pub size: Size,
    pub rounds: usize,
    /// Empty for all.
    pub only: &'a [String],
    pub origin: Origin,
    /// Real Envoys, and the network that they are in.
    pub envoys: usize,
    pub network: Option<Rc<Network>>,
}

impl Plan<'_> {
    pub fn wants(&self, work: &str) -> bool {
        let named = self.only.is_empty() || self.only.iter().any(|w| w == work);
        named && self.size.packing.can_show(work)
    }

    /// Rounds of a first storm, ours and the null server's: of all works it differs most from round to round.
    pub fn storms(&self) -> usize {
        2 * self.rounds - 1
    }

    pub fn company(&self) -> Envoys {
        Envoys::none(self.network.clone())
    }

    fn starts(&self) -> bool {
        matches!(self.subject, Subject::Program(_))
    }
}

/// Starts of the program, until it is ready and until its first proxy holds everything.
pub async fn boot(plan: &Plan<'_>, home: &Home, transport: Transport) -> Result<Row> {
    let size = Size {
        proxies: 1,
        ..plan.size
    };
    let (mut rounds, mut ready) = (Vec::new(), Vec::new());
    let mut row = Row::default();
    for _ in 0..plan.rounds.min(5) {
        let mut stage = Stage::set(plan, home, transport, size).await?;
        let round = stage.storm().await?;
        let first = Stamp::now().since(stage.server.started);
        ready.push(millis(stage.server.ready.since(stage.server.started)));
        rounds.push(Round {
            last: first.min(stage.server.ready.since(stage.server.started) + round.last),
            server_cpu_s: stage.server.usage().cpu,
            ..Round::default()
        });
        row = stage.row("boot", &rounds);
    }
    let ready = super::report::median(ready);
    Ok(row.note(format!("ready after {ready:.0} ms")))
}

impl Stage<'_> {
    /// All works but those that need another mesh. The fleet stays connected.
    pub async fn perform(&mut self, plan: &Plan<'_>) -> Result<()> {
        self.storms(plan).await?;
        self.settled(plan).await?;
        self.join_envoys(plan).await?;
        for (work, edit) in [
            ("eds-1", Edit::Endpoint),
            ("vs-1", Edit::Weight),
            ("dr-1", Edit::Rule),
            ("policy", Edit::Policy),
        ] {
            if plan.wants(work) {
                self.edits(plan, work, edit).await?;
            }
        }
        self.big(plan).await?;
        self.noop(plan).await?;
        self.services(plan).await?;
        self.check_sets().await.context("after the changes")?;
        if plan.wants("eds-roll-50") {
            self.roll("eds-roll-50", 50, 150, "10.77.").await?;
        }
        if plan.wants("eds-roll-200") {
            self.roll("eds-roll-200", 200, 600, "10.78.").await?;
        }
        self.slow(plan).await?;
        self.idle(plan).await?;
        self.check_streams().await?;
        self.check_sets().await.context("before the restarts")?;
        self.check_versions().await?;
        self.returns(plan).await?;
        self.check_sets().await.context("at the end")?;
        self.newcomers(plan).await
    }

    /// Cold: to a server just started. Warm: the same again, to one that has rendered it.
    async fn storms(&mut self, plan: &Plan<'_>) -> Result<()> {
        let mut rounds = vec![self.storm().await.context("storm-cold")?];
        self.check_sets().await.context("storm-cold")?;
        while plan.wants("storm-cold") && plan.starts() && rounds.len() < plan.storms() {
            self.fleet.order(&Order::Leave).await?;
            self.restart().await?;
            rounds.push(self.storm().await.context("storm-cold")?);
            self.check_sets().await.context("storm-cold")?;
        }
        self.keep("storm", None, Vec::new()).await?;
        if plan.wants("storm-cold") {
            let peak = bytes(self.server.usage().peak as f64);
            let row = self.row("storm-cold", &rounds);
            self.rows.push(row.note(format!("peak resident {peak}")));
        }
        if plan.wants("storm-warm") {
            let mut rounds = Vec::new();
            for _ in 0..plan.rounds {
                rounds.push(self.storm().await.context("storm-warm")?);
            }
            self.check_sets().await.context("storm-warm")?;
            let row = self.row("storm-warm", &rounds);
            self.rows.push(row);
        }
        Ok(())
    }

    async fn settled(&mut self, plan: &Plan<'_>) -> Result<()> {
        if plan.wants("settled") {
            tokio::time::sleep(SETTLE).await;
            let row = self.row("settled", &[]);
            let resident = bytes(row.resident as f64);
            let each = row.resident as f64 / self.mesh.size.proxies as f64;
            let note = format!("resident {resident}, {} a proxy in all", bytes(each));
            self.rows.push(row.note(note));
        }
        Ok(())
    }

    /// The clocks of boot and storm have stopped; the Envoys stay for the changes.
    async fn join_envoys(&mut self, plan: &Plan<'_>) -> Result<()> {
        if plan.network.is_some() && self.transport == Transport::Tls {
            let port = self.server.port("secure-grpc")?.port();
            let joined = self.envoys.join(plan.envoys, &self.mesh, self.home, port);
            joined.await.context("the Envoys join")?;
            self.fleet.quiet().await?;
        }
        Ok(())
    }

    async fn edits(&mut self, plan: &Plan<'_>, work: &'static str, edit: Edit) -> Result<()> {
        let (mut rounds, mut elsewhere) = (Vec::new(), 0);
        // The first one is not counted: it finds nothing warm.
        for round in 0..=plan.rounds {
            let change = self.mesh.next(edit);
            let seat = change.only.as_ref().and_then(|only| only.first());
            self.fleet.record(seat.copied().unwrap_or(0)).await?;
            let before = self.fleet.volume().await?.elsewhere;
            let measured = self.change(&change).await.context(work)?;
            if round > 0 {
                rounds.push(measured);
            }
            elsewhere += self.fleet.volume().await?.elsewhere - before;
            if round == plan.rounds && change.only.is_none() {
                // The Service with a thousand endpoints will be gone.
                let again = (edit != Edit::BigEndpoint).then_some(edit);
                self.keep(work, again, change.markers).await?;
            }
        }
        let mut row = check_client(self.row(work, &rounds), &rounds);
        if edit == Edit::Policy {
            let each = elsewhere as f64 / (plan.rounds + 1) as f64;
            row = row.note(format!(
                "one namespace of {}; {} in all to the others",
                self.mesh.size.namespaces,
                bytes(each)
            ));
        }
        self.rows.push(row);
        Ok(())
    }

    /// One endpoint of very many.
    async fn big(&mut self, plan: &Plan<'_>) -> Result<()> {
        if !plan.wants("eds-big") {
            return Ok(());
        }
        let add = self.mesh.add_big(BIG);
        self.change(&add).await.context("eds-big")?;
        self.edits(plan, "eds-big", Edit::BigEndpoint).await?;
        let delete = self.mesh.next(Edit::Delete);
        self.change(&delete).await.context("eds-big").map(drop)
    }

    /// Edits that no proxy may be told of, then one that all are: what came beside it is the answer.
    async fn noop(&mut self, plan: &Plan<'_>) -> Result<()> {
        if !plan.wants("vs-noop") {
            return Ok(());
        }
        let mut rounds = Vec::new();
        for _ in 0..plan.rounds {
            let before = self.meters().await?;
            let note = self.mesh.next(Edit::Note);
            self.source.apply(&note).await?;
            let fence = self.mesh.next(Edit::Endpoint);
            let fence = self.change(&fence).await.context("vs-noop")?;
            let after = self.meters().await?;
            let total = after.volume.total() - before.volume.total();
            let marked = after.volume.marked - before.volume.marked;
            rounds.push(Round {
                bytes_per_proxy: (total - marked) as f64 / self.mesh.size.proxies as f64,
                server_cpu_s: after.server.cpu - before.server.cpu - fence.server_cpu_s,
                ..Round::default()
            });
        }
        let worst = rounds.iter().map(|r| r.bytes_per_proxy).fold(0.0, f64::max);
        let row = Row {
            bytes_per_proxy: worst,
            ..self.row("vs-noop", &rounds)
        };
        self.rows.push(row.note("bytes of the worst round"));
        Ok(())
    }

    async fn services(&mut self, plan: &Plan<'_>) -> Result<()> {
        if !plan.wants("svc-add") && !plan.wants("svc-del") {
            return Ok(());
        }
        let (mut added, mut deleted) = (Vec::new(), Vec::new());
        for round in 1..=plan.rounds {
            let add = self.mesh.next(Edit::Add);
            self.fleet.record(0).await?;
            added.push(self.change(&add).await.context("svc-add")?);
            if round == plan.rounds {
                self.keep("svc-add", Some(Edit::Add), add.markers).await?;
            }
            let delete = self.mesh.next(Edit::Delete);
            self.fleet.record(0).await?;
            deleted.push(self.change(&delete).await.context("svc-del")?);
            if round == plan.rounds {
                self.keep("svc-del", Some(Edit::Delete), delete.markers)
                    .await?;
            }
        }
        for (work, rounds) in [("svc-add", added), ("svc-del", deleted)] {
            let row = check_client(self.row(work, &rounds), &rounds);
            self.rows.push(row);
        }
        Ok(())
    }

    /// So many endpoints a second move, each once. Staleness is counted for each, until the last proxy has it.
    async fn roll(
        &mut self,
        work: &'static str,
        rate: u32,
        events: usize,
        prefix: &str,
    ) -> Result<()> {
        let services = super::mesh::MOVED.min(self.mesh.size.services / 2).max(1);
        // Each endpoint once: what is overwritten need never arrive.
        let events = events.min(services * self.mesh.size.endpoints);
        let trail = Order::Trail {
            prefix: prefix.into(),
            events,
        };
        self.fleet.aim(&Goal::Markers(Vec::new(), None)).await?;
        self.fleet.order(&trail).await?;
        let before = self.meters().await?;
        let begun = tokio::time::Instant::from_std(fairlead::clock::mono());
        let (size, mut moved) = (self.mesh.size, Vec::new());
        for event in 0..events {
            let due = Duration::from_secs(1) * u32::try_from(event)? / rate;
            tokio::time::sleep_until(begun + due).await;
            let service = size.services - 1 - event % services;
            let endpoint = event / services % size.endpoints;
            let to = format!("{prefix}{}.{}", event >> 8, event & 255);
            let change = self.mesh.move_endpoint(service, endpoint, &to);
            moved.push(self.source.apply(&change).await?);
        }
        let arrivals = self.arrivals(events).await?;
        let after = self.meters().await?;
        let (mut staleness, mut short) = (Vec::new(), 0);
        for (event, at) in moved.iter().enumerate() {
            let last = arrivals.last[event].filter(|_| arrivals.seats[event] == size.proxies);
            match last {
                Some(last) => staleness.push(last.since(*at)),
                None => short += 1,
            }
        }
        anyhow::ensure!(
            short == 0,
            "{work}: {short} endpoints reached not all proxies"
        );
        let per = |n: u64| n as f64 / size.proxies as f64 / events as f64;
        let round = Round {
            bytes_per_proxy: per(after.volume.total() - before.volume.total()),
            messages_per_proxy: per(after.volume.messages - before.volume.messages),
            server_cpu_s: (after.server.cpu - before.server.cpu) / events as f64,
            ..Round::of(staleness)
        };
        let note =
            format!("{events} endpoints, {rate} a second; times over endpoints, the rest each");
        let row = self.row(work, &[round]).note(note);
        self.rows.push(row);
        Ok(())
    }

    /// Waits until all of them are everywhere, or it is too late.
    async fn arrivals(&mut self, events: usize) -> Result<Arrivals> {
        let begun = Stamp::now();
        loop {
            self.fleet.quiet().await?;
            let arrivals = self.fleet.arrivals().await?;
            let everywhere = arrivals
                .seats
                .iter()
                .filter(|n| **n == self.mesh.size.proxies);
            if everywhere.count() == events || Stamp::now().since(begun) > LIMIT {
                return Ok(arrivals);
            }
        }
    }

    /// One proxy in a hundred reads nothing: what the others see, and what the server keeps.
    async fn slow(&mut self, plan: &Plan<'_>) -> Result<()> {
        if !plan.wants("slow") {
            return Ok(());
        }
        let proxies = self.mesh.size.proxies;
        let stalled: Vec<usize> = (0..proxies).filter(|p| p % STALLED == 1).collect();
        let healthy: Vec<usize> = (0..proxies).filter(|p| p % STALLED != 1).collect();
        let before = self.server.usage().resident;
        self.fleet.stall(&stalled).await?;
        let mut rounds = Vec::new();
        for _ in 0..plan.rounds {
            let mut change = self.mesh.next(Edit::Weight);
            change.only = Some(healthy.clone());
            rounds.push(self.change(&change).await.context("slow")?);
        }
        let after = self.server.usage().resident;
        self.fleet.stall(&[]).await?;
        let fence = self.mesh.next(Edit::Endpoint);
        self.change(&fence).await.context("slow: all read again")?;
        let row = self.row("slow", &rounds).note(format!(
            "vs-1 while {} proxies read nothing: resident {} to {}",
            stalled.len(),
            bytes(before as f64),
            bytes(after as f64)
        ));
        self.rows.push(row);
        Ok(())
    }

    async fn idle(&mut self, plan: &Plan<'_>) -> Result<()> {
        if !plan.wants("idle") {
            return Ok(());
        }
        let before = self.meters().await?;
        tokio::time::sleep(IDLE).await;
        let after = self.meters().await?;
        let seconds = IDLE.as_secs_f64();
        let round = Round {
            server_cpu_s: (after.server.cpu - before.server.cpu) / seconds,
            bytes_per_proxy: (after.volume.total() - before.volume.total()) as f64
                / self.mesh.size.proxies as f64,
            ..Round::default()
        };
        let row = self.row("idle", &[round]).note("cpu a second");
        self.rows.push(row);
        Ok(())
    }
}

/// A mesh whose proxies see their own namespace alone, and changes in one of them.
pub async fn scope(plan: &Plan<'_>, home: &Home, transport: Transport) -> Result<Row> {
    let size = Size {
        view: View::Namespace,
        ..plan.size
    };
    let mut stage = Stage::set(plan, home, transport, size).await?;
    stage.storm().await.context("scope")?;
    stage.check_sets().await.context("scope")?;
    let (mut rounds, mut concerned) = (Vec::new(), 0);
    for _ in 0..plan.rounds {
        let change = stage.mesh.next(Edit::Endpoint);
        concerned = change.only.as_ref().map_or(0, Vec::len);
        rounds.push(stage.change(&change).await.context("scope")?);
    }
    stage.check_sets().await.context("scope")?;
    let elsewhere = stage.fleet.volume().await?.elsewhere;
    Ok(stage.row("scope", &rounds).note(format!(
        "eds-1 for {concerned} of {} proxies; {} to the others",
        size.proxies,
        bytes(elsewhere as f64)
    )))
}
