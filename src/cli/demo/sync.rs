//! How every proxy stands with every type: `/debug/syncz` read.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Deserialize;

use crate::xds::ResourceType;

/// By node.
#[derive(Clone, Debug, Default)]
pub struct Sync(BTreeMap<String, Proxy>);

#[derive(Clone, Debug, Default, Deserialize)]
struct Proxy {
    node: String,
    types: BTreeMap<String, Counts>,
    #[serde(flatten)]
    marks: Marks,
}

/// Resources, by what the proxy said of them.
#[derive(Clone, Debug, Default, Deserialize)]
struct Counts {
    acked: usize,
    nacked: usize,
    pending: usize,
}

/// The last response of each type, and the last one that was accepted: another one has another mark.
#[derive(Clone, Debug, Default, Deserialize)]
struct Marks {
    cluster_sent: String,
    cluster_acked: String,
    endpoint_sent: String,
    endpoint_acked: String,
    listener_sent: String,
    listener_acked: String,
    route_sent: String,
    route_acked: String,
    scoped_route_sent: String,
    scoped_route_acked: String,
}

impl Marks {
    /// Sent and acked; secrets have no marks.
    fn of(&self, kind: ResourceType) -> Option<(&str, &str)> {
        match kind {
            ResourceType::Cluster => Some((&self.cluster_sent, &self.cluster_acked)),
            ResourceType::Endpoint => Some((&self.endpoint_sent, &self.endpoint_acked)),
            ResourceType::Listener => Some((&self.listener_sent, &self.listener_acked)),
            ResourceType::Route => Some((&self.route_sent, &self.route_acked)),
            ResourceType::ScopedRoute => Some((&self.scoped_route_sent, &self.scoped_route_acked)),
            ResourceType::Secret => None,
        }
    }
}

impl Proxy {
    fn is_settled(&self) -> bool {
        let marks = |kind| {
            self.marks
                .of(kind)
                .is_none_or(|(sent, acked)| sent == acked)
        };
        self.types.values().all(|c| c.pending == 0 && c.nacked == 0)
            && ResourceType::ALL.into_iter().all(marks)
    }
}

impl Sync {
    pub fn parse(page: &[u8]) -> Result<Self> {
        let rows: Vec<Proxy> = serde_json::from_slice(page)?;
        Ok(Self(
            rows.into_iter().map(|r| (r.node.clone(), r)).collect(),
        ))
    }

    pub fn proxies(&self) -> usize {
        self.0.len()
    }

    /// Resources in force at all proxies.
    pub fn acked(&self) -> usize {
        self.counts().map(|c| c.acked).sum()
    }

    pub fn nacked(&self) -> usize {
        self.counts().map(|c| c.nacked).sum()
    }

    pub fn is_settled(&self) -> bool {
        self.0.values().all(Proxy::is_settled)
    }

    /// Proxies that were sent something of a type after `before` was read, and ACKed all they have.
    pub fn acked_since(&self, before: &Self, kind: ResourceType) -> usize {
        let newer = |(node, proxy): &(&String, &Proxy)| {
            let sent = |p: &Proxy| p.marks.of(kind).map(|(sent, _)| sent.to_owned());
            proxy.is_settled()
                && before
                    .0
                    .get(*node)
                    .is_some_and(|old| sent(old) != sent(proxy))
        };
        self.0.iter().filter(newer).count()
    }

    fn counts(&self) -> impl Iterator<Item = &Counts> {
        self.0.values().flat_map(|p| p.types.values())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sync(marks: &[(&str, &str)]) -> Sync {
        let proxy = |(n, (sent, acked)): (usize, &(&str, &str))| Proxy {
            node: n.to_string(),
            marks: Marks {
                route_sent: (*sent).to_owned(),
                route_acked: (*acked).to_owned(),
                ..Marks::default()
            },
            ..Proxy::default()
        };
        let proxies = marks.iter().enumerate().map(proxy);
        Sync(proxies.map(|p| (p.node.clone(), p)).collect())
    }

    #[test]
    fn a_proxy_counts_once_it_acked_a_later_response() {
        let rds = ResourceType::Route;
        let before = sync(&[("3", "3"), ("resumed", "resumed")]);
        assert_eq!(before.acked_since(&before, rds), 0);
        assert_eq!(
            sync(&[("4", "3"), ("resumed", "resumed")]).acked_since(&before, rds),
            0
        );
        assert_eq!(sync(&[("4", "4"), ("1", "")]).acked_since(&before, rds), 1);
        let after = sync(&[("4", "4"), ("1", "1")]);
        assert_eq!(after.acked_since(&before, rds), 2);
        assert_eq!(after.acked_since(&before, ResourceType::Listener), 0);
    }

    #[test]
    fn a_refused_resource_is_not_settled() {
        let page = br#"[{"node": "a", "proxy": "x", "cluster_sent": "1", "cluster_acked": "1",
            "endpoint_sent": "", "endpoint_acked": "", "listener_sent": "", "listener_acked": "",
            "route_sent": "", "route_acked": "", "scoped_route_sent": "", "scoped_route_acked": "",
            "types": {"cds": {"acked": 3, "nacked": 1, "pending": 0, "refusals": []}}}]"#;
        let sync = Sync::parse(page).unwrap();
        assert!(!sync.is_settled());
        assert_eq!((sync.acked(), sync.nacked()), (3, 1));
    }
}
