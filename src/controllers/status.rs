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
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
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
use crate::distribution::board::Posted;
use crate::distribution::peers::Peers;
use crate::distribution::service::{CountResponse, Object, Own};
use crate::distribution::tally::Tally;

/// Between two writes, and between two looks at an object on its way.
const PAUSE: Duration = Duration::from_millis(50);
const AGAIN: Duration = Duration::from_secs(2);
/// Between two rounds of questions, and how many objects one is about.
const ROUND: Duration = Duration::from_millis(500);
const BATCH: usize = 64;
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
    (leading, common): (watch::Receiver<bool>, watch::Receiver<bool>),
    stop: CancellationToken,
) -> Result<()> {
    let peers = Arc::new(tokio::sync::Mutex::new(peers));
    while_leading(leading, stop, || {
        let writer = Writer {
            served: Served::new(installed.client.clone()),
            installed: installed.clone(),
            own: own.clone(),
            peers: peers.clone(),
            found: None,
            due: BTreeMap::new(),
            refused: BTreeSet::new(),
            failing: false,
            common: common.clone(),
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
    /// The other replicas, and when they were looked for.
    found: Option<(Vec<SocketAddr>, Instant)>,
    /// Objects whose status is to be looked at, and when.
    due: BTreeMap<Key, Instant>,
    /// Objects of which some proxy rejected something, at the last look.
    refused: BTreeSet<Key>,
    failing: bool,
    /// Whether objects that belong to no revision are this one's to write.
    common: watch::Receiver<bool>,
}

/// What became of a look at an object's status.
enum Written {
    /// It says what there is to say.
    Stands,
    /// It says that all held this form already, or it is another revision's to say.
    Held,
    /// Somebody else wrote meanwhile, or a newer form is on its way here.
    Again,
}

impl Writer {
    async fn run(mut self) {
        let mut news = BTreeSet::new();
        self.look_at_all();
        loop {
            let began = clock::mono();
            let batch = self.batch(&mut news, began);
            let Some(answers) = self.count(&batch).await else {
                return;
            };
            self.on_refused(&answers);
            for key in batch {
                self.turn(key, &answers).await;
            }
            let next = match news.is_empty() {
                true => self.due.values().min().copied().unwrap_or(began + LATER),
                false => began,
            };
            // Each round asks every replica: so many there are at most.
            let next = next.clamp(began + ROUND, began + LATER);
            tokio::select! {
                () = self.own.board.changed() => time::sleep_until((began + ROUND).into()).await,
                () = time::sleep_until(next.into()) => {}
                Ok(()) = self.common.changed() => self.look_at_all(),
            }
            news.extend(self.own.board.take_news());
        }
    }

    fn look_at_all(&mut self) {
        let now = clock::mono();
        let all = self.own.board.take_all().into_iter();
        self.due = all.map(|key| (key, now)).collect();
    }

    /// What is news, then what is due, the longest first.
    fn batch(&self, news: &mut BTreeSet<Key>, now: Instant) -> Vec<Key> {
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Some(key) = news.pop_first()
        {
            batch.push(key);
        }
        let due = self.due.iter().filter(|(_, at)| **at <= now);
        let mut due: Vec<(Instant, &Key)> = due.map(|(key, at)| (*at, key)).collect();
        due.sort();
        let room = BATCH - batch.len();
        let others = due.into_iter().map(|(_, key)| key);
        let others: Vec<Key> = others.take(room).cloned().collect();
        batch.extend(others);
        batch
    }

    /// Own and peers' answers; None for a peer without one. None of all when the program ends.
    async fn count(&mut self, keys: &[Key]) -> Option<Vec<Option<CountResponse>>> {
        let objects: Vec<Object> = keys.iter().map(Object::from).collect();
        let peers = self.peers().await;
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

    async fn peers(&mut self) -> Result<Vec<SocketAddr>> {
        let now = clock::mono();
        if let Some((peers, at)) = &self.found
            && now.duration_since(*at) < AGAIN
        {
            return Ok(peers.clone());
        }
        let peers = self.find_peers().await?;
        self.found = Some((peers.clone(), now));
        Ok(peers)
    }

    /// The other replicas, each at one of its addresses.
    async fn find_peers(&self) -> Result<Vec<SocketAddr>> {
        let (client, namespace) = (&self.installed.client, &self.installed.namespace);
        let slices = Api::<EndpointSlice>::namespaced(client.clone(), namespace);
        let service = self.installed.revised("istiod");
        let labels = format!("kubernetes.io/service-name={service}");
        let params = ListParams::default().labels(&labels);
        let found = time::timeout(ASK, slices.list(&params)).await??;
        Ok(addresses(&found.items, &self.own.replica))
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
        let Some(posted) = self.own.board.get(&key) else {
            self.due.remove(&key);
            return;
        };
        let said = said(&key, &posted, answers);
        let written = time::timeout(ASK, self.write(&key, &posted, &said)).await;
        let written = written.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in time")));
        let wait = match (&written, said.progress) {
            (Ok(Written::Held), _) | (Ok(Written::Stands), Progress::Done) => None,
            (Ok(Written::Stands), Progress::Going) | (Ok(Written::Again), _) => Some(AGAIN),
            (Ok(Written::Stands), Progress::Refused) | (Err(_), _) => Some(LATER),
        };
        match written {
            Ok(_) => self.failing = false,
            Err(why) => self.on_failure(&key, &why),
        }
        match wait {
            None => drop(self.due.remove(&key)),
            Some(wait) => drop(self.due.insert(key, clock::mono() + wait)),
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

    async fn write(&mut self, key: &Key, posted: &Posted, said: &Said) -> Result<Written> {
        let kind = KINDS.iter().find(|kind| kind.kind == key.kind.name());
        let Some(kind) = kind else {
            return Ok(Written::Stands);
        };
        let resource = self.served.resource(kind).await?;
        let client = self.installed.client.clone();
        let objects = Api::<DynamicObject>::namespaced_with(client, &key.namespace, &resource);
        let found = match objects.get_status(&key.name).await {
            Ok(found) => found,
            // It went meanwhile.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Written::Stands),
            Err(why) => {
                return Err(why)
                    .context("read the status: allow `get` of networking.istio.io */status");
            }
        };
        // One of another revision did not come here.
        let belongs = found.labels().contains_key("istio.io/rev");
        if !belongs && !*self.common.borrow() {
            return Ok(Written::Held);
        }
        if found.metadata.generation.unwrap_or_default() > posted.verdict.generation {
            return Ok(Written::Again);
        }
        let status = found.data.get("status");
        let before = status.and_then(|status| status["conditions"].as_array().cloned());
        let before = before.unwrap_or_default();
        let observed = status.and_then(|s| s.get("observedGeneration"));
        let generation = posted.verdict.generation;
        let is_observed = observed.and_then(conditions::as_number) == Some(generation);
        if conditions::was_held(&before, said) {
            return Ok(Written::Held);
        }
        let conditions = conditions::merged(&before, said);
        if conditions.is_none() && is_observed {
            return Ok(Written::Stands);
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
            Ok(_) => Ok(Written::Stands),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Written::Stands),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Written::Again),
            Err(why) => {
                Err(why).context("write the status: allow `patch` of networking.istio.io */status")
            }
        }
    }
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

/// Endpoints that may have proxies, ready or not, and while they end: each replica once, but for this one.
fn addresses(slices: &[EndpointSlice], me: &str) -> Vec<SocketAddr> {
    let mut by_name: BTreeMap<String, IpAddr> = BTreeMap::new();
    for endpoint in slices.iter().flat_map(|slice| &slice.endpoints) {
        let target = endpoint.target_ref.as_ref().and_then(|t| t.name.clone());
        let address = endpoint.addresses.first();
        let Some(ip) = address.and_then(|a| a.parse::<IpAddr>().ok()) else {
            continue;
        };
        let name = target.unwrap_or_else(|| ip.to_string());
        let known = by_name.entry(name).or_insert(ip);
        // Of two families the older is the one that every replica listens on.
        *known = (*known).min(ip);
    }
    by_name.remove(me);
    let peers = by_name.into_values();
    peers.map(|ip| SocketAddr::new(ip, PORT)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_the_replicas_but_this_one_each_once() {
        let slices: Vec<EndpointSlice> = serde_json::from_value(json!([
            {"metadata": {"name": "four"}, "addressType": "IPv4", "endpoints": [
                {"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "me"}},
                {"addresses": ["10.0.0.2"], "targetRef": {"kind": "Pod", "name": "other"}, "conditions": {"ready": false}},
                {"addresses": ["10.0.0.3"], "conditions": {"terminating": true}},
            ]},
            {"metadata": {"name": "six"}, "addressType": "IPv6", "endpoints": [
                {"addresses": ["fd00::2"], "targetRef": {"kind": "Pod", "name": "other"}},
            ]},
        ]))
        .unwrap();
        let found: Vec<String> = addresses(&slices, "me")
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, ["10.0.0.3:15012", "10.0.0.2:15012"]);
    }
}
