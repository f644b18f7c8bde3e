//! What the hub tells debug pages and metrics of itself.

use std::time::Instant;

use tokio::sync::oneshot;
use tracing::{info, warn};

pub use super::reach::{Reach, Refused};
use super::{Hub, StreamId};
use crate::config::Kind;
use crate::delivery::session::Standing;
use crate::model::proxy::Proxy;
use crate::text::Str;
use crate::view::{ProxyId, Snapshot};
use crate::xds::{Entry, ResourceType};

/// Whose proxies a reader may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    All,
    Namespace(Str),
}

impl Sight {
    pub fn covers(&self, namespace: &Str) -> bool {
        match self {
            Self::All => true,
            Self::Namespace(own) => own == namespace,
        }
    }
}

/// A question; whoever asked may be gone when it is answered.
#[derive(Debug)]
pub enum Inspect {
    Streams(Sight, oneshot::Sender<Vec<StreamReport>>),
    /// Everything a proxy must hold, by `node.id` or `<name>.<namespace>`.
    Config(String, Sight, oneshot::Sender<Option<Vec<Entry>>>),
    Summary(oneshot::Sender<Summary>),
    Reach(oneshot::Sender<Reach>),
    /// All that is known of the mesh, shared.
    Snapshot(oneshot::Sender<Box<Snapshot>>),
    /// The pod of this namespace and name.
    Pod(Str, Str, oneshot::Sender<Option<KnownPod>>),
}

/// By what a pod is told from another of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPod {
    pub uid: Str,
    pub service_account: Str,
}

/// One stream, for `/debug/syncz`.
#[derive(Clone, Debug)]
pub struct StreamReport {
    pub stream: StreamId,
    pub proxy: Proxy,
    pub version: Option<String>,
    pub connected: std::time::Duration,
    /// The account of the object of its name, where that is not its own.
    pub other_account: Option<Str>,
    pub types: Vec<Standing>,
}

/// What is counted only when somebody looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub sessions: usize,
    pub services: usize,
    pub virtual_services: usize,
    pub renders: [u64; ResourceType::COUNT],
    /// Resources in a form that their proxies rejected.
    pub refused: [usize; ResourceType::COUNT],
    pub in_flight: u64,
}

impl Hub {
    pub(super) fn on_inspect(&mut self, inspect: Inspect, now: Instant) {
        // A failed send means that nobody waits for the answer any more.
        match inspect {
            Inspect::Streams(sight, reply) => drop(reply.send(self.streams(&sight, now))),
            Inspect::Config(proxy, sight, reply) => drop(reply.send(self.config(&proxy, &sight))),
            Inspect::Summary(reply) => drop(reply.send(self.summary())),
            Inspect::Snapshot(reply) => drop(reply.send(Box::new(self.engine.snapshot().clone()))),
            Inspect::Reach(reply) => drop(reply.send(self.reach())),
            Inspect::Pod(namespace, name, reply) => {
                let workloads = &self.engine.snapshot().workloads;
                let pod = workloads.named(Kind::Pod, &namespace, &name);
                let _ = reply.send(pod.map(|pod| KnownPod {
                    uid: pod.uid.clone(),
                    service_account: pod.service_account.clone(),
                }));
            }
        }
    }

    /// The log's word on a proxy that comes.
    pub(super) fn greet(&self, stream: StreamId, proxy: &Proxy) {
        info!(proxy = %proxy.id, stream = stream.0, "proxy connected");
        if let Some(described) = self.engine.snapshot().workloads.other_account(proxy) {
            let own = proxy.identity.as_ref().map(|i| i.service_account());
            warn!(
                proxy = %proxy.id,
                stream = stream.0,
                own = own.map_or("", Str::as_str),
                %described,
                "the object of this name has another service account, so the proxy gets none of its ports; \
                 give it a token of the object's account, or mend the object"
            );
        }
    }

    /// What the reader may not see costs next to nothing: this runs between pushes.
    fn streams(&self, sight: &Sight, now: Instant) -> Vec<StreamReport> {
        let report = |stream: &StreamId| {
            let link = self.links.get(stream)?;
            let proxy = self.engine.proxy(ProxyId(stream.0))?;
            let workloads = &self.engine.snapshot().workloads;
            sight.covers(&proxy.namespace).then(|| StreamReport {
                stream: *stream,
                proxy: proxy.clone(),
                other_account: workloads.other_account(proxy).cloned(),
                version: link.version.clone(),
                connected: now.saturating_duration_since(link.opened),
                types: ResourceType::ALL.map(|k| link.session.standing(k)).into(),
            })
        };
        self.links.keys().filter_map(report).collect()
    }

    /// Who may not see a proxy is not told whether there is one.
    fn config(&self, wanted: &str, sight: &Sight) -> Option<Vec<Entry>> {
        let is = |p: &Proxy| {
            // A pod's name may have dots, a namespace none.
            let (name, namespace) = wanted.rsplit_once('.').unwrap_or((wanted, ""));
            let named = p.id == wanted || (p.name == name && p.namespace == namespace);
            named && sight.covers(&p.namespace)
        };
        let stream = self
            .links
            .iter()
            .find(|(stream, _)| self.engine.proxy(ProxyId(stream.0)).is_some_and(is));
        self.engine.entries(stream?.1.scope)
    }

    fn summary(&self) -> Summary {
        let sessions = || self.links.values().map(|l| &l.session);
        let refused = |kind| sessions().map(|s| s.refused(kind)).sum();
        Summary {
            sessions: self.links.len(),
            services: self.engine.snapshot().services.len(),
            virtual_services: self.engine.snapshot().virtuals.len(),
            renders: self.engine.renders(),
            refused: ResourceType::ALL.map(refused),
            in_flight: sessions().map(|s| s.in_flight()).sum(),
        }
    }
}
