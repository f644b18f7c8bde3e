//! What was measured, as a table for people and JSON lines for programs. What it should be is in `bars.rs`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::packing::Packing;

/// One line of the table. Numbers are medians over the rounds, unless they say otherwise.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    pub transport: &'static str,
    pub work: &'static str,
    pub rounds: usize,
    /// Milliseconds until half of the proxies had it, all but one in a hundred, the last one.
    pub half_ms: f64,
    pub p99_ms: f64,
    pub last_ms: f64,
    /// The last proxy in the worst round.
    pub worst_ms: f64,
    /// Until the last real Envoy applied it.
    pub envoy_ms: Option<f64>,
    /// What it took the main thread of one.
    pub envoy_cpu_ms: Option<f64>,
    /// Per proxy and round, gRPC's framing included.
    pub bytes_per_proxy: f64,
    pub messages_per_proxy: f64,
    /// Processor seconds a round.
    pub server_cpu_s: f64,
    pub client_cpu_s: f64,
    /// The busiest client process, as a share of one core.
    pub client_busy: f64,
    /// Bytes resident in the server.
    pub resident: u64,
    pub peak: u64,
    /// What the null server took to send the same responses.
    pub null_last_ms: Option<f64>,
    pub null_cpu_s: Option<f64>,
    /// The bars and whether each is met; none where none applies.
    pub bars: Vec<Bar>,
    pub note: String,
    /// Why it says nothing.
    pub void: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Bar {
    pub text: String,
    pub met: bool,
}

impl Bar {
    pub fn shown(&self) -> String {
        let verdict = if self.met { "met" } else { "NOT MET" };
        format!("{}: {verdict}", self.text)
    }
}

/// One round of a work.
#[derive(Clone, Debug, Default)]
pub struct Round {
    pub half: Duration,
    pub p99: Duration,
    pub last: Duration,
    pub envoy: Option<Duration>,
    pub envoy_cpu_s: Option<f64>,
    pub bytes_per_proxy: f64,
    pub messages_per_proxy: f64,
    pub server_cpu_s: f64,
    pub client_cpu_s: f64,
    /// Shares of a core until the last proxy had it: the busiest client, and the server.
    pub client_busy: f64,
    pub server_busy: f64,
}

impl Round {
    /// From the times at which each proxy had it.
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        let at = |share: usize| times.get(times.len() * share / 100);
        Self {
            half: at(50).copied().unwrap_or_default(),
            p99: at(99).or(times.last()).copied().unwrap_or_default(),
            last: times.last().copied().unwrap_or_default(),
            ..Self::default()
        }
    }
}

impl Row {
    pub fn of(transport: &'static str, work: &'static str, rounds: &[Round]) -> Self {
        let all = |f: fn(&Round) -> f64| rounds.iter().map(f).collect::<Vec<_>>();
        let last = all(|r| millis(r.last));
        let known = |f: fn(&Round) -> Option<f64>| {
            let values: Vec<f64> = rounds.iter().filter_map(f).collect();
            (!values.is_empty()).then(|| median(values))
        };
        Self {
            transport,
            work,
            rounds: rounds.len(),
            worst_ms: last.iter().copied().fold(0.0, f64::max),
            last_ms: median(last),
            half_ms: median(all(|r| millis(r.half))),
            p99_ms: median(all(|r| millis(r.p99))),
            envoy_ms: known(|r| r.envoy.map(millis)),
            envoy_cpu_ms: known(|r| r.envoy_cpu_s.map(|s| s * 1e3)),
            bytes_per_proxy: median(all(|r| r.bytes_per_proxy)),
            messages_per_proxy: median(all(|r| r.messages_per_proxy)),
            server_cpu_s: median(all(|r| r.server_cpu_s)),
            client_cpu_s: median(all(|r| r.client_cpu_s)),
            client_busy: median(all(|r| r.client_busy)),
            ..Self::default()
        }
    }

    pub fn void(transport: &'static str, work: &'static str, why: String) -> Self {
        Self {
            transport,
            work,
            void: Some(why),
            ..Self::default()
        }
    }

    pub fn note(mut self, note: impl AsRef<str>) -> Self {
        if !self.note.is_empty() {
            self.note.push_str("; ");
        }
        self.note.push_str(note.as_ref());
        self
    }
}

/// Where and on what the rows were measured.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
    pub load: String,
    pub commit: String,
    pub source: &'static str,
    pub packing: Packing,
    /// Of each Service.
    pub ports: String,
    pub seed: u64,
    pub services: usize,
    pub endpoints: usize,
    pub proxies: usize,
    pub envoys: usize,
}

impl Setting {
    /// This machine now.
    pub fn here() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|l| l.strip_prefix("model name"));
        let cpu = model.map_or("unknown", |m| m.trim_start_matches([' ', '\t', ':']));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let git = Command::new("git")
            .args(["describe", "--always", "--dirty"])
            .output();
        let commit = git.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
        Self {
            cpu: cpu.into(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: kernel.trim().into(),
            load: load.split(' ').take(3).collect::<Vec<_>>().join(" "),
            commit: commit.unwrap_or_default(),
            source: "",
            packing: Packing::Rds,
            ports: String::new(),
            seed: 0,
            services: 0,
            endpoints: 0,
            proxies: 0,
            envoys: 0,
        }
    }
}

