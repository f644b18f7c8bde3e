//! `fairlead echo`: the workload of demos and tests, on the command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::echo::{Echo, Place, Talk, Workload};
use crate::text::Str;

/// What the workload is called, and where it listens. Each listener may be given several times.
#[derive(Debug, clap::Args)]
#[command(disable_version_flag = true)]
pub struct Args {
    /// The name that answers carry.
    #[arg(long, default_value = "echo")]
    name: Str,
    /// The version that answers carry.
    #[arg(long, default_value = "v1")]
    version: Str,
    /// Listen for HTTP/1.1, HTTP/2 with prior knowledge, and gRPC.
    #[arg(long, value_name = "IP:PORT")]
    http: Vec<SocketAddr>,
    /// Listen for HTTP on a Unix socket.
    #[arg(long, value_name = "PATH")]
    unix: Vec<PathBuf>,
    /// Listen for TCP; answers what it is sent.
    #[arg(long, value_name = "IP:PORT")]
    tcp_echo: Vec<SocketAddr>,
    /// Listen for TCP; speaks first.
    #[arg(long, value_name = "IP:PORT")]
    server_first: Vec<SocketAddr>,
    /// Listen for `CONNECT`, as the end of a tunnel.
    #[arg(long, value_name = "IP:PORT")]
    tunnel: Vec<SocketAddr>,
    /// Answer so many attempts of each request with 503 (header `echo-fail-first` asks for the same).
    #[arg(long, value_name = "N", default_value_t = 0)]
    fail_first: u32,
    /// Wait before each HTTP answer (header `echo-delay-ms` asks for the same).
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = super::span::parse)]
    delay: Duration,
}

impl Args {
    fn places(&self) -> Vec<(Talk, Place)> {
        let tcp = |talk, addresses: &[SocketAddr]| {
            let places = addresses.iter().map(move |a| (talk, Place::Tcp(*a)));
            places.collect::<Vec<_>>()
        };
        let unix = self
            .unix
            .iter()
            .map(|p| (Talk::Http, Place::Unix(p.clone())));
        let mut all = tcp(Talk::Http, &self.http);
        all.extend(unix);
        all.extend(tcp(Talk::TcpEcho, &self.tcp_echo));
        all.extend(tcp(Talk::ServerFirst, &self.server_first));
        all.extend(tcp(Talk::Tunnel, &self.tunnel));
        all
    }
}

/// Serves until the process is ended.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let places = args.places();
    ensure!(
        !places.is_empty(),
        "give at least one of --http, --unix, --tcp-echo, --server-first, --tunnel"
    );
    let workload = Workload {
        name: args.name.clone(),
        version: args.version.clone(),
        fail_first: args.fail_first,
        delay: args.delay,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let echo = Echo::bind(workload, &places).await?;
        for (talk, place) in echo.places()? {
            match place {
                Place::Tcp(address) => println!("{talk:?} {address}"),
                Place::Unix(path) => println!("{talk:?} {}", path.display()),
            }
        }
        echo.serve().await.context("serve")
    })?;
    Ok(ExitCode::SUCCESS)
}
