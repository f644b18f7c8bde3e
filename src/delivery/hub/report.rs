//! What the hub tells debug pages and metrics of itself.

use std::time::Instant;

use tokio::sync::oneshot;

use super::{Hub, StreamId};
use crate::delivery::session::Standing;
use crate::model::proxy::Proxy;
use crate::view::ProxyId;
use crate::xds::{Entry, ResourceType};

/// A question; whoever asked may be gone when it is answered.
#[derive(Debug)]
pub enum Inspect {
    Streams(oneshot::Sender<Vec<StreamReport>>),
    /// Everything a proxy must hold, by `node.id` or `<name>.<namespace>`.
    Config(String, oneshot::Sender<Option<Vec<Entry>>>),
    Summary(oneshot::Sender<Summary>),
}

/// One stream, for `/debug/syncz`.
#[derive(Clone, Debug)]
pub struct StreamReport {
    pub stream: StreamId,
    pub proxy: Proxy,
    pub version: Option<String>,
    pub connected: std::time::Duration,
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
    pub(super) fn on_inspect(&self, inspect: Inspect, now: Instant) {
        // A failed send means that nobody waits for the answer any more.
        match inspect {
            Inspect::Streams(reply) => drop(reply.send(self.streams(now))),
            Inspect::Config(proxy, reply) => drop(reply.send(self.config(&proxy))),
            Inspect::Summary(reply) => drop(reply.send(self.summary())),
        }
    }

    fn streams(&self, now: Instant) -> Vec<StreamReport> {
        let report = |(stream, link): (&StreamId, &super::Link)| {
            Some(StreamReport {
                stream: *stream,
                proxy: self.engine.proxy(ProxyId(stream.0))?.clone(),
                version: link.version.clone(),
                connected: now.saturating_duration_since(link.opened),
                types: ResourceType::ALL.map(|k| link.session.standing(k)).into(),
            })
        };
        self.links.iter().filter_map(report).collect()
    }

    fn config(&self, wanted: &str) -> Option<Vec<Entry>> {
        let is = |p: &Proxy| {
            let (name, namespace) = wanted.split_once('.').unwrap_or((wanted, ""));
            p.id == wanted || (p.name == name && p.namespace == namespace)
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