const COLUMNS: usize = 14;
const HEAD: [&str; COLUMNS] = [
    "",
    "work",
    "rounds",
    "half",
    "p99",
    "last",
    "worst",
    "x null",
    "envoys",
    "envoy cpu",
    "per proxy",
    "server cpu",
    "x null",
    "",
];

/// The table as text.
pub fn table(setting: &Setting, rows: &[Row]) -> String {
    let Setting {
        source,
        packing,
        ports,
        services,
        endpoints,
        proxies,
        envoys,
        ..
    } = setting;
    let out = format!(
        "{}{services} Services with {endpoints} endpoints each on {ports}, one in ten with a VirtualService and a\n\
         DestinationRule of two subsets; {proxies} simulated proxies, {envoys} Envoys; changes made in {source};\n\
         route tables packed as {}\n\n",
        machine(setting),
        packing.name()
    );
    let head = std::iter::once(HEAD.map(String::from));
    let lines: Vec<_> = head.chain(rows.iter().map(cells)).collect();
    out + &aligned(&lines, 2)
}

/// On what it was measured, as one line.
pub fn machine(setting: &Setting) -> String {
    let Setting {
        cpu,
        cores,
        kernel,
        load,
        commit,
        seed,
        ..
    } = setting;
    format!(
        "\n{cpu}, {cores} cores shared by server and clients, Linux {kernel}, load {load}, commit {commit}, seed {seed}\n"
    )
}

/// Lines of cells: so many columns that begin with words, then numbers, and remarks at the end.
pub fn aligned<const COLUMNS: usize>(lines: &[[String; COLUMNS]], words: usize) -> String {
    let mut out = String::new();
    let width = |column: usize| lines.iter().map(|c| c[column].chars().count()).max();
    let widths: [usize; COLUMNS] = std::array::from_fn(|c| width(c).unwrap_or(0));
    for line in lines {
        let mut text = String::new();
        for (at, (cell, width)) in line.iter().zip(widths).enumerate() {
            let left = at < words || at == COLUMNS - 1;
            let _ = if left {
                write!(text, "{cell:width$}  ")
            } else {
                write!(text, "{cell:>width$}  ")
            };
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

fn cells(row: &Row) -> [String; COLUMNS] {
    let counted = |text: String| {
        if row.rounds == 0 { String::new() } else { text }
    };
    let timed = |ms: f64| if ms == 0.0 { String::new() } else { shown(ms) };
    let against = |ours: f64, null: Option<f64>| {
        let ratio = null.filter(|null| *null > 0.0).map(|null| ours / null);
        ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"))
    };
    [
        row.transport.into(),
        row.work.into(),
        counted(row.rounds.to_string()),
        timed(row.half_ms),
        timed(row.p99_ms),
        timed(row.last_ms),
        timed(row.worst_ms),
        against(row.last_ms, row.null_last_ms),
        row.envoy_ms.map_or(String::new(), shown),
        row.envoy_cpu_ms
            .map_or(String::new(), |ms| format!("{ms:.2} ms")),
        counted(bytes(row.bytes_per_proxy)),
        counted(format!("{:.3} s", row.server_cpu_s)),
        against(row.server_cpu_s, row.null_cpu_s),
        remarks(row),
    ]
}

fn remarks(row: &Row) -> String {
    if let Some(why) = &row.void {
        return format!("VOID: {why}");
    }
    let bars = row.bars.iter().map(Bar::shown);
    let note = (!row.note.is_empty()).then(|| row.note.clone());
    bars.chain(note).collect::<Vec<_>>().join("; ")
}

pub fn shown(ms: f64) -> String {
    if ms >= 100.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{ms:.1} ms")
    }
}

pub fn bytes(count: f64) -> String {
    match count {
        c if c >= 1e7 => format!("{:.0} MB", c / 1e6),
        c if c >= 1e6 => format!("{:.1} MB", c / 1e6),
        c if c >= 1e4 => format!("{:.0} kB", c / 1e3),
        c if c >= 1e3 => format!("{:.1} kB", c / 1e3),
        c => format!("{c:.0} B"),
    }
}

/// One JSON object a row, the setting in each.
pub fn json_lines<R: Serialize>(setting: &Setting, rows: &[R]) -> Result<String> {
    #[derive(Serialize)]
    struct Line<'a, R> {
        #[serde(flatten)]
        setting: &'a Setting,
        #[serde(flatten)]
        row: &'a R,
    }
    let mut out = String::new();
    for row in rows {
        out.push_str(&serde_json::to_string(&Line { setting, row })?);
        out.push('\n');
    }
    Ok(out)
}

pub fn write(path: &Path, text: &str) -> Result<()> {
    let tried = || format!("write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(tried)?;
    }
    fs::write(path, text).with_context(tried)
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
