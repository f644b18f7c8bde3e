//! What was measured, as a table for people and JSON lines for programs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

/// One line of the table.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    pub transport: &'static str,
    pub work: &'static str,
    pub rounds: usize,
    /// Milliseconds until the last proxy had it: median and worst over the rounds.
    pub last_ms: f64,
    pub worst_ms: f64,
    /// The same until half of the proxies had it, median over the rounds.
    pub half_ms: f64,
    /// Per proxy and round, gRPC's framing included.
    pub bytes_per_proxy: f64,
    pub messages_per_proxy: f64,
    /// Processor seconds of the server a round (median).
    pub cpu_s: f64,
    pub note: String,
}

/// One round of a work that is done several times.
#[derive(Clone, Debug, Default)]
pub struct Round {
    pub last: Duration,
    pub half: Duration,
    pub bytes_per_proxy: f64,
    pub messages_per_proxy: f64,
    pub cpu_s: f64,
}

impl Round {
    /// From the times at which each proxy had it.
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self {
            last: times.last().copied().unwrap_or_default(),
            half: times.get(times.len() / 2).copied().unwrap_or_default(),
            ..Self::default()
        }
    }
}

impl Row {
    pub fn of(transport: &'static str, work: &'static str, rounds: &[Round]) -> Self {
        let all = |f: fn(&Round) -> f64| rounds.iter().map(f).collect::<Vec<_>>();
        let last = all(|r| millis(r.last));
        Self {
            transport,
            work,
            rounds: rounds.len(),
            worst_ms: last.iter().copied().fold(0.0, f64::max),
            last_ms: median(last),
            half_ms: median(all(|r| millis(r.half))),
            bytes_per_proxy: median(all(|r| r.bytes_per_proxy)),
            messages_per_proxy: median(all(|r| r.messages_per_proxy)),
            cpu_s: median(all(|r| r.cpu_s)),
            note: String::new(),
        }
    }

    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

/// Where and on what the rows were measured.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
    pub commit: String,
    pub services: usize,
    pub endpoints: usize,
    pub proxies: usize,
}

impl Setting {
    pub fn here(services: usize, endpoints: usize, proxies: usize) -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|l| l.strip_prefix("model name"));
        let cpu = model.map_or("unknown", |m| m.trim_start_matches([' ', '\t', ':']));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let git = Command::new("git")
            .args(["describe", "--always", "--dirty"])
            .output();
        let commit = git.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
        Self {
            cpu: cpu.into(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: kernel.trim().into(),
            commit: commit.unwrap_or_default(),
            services,
            endpoints,
            proxies,
        }
    }
}

const HEAD: [&str; 9] = [
    "",
    "work",
    "rounds",
    "last proxy",
    "worst",
    "half of them",
    "per proxy",
    "server cpu",
    "",
];

/// The table as text.
pub fn table(setting: &Setting, rows: &[Row]) -> String {
    let Setting {
        cpu,
        cores,
        kernel,
        commit,
        services,
        endpoints,
        proxies,
    } = setting;
    let mut out = format!(
        "\n{cpu}, {cores} cores shared by server and clients, Linux {kernel}, commit {commit}\n\
         {services} Services with {endpoints} endpoints each on http 80 and tcp 9090, one in ten with a \
         VirtualService and a DestinationRule of two subsets; {proxies} simulated proxies\n\n"
    );
    let cells: Vec<[String; 9]> = std::iter::once(HEAD.map(String::from))
        .chain(rows.iter().map(cells))
        .collect();
    let width = |column: usize| cells.iter().map(|c| c[column].len()).max().unwrap_or(0);
    let widths: [usize; 9] = std::array::from_fn(width);
    for line in &cells {
        let mut text = String::new();
        for (at, (cell, width)) in line.iter().zip(widths).enumerate() {
            let left = at < 2 || at == 8;
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

fn cells(row: &Row) -> [String; 9] {
    let counted = |text: String| if row.rounds == 0 { String::new() } else { text };
    let timed = |ms: f64| if ms == 0.0 { String::new() } else { shown(ms) };
    [
        row.transport.into(),
        row.work.into(),
        counted(row.rounds.to_string()),
        timed(row.last_ms),
        timed(row.worst_ms),
        timed(row.half_ms),
        counted(bytes(row.bytes_per_proxy)),
        counted(format!("{:.3} s", row.cpu_s)),
        row.note.clone(),
    ]
}

fn shown(ms: f64) -> String {
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
pub fn write_json(path: &Path, setting: &Setting, rows: &[Row]) -> Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        #[serde(flatten)]
        setting: &'a Setting,
        #[serde(flatten)]
        row: &'a Row,
    }
    let mut out = String::new();
    for row in rows {
        out.push_str(&serde_json::to_string(&Line { setting, row })?);
        out.push('\n');
    }
    fs::write(path, out).with_context(|| format!("write {}", path.display()))
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
