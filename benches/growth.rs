//! How one real Envoy grows with the mesh, in each packing. What grows with a fleet is in `curves.rs`.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use super::envoys::{ASK, Applied};
use super::mesh::changes::{Edit, table_page};
use super::mesh::{EDITED, HTTP_ALONE, Size};
use super::packing::Packing;
use super::probe::Probe;
use super::recruits::Transport;
use super::report::{self, Bar, Setting, aligned, bytes, machine, median, millis, shown};
use super::server::Home;
use super::source::Origin;
use super::stage::Stage;
use super::stamp::Stamp;
use super::works::Plan;

/// As `--only` names it. It is a run of its own.
pub const WORK: &str = "envoy-growth";
const PACKINGS: [Packing; 3] = [Packing::Rds, Packing::Scoped, Packing::OnDemand];
const SERVICES: [usize; 3] = [100, 1000, 5000];
/// The first one finds nothing warm, and is not counted.
const CHANGES: usize = 7;
/// How long an idle Envoy is watched.
const WATCH: Duration = Duration::from_secs(5);

/// The most that one scope more may cost an Envoy on demand: bytes resident, and seconds of the main thread until it
/// is ready.
const BYTES: f64 = 4e3;
const SECONDS: f64 = 12e-6;
/// As many times as long a change may take in the largest mesh as in the smallest.
const FLAT: f64 = 1.5;

/// What an Envoy was in one mesh.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Grown {
    pub work: &'static str,
    #[serde(skip)]
    pub packing: Packing,
    #[serde(skip)]
    pub services: usize,
    /// What it said that it has, once nothing more came.
    pub scopes: u64,
    pub clusters: u64,
    pub resident: u64,
    /// Processor seconds of its main thread by then, and a second with nothing to do.
    pub ready_cpu_s: f64,
    pub idle_cpu_s: f64,
    /// One weight of a VirtualService, medians: main thread, and until Envoy took it in.
    pub change_cpu_ms: Option<f64>,
    pub change_ms: Option<f64>,
    pub bars: Vec<Bar>,
    pub void: Option<String>,
}

/// An Envoy at each size in each packing.
pub async fn measure(plan: &Plan<'_>, largest: usize) -> Result<Vec<Grown>> {
    ensure!(
        plan.network.is_some(),
        "{WORK} needs a real Envoy, over TLS"
    );
    let mut rows = Vec::new();
    for packing in PACKINGS {
        let mut mine = Vec::new();
        for services in SERVICES.into_iter().filter(|size| *size <= largest) {
            eprintln!("{services} services, {} ...", packing.name());
            let size = Size {
                services,
                packing,
                ports: HTTP_ALONE,
                proxies: 0,
                ..plan.size
            };
            let grown = at(plan, size).await.unwrap_or_else(|why| Grown {
                void: Some(format!("{why:#}")),
                ..Grown::default()
            });
            mine.push(Grown {
                work: WORK,
                packing,
                services,
                ..grown
            });
        }
        judge(&mut mine);
        rows.extend(mine);
    }
    Ok(rows)
}

async fn at(plan: &Plan<'_>, size: Size) -> Result<Grown> {
    let folder = tempfile::tempdir()?;
    let place = folder.path().join("main");
    std::fs::create_dir_all(&place)?;
    let home = Home::new(&place);
    let plan = Plan {
        size,
        origin: Origin::Files,
        network: plan.network.clone(),
        ..*plan
    };
    let mut stage = Stage::set(&plan, &home, Transport::Tls, size).await?;
    let port = stage.server.port("secure-grpc")?.port();
    let joined = stage.envoys.join(1, &stage.mesh, &home, port).await;
    joined.with_context(|| home.last_words())?;
    stage.envoys.idle().await?;
    let ready_cpu_s: f64 = stage.envoys.spent().iter().sum();
    let used = stage.envoys.usage();
    let resident = used.iter().map(|usage| usage.resident).sum();
    tokio::time::sleep(WATCH).await;
    let idle = stage.envoys.spent().iter().sum::<f64>() - ready_cpu_s;
    let scopes = stage.envoys.stat("scoped_rds.*all_scopes").await?;
    let clusters = stage
        .envoys
        .stat("^cluster_manager.active_clusters")
        .await?;
    if size.packing == Packing::OnDemand {
        stage.call().await?;
    }
    let (change_cpu_ms, change_ms) = stage.weights().await?;
    Ok(Grown {
        scopes,
        clusters,
        resident,
        ready_cpu_s,
        idle_cpu_s: idle / WATCH.as_secs_f64(),
        change_cpu_ms,
        change_ms,
        ..Grown::default()
    })
}

