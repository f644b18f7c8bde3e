//! `make bench`: how soon, and at what cost, a change reaches the last of many proxies.
//!
//! The server is a process of its own, and so are its clients (`crew.rs`) and the null server (`null.rs`);
//! this process gives orders and reads meters.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal"
)]

pub mod against;
pub mod bars;
pub mod catalogue;
pub mod channel;
pub mod cluster;
pub mod company;
pub mod crew;
pub mod curves;
pub mod envoys;
pub mod expect;
pub mod facts;
pub mod fleet;
pub mod growth;
pub mod http2;
pub mod manifests;
pub mod mesh;
pub mod newcomers;
pub mod null;
pub mod order;
pub mod packing;
pub mod probe;
pub mod proxy;
pub mod recruits;
pub mod report;
pub mod returns;
pub mod seat;
pub mod server;
pub mod source;
pub mod stage;
pub mod stamp;
pub mod wire;
pub mod works;

/// What the test suites start: an API server, networks, Envoys.
#[path = "../conformance"]
mod outside {
    pub mod harness;
}

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use tokio::task::LocalSet;

use self::against::Against;
use self::company::Company;
use self::curves::{Along, Point};
use self::mesh::{PORTS, Size, View};
use self::outside::harness::network::Network;
use self::outside::harness::{self, isolation};
use self::packing::Packing;
use self::recruits::Transport;
use self::report::{Row, Setting};
use self::server::Home;
use self::source::Origin;
use self::stage::{Stage, Subject};
use self::works::{Plan, WORKS};

/// What is void says so in its row, and so does the exit status.
const VOID: u8 = 2;

/// Measures pushes to simulated proxies.
#[derive(Parser)]
struct Args {
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(20..=20_000))]
    services: u32,
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=100))]
    endpoints: u32,
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    proxies: u32,
    /// Rounds of each work; medians are over them.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=90))]
    rounds: u32,
    /// The works to measure, of: blast, boot, storm-cold, ...; all, if none is named.
    #[arg(long, value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(WORKS))]
    only: Vec<String>,
    #[arg(long, value_enum, default_value_t = Over::Both)]
    over: Over,
    /// Where changes are made. The default is a real API server, started for it.
    #[arg(long, value_enum, default_value_t = Sort::Kube)]
    source: Sort,
    /// How the server packs route tables; of a server that runs already it must be true.
    #[arg(long, value_enum, default_value_t = Packing::Rds)]
    packing: Packing,
    /// An API server that runs already, instead of one for the bench alone.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Real Envoys that stay for the changes made over TLS. They need network namespaces.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=20))]
    envoys: u32,
    /// Measure growth instead, and write pictures and rows into this folder.
    #[arg(long, value_name = "DIR")]
    curves: Option<PathBuf>,
    /// The largest size that growth is measured at, in proxies and in Services.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    largest: usize,
    /// Of the order in which objects are changed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The program to measure, if not the one built with this bench.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Measure a server that runs already, in plaintext.
    #[arg(long, value_name = "ADDRESS", requires = "pid")]
    target: Option<SocketAddr>,
    /// Its process.
    #[arg(long)]
    pid: Option<u32>,
    /// Be a client process of the runner at this address.
    #[arg(long, value_name = "ADDRESS", hide = true)]
    crew: Option<SocketAddr>,
    /// Be the null server of the runner at this address.
    #[arg(long, value_name = "ADDRESS", hide = true)]
    null: Option<SocketAddr>,
    /// Where the null server puts its certificate, if it is to speak TLS.
    #[arg(long, value_name = "FILE", hide = true)]
    roots: Option<PathBuf>,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Sort {
    Files,
    Kube,
}

#[derive(Clone, Copy, ValueEnum)]
enum Over {
    Plaintext,
    Tls,
    Both,
}

pub fn main() -> ExitCode {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let args = Args::parse();
    let done = match (args.crew, args.null) {
        (Some(runner), _) => crew::serve(runner).map(|()| ExitCode::SUCCESS),
        (_, Some(runner)) => null::serve(runner, args.roots.as_deref()).map(|()| ExitCode::SUCCESS),
        (None, None) => measure(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("bench: {error:#}");
        ExitCode::FAILURE
    })
}

