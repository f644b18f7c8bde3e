//! One route table: who gets which domain, and the parts it is assembled from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::Source;
use crate::config::sidecar::OutboundMode;
use crate::config::value::Span;
use crate::ir::domains::Claim;
use crate::ir::outbound::TableEntry;
use crate::ir::outbound_listener::PASSTHROUGH;
use crate::ir::{Action, Forward, Route, RouteTable, Target, VirtualHost};
use crate::text::{Hostname, Str};
use crate::xds::encode::{Cache, Part};
use crate::xds::{Entry, route};

/// A domain stands in one virtual host of a table; the strongest claim gets it, then the first by host.
#[derive(Debug, Default)]
pub struct Table {
    entries: BTreeMap<Hostname, TableEntry>,
    claims: BTreeMap<Str, BTreeSet<(Claim, Hostname)>>,
    parts: BTreeMap<Hostname, Arc<Part>>,
}

impl Table {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Replaces what a host has here; encodes again only the hosts whose domains or routes differ.
    pub fn set(&mut self, host: &Hostname, entry: Option<TableEntry>, cache: &mut Cache) {
        let old = self.entries.remove(host);
        let domains = |e: &Option<TableEntry>| -> Vec<(Str, Claim)> {
            e.as_ref().map(|e| e.domains.clone()).unwrap_or_default()
        };
        let (before, after) = (domains(&old), domains(&entry));
        let mut affected = BTreeSet::from([host.clone()]);
        if before != after {
            let named: BTreeSet<&Str> = before.iter().chain(&after).map(|(d, _)| d).collect();
            affected.extend(named.iter().filter_map(|d| self.owner(d).cloned()));
            for (domain, claim) in &before {
                if let Some(claims) = self.claims.get_mut(domain) {
                    claims.remove(&(*claim, host.clone()));
                    if claims.is_empty() {
                        self.claims.remove(domain);
                    }
                }
            }
            for (domain, claim) in &after {
                let claims = self.claims.entry(domain.clone()).or_default();
                claims.insert((*claim, host.clone()));
            }
            affected.extend(named.iter().filter_map(|d| self.owner(d).cloned()));
        }
        if let Some(entry) = entry {
            self.entries.insert(host.clone(), entry);
        }
        for host in affected {
            self.encode(&host, cache);
        }
    }

    /// The whole table, with a last virtual host for what nobody claims.
    pub fn assemble(&self, name: &Str, mode: OutboundMode, cache: &mut Cache) -> Entry {
        let mut parts: Vec<Arc<Part>> = self.parts.values().cloned().collect();
        if self.owner("*").is_none() {
            parts.push(route::part(cache, &catch_all(mode)));
        }
        let encoded = route::table(cache, &RouteTable { name: name.clone() }, &parts);
        let sources: Vec<Source> = self
            .entries
            .values()
            .flat_map(|e| e.sources.iter().cloned())
            .collect();
        Entry {
            encoded,
            sources: sources.into(),
        }
    }

    fn owner(&self, domain: &str) -> Option<&Hostname> {
        self.claims
            .get(domain)
            .and_then(|c| c.first())
            .map(|(_, host)| host)
    }

    fn encode(&mut self, host: &Hostname, cache: &mut Cache) {
        let domains: Vec<Str> = match self.entries.get(host) {
            Some(entry) => entry
                .domains
                .iter()
                .map(|(domain, _)| domain)
                .filter(|domain| self.owner(domain) == Some(host))
                .cloned()
                .collect(),
            None => Vec::new(),
        };
        match self.entries.get(host).filter(|_| !domains.is_empty()) {
            Some(entry) => {
                let node = VirtualHost {
                    name: entry.name.clone(),
                    domains,
                    routes: entry.routes.clone(),
                };
                self.parts.insert(host.clone(), route::part(cache, &node));
            }
            None => {
                self.parts.remove(host);
            }
        }
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
