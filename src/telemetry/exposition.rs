//! Counters, gauges and histograms, and Prometheus' text form of them. Which there are is `metrics`.
//!
//! Names are written as they stand: Istio's counters have no `_total`, and dashboards rely on it.

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Values of the label `type`, in the order of the xDS types.
pub const TYPES: [&str; 6] = ["cds", "eds", "lds", "rds", "srds", "sds"];

#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

#[derive(Debug, Default)]
pub struct CounterByType([Counter; TYPES.len()]);

/// A value that may fall. Whole numbers only.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

/// Times in seconds, in buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BOUNDS.len()],
    count: Counter,
    micros: Counter,
}

/// Upper bounds in seconds: from a fraction of a millisecond, which is the goal, to what is broken.
const BOUNDS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0,
];

impl Counter {
    pub fn inc(&self) {
        self.add(1);
    }

    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// For what is counted elsewhere and only shown here.
    pub fn show(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl CounterByType {
    pub fn of(&self, index: usize) -> &Counter {
        &self.0[index]
    }
}

impl Gauge {
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

impl Histogram {
    pub fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        if let Some(at) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            self.buckets[at].inc();
        }
        self.count.inc();
        self.micros
            .add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }
}

/// Something with samples under one name.
pub trait Metric {
    const TYPE: &'static str;

    fn write(&self, name: &str, page: &mut Page);
}

/// The page of all metrics.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    pub fn put<M: Metric>(&mut self, name: &str, help: &str, metric: &M) {
        self.head(name, help, M::TYPE);
        metric.write(name, self);
    }

    /// A value with one label, such as a version.
    pub fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) {
        self.head(name, help, "gauge");
        let labels: Vec<String> = labels
            .iter()
            .map(|(k, v)| format!("{k}=\"{}\"", escaped(v)))
            .collect();
        self.line(name, &labels.join(","), 1);
    }

    pub fn number(&mut self, name: &str, help: &str, kind: &str, value: f64) {
        self.head(name, help, kind);
        self.line(name, "", value);
    }

    pub fn finish(self) -> String {
        self.0
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    pub(super) fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = if labels.is_empty() {
            writeln!(self.0, "{name} {value}")
        } else {
            writeln!(self.0, "{name}{{{labels}}} {value}")
        };
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

impl Metric for Counter {
    const TYPE: &'static str = "counter";

    fn write(&self, name: &str, page: &mut Page) {
        page.line(name, "", self.get());
    }
}

impl Metric for CounterByType {
    const TYPE: &'static str = "counter";

    fn write(&self, name: &str, page: &mut Page) {
        for (label, counter) in TYPES.iter().zip(&self.0) {
            page.line(name, &format!("type=\"{label}\""), counter.get());
        }
    }
}

impl Metric for Gauge {
    const TYPE: &'static str = "gauge";

    fn write(&self, name: &str, page: &mut Page) {
        page.line(name, "", self.0.load(Ordering::Relaxed));
    }
}

impl Metric for Histogram {
    const TYPE: &'static str = "histogram";

    fn write(&self, name: &str, page: &mut Page) {
        let count = self.count.get();
        let mut below = 0;
        let bucket = format!("{name}_bucket");
        for (bound, counter) in BOUNDS.iter().zip(&self.buckets) {
            below += counter.get();
            page.line(&bucket, &format!("le=\"{bound}\""), below);
        }
        page.line(&bucket, "le=\"+Inf\"", count.max(below));
        let sum = Duration::from_micros(self.micros.get()).as_secs_f64();
        page.line(&format!("{name}_sum"), "", sum);
        page.line(&format!("{name}_count"), "", count.max(below));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_keep_the_names_they_are_given() {
        let counter = CounterByType::default();
        counter.of(1).add(3);
        let mut page = Page::default();
        page.put("pilot_xds_pushes", "Responses sent.", &counter);
        let want = "# HELP pilot_xds_pushes Responses sent.\n# TYPE pilot_xds_pushes counter\n\
            pilot_xds_pushes{type=\"cds\"} 0\npilot_xds_pushes{type=\"eds\"} 3\n\
            pilot_xds_pushes{type=\"lds\"} 0\npilot_xds_pushes{type=\"rds\"} 0\n\
            pilot_xds_pushes{type=\"srds\"} 0\npilot_xds_pushes{type=\"sds\"} 0\n";
        assert_eq!(page.finish(), want);
    }

    #[test]
    fn a_histogram_counts_upwards_to_infinity() {
        let times = Histogram::default();
        for millis in [1, 40, 60_000] {
            times.observe(Duration::from_millis(millis));
        }
        let mut page = Page::default();
        page.put("t", "x", &times);
        let text = page.finish();
        for line in [
            "t_bucket{le=\"0.0005\"} 0",
            "t_bucket{le=\"0.001\"} 1",
            "t_bucket{le=\"0.05\"} 2",
            "t_bucket{le=\"30\"} 2",
            "t_bucket{le=\"+Inf\"} 3",
            "t_sum 60.041",
            "t_count 3",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line} in {text}");
        }
    }

    #[test]
    fn label_values_are_escaped() {
        let mut page = Page::default();
        page.info("i", "x", &[("version", "a\"b\\\n")]);
        assert!(page.finish().contains("i{version=\"a\\\"b\\\\\\n\"} 1"));
    }
}