fn measure(args: &Args) -> Result<ExitCode> {
    let network = network(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        // Whatever ends this, servers and clients are killed when they are dropped.
        tokio::select! {
            done = run(args, network) => done,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
            _ = stop.recv() => anyhow::bail!("stopped"),
        }
    })
}

/// Envoys live in network namespaces of their own, and the rest then in one with them.
fn network(args: &Args) -> Result<Option<Rc<Network>>> {
    if args.envoys == 0 || matches!(args.over, Over::Plaintext) || args.target.is_some() {
        return Ok(None);
    }
    isolation::enter(&envoys::programs(program(args))?)?;
    Ok(Some(Rc::new(Network::new()?)))
}

fn program(args: &Args) -> &Path {
    let built = Path::new(env!("CARGO_BIN_EXE_fairlead"));
    args.program.as_deref().unwrap_or(built)
}

async fn run(args: &Args, network: Option<Rc<Network>>) -> Result<ExitCode> {
    let subject = match args.target.zip(args.pid) {
        Some((address, pid)) => Subject::Attached(address, pid),
        None => Subject::Program(program(args).into()),
    };
    let plan = Plan {
        subject: &subject,
        size: Size {
            services: args.services as usize,
            endpoints: args.endpoints as usize,
            namespaces: 20,
            proxies: args.proxies as usize,
            view: View::Mesh,
            packing: args.packing,
            ports: PORTS,
            seed: args.seed,
        },
        rounds: args.rounds as usize,
        only: &args.only,
        origin: match args.source {
            Sort::Files => Origin::Files,
            Sort::Kube => Origin::Kube(args.kubeconfig.clone()),
        },
        envoys: args.envoys as usize,
        network,
    };
    if plan.only.iter().any(|work| work == growth::WORK) {
        return grow_envoys(&plan, args).await;
    }
    let transports: &[Transport] = match (args.over, &subject) {
        (Over::Plaintext, _) | (_, Subject::Attached(..)) => &[Transport::Plaintext],
        (Over::Tls, _) => &[Transport::Tls],
        (Over::Both, _) => &[Transport::Tls, Transport::Plaintext],
    };
    if let Some(folder) = &args.curves {
        return grow(&plan, transports[0], folder, args.largest).await;
    }
    let mut rows = Vec::new();
    for transport in transports {
        eprintln!("measuring over {} ...", transport.name());
        rows.extend(over(&plan, *transport).await?);
    }
    let setting = setting(&plan);
    bars::judge(&setting, &mut rows);
    print!("{}", report::table(&setting, &rows));
    let json = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench.json");
    report::write(&json, &report::json_lines(&setting, &rows)?)?;
    println!("\nrows as JSON: {}", json.display());
    Ok(status(&rows))
}

/// One real Envoy in growing meshes.
async fn grow_envoys(plan: &Plan<'_>, args: &Args) -> Result<ExitCode> {
    let rows = growth::measure(plan, args.largest).await?;
    let setting = setting(plan);
    print!("{}", growth::table(&setting, &rows));
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let folder = args.curves.clone().unwrap_or(target);
    std::fs::create_dir_all(&folder)?;
    let json = folder.join(format!("{}.json", growth::WORK));
    report::write(&json, &growth::json_lines(&setting, &rows)?)?;
    println!("\nrows as JSON: {}", json.display());
    let void = rows.iter().any(|row| row.void.is_some());
    Ok(if void {
        ExitCode::from(VOID)
    } else {
        ExitCode::SUCCESS
    })
}

