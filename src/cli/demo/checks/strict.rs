//! The switch between PERMISSIVE and STRICT under constant mTLS traffic.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Demo, Described, acked_in};
use crate::cli::demo::bookshop::{NAMESPACES, WORKLOADS};
use crate::cli::demo::client::{Call, Connection, once};
use crate::cli::demo::report::span;
use crate::cli::demo::stage::DRAIN;
use crate::cli::demo::wait::{Standing, until};
use crate::clock;
use crate::xds::ResourceType;

const TO_STRICT: [(&str, &str); 1] = [("mode: PERMISSIVE", "mode: STRICT")];
const TO_PERMISSIVE: [(&str, &str); 1] = [("mode: STRICT", "mode: PERMISSIVE")];
/// Envoy ends what drains at the next look at it.
const SLACK: Duration = Duration::from_secs(3);

pub async fn run(demo: &mut Demo<'_>) -> Result<()> {
    let before = demo.traffic.tally();
    let both = both(demo).await;
    demo.report
        .check("PERMISSIVE takes plaintext and mTLS", both);

    let mut open = open(demo).await?;
    let switch = demo
        .change(ResourceType::Listener, |copy| {
            copy.edit(NAMESPACES, &TO_STRICT)
        })
        .await;
    demo.report
        .check("switched to STRICT", switch.map(acked_in));
    let switched = clock::mono();
    let refused = refused(demo).await;
    demo.report
        .check("new plaintext connections are refused", refused);
    let drained = drained(demo, &mut open, switched).await;
    demo.report.check("open plaintext connections end", drained);

    let back = demo
        .change(ResourceType::Listener, |copy| {
            copy.edit(NAMESPACES, &TO_PERMISSIVE)
        })
        .await;
    demo.report
        .check("switched back to PERMISSIVE", back.map(acked_in));
    let both_again = self::both(demo).await;
    demo.report.check("both are taken again", both_again);
    let tally = demo.traffic.tally().since(before);
    let lossless = demo.lossless(tally);
    demo.report
        .check("mTLS traffic through both switches", lossless);
    Ok(())
}

fn plain() -> Call {
    Call::new("catalog", "/plain")
}

async fn both(demo: &Demo<'_>) -> Result<String> {
    let catalog = demo.stage.pod("catalog")?;
    let plaintext = once(&catalog.ingress(), &plain()).await;
    let plaintext = Described::of(&plaintext.context("plaintext")?).context("plaintext")?;
    ensure!(
        plaintext.peers().is_none(),
        "a plaintext request shows a certificate"
    );
    let storefront = demo.stage.pod("storefront")?;
    let encrypted = Described::of(&storefront.call(&plain()).await?).context("mTLS")?;
    encrypted
        .peers()
        .context("an mTLS request shows no certificate")?;
    Ok(String::new())
}

/// A plaintext connection that has served a request and stays open.
async fn open(demo: &Demo<'_>) -> Result<Connection> {
    let catalog = demo.stage.pod("catalog")?;
    let mut connection = Connection::open(&catalog.ingress()).await?;
    Described::of(&connection.call(&plain()).await?)?;
    Ok(connection)
}

async fn refused(demo: &Demo<'_>) -> Result<String> {
    for pod in &demo.stage.pods {
        if let Ok(answer) = once(&pod.ingress(), &plain()).await {
            anyhow::bail!("{} answers {}", pod.workload.name, answer.status);
        }
    }
    Ok(format!("by all {} sidecars", WORKLOADS.len()))
}

async fn drained(
    demo: &Demo<'_>,
    connection: &mut Connection,
    switched: std::time::Instant,
) -> Result<String> {
    until(
        demo.report,
        "an open connection",
        DRAIN + SLACK,
        async || {
            Ok(if connection.is_open().await {
                Standing::Not("still open".to_owned())
            } else {
                Standing::Done(())
            })
        },
    )
    .await?;
    let took = clock::mono() - switched;
    Ok(format!(
        "after {}, with a drain time of {}",
        span(took),
        span(DRAIN)
    ))
}
