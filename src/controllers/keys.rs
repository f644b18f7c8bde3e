//! The cluster's public keys for tokens, followed for a time without the API server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use kube::Client;
use serde_json::Value;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Installed;
use crate::backoff::jittered;
use crate::ca::standby::{IssuerKeys, Standby};
use crate::clock;

/// What an issuer of tokens publishes (OpenID Connect Discovery).
const ISSUER: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/openid/v1/jwks";
const ASK: Duration = Duration::from_secs(10);
/// Keys change when the cluster's are rotated; the old ones stay for as long as their tokens live.
const LOOK: Duration = Duration::from_secs(600);
const AGAIN: Duration = Duration::from_secs(10);
/// Keys that nobody confirmed for so long speak for nobody.
const LAST: Duration = Duration::from_secs(24 * 3600);

/// Keeps the standby at the cluster's newest keys.
pub async fn run(
    installed: Installed,
    standby: Arc<Standby>,
    stop: CancellationToken,
) -> Result<()> {
    let mut held: Option<(IssuerKeys, Instant)> = None;
    let mut told = false;
    loop {
        let asked = time::timeout(ASK, ask(&installed.client)).await;
        let now = clock::mono();
        let wait = match asked.unwrap_or_else(|_| bail!("no answer in time")) {
            Ok(keys) => {
                if held.as_ref().is_none_or(|(known, _)| *known != keys) {
                    take(&standby, &keys);
                }
                held = Some((keys, now));
                told = false;
                LOOK
            }
            Err(why) => {
                tell(&why, &mut told);
                let lost = |(_, seen): &(IssuerKeys, Instant)| now.duration_since(*seen) > LAST;
                if held.take_if(|held| lost(held)).is_some() {
                    warn!("the keys of the cluster's tokens are too old to be relied on");
                    standby.forget();
                }
                AGAIN
            }
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = time::sleep(jittered(wait)) => {}
        }
    }
}

fn tell(why: &anyhow::Error, told: &mut bool) {
    let why = format!("{why:#}");
    if std::mem::replace(told, true) {
        debug!(why, "keys of the cluster's tokens not read");
    } else {
        warn!(
            why,
            "keys of the cluster's tokens not read: without them no new proxy is served while the API server is away"
        );
    }
}

fn take(standby: &Standby, keys: &IssuerKeys) {
    match standby.replace(keys) {
        Ok(()) => info!(
            issuer = keys.issuer,
            "the cluster's tokens can be checked without it"
        ),
        Err(why) => warn!(%why, "the cluster's tokens cannot be checked without it"),
    }
}

async fn ask(client: &Client) -> Result<IssuerKeys> {
    let get = |path: &str| http::Request::get(path).body(Vec::new());
    let about: Value = client.request(get(ISSUER)?).await.context(ISSUER)?;
    let issuer = about["issuer"].as_str().context("it names no issuer")?;
    let keys = client.request(get(KEYS)?).await.context(KEYS)?;
    Ok(IssuerKeys {
        issuer: issuer.to_owned(),
        keys,
    })
}
