//! The cluster's public keys for tokens, followed for a time without the API server.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use jsonwebtoken::jwk::JwkSet;
use kube::Client;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Installed;
use crate::backoff::jittered;
use crate::ca::standby::{IssuerKeys, Standby};
use crate::clock;
use crate::state::LockedDir;

/// What an issuer of tokens publishes (OpenID Connect Discovery).
const ISSUER: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/openid/v1/jwks";
const ASK: Duration = Duration::from_secs(10);
/// Keys change when the cluster's are rotated; the old ones stay for as long as their tokens live.
const LOOK: Duration = Duration::from_secs(600);
const AGAIN: Duration = Duration::from_secs(10);
/// Public keys alone; that nobody else may write there is what makes them worth something.
const FILE: &str = "keys.json";
const MAX: u64 = 1 << 20;
/// Keys that nobody confirmed for so long speak for nobody.
const LAST: Duration = Duration::from_secs(24 * 3600);

/// Keeps the standby at the cluster's newest keys. With a folder they are there for a start without the cluster.
pub async fn run(
    installed: Installed,
    (standby, folder): (Arc<Standby>, Option<Arc<LockedDir>>),
    stop: CancellationToken,
) -> Result<()> {
    let mut held: Option<(IssuerKeys, SystemTime)> = None;
    if let Some(folder) = &folder {
        held = kept(folder).filter(|(_, seen)| is_fresh(*seen));
        held.iter().for_each(|(keys, _)| take(&standby, keys));
    }
    let mut told = false;
    loop {
        let asked = time::timeout(ASK, ask(&installed.client)).await;
        let wait = match asked.unwrap_or_else(|_| bail!("no answer in time")) {
            Ok(keys) => {
                if held.as_ref().is_none_or(|(known, _)| *known != keys) {
                    take(&standby, &keys);
                }
                let now = clock::wall();
                if let Some(folder) = &folder {
                    keep(folder, &keys, now);
                }
                held = Some((keys, now));
                told = false;
                LOOK
            }
            Err(why) => {
                tell(&why, &mut told);
                if held.take_if(|(_, seen)| !is_fresh(*seen)).is_some() {
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

/// When the cluster confirmed the keys that are kept in a folder.
pub fn last_seen(folder: &LockedDir) -> Option<SystemTime> {
    kept(folder).map(|(_, seen)| seen)
}

/// Confirmed by the cluster not too long ago; a clock that was set back confirms nothing.
pub fn is_fresh(seen: SystemTime) -> bool {
    let age = clock::wall().duration_since(seen);
    age.is_ok_and(|age| age <= LAST)
}

/// As it stands in the folder: keys, and when the cluster confirmed them, in seconds since 1970.
#[derive(Serialize, Deserialize)]
struct Kept {
    issuer: String,
    keys: JwkSet,
    confirmed: u64,
}

fn kept(folder: &LockedDir) -> Option<(IssuerKeys, SystemTime)> {
    let text = folder.read(FILE, MAX).ok().flatten()?;
    let kept: Kept = serde_json::from_slice(&text).ok()?;
    let keys = IssuerKeys {
        issuer: kept.issuer,
        keys: kept.keys,
    };
    Some((
        keys,
        SystemTime::UNIX_EPOCH + Duration::from_secs(kept.confirmed),
    ))
}

fn keep(folder: &LockedDir, keys: &IssuerKeys, now: SystemTime) {
    let confirmed = now.duration_since(SystemTime::UNIX_EPOCH);
    let kept = Kept {
        issuer: keys.issuer.clone(),
        keys: keys.keys.clone(),
        confirmed: confirmed.map_or(0, |since| since.as_secs()),
    };
    let written = serde_json::to_vec(&kept).map_err(anyhow::Error::from);
    let written = written.and_then(|text| Ok(folder.write(FILE, &text)?));
    if let Err(why) = written {
        warn!(
            why = format!("{why:#}"),
            "the keys of the cluster's tokens are not kept"
        );
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
