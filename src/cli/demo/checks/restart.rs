//! The control plane killed under traffic, and back from its state directory.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::{SignedDuration, Timestamp};

use super::rotation::{Certificate, newest};
use super::{Demo, acked_in, split};
use crate::cli::demo::bookshop::{ROUTING, WORKLOADS};
use crate::cli::demo::report::span;
use crate::cli::demo::wait::{Standing, pass, until};
use crate::clock;
use crate::xds::ResourceType;

/// How long the mesh runs without it.
const AWAY: Duration = Duration::from_secs(3);
/// Envoy looks for its control plane again after 10 s at the latest.
const RECONNECT: Duration = Duration::from_secs(30);
/// The types that a client brings versions of when it comes back.
const RESUMED: [&str; 4] = ["cds", "eds", "lds", "rds"];

const RESOURCES: &str = "fairlead_resources_sent_total";
const BYTES: &str = "fairlead_bytes_sent_total";

pub async fn run(demo: &mut Demo<'_>) -> Result<()> {
    let root = root_cert(demo)?;
    let held = certificates(demo).await?;
    let before = demo.traffic.tally();
    demo.stage.plane.process.kill().await?;
    pass(demo.report, "without a control plane", AWAY, || {
        demo.traffic.tally().since(before).to_string()
    })
    .await;
    let away = demo.lossless(demo.traffic.tally().since(before));
    demo.report
        .check("killed with SIGKILL, traffic goes on", away);

    let back = come_back(demo).await;
    demo.report
        .check("started again from its state directory", back);
    let same = root_cert(demo)? == root;
    let outcome = if same {
        Ok(String::new())
    } else {
        Err(anyhow::anyhow!("its root certificate is another one"))
    };
    demo.report.check("the CA is the same", outcome);
    let resumed = resumed(demo).await;
    demo.report
        .check("proxies are sent nothing that they have", resumed);
    let needless = needless(demo, &held).await;
    demo.report
        .check("no certificate is issued that nobody needs", needless);

    let change = demo
        .change(ResourceType::Route, |copy| {
            let split = "weight: 50\n    - destination:\n        host: reviews\n        subset: v2\n      weight: 50";
            let back = split.replacen("50", "90", 1).replacen("50", "10", 1);
            copy.edit(ROUTING, &[(split, &back)])
        })
        .await;
    demo.report
        .check("a change still arrives (90/10 again)", change.map(acked_in));
    let ninety = split::check(demo, 90).await;
    demo.report.check("and is what requests see", ninety);
    let lossless = demo.lossless(demo.traffic.tally().since(before));
    demo.report.check("traffic through all of this", lossless);
    Ok(())
}

fn root_cert(demo: &Demo<'_>) -> Result<Vec<u8>> {
    let path = demo.stage.plane.root_cert();
    fs::read(&path).with_context(|| format!("read {}", path.display()))
}

async fn certificates(demo: &Demo<'_>) -> Result<BTreeMap<&'static str, Certificate>> {
    let mut all = BTreeMap::new();
    for pod in &demo.stage.pods {
        all.insert(pod.workload.name, newest(pod).await?);
    }
    Ok(all)
}

/// Restarts, and waits until every proxy is back and has what it should have.
pub async fn come_back(demo: &mut Demo<'_>) -> Result<String> {
    let begin = clock::mono();
    demo.stage.plane.restart(demo.report).await?;
    let listens = clock::mono() - begin;
    let plane = &demo.stage.plane;
    until(demo.report, "proxies to come back", RECONNECT, async || {
        let sync = plane.sync().await?;
        let proxies = sync.proxies();
        Ok(if proxies == WORKLOADS.len() && sync.is_settled() {
            Standing::Done(())
        } else {
            Standing::Not(format!("{proxies} of {}", WORKLOADS.len()))
        })
    })
    .await?;
    Ok(format!(
        "listens after {}, all proxies back after {}",
        span(listens),
        span(clock::mono() - begin)
    ))
}

/// Counters of the new process began at zero.
pub async fn resumed(demo: &Demo<'_>) -> Result<String> {
    let metrics = demo.stage.plane.metrics().await?;
    let (resources, bytes) = (metrics.by(RESOURCES, "type"), metrics.by(BYTES, "type"));
    let of = |map: &BTreeMap<String, f64>, kind: &str| -> Result<f64> {
        let found = map.get(kind).copied();
        found.with_context(|| format!("/metrics tells nothing of {kind}"))
    };
    let mut told = Vec::new();
    let mut needless = 0.0;
    for kind in RESUMED {
        let sent = of(&resources, kind)?;
        needless += sent;
        told.push(format!("{kind} {sent} ({} bytes)", of(&bytes, kind)?));
    }
    let told = format!("resources sent: {}", told.join(", "));
    ensure!(needless == 0.0, "{told}");
    Ok(told)
}

/// A certificate that is not at half of its life yet is in use before and after.
async fn needless(demo: &Demo<'_>, before: &BTreeMap<&'static str, Certificate>) -> Result<String> {
    let sent = demo.stage.plane.metrics().await?.by(RESOURCES, "type");
    let sent = sent
        .get("sds")
        .copied()
        .context("/metrics tells nothing of sds")?;
    let now = Timestamp::try_from(clock::wall())?;
    let life = SignedDuration::try_from(demo.stage.plane.certificate_life())?;
    let after = certificates(demo).await?;
    let (mut kept, mut due) = (0, 0);
    for (name, old) in before {
        if after.get(name) == Some(old) {
            kept += 1;
        } else {
            let left = old.expires.duration_since(now);
            // Renewal is due between 45 and 55 % of a life.
            ensure!(
                left <= life * 55 / 100,
                "{name} was issued another one when the old one was good for {} s of {} s",
                left.as_secs(),
                life.as_secs()
            );
            due += 1;
        }
    }
    ensure!(
        sent <= f64::from(due),
        "{sent} secrets were sent and {due} certificates were due"
    );
    Ok(format!(
        "{kept} proxies keep theirs, {due} were due at half of their life, {sent} secrets sent"
    ))
}
