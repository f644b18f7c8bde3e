//! One route table of one client: the parts it is assembled from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::sidecar::OutboundMode;
use crate::config::value::Span;
use crate::ir::outbound_listener::PASSTHROUGH;
use crate::ir::{Action, Forward, Route, RouteTable, Target, VirtualHost};
use crate::text::{Hostname, Str};
use crate::xds::encode::{Cache, Part};
use crate::xds::{Encoded, route};

/// The virtual hosts that have a domain here. No domain stands in two of them.
#[derive(Debug, Default)]
pub struct Table {
    parts: BTreeMap<Hostname, Arc<Part>>,
    /// Hosts that take every name that no other takes.
    catching: BTreeSet<Hostname>,
}

/// A host's virtual host in a table, with those of its domains that it gets there.
#[derive(Clone, Debug)]
pub struct Grant {
    pub part: Arc<Part>,
    pub catches: Catches,
}

/// Whether the domain `*` is among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Catches {
    Own,
    All,
}

impl Table {
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Replaces what a host has here. Says whether that differs.
    pub fn set(&mut self, host: &Hostname, grant: Option<Grant>) -> bool {
        let catches = grant.as_ref().map(|g| g.catches);
        if catches == Some(Catches::All) {
            self.catching.insert(host.clone());
        } else {
            self.catching.remove(host);
        }
        let version = |p: &Option<Arc<Part>>| p.as_ref().map(|p| p.version);
        let after = grant.as_ref().map(|g| g.part.version);
        let before = match grant {
            Some(grant) => self.parts.insert(host.clone(), grant.part),
            None => self.parts.remove(host),
        };
        version(&before) != after
    }

    /// The whole table, with a last virtual host for what nobody claims.
    pub fn assemble(&self, name: &Str, mode: OutboundMode, cache: &mut Cache) -> Arc<Encoded> {
        let mut parts: Vec<Arc<Part>> = self.parts.values().cloned().collect();
        if self.catching.is_empty() {
            parts.push(route::part(cache, &catch_all(mode)));
        }
        route::table(cache, &RouteTable { name: name.clone() }, &parts)
    }
}

/// Istio's `allow_any` and `block_all`.
fn catch_all(mode: OutboundMode) -> VirtualHost {
    let (name, action) = match mode {
        OutboundMode::AllowAny => (
            "allow_any",
            Action::Forward(Forward {
                targets: vec![Target {
                    cluster: Str::new_static(PASSTHROUGH),
                    weight: 1,
                }],
                timeout: Span(std::time::Duration::ZERO),
                retries: None,
                hash: Vec::new(),
            }),
        ),
        OutboundMode::RegistryOnly => ("block_all", Action::Respond(502)),
    };
    VirtualHost {
        name: Str::new_static(name),
        domains: vec![Str::new_static("*")],
        routes: vec![Route {
            name: Str::new_static(name),
            matches: None,
            action,
            config: Str::default(),
            operation: Str::default(),
        }],
    }
}
