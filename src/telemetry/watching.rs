//! Counters by kind of object: what watches of an API server told, and how they fared.

use std::fmt::Debug;
use std::marker::PhantomData;

use super::exposition::{Counter, Metric, Page};
use crate::config::Kind;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    Add,
    Update,
    Delete,
}

const EVENTS: [&str; 3] = ["add", "update", "delete"];

/// Kinds that Istio counts under one metric, and how it calls them.
pub trait Family: Debug + Default {
    fn label(kind: Kind) -> Option<&'static str>;
}

/// Kubernetes' own objects, of which Istio makes its registry of services.
#[derive(Debug, Default)]
pub struct Registry;

/// Configuration.
#[derive(Debug, Default)]
pub struct Config;

impl Family for Registry {
    fn label(kind: Kind) -> Option<&'static str> {
        match kind {
            Kind::Namespace => Some("Namespaces"),
            Kind::Node => Some("Nodes"),
            Kind::Service => Some("Services"),
            Kind::EndpointSlice => Some("EndpointSlice"),
            Kind::Pod => Some("Pods"),
            Kind::Secret => Some("Secrets"),
            Kind::Ingress => Some("Ingresses"),
            Kind::IngressClass => Some("IngressClasses"),
            Kind::WorkloadEntry
            | Kind::WorkloadGroup
            | Kind::ServiceEntry
            | Kind::VirtualService
            | Kind::DestinationRule
            | Kind::PeerAuthentication
            | Kind::Sidecar
            | Kind::Gateway
            | Kind::ProxyConfig
            | Kind::TrafficExtension
            | Kind::EnvoyFilter
            | Kind::MeshConfig => None,
        }
    }
}

impl Family for Config {
    fn label(kind: Kind) -> Option<&'static str> {
        Registry::label(kind).is_none().then(|| kind.name())
    }
}

#[derive(Debug, Default)]
pub struct CounterByKind([Counter; Kind::ALL.len()]);

/// Counters by kind and event.
#[derive(Debug, Default)]
pub struct Events<F>([CounterByKind; EVENTS.len()], PhantomData<F>);

impl CounterByKind {
    pub fn of(&self, kind: Kind) -> &Counter {
        &self.0[kind as usize]
    }
}

impl<F: Family> Events<F> {
    /// Of a kind of another family, nothing is counted.
    pub fn count(&self, kind: Kind, happened: Happened) {
        if F::label(kind).is_some() {
            self.0[happened as usize].of(kind).inc();
        }
    }
}

impl Metric for CounterByKind {
    const TYPE: &'static str = "counter";

    fn write(&self, name: &str, page: &mut Page) {
        for kind in Kind::ALL {
            page.line(name, &format!("type=\"{kind}\""), self.of(*kind).get());
        }
    }
}

impl<F: Family> Metric for Events<F> {
    const TYPE: &'static str = "counter";

    fn write(&self, name: &str, page: &mut Page) {
        for kind in Kind::ALL {
            for (event, counters) in EVENTS.iter().zip(&self.0) {
                if let Some(label) = F::label(*kind) {
                    let labels = format!("type=\"{label}\",event=\"{event}\"");
                    page.line(name, &labels, counters.of(*kind).get());
                }
            }
        }
    }
}
