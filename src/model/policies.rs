//! PeerAuthentication: which mTLS mode holds for a workload and its ports.
//!
//! Mesh, then namespace, then workload; the oldest counts on each level; UNSET inherits.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::config::meta::{Labels, Meta, selects};
use crate::config::peer_authentication::{MtlsMode, PeerAuthentication};
use crate::config::{Key, Object};
use crate::text::Str;

/// Never `Unset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Mode {
    Disable,
    Permissive,
    Strict,
}

/// What a workload's ports accept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Mtls {
    pub mode: Mode,
    /// By workload port; only those that differ from `mode`.
    pub ports: BTreeMap<u16, Mode>,
}

impl Mtls {
    pub fn of_port(&self, port: u16) -> Mode {
        self.ports.get(&port).copied().unwrap_or(self.mode)
    }
}

#[derive(Clone, Debug, Default)]
pub struct Policies {
    by_namespace: BTreeMap<Str, BTreeMap<Key, Policy>>,
}

#[derive(Clone, Debug)]
struct Policy {
    meta: Meta,
    spec: Arc<PeerAuthentication>,
}

impl Policies {
    pub(super) fn set(&mut self, key: &Key, policy: Option<(&Object, &PeerAuthentication)>) {
        let of_namespace = self.by_namespace.entry(key.namespace.clone()).or_default();
        match policy {
            Some((object, spec)) => {
                let policy = Policy {
                    meta: object.meta.clone(),
                    spec: Arc::new(spec.clone()),
                };
                of_namespace.insert(key.clone(), policy);
            }
            None => {
                of_namespace.remove(key);
            }
        }
    }

    /// The mode a namespace gives to workloads that no policy selects.
    pub fn namespace_mode(&self, root: &str, namespace: &str) -> (Mode, Vec<Key>) {
        let mut keys = Vec::new();
        let mut mode = Mode::Permissive;
        for level in [root, namespace] {
            if let Some((key, policy)) = self.oldest(level, |p| p.spec.selector.is_none()) {
                mode = resolve(policy.spec.mtls.unwrap_or_default().mode, mode);
                keys.push(key.clone());
            }
        }
        (mode, keys)
    }

    /// Selectors are not honoured in the root namespace, which has no workloads of its own to select.
    pub fn workload_mtls(&self, root: &str, namespace: &str, labels: &Labels) -> (Mtls, Vec<Key>) {
        let (mode, mut keys) = self.namespace_mode(root, namespace);
        let chosen = |p: &Policy| {
            p.spec
                .selector
                .as_ref()
                .is_some_and(|s| selects(&s.match_labels, labels))
        };
        let own = if namespace == root {
            None
        } else {
            self.oldest(namespace, chosen)
        };
        let Some((key, policy)) = own else {
            return (
                Mtls {
                    mode,
                    ports: BTreeMap::new(),
                },
                keys,
            );
        };
        keys.push(key.clone());
        let mode = resolve(policy.spec.mtls.unwrap_or_default().mode, mode);
        let ports = policy.spec.port_level_mtls.iter();
        let ports = ports.map(|(port, m)| (*port, resolve(m.mode, mode)));
        (
            Mtls {
                mode,
                ports: ports.filter(|(_, m)| *m != mode).collect(),
            },
            keys,
        )
    }

    /// Whether a workload that can speak mTLS takes it on a port of its own.
    pub fn takes_mtls(&self, root: &str, namespace: &str, labels: &Labels, port: u16) -> bool {
        let (mtls, _) = self.workload_mtls(root, namespace, labels);
        match mtls.of_port(port) {
            Mode::Disable => false,
            Mode::Permissive | Mode::Strict => true,
        }
    }

    fn oldest(&self, namespace: &str, wanted: impl Fn(&Policy) -> bool) -> Option<(&Key, &Policy)> {
        let candidates = self
            .by_namespace
            .get(namespace)?
            .iter()
            .filter(|(_, p)| wanted(p));
        candidates.min_by(|(_, a), (_, b)| a.meta.age().cmp(&b.meta.age()))
    }
}

fn resolve(mode: MtlsMode, inherited: Mode) -> Mode {
    match mode {
        MtlsMode::Unset => inherited,
        MtlsMode::Disable => Mode::Disable,
        MtlsMode::Permissive => Mode::Permissive,
        MtlsMode::Strict => Mode::Strict,
    }
}
