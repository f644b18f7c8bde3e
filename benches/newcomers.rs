//! Proxies that come for a certificate and nothing else, with tokens of the server's own or of the cluster's.

use anyhow::{Context as _, Result};

use super::order::{Goal, Order, Recruit};
use super::proxy::{Least, Opening};
use super::recruits::Transport;
use super::report::Round;
use super::source::Source;
use super::stage::Stage;
use super::stamp::Stamp;
use super::works::Plan;

impl Stage<'_> {
    pub async fn newcomers(&mut self, plan: &Plan<'_>) -> Result<()> {
        if self.transport != Transport::Tls {
            return Ok(());
        }
        if plan.wants("certs") {
            self.certificates(plan).await?;
        }
        if plan.wants("token-review") && matches!(self.source, Source::Kube(_)) {
            self.reviewed(plan).await?;
        }
        Ok(())
    }

    async fn certificates(&mut self, plan: &Plan<'_>) -> Result<()> {
        let mut rounds = Vec::new();
        for _ in 0..plan.rounds {
            let recruits = self.come_for_certificates()?;
            rounds.push(self.come(recruits).await.context("certs")?);
        }
        let row = self.row("certs", &rounds);
        let rate = self.mesh.size.proxies as f64 / row.last_ms * 1e3;
        let note = format!("{rate:.0} certificates a second, each after a handshake");
        self.rows.push(row.note(note));
        Ok(())
    }

    /// Each round has tokens that the server has never seen, so that it asks the cluster about each.
    async fn reviewed(&mut self, plan: &Plan<'_>) -> Result<()> {
        let mut rounds = Vec::new();
        for _ in 0..plan.rounds {
            let mut recruits = self.come_for_certificates()?;
            let identities = (0..recruits.len()).map(|proxy| self.mesh.identity(proxy));
            let identities: Vec<_> = identities.collect();
            let Source::Kube(cluster) = &self.source else {
                return Ok(());
            };
            let tokens = cluster.tokens(&identities).await.context("token-review")?;
            for (recruit, token) in recruits.iter_mut().zip(tokens) {
                recruit.token = Some(format!("Bearer {token}"));
            }
            rounds.push(self.come(recruits).await.context("token-review")?);
        }
        let row = self.row("token-review", &rounds);
        let rate = self.mesh.size.proxies as f64 / row.last_ms * 1e3;
        let note = format!("certs with tokens of the cluster: {rate:.0} reviews a second");
        self.rows.push(row.note(note));
        Ok(())
    }

    fn come_for_certificates(&self) -> Result<Vec<Recruit>> {
        self.recruits(&Opening::Certificate, 0..self.mesh.size.proxies)
    }

    async fn come(&mut self, recruits: Vec<Recruit>) -> Result<Round> {
        self.fleet.order(&Order::Leave).await?;
        self.fleet.quiet().await?;
        self.fleet.aim(&Goal::Whole(Least::default())).await?;
        let before = self.meters().await?;
        let begun = Stamp::now();
        self.fleet.enlist(&self.target()?, recruits).await?;
        self.round(begun, &before).await
    }
}
