//! What happens when the server is another process: restarts, and upgrades of one renderer.

use anyhow::{Context as _, Result};
use fairlead::xds::ResourceType;

use super::mesh::changes::Edit;
use super::order::{Goal, Order};
use super::report::{Round, millis};
use super::server::Usage;
use super::stage::{Meters, Stage, Subject};
use super::works::Plan;

/// Istio's name.
const ISSUED: &str = "citadel_server_success_cert_issuance_count";

impl Stage<'_> {
    /// Another process on the same addresses and state.
    pub async fn restart(&mut self) -> Result<()> {
        let Subject::Program(program) = self.subject else {
            anyhow::bail!("a server that was started elsewhere cannot be restarted");
        };
        self.server.kill()?;
        let ports = self.server.ports.clone();
        let (home, packing) = (self.home, self.mesh.size.packing);
        let started = home.start(program, &self.source, packing, Some(&ports));
        self.server = started.await?;
        Ok(())
    }

    pub async fn returns(&mut self, plan: &Plan<'_>) -> Result<()> {
        if !matches!(self.subject, Subject::Program(_)) {
            return Ok(());
        }
        if plan.wants("restart") {
            self.comebacks(plan, "restart", None).await?;
        }
        if plan.wants("upgrade") {
            self.comebacks(plan, "upgrade", Some(ResourceType::Cluster))
                .await?;
        }
        Ok(())
    }

    /// `kill -9`, a change that nobody hears of, a start; all proxies come back with the versions they hold.
    ///
    /// A proxy is current when it has been sent that change. An upgrade is one in which all versions of a type are
    /// of another build, as after its renderer's epoch was raised.
    async fn comebacks(
        &mut self,
        plan: &Plan<'_>,
        work: &'static str,
        kind: Option<ResourceType>,
    ) -> Result<()> {
        let (mut rounds, mut issued, mut boots) = (Vec::new(), None, Vec::new());
        self.fleet.order(&Order::Estrange { kind }).await?;
        for _ in 0..plan.rounds {
            let missed = self.mesh.next(Edit::Endpoint);
            self.fleet
                .aim(&Goal::Markers(missed.markers.clone(), None))
                .await?;
            let before = self.meters().await?;
            self.server.kill()?;
            self.source.apply(&missed).await?;
            self.restart().await?;
            let (started, ready) = (self.server.started, self.server.ready);
            let before = Meters {
                server: Usage::default(),
                ..before
            };
            let round = self.round(ready, &before).await.context(work)?;
            let after = self.fleet.volume().await?;
            let total = after.total() - before.volume.total();
            let marked = after.marked - before.volume.marked;
            rounds.push(Round {
                bytes_per_proxy: (total - marked) as f64 / self.mesh.size.proxies as f64,
                ..round
            });
            boots.push(millis(ready.since(started)));
            issued = self.server.counter(ISSUED)?;
        }
        self.fleet.order(&Order::Estrange { kind: None }).await?;
        // The servers that were killed were lost on purpose; what is lost from here on counts.
        self.forget_losses().await?;
        let boot = super::report::median(boots);
        let issued = match issued {
            Some(count) => format!("{count} certificates issued, the server's own included"),
            None => format!("the metrics page has no {ISSUED}"),
        };
        let what = kind.map_or("", |_| "all clusters of another build; ");
        let note = format!(
            "{what}bytes besides the missed change; cpu includes {boot:.0} ms of boot; {issued}"
        );
        let row = self.row(work, &rounds).note(note);
        self.rows.push(row);
        Ok(())
    }

    async fn forget_losses(&mut self) -> Result<()> {
        self.fleet
            .aim(&Goal::Markers(Vec::new(), Some(Vec::new())))
            .await?;
        self.fleet.reached(super::stage::LIMIT).await.map(drop)
    }
}
