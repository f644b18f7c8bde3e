//! All proxies connected and ACKed, the first request, identities, no way past the sidecar.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Demo, Described, first_answer};
use crate::cli::demo::bookshop::{SERVICES, WORKLOADS, spiffe};
use crate::cli::demo::process::listens;
use crate::cli::demo::report::span;
use crate::cli::demo::wait::{Standing, until};
use crate::clock;

const DEADLINE: Duration = Duration::from_secs(30);

pub async fn run(demo: &mut Demo<'_>) -> Result<()> {
    let storefront = demo.stage.pod("storefront")?;
    first_answer(demo.report, storefront, "catalog").await?;
    let took = clock::mono() - demo.stage.begun;
    demo.report.check(
        "first request answered",
        Ok(format!(
            "{} after the start of the control plane",
            span(took)
        )),
    );
    let standing = settled(demo).await;
    demo.report
        .check("every resource ACKed, none NACKed", standing);
    let identities = identities(demo).await;
    demo.report.check(
        "everybody calls everybody, both identities in each answer",
        identities,
    );
    demo.traffic.begin();
    let alone = alone(demo);
    demo.report.check("no way to an app but its sidecar", alone);
    Ok(())
}

async fn settled(demo: &Demo<'_>) -> Result<String> {
    let plane = &demo.stage.plane;
    until(demo.report, "proxies", DEADLINE, async || {
        let sync = plane.sync().await?;
        let (proxies, nacked) = (sync.proxies(), sync.nacked());
        ensure!(nacked == 0, "{nacked} resources NACKed");
        let told = format!("{proxies} proxies, {} resources ACKed", sync.acked());
        Ok(if proxies == WORKLOADS.len() && sync.is_settled() {
            Standing::Done(told)
        } else {
            Standing::Not(told)
        })
    })
    .await
}

async fn identities(demo: &Demo<'_>) -> Result<String> {
    let mut requests = 0;
    for pod in &demo.stage.pods {
        for service in SERVICES {
            let described = first_answer(demo.report, pod, service).await?;
            expect_peers(&described, service, &pod.workload.identity())
                .with_context(|| format!("{} calls {service}", pod.workload.name))?;
            requests += 1;
        }
    }
    Ok(format!(
        "{requests} pairs, as {} to {}",
        WORKLOADS[0].identity(),
        spiffe(SERVICES[1])
    ))
}

fn expect_peers(described: &Described, service: &str, caller: &str) -> Result<()> {
    let peers = described
        .peers()
        .context("no client certificate was shown")?;
    let name = &described.name;
    ensure!(name == service, "`{name}` answered");
    ensure!(peers.by == spiffe(service), "called {}", peers.by);
    ensure!(peers.uri == caller, "called by {}", peers.uri);
    Ok(())
}

/// The apps have Unix sockets in a private folder and no other listener; at A:9080 is the sidecar.
fn alone(demo: &Demo<'_>) -> Result<String> {
    for pod in &demo.stage.pods {
        let name = pod.workload.name;
        let of = |pid: Option<u32>| {
            let pid = pid.with_context(|| format!("{name} has ended"))?;
            listens(pid).with_context(|| format!("look at the sockets of {name}"))
        };
        let app = of(pod.app.pid())?;
        ensure!(
            app.is_empty(),
            "the app {name} listens on {}",
            app.join(", ")
        );
        let sidecar = of(pod.envoy.pid())?;
        let ingress = pod.workload.ingress().to_string();
        ensure!(
            sidecar.contains(&ingress),
            "not the sidecar listens on {ingress} ({})",
            sidecar.join(", ")
        );
    }
    Ok("the apps listen on Unix sockets alone; what listens at A:9080 is the sidecar".to_owned())
}
