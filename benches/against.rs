//! The same works on the null server: the same responses to the same clients over the same transport.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fairlead::xds::ResourceType;

use super::company::Company;
use super::fleet::Fleet;
use super::null::{BLAST_END, NullServer};
use super::order::{Goal, Marker, Order, Recruit, Target};
use super::proxy::{Least, Opening, Secrets};
use super::recruits::Transport;
use super::report::{Round, Row, median, millis};
use super::server::Home;
use super::stage::{LIMIT, Recording, times};
use super::stamp::Stamp;

/// Messages of a blast, in all.
const BLAST_MESSAGES: usize = 400_000;
/// Proxies that a blast goes to.
const BLASTED: usize = 100;
const NOBODY: Recruit = Recruit {
    node: Vec::new(),
    secrets: Secrets::Unasked,
    opening: Opening::Clusters,
    token: None,
};

/// A null server and a fleet on it.
pub struct Against {
    null: NullServer,
    target: Target,
    fleet: Fleet,
    rounds: usize,
    /// Rounds of a storm.
    storms: usize,
}

impl Against {
    pub async fn set(
        home: &Home,
        transport: Transport,
        proxies: usize,
        (rounds, storms): (usize, usize),
    ) -> Result<Self> {
        let roots = match transport {
            Transport::Plaintext => None,
            Transport::Tls => Some(home.path("null-root.pem")),
        };
        let null = NullServer::start(roots.as_deref()).await?;
        Ok(Self {
            target: Target {
                address: null.address,
                roots,
            },
            null,
            fleet: Fleet::muster(proxies).await?,
            rounds,
            storms,
        })
    }

    /// Repeats what was recorded, and puts the null server's numbers beside the rows'. So many resources make a
    /// storm's proxy whole; `company` works on the same changes meanwhile.
    pub async fn repeat(
        &mut self,
        least: Least,
        recordings: &[Recording],
        rows: &mut [Row],
        mut company: Option<Company>,
    ) -> Result<()> {
        for recording in recordings {
            let measured = if recording.markers.is_empty() {
                self.storms(least, recording).await
            } else {
                self.sends(recording, company.as_mut()).await
            };
            let (last, cpu) =
                measured.with_context(|| format!("null server: {}", recording.work))?;
            for row in rows
                .iter_mut()
                .filter(|r| r.work.starts_with(recording.work))
            {
                row.null_last_ms = Some(last);
                row.null_cpu_s = Some(cpu);
            }
        }
        Ok(())
    }

    async fn storms(&mut self, least: Least, recording: &Recording) -> Result<(f64, f64)> {
        self.null.script(&recording.file).await?;
        let (mut last, mut cpu) = (Vec::new(), Vec::new());
        for _ in 0..self.storms {
            self.fleet.order(&Order::Leave).await?;
            self.fleet.quiet().await?;
            self.fleet.aim(&Goal::Whole(least)).await?;
            let before = self.null.usage().cpu;
            let begun = Stamp::now();
            let recruits = vec![NOBODY; self.fleet.size()];
            self.fleet.enlist(&self.target, recruits).await?;
            last.push(self.last(begun).await?);
            self.fleet.quiet().await?;
            cpu.push(self.null.usage().cpu - before);
        }
        Ok((median(last), median(cpu)))
    }

    async fn sends(
        &mut self,
        recording: &Recording,
        mut company: Option<&mut Company>,
    ) -> Result<(f64, f64)> {
        let (mut last, mut cpu) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            let goal = Goal::Markers(recording.markers.clone(), None);
            self.fleet.aim(&goal).await?;
            let before = self.null.usage().cpu;
            if let (Some(company), Some(edit)) = (&mut company, recording.edit) {
                company.work(edit).await?;
            }
            let begun = Stamp::now();
            self.null.send(&recording.file).await?;
            last.push(self.last(begun).await?);
            self.fleet.quiet().await?;
            cpu.push(self.null.usage().cpu - before);
        }
        Ok((median(last), median(cpu)))
    }

    async fn last(&mut self, begun: Stamp) -> Result<f64> {
        let reached = self.fleet.reached(LIMIT).await?;
        let times = times(&reached, begun)?;
        Ok(millis(times.into_iter().max().unwrap_or_default()))
    }
}

/// How many small messages a second one client process takes and acknowledges.
pub async fn blast(home: &Home, transport: Transport, rounds: usize) -> Result<Row> {
    let against = Against::set(home, transport, BLASTED, (rounds, 0)).await?;
    let Against {
        null,
        target,
        mut fleet,
        ..
    } = against;
    let opening = Opening::Blast(u32::try_from(BLAST_MESSAGES / BLASTED)?);
    let recruit = Recruit { opening, ..NOBODY };
    let end = Marker::new(ResourceType::Endpoint, BLAST_END);
    let (mut out, mut each) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        fleet.order(&Order::Leave).await?;
        fleet.aim(&Goal::Markers(vec![end.clone()], None)).await?;
        let cpu = |fleet: &Fleet| fleet.usage().iter().map(|u| u.cpu).sum::<f64>();
        let (before, served) = (cpu(&fleet), null.usage().cpu);
        let begun = Stamp::now();
        fleet
            .enlist(&target, vec![recruit.clone(); BLASTED])
            .await?;
        let round = Round::of(times(&fleet.reached(LIMIT).await?, begun)?);
        let volume = fleet.volume().await?;
        ensure!(
            volume.messages as usize == BLAST_MESSAGES,
            "messages are missing"
        );
        let used = cpu(&fleet) - before;
        each.push(used / volume.messages as f64);
        out.push(Round {
            bytes_per_proxy: volume.total() as f64 / BLASTED as f64,
            messages_per_proxy: volume.messages as f64 / BLASTED as f64,
            client_cpu_s: used,
            client_busy: used / round.last.as_secs_f64(),
            server_cpu_s: null.usage().cpu - served,
            ..round
        });
    }
    let each = median(each);
    let row = Row::of(transport.name(), "blast", &out);
    let rate = BLAST_MESSAGES as f64 / Duration::from_secs_f64(row.last_ms / 1e3).as_secs_f64();
    Ok(row.note(format!(
        "null server; {rate:.0} messages/s came, a client's core takes {:.0}/s",
        1.0 / each
    )))
}
