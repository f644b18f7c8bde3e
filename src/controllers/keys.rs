//! The cluster's public keys for tokens, followed and kept for a time without the API server.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use kube::Client;
use serde_json::Value;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Installed;
use crate::backoff::jittered;
use crate::ca::standby::{IssuerKeys, Standby};
use crate::state::LockedDir;

/// In the state directory.
const FILE: &str = "token/cluster-keys.json";
const MAX_FILE: u64 = 1 << 20;
/// What an issuer of tokens publishes (OpenID Connect Discovery).
const ISSUER: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/openid/v1/jwks";
const ASK: Duration = Duration::from_secs(10);
/// Keys change when the cluster's are rotated; the old ones stay for as long as their tokens live.
const LOOK: Duration = Duration::from_secs(600);
const AGAIN: Duration = Duration::from_secs(10);

/// Keeps the standby at the cluster's newest keys, beginning with those of the last run.
pub async fn run(
    installed: Installed,
    dir: Arc<LockedDir>,
    standby: Arc<Standby>,
    stop: CancellationToken,
) -> Result<()> {
    let mut held = dir
        .read(FILE, MAX_FILE)?
        .and_then(|text| serde_json::from_slice::<IssuerKeys>(&text).ok());
    if let Some(keys) = &held {
        take(&standby, keys);
    }
    let mut told = false;
    loop {
        let wait = match time::timeout(ASK, ask(&installed.client)).await {
            Ok(Ok(keys)) => {
                if held.as_ref() != Some(&keys) {
                    info!(issuer = keys.issuer, "keys of the cluster's tokens");
                    take(&standby, &keys);
                    dir.write(FILE, &serde_json::to_vec(&keys)?)?;
                    held = Some(keys);
                }
                told = false;
                LOOK
            }
            outcome => {
                let why = match outcome {
                    Ok(Err(why)) => format!("{why:#}"),
                    Ok(Ok(_)) | Err(_) => "no answer in time".to_owned(),
                };
                if told {
                    debug!(%why, "keys of the cluster's tokens not read");
                } else {
                    warn!(%why, "keys of the cluster's tokens not read: without them no new proxy is served while the API server is away");
                }
                told = true;
                AGAIN
            }
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = time::sleep(jittered(wait)) => {}
        }
    }
}

fn take(standby: &Standby, keys: &IssuerKeys) {
    if let Err(why) = standby.replace(keys) {
        warn!(%why, "keys of the cluster's tokens");
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
