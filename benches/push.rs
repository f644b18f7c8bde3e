//! `make bench`: how soon, and at what cost, a change reaches the last of many proxies. Judges nothing.
//!
//! The server is the release binary in a process of its own; this process is its clients.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal"
)]

mod client;
mod manifests;
mod mesh;
mod null;
mod proxy;
mod report;
mod server;
mod wire;
mod works;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use fairlead::clock;
use fairlead::xds::ResourceType;
use tokio::task::LocalSet;

use self::client::{Fleet, Recruit, Target};
use self::mesh::{ENDPOINTS, Size};
use self::null::{BLAST, BLAST_END, NullServer};
use self::proxy::{Proxy, Secrets};
use self::report::{Round, Row, Setting};
use self::server::{Home, Usage};
use self::wire::Request;
use self::works::{Outcome, Transport, Works};

const LIMIT: Duration = Duration::from_secs(120);
/// Messages per proxy when the client's own ceiling is measured.
const BLAST_MESSAGES: usize = 2000;

/// Measures pushes to simulated proxies.
#[derive(Parser)]
struct Args {
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(20..=20_000))]
    services: u32,
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    proxies: u32,
    /// Rounds of each edit; medians are over them.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=90))]
    rounds: u32,
    #[arg(long, value_enum, default_value_t = Over::Both)]
    over: Over,
    /// The program to measure, if not the one built with this bench.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Be the null server, repeating this recording.
    #[arg(long, value_name = "FILE", hide = true)]
    null: Option<PathBuf>,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Over {
    Plaintext,
    Tls,
    Both,
}

fn main() -> ExitCode {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let args = Args::parse();
    let done = match &args.null {
        Some(recording) => null::serve(recording),
        None => measure(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        // Whatever ends this, servers are killed when they are dropped.
        tokio::select! {
            done = run(args) => done,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
            _ = stop.recv() => anyhow::bail!("stopped"),
        }
    })
}

async fn run(args: &Args) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = Path::new(env!("CARGO_BIN_EXE_fairlead"));
    let program = args.program.as_deref().unwrap_or(built);
    let proxies = args.proxies as usize;
    let size = Size {
        services: args.services as usize,
        namespaces: 20,
    };
    let transports: &[Transport] = match args.over {
        Over::Plaintext => &[Transport::Plaintext],
        Over::Tls => &[Transport::Tls],
        Over::Both => &[Transport::Plaintext, Transport::Tls],
    };
    let mut rows = Vec::new();
    for transport in transports {
        eprintln!("measuring over {} ...", transport.name());
        let folder = tempfile::tempdir()?;
        let home = Home::new(folder.path());
        let works = Works {
            program,
            home: &home,
            size,
            proxies,
            rounds: args.rounds as usize,
            transport: *transport,
        };
        let outcome = works.run().await;
        let outcome = outcome.with_context(|| format!("server's log: {}", home.last_words()))?;
        if *transport == Transport::Plaintext {
            let null = null_rows(&outcome, size, proxies, folder.path()).await;
            rows.extend(null.context("null server")?);
        }
        rows.extend(outcome.rows);
    }
    let setting = Setting::here(size.services, ENDPOINTS, proxies);
    print!("{}", report::table(&setting, &rows));
    let json = root.join("target/bench.json");
    report::write_json(&json, &setting, &rows)?;
    println!("\nrows as JSON: {}", json.display());
    Ok(())
}

/// What the same clients take from a server that has nothing to think about.
async fn null_rows(
    outcome: &Outcome,
    size: Size,
    proxies: usize,
    folder: &Path,
) -> Result<Vec<Row>> {
    let null = NullServer::start(&outcome.recording, &folder.join("recording"))?;
    let target = Target {
        address: null.address,
        tls: None,
    };
    let recruit = |_| Recruit {
        proxy: Proxy::new(b"".as_slice().into(), Secrets::Unasked),
        token: None,
    };
    let recruits = (0..proxies).map(recruit).collect();
    let start = clock::mono();
    let fleet = Fleet::connect(target.clone(), recruits, size.manifest());
    let times = fleet.reached(LIMIT).await?;
    let times = times.into_iter().map(|t| t - start).collect();
    let volume = fleet.volume();
    let storm = Round {
        cpu_s: null.usage().cpu,
        bytes_per_proxy: ratio(volume.total() as f64, proxies as f64),
        messages_per_proxy: ratio(volume.messages as f64, proxies as f64),
        ..Round::of(times)
    };
    fleet.leave().await;
    let against = ratio(outcome.storm.last.as_secs_f64(), storm.last.as_secs_f64());
    let cpu = ratio(outcome.storm.cpu_s, storm.cpu_s);
    let note = format!("the storm took {against:.1} times as long, {cpu:.1} times the cpu");
    let storm = Row::of("null", "storm: the same frames", &[storm]).note(note);
    Ok(vec![storm, ceiling(&null, target, proxies).await?])
}

/// How many small messages a second this client can take.
async fn ceiling(null: &NullServer, target: Target, proxies: usize) -> Result<Row> {
    let count = BLAST_MESSAGES.to_string();
    let request = Request {
        type_url: BLAST,
        subscribe: vec![&count],
        ..Request::of(ResourceType::Endpoint)
    };
    let recruit = |_| Recruit {
        proxy: Proxy::probe(request.encode()),
        token: None,
    };
    let before = (Usage::of(std::process::id()).cpu, null.usage().cpu);
    let start = clock::mono();
    let fleet = Fleet::connect(
        target,
        (0..proxies).map(recruit).collect(),
        Default::default(),
    );
    fleet.expect(&[(ResourceType::Endpoint, BLAST_END.to_vec())]);
    let times = fleet.reached(LIMIT).await?;
    let busy = Usage::of(std::process::id()).cpu - before.0;
    let round = Round {
        cpu_s: null.usage().cpu - before.1,
        bytes_per_proxy: ratio(fleet.volume().total() as f64, proxies as f64),
        ..Round::of(times.into_iter().map(|t| t - start).collect())
    };
    let messages = fleet.volume().messages as f64;
    ensure!(messages > 0.0, "nothing came");
    let note = format!(
        "{:.0} messages/s in all, {:.1} µs of client cpu each",
        messages / round.last.as_secs_f64(),
        busy / messages * 1e6,
    );
    fleet.leave().await;
    Ok(Row::of("null", "blast: the client's ceiling", &[round]).note(note))
}

fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}
