//! Metrics and version, for Prometheus and scripts; nothing of them tells of configuration. Beside them, for whoever
//! has a token, the pages that do: 15014 is where tools look for them.

use std::time::SystemTime;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use super::{Pages, guarded};
use crate::clock;
use crate::delivery::hub::report::{Inspect, Summary};
use crate::telemetry::exposition::Page;
use crate::telemetry::retries::Attempt;
use crate::xds::ResourceType;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Port 15014.
pub fn router(pages: Pages) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .merge(guarded(&pages))
        .with_state(pages)
}

async fn metrics(State(pages): State<Pages>) -> Response {
    if let Some(summary) = pages.shelf.desk.inspect(Inspect::Summary).await {
        pages.show(&summary);
    }
    let mut page = Page::default();
    let version = [("version", VERSION)];
    page.info("pilot_info", "The control plane's version.", &version);
    let tag = [("component", "pilot"), ("tag", VERSION)];
    page.info("istio_build", "The control plane's build.", &tag);
    let up = clock::mono().saturating_duration_since(pages.started);
    let help = "Seconds since the control plane started.";
    page.number("istiod_uptime_seconds", help, "gauge", up.as_secs_f64());
    pages.metrics.write(&mut page);
    process(&mut page);
    ([(CONTENT_TYPE, TEXT)], page.finish()).into_response()
}

/// The shape that `istioctl version` reads.
async fn version() -> Json<serde_json::Value> {
    Json(json!({
        "version": VERSION,
        "revision": "unknown",
        "golang_version": "",
        "status": "Clean",
        "tag": VERSION,
    }))
}

impl Pages {
    /// Takes over what is counted elsewhere.
    fn show(&self, summary: &Summary) {
        let m = &self.metrics;
        m.sessions.set(summary.sessions as u64);
        m.services.set(summary.services as u64);
        m.virtual_services.set(summary.virtual_services as u64);
        m.in_flight.set(summary.in_flight);
        let (objects, unreadable) = (self.objects)();
        m.objects.show(&objects);
        m.rejections.show(&objects);
        m.unreadable.set(unreadable);
        for (kind, count) in summary.renders.iter().enumerate() {
            m.renders.of(kind).show(*count);
        }
        let refused = |kind: ResourceType| summary.refused[kind as usize] as u64;
        m.cds_reject.set(refused(ResourceType::Cluster));
        m.eds_reject.set(refused(ResourceType::Endpoint));
        m.lds_reject.set(refused(ResourceType::Listener));
        m.rds_reject.set(refused(ResourceType::Route));
        m.srds_reject.set(refused(ResourceType::ScopedRoute));
        m.issued.show(self.authority.issued());
        m.by_standby
            .show(self.shelf.desk.authenticator.by_standby());
        m.unauthenticated
            .show(self.shelf.desk.authenticator.refused());
        m.retries.of(Attempt::Secret).show(self.authority.failed());
        let seconds = |at: SystemTime| {
            at.duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default()
        };
        m.root_expiry
            .set(seconds(self.authority.root_not_after()).as_secs());
        m.chain_expiry
            .set(seconds(self.authority.not_after()).as_secs());
    }
}

/// What Linux says of this process; absent where it says nothing.
fn process(page: &mut Page) {
    if let Some(bytes) = resident() {
        let name = "process_resident_memory_bytes";
        page.number(name, "Memory in use.", "gauge", bytes);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        let help = "Open file descriptors.";
        page.number("process_open_fds", help, "gauge", open.count() as f64);
    }
    if let Some(seconds) = cpu() {
        let name = "process_cpu_seconds_total";
        page.number(name, "CPU time spent.", "counter", seconds);
    }
}

fn resident() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024.0)
}

/// Fields 14 and 15 of /proc/self/stat, in ticks of 10 ms on every Linux that Envoy runs on.
fn cpu() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields = stat.rsplit_once(')')?.1;
    let mut fields = fields.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / 100.0)
}
