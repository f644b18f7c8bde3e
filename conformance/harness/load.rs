//! Constant traffic from inside a pod, and what became of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use super::client::{Call, Reply, Target, connect, in_time, reply, runtime};
use super::network::{Namespace, User};

/// Failures that are told in full; the rest is counted.
const TOLD: usize = 5;

/// Traffic that goes on until it is stopped.
#[must_use = "traffic ends with it"]
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Tally>>,
}

/// What became of the requests.
#[derive(Debug, Default)]
pub struct Tally {
    pub answered: u64,
    pub failed: u64,
    pub failures: Vec<String>,
    /// How many answers came from which version of the workload.
    pub versions: BTreeMap<String, u64>,
}

/// Whether a client keeps its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    Kept,
    /// A new one for each request.
    Fresh,
}

impl Load {
    /// One thread for each of `clients`.
    #[expect(clippy::disallowed_methods, reason = "traffic runs beside the test")]
    pub fn start(from: &Namespace, call: &Call, clients: &[Connections]) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let mut threads = Vec::new();
        for connections in clients {
            let (from, call, connections) = (from.clone(), call.clone(), *connections);
            let client = Client {
                stop: stop.clone(),
                answered: answered.clone(),
                call,
                connections,
            };
            threads.push(std::thread::spawn(move || client.run(&from)));
        }
        Ok(Self {
            stop,
            answered,
            threads,
        })
    }

    /// Requests answered so far, good or bad.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    pub fn stop(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Tally::default();
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(tally) => total.add(tally),
                Err(_) => total.fail("a client panicked".to_owned()),
            }
        }
        total
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.failed += other.failed;
        self.failures.extend(other.failures);
        for (version, count) in other.versions {
            *self.versions.entry(version).or_default() += count;
        }
    }

    fn fail(&mut self, why: String) {
        self.failed += 1;
        if self.failures.len() < TOLD {
            self.failures.push(why);
        }
    }

    /// All went well, and there were at least `wanted` requests to say so.
    pub fn is_flawless(&self, wanted: u64) -> Result<()> {
        ensure!(
            self.failed == 0,
            "{} of {} failed: {:?}",
            self.failed,
            self.answered,
            self.failures
        );
        ensure!(self.answered >= wanted, "only {} requests", self.answered);
        Ok(())
    }
}

struct Client {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    call: Call,
    connections: Connections,
}

impl Client {
    fn run(&self, from: &Namespace) -> Tally {
        let mut tally = Tally::default();
        if let Err(fault) = self.all_connections(from, &mut tally) {
            tally.fail(format!("{fault:#}"));
        }
        tally
    }

    fn all_connections(&self, from: &Namespace, tally: &mut Tally) -> Result<()> {
        from.move_this_thread(User::App)?;
        let runtime = runtime()?;
        while !self.stop.load(Ordering::Relaxed) {
            if let Err(fault) = runtime.block_on(self.one_connection(tally)) {
                tally.answered += 1;
                tally.fail(format!("{fault:#}"));
            }
        }
        Ok(())
    }

    /// Until the server asks for another one, or the traffic is stopped.
    async fn one_connection(&self, tally: &mut Tally) -> Result<()> {
        let Target::Tcp(address) = self.call.target else {
            bail!("traffic goes over TCP");
        };
        let io = TokioIo::new(in_time(connect(address)).await?);
        let (mut sender, connection) = http1::handshake(io).await?;
        let requests = async {
            for _request in 0..self.requests() {
                if self.stop.load(Ordering::Relaxed) {
                    break;
                }
                let answer = in_time(self.exchange(&mut sender)).await?;
                self.answered.fetch_add(1, Ordering::Relaxed);
                count(tally, &answer);
                if answer.header("connection") == "close" {
                    break;
                }
            }
            Ok(())
        };
        tokio::pin!(requests);
        tokio::select! {
            biased;
            done = &mut requests => done,
            ended = connection => requests.await.with_context(|| format!("the connection ended: {ended:?}")),
        }
    }

    async fn exchange(&self, sender: &mut SendRequest<Full<Bytes>>) -> Result<Reply> {
        let ready = sender.ready().await;
        ready.context("the connection was closed between requests")?;
        let answer = sender.send_request(self.call.request()?).await?;
        reply(answer).await
    }

    /// Kept connections are renewed now and then: both kinds meet every change.
    fn requests(&self) -> u32 {
        match self.connections {
            Connections::Kept => 500,
            Connections::Fresh => 1,
        }
    }
}

fn count(tally: &mut Tally, answer: &Reply) {
    tally.answered += 1;
    match answer.seen() {
        Ok(seen) => {
            let version = seen["version"].as_str().unwrap_or_default().to_owned();
            *tally.versions.entry(version).or_default() += 1;
        }
        Err(fault) => tally.fail(format!("{fault:#}")),
    }
}