/// The same few works at growing sizes.
async fn grow(
    plan: &Plan<'_>,
    transport: Transport,
    folder: &Path,
    largest: usize,
) -> Result<ExitCode> {
    std::fs::create_dir_all(folder)?;
    let only = curves::WORKS.map(str::to_owned);
    let mut all = Vec::new();
    for along in [Along::Proxies, Along::Services] {
        let (mut points, mut lines) = (Vec::new(), String::new());
        let sizes = along.sizes().into_iter();
        for (size, (proxies, services)) in sizes.filter(|(size, _)| *size <= largest) {
            eprintln!("{proxies} proxies, {services} services ...");
            let plan = Plan {
                size: Size {
                    proxies,
                    services,
                    ..plan.size
                },
                only: &only,
                envoys: plan.envoys.min(if services > 1000 { 1 } else { 5 }),
                network: plan.network.clone(),
                origin: plan.origin.clone(),
                ..*plan
            };
            let rows = over(&plan, transport).await?;
            lines += &report::json_lines(&setting(&plan), &rows)?;
            print!("{}", report::table(&setting(&plan), &rows));
            all.extend(rows.iter().cloned());
            points.push(Point { size, rows });
        }
        report::write(&folder.join(format!("by-{}.json", along.name())), &lines)?;
        curves::draw(folder, along, &points)?;
    }
    Ok(status(&all))
}

fn setting(plan: &Plan<'_>) -> Setting {
    Setting {
        source: match plan.origin {
            Origin::Files => "files",
            Origin::Kube(_) => "an API server",
        },
        packing: plan.size.packing,
        ports: plan.size.named_ports(),
        seed: plan.size.seed,
        services: plan.size.services,
        endpoints: plan.size.endpoints,
        proxies: plan.size.proxies,
        envoys: plan.network.as_ref().map_or(0, |_| plan.envoys),
        ..Setting::here()
    }
}

fn status(rows: &[Row]) -> ExitCode {
    if rows.iter().any(|row| row.void.is_some()) {
        return ExitCode::from(VOID);
    }
    ExitCode::SUCCESS
}

/// All works over one transport. What ends them makes a void row; the rows before stay.
async fn over(plan: &Plan<'_>, transport: Transport) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let folder = tempfile::tempdir()?;
    let place = |name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(&path).map(|()| Home::new(&path))
    };
    let (home, boot, scope) = (place("main")?, place("boot")?, place("scope")?);
    if plan.wants("blast") {
        rows.push(against::blast(&home, transport, plan.rounds).await?);
    }
    if plan.wants("boot") && matches!(plan.subject, Subject::Program(_)) {
        rows.push(voided(
            "boot",
            &boot,
            transport,
            works::boot(plan, &boot, transport).await,
        ));
    }
    let stage = Stage::set(plan, &home, transport, plan.size).await;
    let mut stage = stage.with_context(|| home.last_words())?;
    let performed = stage.perform(plan).await;
    let Stage {
        mesh,
        rows: mut measured,
        recordings,
        server,
        fleet,
        source,
        envoys,
        ..
    } = stage;
    drop(fleet);
    let least = mesh.least();
    let company = Company {
        envoys,
        server,
        source,
        mesh,
    };
    // Without Envoys the null server and its clients have the machine to themselves.
    let company = (performed.is_ok() && !company.envoys.is_empty()).then_some(company);
    if let Err(error) = performed {
        measured.push(voided("", &home, transport, Err(error)));
    }
    let rounds = (plan.rounds, plan.storms());
    let mut against = Against::set(&home, transport, plan.size.proxies, rounds).await?;
    let again = against.repeat(least, &recordings, &mut measured, company);
    again.await?;
    drop(against);
    rows.extend(measured);
    if plan.wants("scope") && matches!(plan.subject, Subject::Program(_)) {
        rows.push(voided(
            "scope",
            &scope,
            transport,
            works::scope(plan, &scope, transport).await,
        ));
    }
    Ok(rows)
}

fn voided(work: &'static str, home: &Home, transport: Transport, row: Result<Row>) -> Row {
    row.unwrap_or_else(|error| {
        let words = home.last_words();
        if !words.is_empty() {
            eprintln!("the server's log ends: {words}");
        }
        Row::void(transport.name(), work, format!("{error:#}"))
    })
}
