//! The runner's side of its client processes: all simulated proxies as one fleet.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use super::facts::Sums;
use super::order::{Arrivals, Goal, Order, Recruit, Report, Target, Volume};
use super::server::Usage;
use super::stamp::Stamp;

/// Proxies of one process: each is a descriptor, and many systems allow 10,000 of them.
const CREW: usize = 8000;
/// A fleet is quiet when nothing came for this long.
const SILENCE: Duration = Duration::from_millis(150);
/// How long the quiet is waited for: what is never quiet is a fault.
const RESTLESS: Duration = Duration::from_secs(120);

/// A process of this program that takes orders as lines.
pub struct Helper {
    child: Option<Child>,
    lines: BufReader<TcpStream>,
}

impl Helper {
    /// `role` is the flag that makes this program take orders at the address after it.
    pub async fn start(role: &str, more: &[&str]) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let program = std::env::current_exe().context("find this program")?;
        let child = Command::new(program)
            .arg(role)
            .arg(listener.local_addr()?.to_string())
            .args(more)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("start a helper")?;
        let helper = Self::meet(&listener).await?;
        Ok(Self {
            child: Some(child),
            ..helper
        })
    }

    /// One that was told this listener's address by somebody else.
    pub async fn meet(listener: &TcpListener) -> Result<Self> {
        let accepted = tokio::time::timeout(Duration::from_secs(30), listener.accept());
        let (stream, _) = accepted.await.context("the helper does not answer")??;
        stream.set_nodelay(true)?;
        Ok(Self {
            child: None,
            lines: BufReader::new(stream),
        })
    }

    pub async fn tell(&mut self, order: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        Ok(self.lines.write_all(&line).await?)
    }

    pub async fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(
            self.lines.read_line(&mut line).await? > 0,
            "a helper process ended"
        );
        Ok(line)
    }

    pub fn usage(&self) -> Usage {
        let id = self.child.as_ref().and_then(Child::id);
        id.map(Usage::of).unwrap_or_default()
    }
}

pub struct Fleet {
    crews: Vec<Helper>,
    size: usize,
}

/// How the proxies got to a goal.
#[derive(Clone, Debug, Default)]
pub struct Reached {
    pub times: Vec<Stamp>,
    pub aimed: usize,
    pub lost: Vec<String>,
}

impl Fleet {
    /// Starts as many processes as so many proxies need. No proxy connects yet.
    pub async fn muster(size: usize) -> Result<Self> {
        let mut crews = Vec::new();
        for _ in 0..size.div_ceil(CREW).max(1) {
            crews.push(Helper::start("--crew", &[]).await?);
        }
        Ok(Self { crews, size })
    }

    /// A fleet of one process that is there.
    pub fn of(crew: Helper, size: usize) -> Self {
        Self {
            crews: vec![crew],
            size,
        }
    }

    pub fn size(&self) -> usize {
        self.size
    }

    /// The most that one process used.
    pub fn usage(&self) -> Vec<Usage> {
        self.crews.iter().map(Helper::usage).collect()
    }

    fn place(seat: usize) -> (usize, usize) {
        (seat / CREW, seat % CREW)
    }

    /// The same order to all; their answers.
    async fn all(&mut self, order: &Order) -> Result<Vec<Report>> {
        for crew in &mut self.crews {
            crew.tell(order).await?;
        }
        self.answers().await
    }

    async fn answers(&mut self) -> Result<Vec<Report>> {
        let mut reports = Vec::new();
        for crew in &mut self.crews {
            reports.push(report(crew).await?);
        }
        Ok(reports)
    }

    async fn one(&mut self, crew: usize, order: &Order) -> Result<Report> {
        let crew = &mut self.crews[crew];
        crew.tell(order).await?;
        report(crew).await
    }

    /// All of them connect at once.
    pub async fn enlist(&mut self, target: &Target, recruits: Vec<Recruit>) -> Result<()> {
        ensure!(recruits.len() == self.size, "one recruit a seat");
        let mut recruits = recruits.into_iter();
        for crew in &mut self.crews {
            let mine = recruits.by_ref().take(CREW).collect();
            crew.tell(&Order::Enlist(target.clone(), mine)).await?;
        }
        self.answers().await.map(drop)
    }

    /// Says what a proxy must show; the seats that are named, or all of them.
    pub async fn aim(&mut self, goal: &Goal) -> Result<()> {
        for (at, crew) in self.crews.iter_mut().enumerate() {
            let goal = match goal {
                Goal::Markers(markers, Some(seats)) => {
                    let mine = seats.iter().map(|s| Self::place(*s));
                    let mine = mine.filter(|(crew, _)| *crew == at).map(|(_, seat)| seat);
                    Goal::Markers(markers.clone(), Some(mine.collect()))
                }
                goal => goal.clone(),
            };
            crew.tell(&Order::Aim(goal)).await?;
        }
        self.answers().await.map(drop)
    }

