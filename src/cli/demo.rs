//! `fairlead demo`: the bookshop on this machine, checked with real requests.

mod bookshop;
mod checks;
mod client;
mod plane;
mod process;
mod report;
mod stage;
mod sync;
mod traffic;
mod wait;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::signal::unix::{SignalKind, signal};

use self::bookshop::WORKLOADS;
use self::checks::{Demo, Serials};
use self::client::Place;
use self::report::Report;
use self::stage::{Options, Run, Stage};
use self::traffic::Traffic;
use super::span;

/// Starts a control plane, six small workloads and an Envoy beside each; checks what they do; ends them.
///
/// It needs no privileges, and no port but those of 127.40.0.0/16.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave all of it running after the checks, until Ctrl-C.
    #[arg(long)]
    keep: bool,

    /// Empty folder for configuration, state, sockets and logs, and it stays; one under /tmp otherwise.
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,

    /// The stock Envoy to run (`make envoy` fetches it).
    #[arg(
        long,
        env = "ENVOY_BIN",
        value_name = "FILE",
        default_value = ".cache/envoy/envoy"
    )]
    envoy: PathBuf,

    /// Lifetime of workload certificates; they are replaced at half of it.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = span::parse)]
    workload_cert_ttl: Duration,

    /// Write the checks as JUnit XML too.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// Services that constant traffic goes to, from the storefront.
const STEADY: &[&str] = &["catalog", "reviews"];

pub fn run(args: &Args) -> Result<ExitCode> {
    let envoy = args.envoy.canonicalize().with_context(|| {
        let envoy = args.envoy.display();
        format!("find Envoy at {envoy} (`make envoy` fetches it, ENVOY_BIN names another)")
    })?;
    ensure!(
        args.workload_cert_ttl >= Duration::from_secs(20),
        "--workload-cert-ttl: {:?} is too short to check that no certificate is replaced early; 20s at least",
        args.workload_cert_ttl
    );
    let options = Options {
        envoy,
        certificate_life: args.workload_cert_ttl,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let shown = tokio::select! {
            shown = show(args.run_dir.as_deref(), &options) => shown?,
            // Dropping the other arm kills every child.
            told = told_to_stop() => {
                println!("\ndemo: stopped by {}; nothing is left running", told?);
                return Ok(ExitCode::FAILURE);
            }
        };
        if args.keep
            && let Some(stage) = &shown.stage
        {
            stage::what_to_try(stage, &shown.run);
            told_to_stop().await?;
        }
        close(shown, args.junit.as_deref()).await
    })
}

/// The first signal that ends a program; `--keep` waits for the same.
async fn told_to_stop() -> Result<&'static str> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(tokio::select! {
        _ = interrupt.recv() => "Ctrl-C",
        _ = terminate.recv() => "SIGTERM",
        _ = hang_up.recv() => "SIGHUP",
    })
}

/// What stands after the checks.
struct Shown {
    run: Run,
    report: Report,
    /// Absent when it did not start.
    stage: Option<Stage>,
}

async fn show(run_dir: Option<&Path>, options: &Options) -> Result<Shown> {
    let run = Run::make(run_dir)?;
    let mut report = Report::new();
    println!(
        "A control plane, {} workloads, a stock Envoy beside each; all in {}",
        WORKLOADS.len(),
        run.root().display()
    );
    let stage = match Stage::start(&report, &run, options).await {
        Err(why) => {
            report.check("all processes start", Err(why));
            None
        }
        Ok(mut stage) => {
            check(&mut report, &mut stage).await;
            Some(stage)
        }
    };
    Ok(Shown { run, report, stage })
}

/// Ends everything, and says how it went.
async fn close(shown: Shown, junit: Option<&Path>) -> Result<ExitCode> {
    let Shown {
        mut run,
        mut report,
        stage,
    } = shown;
    if let Some(stage) = stage {
        let ended = stage.end().await.map(|()| String::new());
        report.check("nothing is left running", ended);
    }
    if let Some(file) = junit {
        report.write_junit(file)?;
    }
    if report.failed() > 0 {
        run.keep();
        println!("\nlogs are in {}", run.logs().display());
    }
    report.close();
    Ok(if report.failed() == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// All checks, with constant traffic beside them.
async fn check(report: &mut Report, stage: &mut Stage) {
    let traffic = Traffic::default();
    let storefront = Place::Tcp(WORKLOADS[0].egress());
    let mut demo = Demo {
        report,
        stage,
        traffic: &traffic,
        serials: Serials::default(),
    };
    tokio::select! {
        () = traffic.run(&storefront, STEADY) => {}
        () = checks::run(&mut demo) => {}
    }
}
