//! Writes what became of Istio's objects into their status: accepted or not, and how many proxies hold them.
//!
//! The leader writes, on change and in measured steps; its peers are found by the EndpointSlices of the control plane's
//! own Service and asked for their counts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use serde_json::json;
use tokio::sync::watch;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::conditions::{self, Progress, Said};
use super::served::Served;
use super::{Installed, MANAGER, while_leading};
use crate::acceptance::Outcome;
use crate::clock;
use crate::config::Key;
use crate::config::api::KINDS;
use crate::distribution::board::{Board, Posted};
use crate::distribution::peers::Peers;
use crate::distribution::service::{CountResponse, OBJECTS, Object, Own};
use crate::distribution::tally::Tally;

/// Between two writes, and between two looks at an object on its way.
const PAUSE: Duration = Duration::from_millis(50);
const AGAIN: Duration = Duration::from_secs(2);
/// After a failure, and between looks for what proxies came to reject.
const LATER: Duration = Duration::from_secs(10);
/// One question of the API server.
const ASK: Duration = Duration::from_secs(10);
/// Where peers serve.
const PORT: u16 = 15012;

/// Whether an object's kind has a status that its authors read.
pub fn has_status(key: &Key) -> bool {
    KINDS.iter().any(|kind| kind.kind == key.kind.name())
}

/// Writes while this replica leads, until `stop`.
pub async fn run(
    installed: Installed,
    (own, peers): (Own, Peers),
    leading: watch::Receiver<bool>,
    stop: CancellationToken,
) -> Result<()> {
    let peers = Arc::new(tokio::sync::Mutex::new(peers));
    while_leading(leading, stop, || {
        let writer = Writer {
            served: Served::new(installed.client.clone()),
            installed: installed.clone(),
            own: own.clone(),
            peers: peers.clone(),
            due: BTreeMap::new(),
            refused: BTreeSet::new(),
            failing: false,
        };
        writer.run()
    })
    .await;
    Ok(())
}

struct Writer {
    installed: Installed,
    served: Served,
    own: Own,
    peers: Arc<tokio::sync::Mutex<Peers>>,
    /// Objects whose status is to be looked at, and when.
    due: BTreeMap<Key, Instant>,
    /// Objects of which some proxy rejected something, at the last look.
    refused: BTreeSet<Key>,
    failing: bool,
}

impl Writer {
    async fn run(mut self) {
        let now = clock::mono();
        self.due = board(&self.own)
            .take_all()
            .into_iter()
            .map(|key| (key, now))
            .collect();
        loop {
            let now = clock::mono();
            let due: Vec<Key> = self
                .due
                .iter()
                .filter(|(_, at)| **at <= now)
                .map(|(key, _)| key.clone())
                .take(OBJECTS)
                .collect();
            let Some(answers) = self.count(&due).await else {
                return;
            };
            self.on_refused(&answers);
            for key in due {
                self.turn(key, &answers).await;
            }
            let next = self.due.values().min().copied();
            let next = next.map_or(LATER, |at| at.saturating_duration_since(clock::mono()));
            tokio::select! {
                () = board(&self.own).changed() => {}
                () = time::sleep(next.min(LATER)) => {}
            }
            let now = clock::mono();
            let news = board(&self.own).take_news();
            self.due.extend(news.into_iter().map(|key| (key, now)));
        }
    }

    /// Own and peers' answers; None for a peer without one. None of all when the program ends.
    async fn count(&self, keys: &[Key]) -> Option<Vec<Option<CountResponse>>> {
        let objects: Vec<Object> = keys.iter().map(Object::from).collect();
        let peers = self.find_peers().await;
        let asked = async {
            match &peers {
                Ok(peers) => self.peers.lock().await.ask(peers, &objects).await,
                Err(why) => vec![Err(anyhow::anyhow!("{why:#}"))],
            }
        };
        let (own, others) = tokio::join!(self.own.count(&objects), asked);
        let mut answers = vec![Some(own?)];
        for answer in others {
            if let Err(why) = &answer {
                debug!(why = format!("{why:#}"), "a peer's counts are missing");
            }
            answers.push(answer.ok());
        }
        Some(answers)
    }

    /// The other replicas.
    async fn find_peers(&self) -> Result<Vec<SocketAddr>> {
        let (client, namespace) = (&self.installed.client, &self.installed.namespace);
        let slices = Api::<EndpointSlice>::namespaced(client.clone(), namespace);
        let service = self.installed.revised("istiod");
        let labels = format!("kubernetes.io/service-name={service}");
        let params = ListParams::default().labels(&labels);
        let found = time::timeout(ASK, slices.list(&params)).await??;
        let peers = found
            .items
            .iter()
            .flat_map(|slice| addresses(slice, &self.own.replica));
        Ok(peers.collect::<BTreeSet<_>>().into_iter().collect())
    }