impl Stage<'_> {
    /// The Envoy comes to hold the tables that will change.
    async fn call(&mut self) -> Result<()> {
        for service in self.mesh.services.iter().take(EDITED) {
            let (host, port) = (service.host(), service.ports[0].number);
            let address = SocketAddr::new(service.address.parse()?, port);
            let _calls = self.envoys.call(&host, address)?;
            let table = Probe::Dump(table_page(service), host);
            self.envoys.seen(&table, Stamp(0), ASK).await?;
        }
        self.envoys.idle().await
    }

    /// What one VirtualService's weight costs its main thread, and how long it takes.
    async fn weights(&mut self) -> Result<(Option<f64>, Option<f64>)> {
        let (mut costs, mut times) = (Vec::new(), Vec::new());
        for round in 0..=CHANGES {
            let change = self.mesh.next(Edit::Weight);
            let probe = change.probe.clone().context("a change that Envoy dates")?;
            self.envoys.idle().await?;
            let spent = self.envoys.spent();
            let begun = self.source.apply(&change).await?;
            tokio::time::sleep(under_way(self.mesh.size.packing)).await;
            let Applied { last, cost } = self.envoys.applied(&probe, begun, &spent).await?;
            if round > 0 {
                costs.extend(cost.map(|seconds| seconds * 1e3));
                times.extend(last.map(|last| millis(last.since(begun))));
            }
        }
        let known = |values: Vec<f64>| (!values.is_empty()).then(|| median(values));
        Ok((known(costs), known(times)))
    }
}

/// Nobody is asked when a change comes, so it is waited for: a whole table is long under way.
fn under_way(packing: Packing) -> Duration {
    match packing {
        Packing::Rds => Duration::from_secs(1),
        Packing::Scoped | Packing::OnDemand => Duration::from_millis(100),
    }
}

/// Of the sizes in one packing; what they say together stands beside the largest.
pub fn judge(rows: &mut [Grown]) {
    let [first, .., last] = rows else {
        return;
    };
    if first.void.is_some() || last.void.is_some() {
        return;
    }
    last.bars = match last.packing {
        Packing::OnDemand => each_scope(first, last),
        Packing::Scoped => flat(first, last),
        Packing::Rds => Vec::new(),
    };
}

fn each_scope(small: &Grown, large: &Grown) -> Vec<Bar> {
    let scopes = large.scopes as f64 - small.scopes as f64;
    let resident = (large.resident as f64 - small.resident as f64) / scopes;
    let seconds = (large.ready_cpu_s - small.ready_cpu_s) / scopes;
    let bar = |text: String, met: bool| Bar { text, met };
    vec![
        bar(
            format!("{resident:.0} B a scope <= {BYTES:.0} B"),
            scopes > 0.0 && resident <= BYTES,
        ),
        bar(
            format!("{:.1} us a scope <= {:.0} us", seconds * 1e6, SECONDS * 1e6),
            scopes > 0.0 && seconds <= SECONDS,
        ),
    ]
}

fn flat(small: &Grown, large: &Grown) -> Vec<Bar> {
    let bar = |what: &str, of: fn(&Grown) -> Option<f64>| {
        let ratio = of(large).zip(of(small)).map(|(large, small)| large / small);
        let ratio = ratio.unwrap_or(f64::INFINITY);
        Bar {
            text: format!("{what} {ratio:.2} x as in the smallest <= {FLAT}"),
            met: ratio <= FLAT,
        }
    };
    vec![
        bar("change", |row| row.change_ms),
        bar("its cpu", |row| row.change_cpu_ms),
    ]
}

const HEAD: [&str; 11] = [
    "packing",
    "services",
    "scopes",
    "a service",
    "clusters",
    "resident",
    "cpu to ready",
    "idle cpu",
    "change",
    "its cpu",
    "",
];

pub fn table(setting: &Setting, rows: &[Grown]) -> String {
    let head = std::iter::once(HEAD.map(String::from));
    let lines: Vec<_> = head.chain(rows.iter().map(cells)).collect();
    let endpoints = setting.endpoints;
    format!(
        "{}One Envoy; Services with {endpoints} endpoints each on one HTTP port, one in ten with a VirtualService and a\n\
         DestinationRule of two subsets; changes made in files\n\n{}",
        machine(setting),
        aligned(&lines, 1)
    )
}

/// One JSON object a row, with the mesh that it was measured in.
pub fn json_lines(setting: &Setting, rows: &[Grown]) -> Result<String> {
    let mut out = String::new();
    for row in rows {
        let setting = Setting {
            packing: row.packing,
            services: row.services,
            source: "files",
            ports: "http 80".into(),
            proxies: 0,
            envoys: 1,
            ..setting.clone()
        };
        out += &report::json_lines(&setting, std::slice::from_ref(row))?;
    }
    Ok(out)
}

fn cells(row: &Grown) -> [String; HEAD.len()] {
    let bars: Vec<String> = row.bars.iter().map(Bar::shown).collect();
    let void = row.void.as_ref().map(|why| format!("VOID: {why}"));
    [
        row.packing.name().into(),
        row.services.to_string(),
        row.scopes.to_string(),
        format!("{:.2}", row.scopes as f64 / row.services.max(1) as f64),
        row.clusters.to_string(),
        bytes(row.resident as f64),
        shown(row.ready_cpu_s * 1e3),
        format!("{:.2} ms/s", row.idle_cpu_s * 1e3),
        row.change_ms.map_or(String::new(), shown),
        row.change_cpu_ms
            .map_or(String::new(), |ms| format!("{ms:.2} ms")),
        void.unwrap_or_else(|| bars.join("; ")),
    ]
}
