//! What the rows should be, at the size that the bars are set for. They judge the table; they change nothing.

use super::packing::Packing;
use super::report::{Bar, Row, Setting};

/// The size that the bars hold at.
const SERVICES: usize = 1000;
const PROXIES: usize = 500;

const PLAINTEXT: &str = "plaintext";
const TLS: &str = "tls";

/// Which number of a row a bar is for.
#[derive(Clone, Copy)]
enum Of {
    Last,
    LastToNull,
    Cpu,
    CpuToNull,
    Bytes,
    Resident,
    Peak,
}

/// Transport, work, number, and the most that it may be, with whole tables.
const BARS: &[(&str, &str, Of, f64)] = &[
    (TLS, "storm-cold", Of::LastToNull, 1.5),
    (TLS, "storm-cold", Of::CpuToNull, 1.3),
    (TLS, "storm-cold", Of::Peak, 200e6),
    (TLS, "storm-warm", Of::LastToNull, 1.5),
    (TLS, "storm-warm", Of::CpuToNull, 1.3),
    (PLAINTEXT, "storm-cold", Of::Cpu, 2.5),
    (TLS, "eds-1", Of::Last, 20.0),
    (TLS, "eds-1", Of::Cpu, 0.02),
    (TLS, "vs-1", Of::Last, 250.0),
    (TLS, "vs-1", Of::Cpu, 0.3),
    (TLS, "vs-noop", Of::Bytes, 0.0),
    (TLS, "dr-1", Of::Last, 50.0),
    (TLS, "dr-1", Of::Cpu, 0.05),
    (TLS, "restart", Of::Last, 1000.0),
    (TLS, "restart", Of::Bytes, 2000.0),
    (TLS, "settled", Of::Resident, 90e6),
];

/// With scopes.
const SCOPED: &[(&str, &str, Of, f64)] = &[
    (TLS, "vs-1", Of::Last, 30.0),
    (TLS, "vs-1", Of::Cpu, 0.03),
    (TLS, "vs-1", Of::Bytes, 1000.0),
];

/// Puts the bars that apply beside a row's numbers.
pub fn judge(setting: &Setting, rows: &mut [Row]) {
    if setting.services != SERVICES || setting.proxies != PROXIES {
        return;
    }
    let bars = match setting.packing {
        Packing::Rds => BARS,
        Packing::Scoped => SCOPED,
        Packing::OnDemand => &[],
    };
    for row in rows.iter_mut().filter(|row| row.void.is_none()) {
        let mine = bars
            .iter()
            .filter(|(transport, work, ..)| *transport == row.transport && *work == row.work);
        row.bars = mine.map(|(.., of, most)| bar(row, *of, *most)).collect();
    }
}

fn bar(row: &Row, of: Of, most: f64) -> Bar {
    let ratio = |ours: f64, null: Option<f64>| null.map_or(f64::INFINITY, |null| ours / null);
    let (value, text) = match of {
        Of::Last => (row.last_ms, format!("last <= {most} ms")),
        Of::LastToNull => (
            ratio(row.last_ms, row.null_last_ms),
            format!("last <= {most} x null"),
        ),
        Of::Cpu => (row.server_cpu_s, format!("cpu <= {most} s")),
        Of::CpuToNull => (
            ratio(row.server_cpu_s, row.null_cpu_s),
            format!("cpu <= {most} x null"),
        ),
        Of::Bytes => (row.bytes_per_proxy, format!("<= {most} B a proxy")),
        Of::Resident => (
            row.resident as f64,
            format!("resident <= {} MB", most / 1e6),
        ),
        Of::Peak => (row.peak as f64, format!("peak <= {} MB", most / 1e6)),
    };
    Bar {
        text,
        met: value <= most,
    }
}