    /// What came to be rejected, or is no more, is to be said.
    fn on_refused(&mut self, answers: &[Option<CountResponse>]) {
        let answers = answers.iter().flatten();
        let refused: BTreeSet<Key> = answers.flat_map(CountResponse::refused).collect();
        let now = clock::mono();
        let differ = refused.symmetric_difference(&self.refused);
        for key in differ.filter(|key| has_status(key)) {
            self.due.entry(key.clone()).or_insert(now);
        }
        self.refused = refused;
    }

    async fn turn(&mut self, key: Key, answers: &[Option<CountResponse>]) {
        let Some(posted) = board(&self.own).get(&key) else {
            self.due.remove(&key);
            return;
        };
        let said = said(&key, &posted, answers);
        let written = time::timeout(ASK, self.write(&key, &posted, &said)).await;
        let written = written.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in time")));
        match written {
            Ok(()) => {
                self.failing = false;
                match said.progress {
                    Progress::Done => drop(self.due.remove(&key)),
                    Progress::Going => drop(self.due.insert(key, clock::mono() + AGAIN)),
                }
            }
            Err(why) => {
                self.on_failure(&key, &why);
                self.due.insert(key, clock::mono() + LATER);
            }
        }
        time::sleep(PAUSE).await;
    }

    fn on_failure(&mut self, key: &Key, why: &anyhow::Error) {
        // Its versions may be others now.
        self.served.forget();
        let why = format!("{why:#}");
        if std::mem::replace(&mut self.failing, true) {
            debug!(%key, why, "status not written");
        } else {
            warn!(%key, why, "statuses of objects are not written; it is tried again");
        }
    }

    async fn write(&mut self, key: &Key, posted: &Posted, said: &Said) -> Result<()> {
        let kind = KINDS.iter().find(|kind| kind.kind == key.kind.name());
        let Some(kind) = kind else {
            return Ok(());
        };
        let resource = self.served.resource(kind).await?;
        let client = self.installed.client.clone();
        let objects = Api::<DynamicObject>::namespaced_with(client, &key.namespace, &resource);
        let found = match objects.get_status(&key.name).await {
            Ok(found) => found,
            // It went meanwhile.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(why) => {
                return Err(why)
                    .context("read the status: allow `get` of networking.istio.io */status");
            }
        };
        // A newer form is on its way here, and is told then.
        if found.metadata.generation.unwrap_or_default() > posted.verdict.generation {
            return Ok(());
        }
        let status = found.data.get("status");
        let before = status.and_then(|status| status["conditions"].as_array().cloned());
        let before = before.unwrap_or_default();
        let observed = status.and_then(|s| s.get("observedGeneration"));
        let generation = posted.verdict.generation;
        let is_observed = observed.and_then(conditions::as_number) == Some(generation);
        let conditions = conditions::merged(&before, said);
        if conditions.is_none() && is_observed {
            return Ok(());
        }
        let patch = json!({
            // Whoever else wrote meanwhile goes before.
            "metadata": {"resourceVersion": found.metadata.resource_version},
            "status": {"observedGeneration": generation, "conditions": conditions.unwrap_or(before)},
        });
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let written = objects
            .patch_status(&key.name, &params, &Patch::Merge(&patch))
            .await;
        match written {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(why) => {
                Err(why).context("write the status: allow `patch` of networking.istio.io */status")
            }
        }
    }
}

fn board(own: &Own) -> &Board {
    &own.board
}

fn said(key: &Key, posted: &Posted, answers: &[Option<CountResponse>]) -> Said {
    let mut tally = Tally::default();
    if posted.verdict.outcome == Outcome::Accepted {
        for answer in answers {
            let count = answer.as_ref().and_then(|answer| answer.count(key));
            tally.add(posted.verdict.generation, count.as_ref());
        }
    }
    let now = jiff::Timestamp::try_from(clock::wall()).unwrap_or_default();
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    conditions::say(&posted.verdict, &tally, &now)
}

/// Of a slice's endpoints those that may have proxies, ready or not, but for this replica itself.
fn addresses<'a>(slice: &'a EndpointSlice, me: &'a str) -> impl Iterator<Item = SocketAddr> + 'a {
    let endpoints = slice.endpoints.iter().filter(move |endpoint| {
        let conditions = endpoint.conditions.as_ref();
        let goes = conditions.is_some_and(|c| c.terminating == Some(true));
        let target = endpoint.target_ref.as_ref().and_then(|t| t.name.as_deref());
        !goes && target != Some(me)
    });
    let addresses = endpoints.filter_map(|endpoint| endpoint.addresses.first());
    let addresses = addresses.filter_map(|a| a.parse::<IpAddr>().ok());
    addresses.map(move |ip| SocketAddr::new(ip, PORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_the_endpoints_that_stay_but_this_one() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "istiod-x"},
            "addressType": "IPv4",
            "ports": [{"port": 15012}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "me"}},
                {"addresses": ["10.0.0.2"], "targetRef": {"kind": "Pod", "name": "other"}, "conditions": {"ready": false}},
                {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "terminating": true}},
            ],
        }))
        .unwrap();
        let found: Vec<String> = addresses(&slice, "me").map(|a| a.to_string()).collect();
        assert_eq!(found, ["10.0.0.2:15012"]);
    }
}