    /// When each proxy reached the goal. Those that did not in time are not among them.
    pub async fn reached(&mut self, limit: Duration) -> Result<Reached> {
        let limit_ms = u64::try_from(limit.as_millis())?;
        let mut sum = Reached::default();
        for report in self.all(&Order::Await { limit_ms }).await? {
            let Report::Reached { times, aimed, lost } = report else {
                bail!("an answer to another order: {report:?}");
            };
            sum.times.extend(times);
            sum.aimed += aimed;
            sum.lost.extend(lost);
        }
        Ok(sum)
    }

    /// Waits until nothing came for a while.
    pub async fn quiet(&mut self) -> Result<()> {
        let silence_ms = u64::try_from(SILENCE.as_millis())?;
        let order = Order::Quiet { silence_ms };
        let waited = tokio::time::timeout(RESTLESS, self.all(&order));
        waited
            .await
            .context("the proxies are never quiet")?
            .map(drop)
    }

    pub async fn volume(&mut self) -> Result<Volume> {
        let mut sum = Volume::default();
        for report in self.all(&Order::Count).await? {
            let Report::Volume(volume) = report else {
                bail!("an answer to another order: {report:?}");
            };
            sum.add(&volume);
        }
        Ok(sum)
    }

    /// What each proxy holds, as sums.
    pub async fn census(&mut self) -> Result<Vec<Sums>> {
        let mut sums = Vec::new();
        for report in self.all(&Order::Census).await? {
            let Report::Census(mine) = report else {
                bail!("an answer to another order: {report:?}");
            };
            sums.extend(mine);
        }
        Ok(sums)
    }

    pub async fn facts(&mut self, seat: usize) -> Result<Vec<String>> {
        let (crew, seat) = Self::place(seat);
        words(self.one(crew, &Order::Facts { seat }).await?)
    }

    pub async fn versions(&mut self, seat: usize) -> Result<Vec<String>> {
        let (crew, seat) = Self::place(seat);
        words(self.one(crew, &Order::Versions { seat }).await?)
    }

    /// From here on the responses to this proxy are kept.
    pub async fn record(&mut self, seat: usize) -> Result<()> {
        let (crew, seat) = Self::place(seat);
        self.one(crew, &Order::Record { seat }).await.map(drop)
    }

    /// What was recorded, into a file.
    pub async fn keep(&mut self, file: &Path) -> Result<()> {
        let mut whole = Vec::new();
        for crew in &mut self.crews {
            let file = file.to_owned();
            crew.tell(&Order::Keep { file: file.clone() }).await?;
            report(crew).await?;
            whole.extend(std::fs::read(&file)?);
        }
        Ok(std::fs::write(file, whole)?)
    }

    /// These proxies stop reading; all others read.
    pub async fn stall(&mut self, seats: &[usize]) -> Result<()> {
        for (at, crew) in self.crews.iter_mut().enumerate() {
            let mine = seats.iter().map(|s| Self::place(*s));
            let mine = mine.filter(|(crew, _)| *crew == at).map(|(_, seat)| seat);
            let seats = mine.collect();
            crew.tell(&Order::Stall { seats }).await?;
        }
        self.answers().await.map(drop)
    }

    /// An order that is only done.
    pub async fn order(&mut self, order: &Order) -> Result<()> {
        self.all(order).await.map(drop)
    }

    pub async fn arrivals(&mut self) -> Result<Arrivals> {
        let mut sum = Arrivals::default();
        for report in self.all(&Order::Arrivals).await? {
            let Report::Arrivals(Arrivals { last, seats }) = report else {
                bail!("an answer to another order: {report:?}");
            };
            sum.last.resize(last.len(), None);
            sum.seats.resize(last.len(), 0);
            for (at, (last, seats)) in last.into_iter().zip(seats).enumerate() {
                sum.last[at] = sum.last[at].max(last);
                sum.seats[at] += seats;
            }
        }
        Ok(sum)
    }
}

async fn report(crew: &mut Helper) -> Result<Report> {
    let line = crew.answer().await?;
    match serde_json::from_str(&line).context("read a report")? {
        Report::Failed(why) => bail!(why),
        report => Ok(report),
    }
}

fn words(report: Report) -> Result<Vec<String>> {
    match report {
        Report::Words(words) => Ok(words),
        report => bail!("an answer to another order: {report:?}"),
    }
}
