//! Header route, retry and timeout, seen in real answers.

use std::time::Duration;

use anyhow::{Result, ensure};
use http::StatusCode;

use super::{Demo, Described};
use crate::cli::demo::client::Call;
use crate::cli::demo::report::span;

const REQUESTS: usize = 50;
/// What `routing.yaml` says.
const TRIES: u32 = 1 + 3;
const TIMEOUT: Duration = Duration::from_millis(300);
/// Envoy's timers count whole milliseconds and begin a little before the answer is waited for.
const EARLY: Duration = Duration::from_millis(20);
/// A busy machine answers late, a broken timeout not at all: the app takes much longer.
const SLACK: Duration = Duration::from_millis(700);
const APP_TAKES: Duration = Duration::from_secs(5);

pub async fn run(demo: &mut Demo<'_>) -> Result<()> {
    let header = header(demo).await;
    demo.report.check("`x-reader: tester` goes to v3", header);
    let retried = retried(demo).await;
    demo.report
        .check("a retry hides failures of the app", retried);
    let exhausted = exhausted(demo).await;
    demo.report.check("three retries, not more", exhausted);
    let timeout = timeout(demo, TIMEOUT).await;
    demo.report.check("an app that dawdles is cut off", timeout);
    Ok(())
}

pub async fn header(demo: &Demo<'_>) -> Result<String> {
    let tester = Call::new("reviews", "/").header("x-reader", "tester");
    let found = demo.versions(REQUESTS, &tester).await?;
    ensure!(
        found.get("v3") == Some(&REQUESTS) && found.len() == 1,
        "answered by {found:?}"
    );
    Ok(format!("{REQUESTS} of {REQUESTS} requests"))
}

/// The app fails the first tries of each request, and says which try it answered.
fn failing(tries: u32) -> Call {
    Call::new("ratings", "/retry").header("echo-fail-first", tries)
}

async fn retried(demo: &Demo<'_>) -> Result<String> {
    let storefront = demo.stage.pod("storefront")?;
    let described = Described::of(&storefront.call(&failing(TRIES - 1)).await?)?;
    ensure!(
        described.attempt == TRIES,
        "answered by try {}, not {TRIES}",
        described.attempt
    );
    Ok(format!("200 by try {}", described.attempt))
}

async fn exhausted(demo: &Demo<'_>) -> Result<String> {
    let storefront = demo.stage.pod("storefront")?;
    let answer = storefront.call(&failing(TRIES)).await?;
    let described: Described = answer.json()?;
    ensure!(
        answer.status == StatusCode::SERVICE_UNAVAILABLE && described.attempt == TRIES,
        "{} by try {}",
        answer.status,
        described.attempt
    );
    Ok(format!("503 by try {}", described.attempt))
}

pub async fn timeout(demo: &Demo<'_>, expected: Duration) -> Result<String> {
    let storefront = demo.stage.pod("storefront")?;
    let slow = Call::new("ratings", "/").header("echo-delay-ms", APP_TAKES.as_millis());
    let answer = storefront.call(&slow).await?;
    let (status, took) = (answer.status, span(answer.took));
    ensure!(
        status == StatusCode::GATEWAY_TIMEOUT,
        "{status} after {took}"
    );
    ensure!(
        (expected - EARLY..expected + SLACK).contains(&answer.took),
        "504 after {took}, expected after {}",
        span(expected)
    );
    Ok(format!(
        "504 after {took}, where the app takes {}",
        span(APP_TAKES)
    ))
}
